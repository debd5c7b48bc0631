//! What to load instead of a path at which TensorFlow finds no SavedModel.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A SavedModel is looked for so many folders below the path, among so many files and folders.
const DEEPEST: usize = 3;
const MOST: usize = 10_000;
/// So many SavedModels are named.
const NAMED: usize = 3;

const GRAPH: &str = "a frozen graph is loaded by SessionGroup_Create, in Python by a session with the \
                     target session_group:N";

/// What is wrong with the path, and what to load instead. `None` where TensorFlow's own message says
/// more.
pub(super) fn advice(path: &Path) -> Option<String> {
    let shown = path.display();
    // Other file systems are TensorFlow's own.
    if path.to_string_lossy().contains("://") {
        return None;
    }
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Some(about_file(path)),
        Ok(_) if has_model(path) => None,
        Ok(_) => Some(format!("{shown} has no saved_model.pb; {}", instead(path))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Some(format!("{shown} does not exist: load the folder that holds saved_model.pb"))
        }
        Err(_) => None,
    }
}

fn about_file(path: &Path) -> String {
    let shown = path.display();
    match path.parent() {
        Some(folder) if has_model(folder) => {
            let folder = if folder == Path::new("") { Path::new(".") } else { folder };
            format!("{shown} is a file: load its folder, {}", folder.display())
        }
        _ if is_graph(path) => format!("{shown} is a file, no SavedModel's folder: {GRAPH}"),
        _ => format!("{shown} is a file: load the folder that holds saved_model.pb"),
    }
}

fn instead(path: &Path) -> String {
    let models = models_below(path);
    match models.as_slice() {
        [] => match entries(path, MOST).iter().find(|entry| is_graph(entry)) {
            Some(file) => format!("of {}: {GRAPH}", file.display()),
            None => "load the folder that holds it".to_string(),
        },
        [model] if version(model).is_some() && model.parent() == Some(path) => {
            format!("its newest version is {}: load that", model.display())
        }
        [model] => format!("{} has it: load that", model.display()),
        models => {
            let named: Vec<String> =
                models.iter().take(NAMED).map(|model| model.display().to_string()).collect();
            let more = if models.len() > NAMED { ", ..." } else { "" };
            format!("{}{more} have it: load one of them", named.join(", "))
        }
    }
}

/// The nearest first; of versions the newest.
fn models_below(path: &Path) -> Vec<PathBuf> {
    let mut models = Vec::new();
    let mut left = MOST;
    let mut folders = VecDeque::from([(path.to_path_buf(), 1)]);
    while let Some((folder, depth)) = folders.pop_front() {
        let found = entries(&folder, left);
        left -= found.len();
        let (with_model, without): (Vec<PathBuf>, Vec<PathBuf>) =
            found.into_iter().filter(|entry| entry.is_dir()).partition(|folder| has_model(folder));
        let versions = with_model.iter().filter_map(|model| Some((version(model)?, model)));
        match versions.max() {
            Some((_, newest)) => models.push(newest.clone()),
            None => {
                models.extend(with_model);
                if depth < DEEPEST {
                    folders.extend(without.into_iter().map(|folder| (folder, depth + 1)));
                }
            }
        }
    }
    models
}

/// What is in a folder, sorted by name, and no more than that many.
fn entries(folder: &Path, most: usize) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = read.take(most).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn is_graph(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "pb")
}

fn has_model(folder: &Path) -> bool {
    ["saved_model.pb", "saved_model.pbtxt"].iter().any(|file| folder.join(file).is_file())
}

/// The number that TensorFlow Serving takes for a version.
fn version(folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_str()?;
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse::<u64>().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let unique = format!("export_dir_{name}_{}", std::process::id());
            let folder = std::env::temp_dir().join(unique);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn with(self, file: &str) -> Self {
            let file = self.0.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
            self
        }

        /// With "/m" for the folder.
        fn advice(&self, path: &str) -> Option<String> {
            let advice = advice(&self.0.join(path))?;
            Some(advice.replace(self.0.to_str().unwrap(), "/m"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_newest_version_is_the_one_to_load() {
        let folder = Folder::new("versions")
            .with("m/9/saved_model.pb")
            .with("m/00000123/saved_model.pb")
            .with("m/current/saved_model.pb")
            .with("m/124/being_copied");
        let newest = "/m/m has no saved_model.pb; its newest version is /m/m/00000123: load that";
        assert_eq!(folder.advice("m").unwrap(), newest);
    }

    #[test]
    fn models_further_below_are_named() {
        let folder = Folder::new("levels")
            .with("one/export/model/7/saved_model.pb")
            .with("two/a/1/saved_model.pb")
            .with("two/b/saved_model.pbtxt")
            .with("far/a/b/c/d/saved_model.pb");
        let one = "/m/one has no saved_model.pb; /m/one/export/model/7 has it: load that";
        assert_eq!(folder.advice("one").unwrap(), one);
        let two = "/m/two has no saved_model.pb; /m/two/b, /m/two/a/1 have it: load one of them";
        assert_eq!(folder.advice("two").unwrap(), two);
        let far = "/m/far has no saved_model.pb; load the folder that holds it";
        assert_eq!(folder.advice("far").unwrap(), far);
    }

    #[test]
    fn no_more_than_some_are_named() {
        let folder = (1..6).fold(Folder::new("many"), |folder, i| {
            folder.with(&format!("m/model{i}/1/saved_model.pb"))
        });
        let named = "/m/m/model1/1, /m/m/model2/1, /m/m/model3/1, ... have it: load one of them";
        assert_eq!(folder.advice("m").unwrap(), format!("/m/m has no saved_model.pb; {named}"));
    }

    #[test]
    fn files_and_what_is_not_there() {
        let folder = Folder::new("files")
            .with("a/saved_model.pb")
            .with("b/m.h5")
            .with("b/frozen.pb")
            .with("c/1/frozen.pb");
        assert_eq!(folder.advice("a"), None);
        let file = "/m/a/saved_model.pb is a file: load its folder, /m/a";
        assert_eq!(folder.advice("a/saved_model.pb").unwrap(), file);
        let other = "/m/b/m.h5 is a file: load the folder that holds saved_model.pb";
        assert_eq!(folder.advice("b/m.h5").unwrap(), other);
        let frozen =
            "/m/b/frozen.pb is a file, no SavedModel's folder: a frozen graph is loaded by";
        assert!(folder.advice("b/frozen.pb").unwrap().starts_with(frozen));
        let frozen = "/m/b has no saved_model.pb; of /m/b/frozen.pb: a frozen graph is loaded by";
        assert!(folder.advice("b").unwrap().starts_with(frozen));
        let none = "/m/c has no saved_model.pb; load the folder that holds it";
        assert_eq!(folder.advice("c").unwrap(), none);
        let missing = "/m/d does not exist: load the folder that holds saved_model.pb";
        assert_eq!(folder.advice("d").unwrap(), missing);
        assert_eq!(advice(Path::new("gs://bucket/model")), None);
    }
}

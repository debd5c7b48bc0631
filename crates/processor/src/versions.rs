//! The checkpoints on disk.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use session_group::{Code, Error, Result};
use session_group_serving::text_format::Messages;

use crate::proto::DESCRIPTORS;
use crate::proto::model::CheckpointState;

/// A checkpoint of one or more variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What its files' names begin with, up to `.index`.
    pub prefix: PathBuf,
    /// The number at the end of its name; 0 where there is none.
    pub step: i64,
    /// When its index was written, and its length: if one changes, it is another checkpoint.
    stamp: (SystemTime, u64),
}

/// What to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub full: Checkpoint,
    /// By their steps, the lowest first.
    pub deltas: Vec<Checkpoint>,
}

/// The folder of a full checkpoint's deltas, beside it.
const DELTAS: &str = ".incremental_checkpoint";

impl Version {
    /// The current version: of the folder itself or those in it, the one whose file `checkpoint` was
    /// written last says which checkpoint is the full one. `None` as long as there is none.
    pub fn newest(checkpoint_dir: &Path) -> Result<Option<Self>> {
        let Some(state) = newest_state(checkpoint_dir)? else { return Ok(None) };
        let folder = state.parent().unwrap_or(checkpoint_dir);
        let prefix = current(&state)?;
        let named = Checkpoint::at(&folder.join(&prefix));
        // The folder may have been copied from where it was written.
        let beside = prefix.file_name().map(|name| Checkpoint::at(&folder.join(name)));
        let full =
            named.or_else(|error| beside.and_then(Result::ok).ok_or(error)).map_err(|error| {
                let message = format!("{} names a checkpoint: {}", state.display(), error.message);
                Error::new(error.code, message)
            })?;
        let all = checkpoints(folder)?;
        let next = all.iter().filter(|other| other.stem() == full.stem());
        let next = next.map(|other| other.step).filter(|&step| step > full.step).min();
        let deltas = folder.join(DELTAS);
        let mut deltas = if deltas.is_dir() { checkpoints(&deltas)? } else { Vec::new() };
        if let Some(delta) = deltas.iter().find(|delta| number(&delta.prefix).is_none()) {
            return Err(Error::invalid(format!(
                "delta {} has no number at the end of its name, which gives its place among the others: name it \
                 <name>-<step>",
                delta.prefix.display()
            )));
        }
        // Those after a later full checkpoint are that one's, if it was rolled back from there.
        deltas.retain(|delta| delta.step > full.step && next.is_none_or(|next| delta.step < next));
        Ok(Some(Self { full, deltas }))
    }

    /// The deltas that turn this version into another one with the same full checkpoint; `None` if that one is
    /// older. A trainer may have removed deltas that were applied.
    pub fn next<'a>(&self, to: &'a Self) -> Option<&'a [Checkpoint]> {
        let Some(last) = self.deltas.last() else { return Some(&to.deltas) };
        let newer = to.deltas.partition_point(|delta| delta.step <= last.step);
        let is_there = to.deltas[..newer].last() == Some(last);
        (is_there || newer < to.deltas.len()).then_some(&to.deltas[newer..])
    }

    /// The checkpoint that comes last.
    pub fn last(&self) -> &Checkpoint {
        self.deltas.last().unwrap_or(&self.full)
    }
}

impl Checkpoint {
    /// Its name without the number.
    fn stem(&self) -> String {
        let name = self.prefix.file_name().unwrap_or_default().to_string_lossy();
        name.rsplit_once('-').map_or_else(|| name.to_string(), |(stem, _)| stem.to_string())
    }

    fn at(prefix: &Path) -> Result<Self> {
        let mut index = prefix.as_os_str().to_owned();
        index.push(".index");
        let unread = |error: std::io::Error| {
            let message = format!("{}: {error}", Path::new(&index).display());
            Error::new(Code::NotFound, message)
        };
        let file = fs::metadata(&index).map_err(unread)?;
        let stamp = (file.modified().map_err(unread)?, file.len());
        Ok(Self { prefix: prefix.to_path_buf(), step: number(prefix).unwrap_or(0), stamp })
    }
}

/// The number at the end of a checkpoint's name.
fn number(prefix: &Path) -> Option<i64> {
    prefix.file_name()?.to_str()?.rsplit_once('-')?.1.parse().ok()
}

fn unread(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::NotFound, format!("{}: {error}", path.display()))
}

/// All checkpoints of a folder, by their steps. TensorFlow writes an index last.
fn checkpoints(folder: &Path) -> Result<Vec<Checkpoint>> {
    let entries = fs::read_dir(folder).map_err(|error| unread(folder, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unread(folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "index") {
            // An error means that it has been removed meanwhile.
            found.extend(Checkpoint::at(&path.with_extension("")));
        }
    }
    found.sort_by(|a, b| (a.step, &a.prefix).cmp(&(b.step, &b.prefix)));
    Ok(found)
}

fn newest_state(checkpoint_dir: &Path) -> Result<Option<PathBuf>> {
    let unread = |error| unread(checkpoint_dir, &error);
    let mut folders = vec![checkpoint_dir.to_path_buf()];
    for entry in fs::read_dir(checkpoint_dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        // Hidden ones, such as that of deltas, may have a file of that name, too.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            folders.push(entry.path());
        }
    }
    let mut states: Vec<_> = folders
        .into_iter()
        .filter_map(|folder| {
            let state = folder.join("checkpoint");
            let written =
                fs::metadata(&state).ok().filter(fs::Metadata::is_file)?.modified().ok()?;
            Some((Reverse(written), Reverse(state)))
        })
        .collect();
    states.sort();
    Ok(states.into_iter().next().map(|(_, Reverse(state))| state))
}

/// The path that a file `checkpoint` names, perhaps relative to its folder.
fn current(state: &Path) -> Result<PathBuf> {
    static MESSAGES: LazyLock<Messages> = LazyLock::new(|| Messages::new(DESCRIPTORS));
    let wrong = |error: &dyn std::fmt::Display| {
        Error::new(Code::DataLoss, format!("{}: {error}", state.display()))
    };
    let text = fs::read_to_string(state).map_err(|error| wrong(&error))?;
    let state: CheckpointState = MESSAGES
        .parse(&text, "serving_processor.CheckpointState")
        .map_err(|error| wrong(&error))?;
    match state.model_checkpoint_path.as_str() {
        "" => Err(wrong(&"it has no model_checkpoint_path, which names the checkpoint to serve")),
        path => Ok(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("processor_versions.{name}.{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn index(&self, prefix: &str) {
            let path = self.0.join(format!("{prefix}.index"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }

        /// Written so many seconds after the epoch.
        fn state(&self, folder: &str, names: &str, second: u64) {
            let path = self.0.join(folder).join("checkpoint");
            fs::write(&path, format!("model_checkpoint_path: \"{names}\"\n")).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }

        fn newest(&self) -> Option<(String, Vec<i64>)> {
            let version = Version::newest(&self.0).unwrap()?;
            let full = version.full.prefix.strip_prefix(&self.0).unwrap().to_str().unwrap();
            Some((full.to_string(), version.deltas.iter().map(|delta| delta.step).collect()))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_newest_state_says_which_is_full_and_deltas_follow_it() {
        let folder = Folder::new("newest");
        assert_eq!(folder.newest(), None);
        assert!(Version::newest(&folder.0.join("none")).is_err());
        for prefix in ["a/m-10", "a/m-20", "b/m-5"] {
            folder.index(prefix);
        }
        folder.state("a", "m-20", 100);
        folder.state("b", "m-5", 50);
        for step in [25, 15, 30, 9] {
            folder.index(&format!("a/.incremental_checkpoint/d-{step}"));
        }
        assert_eq!(folder.newest(), Some(("a/m-20".to_string(), vec![25, 30])));
        // Back to an older one, of this folder and of the other.
        folder.state("a", "m-10", 110);
        assert_eq!(folder.newest(), Some(("a/m-10".to_string(), vec![15])));
        folder.state("b", "m-5", 120);
        assert_eq!(folder.newest(), Some(("b/m-5".to_string(), vec![])));
        // In the folder itself.
        folder.index("m-7");
        folder.state("", "m-7", 130);
        assert_eq!(folder.newest(), Some(("m-7".to_string(), vec![])));
    }

    #[test]
    fn what_can_not_be_read_is_said() {
        let folder = Folder::new("wrong");
        let says = |says: &str| {
            let message = Version::newest(&folder.0).unwrap_err().message;
            assert!(message.contains(says), "{says:?} in {message:?}");
        };
        folder.state("", "m-1", 1);
        says("m-1.index");
        folder.index("m-1");
        folder.index(".incremental_checkpoint/delta");
        says("delta has no number");
        fs::write(folder.0.join("checkpoint"), "model_checkpoint_path: ").unwrap();
        says("checkpoint: ");
        fs::write(folder.0.join("checkpoint"), "").unwrap();
        says("has no model_checkpoint_path");
    }

    #[test]
    fn a_checkpoint_written_again_is_another() {
        let folder = Folder::new("again");
        folder.index("m-1");
        let first = Checkpoint::at(&folder.0.join("m-1")).unwrap();
        fs::write(folder.0.join("m-1.index"), "xy").unwrap();
        assert_ne!(first, Checkpoint::at(&folder.0.join("m-1")).unwrap());
    }
}

//! The files of a version's folder, to see that they have changed.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So many files tell one state of a folder from another.
const MOST: usize = 10_000;

/// Names, sizes and times. What can't be read counts as not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, File)>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    inode: u64,
}

impl Files {
    /// As they are now.
    pub fn of(folder: &Path) -> Self {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // Links are followed: files of a model are often links.
                let Ok(file) = fs::metadata(entry.path()) else { continue };
                if file.is_dir() && files.len() < MOST {
                    folders.push(entry.path());
                } else if files.len() < MOST {
                    files.push((entry.path(), File::of(&file)));
                }
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Self(files)
    }
}

impl File {
    fn of(file: &Metadata) -> Self {
        Self { size: file.size(), modified: (file.mtime(), file.mtime_nsec()), inode: file.ino() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_file_is_seen() {
        let base = std::env::temp_dir().join(format!("session_group_files.{}", std::process::id()));
        let nothing = Files::of(&base);
        assert_eq!(nothing, Files::default());
        fs::create_dir_all(base.join("variables")).unwrap();
        fs::write(base.join("saved_model.pb"), "a").unwrap();
        let first = Files::of(&base);
        assert_eq!(first, Files::of(&base));
        fs::write(base.join("variables/index"), "b").unwrap();
        let second = Files::of(&base);
        assert_ne!(first, second);
        // Of the same size, in place of the old one.
        fs::write(base.join("new"), "c").unwrap();
        fs::rename(base.join("new"), base.join("variables/index")).unwrap();
        assert_ne!(second, Files::of(&base));
        fs::remove_dir_all(&base).unwrap();
    }
}

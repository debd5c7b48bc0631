//! For build scripts: the files of a folder with messages.

use std::path::{Path, PathBuf};

/// Adds them, sorted, those of the folders in it included.
pub fn find(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

//! For build scripts: the files of folders with messages.

use std::path::{Path, PathBuf};

/// All files of the folders, and of folders in these, sorted by folder. Lets Cargo run the build script again when
/// one of them changes.
pub fn find(folders: &[&Path]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in folders {
        println!("cargo::rerun-if-changed={}", folder.display());
        add(folder, &mut files)?;
    }
    Ok(files)
}

fn add(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            add(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

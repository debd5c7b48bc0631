//! The test models, small ones.

use std::path::{Path, PathBuf};

/// Where a test model is.
pub fn path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/build").join(name);
    assert!(path.exists(), "{} is missing: run `make models`", path.display());
    path
}

/// The bytes of a test model's file.
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("a model can be read")
}

/// A serialised `ConfigProto`: one intra-op and one inter-op thread, and an operation_timeout_in_ms of 50,
/// so that nothing waits for ever.
pub const CONFIG: [u8; 6] = [0x10, 1, 0x28, 1, 0x58, 50];

//! Is the loaded TensorFlow the one that this crate was built for?

use std::ffi::CStr;

use once_cell::sync::OnceCell;
use tensorflow_sys as tf;

use crate::error::{Error, Result};

/// The version of the headers that the C++ shim was compiled with.
pub const BUILT_FOR: &str = env!("SESSION_GROUP_TENSORFLOW_VERSION");

/// Fails where the loaded TensorFlow has another minor version: its C++ classes are laid out
/// differently, and using them would crash. To be called before anything of the shim.
pub fn check() -> Result<()> {
    static CHECKED: OnceCell<()> = OnceCell::new();
    CHECKED.get_or_try_init(|| compare(BUILT_FOR, &loaded())).copied()
}

/// The version of the loaded TensorFlow.
pub fn loaded() -> String {
    // SAFETY: TF_Version has no precondition and returns a constant, zero-terminated string.
    let version = unsafe { CStr::from_ptr(tf::TF_Version()) };
    version.to_string_lossy().into_owned()
}

fn compare(built_for: &str, loaded: &str) -> Result<()> {
    if minor(built_for) == minor(loaded) {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "libsession_group was built for TensorFlow {built_for}, but TensorFlow {loaded} is \
         loaded: load TensorFlow {}, or build libsession_group against {loaded}",
        minor(built_for)
    )))
}

/// `2.21` of `2.21.0-rc1`.
fn minor(version: &str) -> &str {
    let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
    &version[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_releases_are_compatible() {
        compare("2.21.0", "2.21.0").unwrap();
        compare("2.21.0", "2.21.3").unwrap();
        compare("2.21.0", "2.21.0-rc1").unwrap();
    }

    #[test]
    fn minor_releases_are_not() {
        for other in ["2.2.0", "2.22.0", "2.210.0", "3.21.0", "", "nonsense"] {
            let error = compare("2.21.0", other).unwrap_err();
            assert!(error.message.contains("built for TensorFlow 2.21.0"), "{error}");
        }
    }
}

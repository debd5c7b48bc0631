//! Libraries of operations and kernels that are not TensorFlow's own.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tensorflow_sys as tf;

use super::status;
use super::version;
use crate::error::{Error, Result};

/// Loads a library, whose operations and kernels all graphs may use from then on, as `TF_LoadLibrary()` does. It stays
/// loaded. Fails for one that is not there or was made for another TensorFlow.
pub fn load(path: impl AsRef<Path>) -> Result<()> {
    version::check()?;
    let path = path.as_ref();
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(format!("{path:?} has a zero byte in it")))?;
    // SAFETY: the name is zero-terminated. What a library does as it is loaded is up to who names it. The handle, which is
    // not needed, may be deleted: the library stays.
    let loaded = status::call(|status| unsafe {
        let library = tf::TF_LoadLibrary(name.as_ptr(), status);
        if !library.is_null() {
            tf::TF_DeleteLibraryHandle(library);
        }
    });
    loaded.map_err(|error| {
        let message = format!("the library {} can't be loaded: {}", path.display(), error.message);
        Error::new(error.code, message)
    })
}

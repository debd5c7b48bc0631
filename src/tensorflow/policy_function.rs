//! Policy functions of the program's own, which may be C++ and throw: only C++ can catch that.

use std::ffi::c_void;

use super::{shim, status};
use crate::error::{Error, Result};

/// A function from its context, and a struct of the ABI, to a session's number.
pub(crate) type PolicyFunction = unsafe extern "C" fn(*mut c_void, *const c_void) -> i32;

/// Calls the function; what it throws becomes an error.
///
/// # Safety
///
/// The function must be able to take this context and this load.
pub(crate) unsafe fn choose(
    function: PolicyFunction,
    context: *mut c_void,
    load: *const c_void,
) -> Result<i32> {
    let mut session = -1;
    // SAFETY: the caller vouches for the function; what is returned is ours to delete.
    unsafe { status::take(shim::sg_choose(function, context, load, &raw mut session)) }.map_err(
        |error| Error::new(error.code, format!("the policy function threw: {}", error.message)),
    )?;
    Ok(session)
}

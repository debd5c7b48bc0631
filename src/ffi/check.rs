//! What every exported function does: check pointers, catch panics, report a status.

use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use smallvec::SmallVec;
use tensorflow_sys as tf;

use crate::error::{Error, Result};
use crate::tensorflow::{Tensor, status};

/// Calls `body`, reports its outcome in `status` and returns its value, or `failed` on failure. A panic
/// becomes `TF_INTERNAL`. If `status` is NULL there is nowhere to report, so `body` is not called.
///
/// # Safety
///
/// `status` must be NULL or a live `TF_Status` that no other thread is using.
pub(super) unsafe fn guard<T>(
    status: *mut tf::TF_Status,
    failed: T,
    body: impl FnOnce() -> Result<T>,
) -> T {
    if status.is_null() {
        return failed;
    }
    let (value, outcome) = match caught(body) {
        Ok(value) => (value, Ok(())),
        Err(error) => (failed, Err(error)),
    };
    // SAFETY: the caller vouches for the status.
    unsafe { status::report(status, &outcome) };
    value
}

/// Calls `body` and turns a panic into an error.
pub(super) fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(Error::panicked("libsession_group", panic.as_ref())))
}

/// Like [`guard()`], for functions that can't fail: returns `failed` on a panic.
pub(super) fn guard_infallible<T>(failed: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(failed)
}

/// # Safety
///
/// `pointer` must be NULL or point to a `T` that lives as long as `'a`.
pub(super) unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller vouches for it.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// # Safety
///
/// As for [`reference()`], and nothing else may use the `T` meanwhile.
pub(super) unsafe fn mutable<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T> {
    // SAFETY: the caller vouches for it.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// # Safety
///
/// `pointer` must be NULL or point to a zero-terminated string that lives as long as `'a`.
pub(super) unsafe fn string<'a>(pointer: *const c_char, name: impl Display) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(pointer) }.to_str().map_err(|error| {
        Error::invalid(format!("{name} is not valid UTF-8 from byte {} on", error.valid_up_to()))
    })
}

/// An array and its length; the pointer may be NULL if the length is 0.
///
/// # Safety
///
/// `pointer` must be NULL or point to `n` values of type `T` that live as long as `'a`.
pub(super) unsafe fn array<'a, T>(pointer: *const T, n: i32, name: &str) -> Result<&'a [T]> {
    let n = length(n, name)?;
    if n == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller vouches for it.
    Ok(unsafe { std::slice::from_raw_parts(pointer, n) })
}

/// # Safety
///
/// As for [`array()`], and each element as for [`string()`].
pub(super) unsafe fn strings<'a>(
    pointer: *const *const c_char,
    n: i32,
    name: &str,
) -> Result<SmallVec<[&'a str; 32]>> {
    // SAFETY: the caller vouches for it.
    let pointers = unsafe { array(pointer, n, name) }?;
    let string = |(i, &pointer)| {
        // SAFETY: the caller vouches for it.
        unsafe { string(pointer, format_args!("{name}[{i}]")) }
    };
    pointers.iter().enumerate().map(string).collect()
}

/// # Safety
///
/// As for [`array()`], and each element must be NULL or a tensor that lives as long as `'a` and that
/// nothing changes meanwhile.
pub(super) unsafe fn tensors<'a>(
    pointer: *const *mut tf::TF_Tensor,
    n: i32,
    name: &str,
) -> Result<SmallVec<[&'a Tensor; 32]>> {
    // SAFETY: the caller vouches for it.
    let pointers: &[Option<NonNull<_>>] = unsafe { array(pointer.cast(), n, name) }?;
    let tensor = |(i, pointer): (usize, &'a Option<NonNull<tf::TF_Tensor>>)| {
        let pointer = pointer.as_ref().ok_or_else(|| null(format_args!("{name}[{i}]")))?;
        // SAFETY: the caller vouches for it.
        Ok(unsafe { Tensor::borrow(pointer) })
    };
    pointers.iter().enumerate().map(tensor).collect()
}

/// Hands fetched tensors over to the caller.
///
/// # Safety
///
/// `outputs` must point to room for all of them; it may be NULL if there are none.
pub(super) unsafe fn give(
    tensors: impl IntoIterator<Item = Option<Tensor>>,
    outputs: *mut *mut tf::TF_Tensor,
) {
    for (i, tensor) in tensors.into_iter().flatten().enumerate() {
        // SAFETY: the caller vouches for it.
        unsafe { outputs.add(i).write(tensor.into_raw()) }
    }
}

/// # Safety
///
/// `pointer` must be NULL or point to `size` bytes that live as long as `'a`.
pub(super) unsafe fn bytes<'a>(
    pointer: *const std::ffi::c_void,
    size: usize,
    name: &str,
) -> Result<&'a [u8]> {
    if size > isize::MAX as usize {
        return Err(Error::invalid(format!("the size of {name} is {size}: negative?")));
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller vouches for it.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), size) })
}

fn length(n: i32, name: &str) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::invalid(format!("the number of {name} is {n}: negative")))
}

/// Formats names only here, so that a correct request does not pay for it.
pub(super) fn null(name: impl Display) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use crate::tensorflow::status::call;

    #[test]
    fn a_panic_becomes_a_status() {
        let result = call(|status| {
            // SAFETY: the status is live and this thread's alone.
            unsafe { guard(status, 1, || -> Result<i32> { panic!("on {}", "purpose") }) }
        });
        let error = result.unwrap_err();
        assert_eq!(error.code, Code::Internal);
        assert!(error.message.contains("on purpose"), "{error}");
        assert_eq!(guard_infallible(1, || panic!("on purpose")), 1);
    }

    #[test]
    fn without_a_status_nothing_is_done() {
        // SAFETY: NULL is allowed.
        let value = unsafe { guard(std::ptr::null_mut(), 1, || -> Result<i32> { unreachable!() }) };
        assert_eq!(value, 1);
    }

    #[test]
    fn strings_are_checked_one_by_one() {
        let pointers = [c"good".as_ptr(), c"b\xffd".as_ptr()];
        // SAFETY: two zero-terminated strings.
        let error = unsafe { strings(pointers.as_ptr(), 2, "output_names") }.unwrap_err();
        assert_eq!(error.message, "output_names[1] is not valid UTF-8 from byte 1 on");
    }
}

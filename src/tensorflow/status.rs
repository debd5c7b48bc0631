//! `TF_Status`: how TensorFlow reports.

use std::ffi::{CStr, CString};

use tensorflow_sys as tf;

use crate::error::{Code, Error, Result};

/// Calls `f` with a fresh status and turns what it reports into a [`Result`].
pub(crate) fn call<T>(f: impl FnOnce(*mut tf::TF_Status) -> T) -> Result<T> {
    let status = Status::new();
    let value = f(status.0);
    status.result().map(|()| value)
}

/// What a status says that tells of a failure; NULL is success.
///
/// # Safety
///
/// `status` must be NULL, or live and the caller's to give.
pub(crate) unsafe fn take(status: *mut tf::TF_Status) -> Result<()> {
    if status.is_null() { Ok(()) } else { Status(status).result() }
}

/// Writes `result` to a status that somebody else owns.
///
/// # Safety
///
/// `status` must be a live `TF_Status` that no other thread uses now.
pub(crate) unsafe fn report(status: *mut tf::TF_Status, result: &Result<()>) {
    let Err(error) = result else {
        // SAFETY: the caller vouches for the status; the empty string is zero-terminated. Nothing is
        // to be done where it is OK already, as mostly.
        unsafe {
            if tf::TF_GetCode(status) != tf::TF_OK {
                tf::TF_SetStatus(status, tf::TF_OK, c"".as_ptr());
            }
        }
        return;
    };
    let message = CString::new(error.message.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: the caller vouches for the status; TensorFlow copies the message.
    unsafe { tf::TF_SetStatus(status, to_tensorflow(error.code), message.as_ptr()) }
}

struct Status(*mut tf::TF_Status);

impl Status {
    fn new() -> Self {
        // SAFETY: no precondition.
        Self(unsafe { tf::TF_NewStatus() })
    }

    fn result(&self) -> Result<()> {
        // SAFETY: the status is live, and the message is copied before it is deleted.
        let (code, message) =
            unsafe { (tf::TF_GetCode(self.0), CStr::from_ptr(tf::TF_Message(self.0))) };
        match from_tensorflow(code) {
            None => Ok(()),
            Some(code) => Err(Error::new(code, message.to_string_lossy())),
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once.
        unsafe { tf::TF_DeleteStatus(self.0) }
    }
}

fn from_tensorflow(code: tf::TF_Code) -> Option<Code> {
    Some(match code {
        tf::TF_OK => return None,
        tf::TF_CANCELLED => Code::Cancelled,
        tf::TF_UNKNOWN => Code::Unknown,
        tf::TF_INVALID_ARGUMENT => Code::InvalidArgument,
        tf::TF_DEADLINE_EXCEEDED => Code::DeadlineExceeded,
        tf::TF_NOT_FOUND => Code::NotFound,
        tf::TF_ALREADY_EXISTS => Code::AlreadyExists,
        tf::TF_PERMISSION_DENIED => Code::PermissionDenied,
        tf::TF_RESOURCE_EXHAUSTED => Code::ResourceExhausted,
        tf::TF_FAILED_PRECONDITION => Code::FailedPrecondition,
        tf::TF_ABORTED => Code::Aborted,
        tf::TF_OUT_OF_RANGE => Code::OutOfRange,
        tf::TF_UNIMPLEMENTED => Code::Unimplemented,
        tf::TF_INTERNAL => Code::Internal,
        tf::TF_UNAVAILABLE => Code::Unavailable,
        tf::TF_DATA_LOSS => Code::DataLoss,
        tf::TF_UNAUTHENTICATED => Code::Unauthenticated,
    })
}

fn to_tensorflow(code: Code) -> tf::TF_Code {
    match code {
        Code::Cancelled => tf::TF_CANCELLED,
        Code::Unknown => tf::TF_UNKNOWN,
        Code::InvalidArgument => tf::TF_INVALID_ARGUMENT,
        Code::DeadlineExceeded => tf::TF_DEADLINE_EXCEEDED,
        Code::NotFound => tf::TF_NOT_FOUND,
        Code::AlreadyExists => tf::TF_ALREADY_EXISTS,
        Code::PermissionDenied => tf::TF_PERMISSION_DENIED,
        Code::ResourceExhausted => tf::TF_RESOURCE_EXHAUSTED,
        Code::FailedPrecondition => tf::TF_FAILED_PRECONDITION,
        Code::Aborted => tf::TF_ABORTED,
        Code::OutOfRange => tf::TF_OUT_OF_RANGE,
        Code::Unimplemented => tf::TF_UNIMPLEMENTED,
        Code::Internal => tf::TF_INTERNAL,
        Code::Unavailable => tf::TF_UNAVAILABLE,
        Code::DataLoss => tf::TF_DATA_LOSS,
        Code::Unauthenticated => tf::TF_UNAUTHENTICATED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_round_trip() {
        let codes = (1..=16).map(|code| {
            // SAFETY: Code is repr(i32) and has a variant for each of 1 to 16.
            unsafe { std::mem::transmute::<i32, Code>(code) }
        });
        for code in codes {
            let error = Error::new(code, "what to change");
            // SAFETY: `status` is live and used by this thread alone.
            let result = call(|status| unsafe { report(status, &Err(error.clone())) });
            assert_eq!(result, Err(error));
        }
    }

    #[test]
    fn success_is_ok() {
        assert_eq!(call(|_| 7), Ok(7));
    }

    #[test]
    fn a_zero_byte_does_not_cut_the_message_off() {
        let error = Error::invalid("before\0after");
        // SAFETY: as above.
        let result = call(|status| unsafe { report(status, &Err(error)) });
        assert_eq!(result, Err(Error::invalid("before\\0after")));
    }
}

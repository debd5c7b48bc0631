//! A `TF_Status` that notices when nobody sets it.

use std::ffi::CStr;

use tensorflow_sys as tf;

/// What is in the status before a call.
const UNTOUCHED: &CStr = c"nobody has set this status";

/// Calls a function of the ABI with a status; gives its value, and the message where it failed. A status
/// that is not set, or that says nothing of a failure, is a finding.
pub fn call<T>(f: impl FnOnce(*mut tf::TF_Status) -> T) -> (T, Option<String>) {
    // SAFETY: the status is live until deleted, and its message copied before.
    unsafe {
        let status = tf::TF_NewStatus();
        tf::TF_SetStatus(status, tf::TF_UNAUTHENTICATED, UNTOUCHED.as_ptr());
        let value = f(status);
        let message = CStr::from_ptr(tf::TF_Message(status));
        assert_ne!(message, UNTOUCHED);
        let error = (tf::TF_GetCode(status) != tf::TF_OK).then(|| {
            assert!(!message.is_empty(), "an error without a message");
            let message = message.to_string_lossy().into_owned();
            // What is quoted may say anything.
            let is_bug =
                tf::TF_GetCode(status) == tf::TF_INTERNAL && message.contains(" panicked: ");
            assert!(!is_bug, "{message}");
            message
        });
        tf::TF_DeleteStatus(status);
        (value, error)
    }
}

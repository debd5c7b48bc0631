//! `RunOptions`: how the caller wants a request to be run.

use super::shim;
use super::status;
use crate::error::Result;

/// A parsed `RunOptions`.
pub struct RunOptions(*mut shim::sg_run_options);

// SAFETY: a message that is owned, and that only a mutable reference changes.
unsafe impl Send for RunOptions {}
// SAFETY: as above.
unsafe impl Sync for RunOptions {}

/// `RunOptions.inter_op_thread_pool` for running a graph on the thread that calls.
const CALLING_THREAD: i32 = -1;

impl RunOptions {
    /// Parses a serialised `RunOptions`; no bytes at all are the defaults.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        status::call(|status| {
            // SAFETY: the bytes outlive the call.
            Self(unsafe { shim::sg_run_options_parse(bytes.as_ptr().cast(), bytes.len(), status) })
        })
    }

    /// # Safety
    ///
    /// `options` must be live and the caller's to give, but for who never drops the result.
    pub(super) unsafe fn from_raw(options: *mut shim::sg_run_options) -> Self {
        Self(options)
    }

    /// `timeout_in_ms`; 0 for none.
    pub fn timeout_ms(&self) -> i64 {
        // SAFETY: the options are live.
        unsafe { shim::sg_run_options_timeout_ms(self.0) }
    }

    /// Sets `timeout_in_ms`.
    pub fn set_timeout_ms(&mut self, timeout_ms: i64) {
        // SAFETY: the options are live and borrowed by nobody else.
        unsafe { shim::sg_run_options_set_timeout_ms(self.0, timeout_ms) }
    }

    /// Whether nothing is set but a timeout, and perhaps to run on the calling thread.
    pub(crate) fn is_plain(&self) -> bool {
        // SAFETY: the options are live.
        unsafe { shim::sg_run_options_is_plain(self.0) != 0 }
    }

    /// Whether the caller left open on which threads to run.
    pub(crate) fn leaves_pool_open(&self) -> bool {
        // SAFETY: the options are live.
        unsafe { shim::sg_run_options_inter_op_pool(self.0) == 0 }
    }

    /// A copy with another `timeout_in_ms`.
    pub(crate) fn with_timeout_ms(&self, timeout_ms: i64) -> Result<Self> {
        let mut copy = self.copy()?;
        copy.set_timeout_ms(timeout_ms);
        Ok(copy)
    }

    fn copy(&self) -> Result<Self> {
        // SAFETY: the options are live.
        status::call(|status| Self(unsafe { shim::sg_run_options_copy(self.0, status) }))
    }

    /// Makes the graph run on the thread that calls.
    pub(crate) fn run_on_calling_thread(&mut self) {
        // SAFETY: the options are live and borrowed by nobody else.
        unsafe { shim::sg_run_options_set_inter_op_pool(self.0, CALLING_THREAD) }
    }

    pub(super) fn as_ptr(&self) -> *const shim::sg_run_options {
        self.0
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once; NULL is allowed.
        unsafe { shim::sg_run_options_delete(self.0) }
    }
}

//! `TF_SessionOptions`: what the user's own configuration asks for.

use tensorflow_sys as tf;

use super::shim;
use super::status;
use crate::error::Result;

/// An owned `TF_SessionOptions`.
#[repr(transparent)]
pub struct SessionOptions(*mut tf::TF_SessionOptions);

// SAFETY: the options are owned, and only a mutable reference changes them.
unsafe impl Send for SessionOptions {}
// SAFETY: as above.
unsafe impl Sync for SessionOptions {}

/// What a `ConfigProto` says about the threads of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Config {
    /// `intra_op_parallelism_threads`; 0 where it is left to us.
    pub intra_op_threads: i32,
    /// `inter_op_parallelism_threads`; 0 where it is left to us, below 0 where graphs are to run on the
    /// calling thread.
    pub inter_op_threads: i32,
    /// `operation_timeout_in_ms`; 0 for none.
    pub operation_timeout_ms: i64,
    /// Whether the options name a target, another runtime to run in.
    pub has_target: bool,
    /// Whether they ask for an inter-op pool that is shared under a global name.
    pub has_named_pool: bool,
    /// Whether each run fills its `RunMetadata`, whatever its `RunOptions`.
    pub fills_metadata: bool,
    /// `session_inter_op_thread_pool`, in place of the session's one inter-op pool.
    pub pools: Option<Pools>,
}

/// Inter-op pools, from which each run chooses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pools {
    /// How many are of the size that `inter_op_threads` says.
    pub of_default_size: i64,
    /// How many threads the others have.
    pub threads: i64,
    /// Whether one has fewer than 0.
    pub has_negative: bool,
}

impl SessionOptions {
    /// TensorFlow's defaults.
    pub fn new() -> Self {
        // SAFETY: no precondition.
        Self(unsafe { tf::TF_NewSessionOptions() })
    }

    /// A copy.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        // SAFETY: the options are live.
        status::call(|status| Self(unsafe { shim::sg_session_options_copy(self.0, status) }))
    }

    /// Replaces the configuration with a serialised `ConfigProto`.
    pub fn set_config(&mut self, config_proto: &[u8]) -> Result<()> {
        status::call(|status| {
            // SAFETY: the options are live, the bytes outlive the call, which copies them.
            unsafe {
                tf::TF_SetConfig(self.0, config_proto.as_ptr().cast(), config_proto.len(), status)
            }
        })
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = shim::sg_config::default();
        // SAFETY: the options are live; the shim fills `config`.
        unsafe { shim::sg_session_options_config(self.0, &mut config) };
        Config {
            intra_op_threads: config.intra_op_threads,
            inter_op_threads: config.inter_op_threads,
            operation_timeout_ms: config.operation_timeout_ms,
            has_target: config.has_target != 0,
            has_named_pool: config.has_named_pool != 0,
            fills_metadata: config.fills_metadata != 0,
            pools: (config.pools > 0).then_some(Pools {
                of_default_size: config.pools_of_default_size,
                threads: config.pool_threads,
                has_negative: config.has_negative_pool != 0,
            }),
        }
    }

    /// How many GPUs a session would use; an error where there is none.
    pub(crate) fn count_gpus(&self) -> Result<i32> {
        // SAFETY: the options are live.
        status::call(|status| unsafe { shim::sg_count_gpus(self.0, status) })
    }

    /// For TensorFlow's C API. The options stay this one's.
    pub fn as_ptr(&self) -> *const tf::TF_SessionOptions {
        self.0
    }

    /// Borrows options that a C caller owns.
    ///
    /// # Safety
    ///
    /// `options` must point to a live `TF_SessionOptions*` that nobody changes while the reference
    /// is in use.
    pub(crate) unsafe fn borrow(options: &*const tf::TF_SessionOptions) -> &Self {
        // SAFETY: SessionOptions is a transparent pointer; the caller vouches for what it points
        // to, and a shared reference neither changes nor frees it.
        unsafe { &*std::ptr::from_ref(options).cast() }
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SessionOptions {
    fn drop(&mut self) {
        // SAFETY: made by TF_NewSessionOptions and deleted once.
        unsafe { tf::TF_DeleteSessionOptions(self.0) }
    }
}

//! TensorFlow's log, which `TF_CPP_MIN_LOG_LEVEL` governs.

use super::shim;

/// Writes a line of the level INFO.
pub(crate) fn info(line: &str) {
    // SAFETY: the line outlives the call.
    unsafe { shim::sg_log_info(line.into()) }
}

//! The memory of large tensors, of the whole process: `large_blocks.h`.

use super::shim;
use crate::memory::MemoryStats;

pub(crate) fn stats() -> MemoryStats {
    let mut stats = shim::sg_large_blocks::default();
    // SAFETY: it is filled before the call returns.
    unsafe { shim::sg_large_blocks_read(&raw mut stats) };
    MemoryStats {
        in_use_bytes: stats.in_use_bytes,
        kept_bytes: stats.kept_bytes,
        kept_limit_bytes: stats.limit_bytes,
        hits: stats.hits,
        misses: stats.misses,
    }
}

/// What is kept and exceeds it is released.
pub(crate) fn set_limit(bytes: u64) {
    // SAFETY: any thread may call it at any time.
    unsafe { shim::sg_large_blocks_set_limit(bytes) }
}

/// Releases what has not been needed since the last call.
pub(crate) fn release_unused() {
    // SAFETY: any thread may call it at any time.
    unsafe { shim::sg_large_blocks_release_unused() }
}

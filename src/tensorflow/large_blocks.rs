//! The memory of large tensors, of the whole process: `large_blocks.h`.

use super::shim;

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
        moved: stats.moved,
    }
}

/// The memory of large tensors of all groups of the process, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Bytes that large tensors take, variables and constants included.
    pub in_use_bytes: u64,
    /// Bytes that are free and kept for the next request.
    pub kept_bytes: u64,
    /// What `kept_bytes` never exceeds: 0 while no group is open.
    pub kept_limit_bytes: u64,
    /// Large tensors that got memory which was kept.
    pub hits: u64,
    /// Large tensors for which the system was asked for memory, which costs a page fault for each page.
    pub misses: u64,
    /// Hits by memory that another CPU had last, in whose cache it may still be.
    pub moved: u64,
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

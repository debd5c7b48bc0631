//! The memory of large tensors, 1 MiB and more, which the process keeps for the next request when one
//! has freed it: `src/tensorflow/large_blocks.h`. How much it may keep, and what it does keep.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::control_groups;
use crate::error::{Error, Result};
use crate::tensorflow::large_blocks;

pub use crate::options::environment::KEPT_VARIABLE;
pub use crate::tensorflow::large_blocks::MemoryStats;

/// Of the memory that the process may use, the share that it keeps at most.
const SHARE: u64 = 8;

/// What no request has needed for so long, and at most for twice as long, returns to the system.
const UNUSED: Duration = Duration::from_secs(10);

/// The memory of large tensors of all groups of this process, now.
pub fn memory_stats() -> MemoryStats {
    // Where requests have ended for good, somebody who watches is enough.
    release_unused_if_due(Instant::now());
    large_blocks::stats()
}

/// Releases what no request has needed for a while. To be called when requests end: what one needs now
/// and then is never unused from the end of one to the end of the next.
pub(crate) fn release_unused_if_due(now: Instant) {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    static DUE: AtomicU64 = AtomicU64::new(UNUSED.as_nanos() as u64);
    let now = now.duration_since(*BEGUN).as_nanos() as u64;
    let due = DUE.load(Relaxed);
    if now < due {
        return;
    }
    let next = now + UNUSED.as_nanos() as u64;
    if DUE.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
        large_blocks::release_unused();
    }
}

/// How much a process may keep: what the environment says, else a share of its memory.
pub(crate) fn limit(variable: Option<&str>, memory: u64) -> Result<u64> {
    let Some(text) = variable else { return Ok(memory / SHARE) };
    text.trim().parse().map_err(|_| {
        Error::invalid(format!(
            "{KEPT_VARIABLE} is {text:?}: set a number of bytes, 0 to keep none"
        ))
    })
}

/// The memory that this process may use: the machine's, or what its control group has. 0 where neither
/// can be read.
pub(crate) fn of_this_process() -> u64 {
    // SAFETY: sysconf only reads.
    let [pages, page] = [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE]
        .map(|name| u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0));
    let machine = pages * page;
    control_groups::memory().map_or(machine, |limit| limit.min(machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_a_share_of_the_memory() {
        assert_eq!(limit(None, 64 << 30).unwrap(), 8 << 30);
        assert_eq!(limit(Some(" 1048576 "), 64 << 30).unwrap(), 1 << 20);
        assert_eq!(limit(Some("0"), 64 << 30).unwrap(), 0);
        for wrong in ["-1", "1G", "many"] {
            let error = limit(Some(wrong), 1).unwrap_err();
            assert!(error.message.contains(KEPT_VARIABLE) && error.message.contains(wrong));
        }
    }

    #[test]
    fn this_process_has_memory() {
        assert!(of_this_process() > 64 << 20);
    }
}

//! Whether this process made something, or was forked from the one that did: threads stay behind in
//! that, and locks may stay locked for ever.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many forks this process is away from its first ancestor that asked.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// A process, as told apart from its children.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u64);

impl Process {
    /// This one.
    pub fn current() -> Self {
        watch();
        Self(FORKS.load(Relaxed))
    }

    /// Whether it is the one that asks.
    pub fn is_this(self) -> bool {
        FORKS.load(Relaxed) == self.0
    }
}

/// Counts forks from now on.
fn watch() {
    static WATCH: Once = Once::new();
    // SAFETY: the handler only adds to an atomic, which is allowed in a child, and the library stays
    // loaded (`-z nodelete`). It can only fail for want of memory, and then nobody is told.
    WATCH.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(forked));
    });
}

/// Whether this process was forked from one that has asked before.
pub(crate) fn is_child() -> bool {
    watch();
    FORKS.load(Relaxed) > 0
}

extern "C" fn forked() {
    FORKS.fetch_add(1, Relaxed);
}

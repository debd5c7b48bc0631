//! The queue of a session's workers.

/// How many requests may wait where nothing else is said.
pub(crate) const QUEUE_CAPACITY: i32 = 1024;

/// How many requests may wait for a session's workers, and what happens to one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// How many may wait.
    pub capacity: usize,
    /// Whether one more waits for room; else it fails at once with `RESOURCE_EXHAUSTED`.
    pub wait: bool,
}

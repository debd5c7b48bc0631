//! Closing a group: what runs may finish, for a while; then it is cancelled, and has another while to end.
//!
//! What does not end even so keeps what it uses: sessions, threads and variables stay in memory, until
//! the group is closed again after the last of it has ended.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};
use crate::request::run::Shared;
use crate::sessions::gate::StillInside;
use crate::sessions::members::Members;
use crate::tensorflow::log;

/// How long what was cancelled has to end.
const GRACE: Duration = Duration::from_secs(5);

/// How a group is closed.
pub(crate) struct Closing {
    /// How long what runs may finish.
    drain: Duration,
    /// Whether what runs was cancelled.
    has_cancelled: AtomicBool,
}

impl Closing {
    pub fn new(drain: Duration) -> Self {
        Self { drain, has_cancelled: AtomicBool::new(false) }
    }

    /// Closes the gate of `shared`, whose this is, and frees what is behind it.
    pub fn close(&self, shared: &Shared) -> Result<()> {
        match self.take(shared, GRACE) {
            Ok(members) => members.map_or(Ok(()), Members::close),
            Err(StillInside) => Err(still_running(shared)),
        }
    }

    /// The same for one who will not ask again, and so does not wait a second time for what was
    /// cancelled; false where that still runs.
    pub fn close_at_last(&self, shared: &Shared) -> bool {
        let grace = if self.has_cancelled.load(Relaxed) { Duration::ZERO } else { GRACE };
        let Ok(members) = self.take(shared, grace) else { return false };
        // Nobody is left to hear of an error.
        let _ = members.map(Members::close);
        true
    }

    fn take(
        &self,
        shared: &Shared,
        grace: Duration,
    ) -> std::result::Result<Option<Members>, StillInside> {
        if !self.has_cancelled.load(Relaxed)
            && let Ok(members) = shared.gate.close(until(self.drain))
        {
            return Ok(members);
        }
        self.cancel(shared);
        shared.gate.close(until(grace))
    }

    fn cancel(&self, shared: &Shared) {
        // It may all have ended by now.
        let Some(members) = shared.gate.enter_closed() else { return };
        if !self.has_cancelled.swap(true, Relaxed) {
            let running = running(shared);
            let number = shared.number;
            log::info(&format!("session group {number}: closing cancels {running} requests"));
        }
        members.cancel();
    }
}

/// What is left of this time from now on; `None` where that has no end.
fn until(time: Duration) -> impl Fn() -> Option<Duration> {
    let end = Instant::now().checked_add(time);
    move || Some(end?.saturating_duration_since(Instant::now()))
}

fn running(shared: &Shared) -> u64 {
    (0..shared.stats.len()).map(|session| shared.gate.inside(session)).sum()
}

fn still_running(shared: &Shared) -> Error {
    let running = running(shared);
    Error::new(
        Code::DeadlineExceeded,
        format!(
            "the session group is closed, but requests run on {} s after they were cancelled (number: \
             {running}), because their operations can't be cancelled. What they use stays in memory: close \
             the group again once they have ended, or end the process by _exit()",
            GRACE.as_secs()
        ),
    )
}

//! Closing a group: what runs may finish, for a while; then it is cancelled, and has another while to end.
//!
//! What does not end even so keeps what it uses: sessions, threads and variables stay in memory, until
//! the group is closed again after the last of it has ended.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};
use crate::sessions::gate::{Gate, StillInside};
use crate::sessions::set::SessionSet;
use crate::tensorflow::log;

/// How long what was cancelled has to end.
const GRACE: Duration = Duration::from_secs(5);

/// How a group is closed.
pub(crate) struct Closing {
    /// The group's number.
    group: u64,
    /// How long what runs may finish.
    drain: Duration,
    /// Whether what runs was cancelled.
    has_cancelled: AtomicBool,
}

impl Closing {
    pub fn new(group: u64, drain: Duration) -> Self {
        Self { group, drain, has_cancelled: AtomicBool::new(false) }
    }

    /// Closes the group's gate and frees what is behind it.
    pub fn close(&self, gate: &Gate<SessionSet>) -> Result<()> {
        match self.take(gate, GRACE) {
            Ok(sessions) => sessions.map_or(Ok(()), SessionSet::close),
            Err(StillInside) => Err(still_running(gate)),
        }
    }

    /// The same for one who will not ask again, and so does not wait a second time for what was
    /// cancelled; false where that still runs.
    pub fn close_at_last(&self, gate: &Gate<SessionSet>) -> bool {
        let grace = if self.has_cancelled.load(Relaxed) { Duration::ZERO } else { GRACE };
        let Ok(sessions) = self.take(gate, grace) else { return false };
        // Nobody is left to hear of an error.
        let _ = sessions.map(SessionSet::close);
        true
    }

    fn take(
        &self,
        gate: &Gate<SessionSet>,
        grace: Duration,
    ) -> std::result::Result<Option<SessionSet>, StillInside> {
        if !self.has_cancelled.load(Relaxed)
            && let Ok(sessions) = gate.close(until(self.drain))
        {
            return Ok(sessions);
        }
        self.cancel(gate);
        gate.close(until(grace))
    }

    fn cancel(&self, gate: &Gate<SessionSet>) {
        // It may all have ended by now.
        let Some(sessions) = gate.enter_closed() else { return };
        if !self.has_cancelled.swap(true, Relaxed) {
            // This one is inside, too.
            let running = gate.all_inside() - 1;
            let group = self.group;
            log::info(&format!("session group {group}: closing cancels {running} requests"));
        }
        sessions.cancel();
    }
}

/// What is left of this time from now on; `None` where that has no end.
fn until(time: Duration) -> impl Fn() -> Option<Duration> {
    let end = Instant::now().checked_add(time);
    move || Some(end?.saturating_duration_since(Instant::now()))
}

fn still_running(gate: &Gate<SessionSet>) -> Error {
    let running = gate.all_inside();
    Error::new(
        Code::DeadlineExceeded,
        format!(
            "the session group is closed, but {running} requests still run {} s after they were cancelled, \
             because their operations can't be cancelled. What they use stays in memory: close the group \
             again once they have ended, or end the process with _exit()",
            GRACE.as_secs()
        ),
    )
}

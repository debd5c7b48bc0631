//! What a group and its callables share, and what its requests ask it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::gpu::Streams;
use crate::options::execution::Execution;
use crate::options::optimization::Optimization;
use crate::plan::Plan;
use crate::process::Process;
use crate::request::closing::Closing;
use crate::request::dispatch::{Counts, Dispatcher};
use crate::request::stats::{SessionStats, Snapshot};
use crate::sessions::gate::{Entered, Gate};
use crate::sessions::set::SessionSet;
use crate::tensorflow::log;
use crate::tensorflow::run_options::RunOptions;

pub(crate) struct GroupState {
    pub number: u64,
    /// Where its threads are.
    pub process: Process,
    pub plan: Plan,
    pub dispatcher: Dispatcher,
    /// One lane for each session, and one for what concerns all of them.
    pub gate: Gate<SessionSet>,
    pub closing: Closing,
    pub stats: Box<[SessionStats]>,
    pub defaults: RunDefaults,
    /// Of a multi-stream group.
    pub streams: Option<Streams>,
    /// Whether a session is broken.
    pub has_broken: AtomicBool,
}

/// How requests run that bring no options of their own.
pub(crate) struct RunDefaults {
    /// On the calling thread, be it the caller's or a worker.
    pub on_this_thread: RunOptions,
    /// On the session's inter-op pool.
    pub on_pool: RunOptions,
    /// `ConfigProto.operation_timeout_in_ms`, 0 for none.
    pub timeout_ms: i64,
    /// Whether TensorFlow's session fills each `RunMetadata`, so that whoever wants it can't have it of
    /// a program.
    pub fills_metadata: bool,
}

impl GroupState {
    /// Whether requests run as programs, as far as they can.
    pub fn runs_programs(&self) -> bool {
        self.plan.optimizations.has(Optimization::SerialExecutor)
            && self.plan.execution != Execution::Pool
    }

    /// The session that is asked for, modulo their number, or the one that the policy chooses.
    pub fn choose(&self, session: Option<usize>) -> Result<usize> {
        match session {
            Some(session) => Ok(session % self.plan.sessions.len()),
            None => self.dispatcher.choose(self).map(|chosen| self.next_sound(chosen)),
        }
    }

    /// The session itself, or the next one after it that is not broken.
    fn next_sound(&self, chosen: usize) -> usize {
        if !self.has_broken.load(Relaxed) {
            return chosen;
        }
        let n = self.stats.len();
        let mut others = (0..n).map(|i| (chosen + i) % n);
        others.find(|&session| !self.stats[session].is_broken.load(Relaxed)).unwrap_or(chosen)
    }

    /// After a failure: whether the session can still be used.
    pub fn note_if_broken(&self, session: usize, sessions: &SessionSet) {
        if sessions.slots[session].is_broken() && !self.stats[session].is_broken.swap(true, Relaxed)
        {
            self.has_broken.store(true, Relaxed);
            log::info(&format!(
                "session group {}: an exception has left session {session} in an unknown state; \
                 requests go to the others from now on",
                self.number
            ));
        }
    }

    /// Keeps the sessions alive until the result is dropped.
    pub fn enter(&self, lane: usize) -> Result<Entered<'_, SessionSet>> {
        self.check_process()?;
        self.gate.enter(lane).ok_or_else(|| Error::precondition("the session group is closed"))
    }

    /// The same for what concerns all sessions.
    pub fn enter_for_all(&self) -> Result<Entered<'_, SessionSet>> {
        self.enter(self.plan.sessions.len())
    }

    /// Fails in a child that was forked since the group was made.
    pub fn check_process(&self) -> Result<()> {
        if self.process.is_this() {
            return Ok(());
        }
        Err(Error::precondition(
            "this process was forked after the session group was made, and the group's threads stayed \
             in the parent: make groups after forking, or start the child with exec",
        ))
    }

    /// What a session has done so far. `None` where there is no such session.
    pub fn snapshot(&self, session: usize) -> Option<Snapshot> {
        let mut snapshot = self.stats.get(session)?.snapshot(self.gate.inside(session));
        snapshot.stream = self.streams.as_ref().map(|streams| streams.all[session]);
        Some(snapshot)
    }

    /// What each session has done so far.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        (0..self.stats.len()).filter_map(|session| self.snapshot(session)).collect()
    }

    /// On how many sessions a model is restored: the first ones.
    pub fn leaders(&self) -> usize {
        self.streams.as_ref().map_or(1, |streams| streams.leaders)
    }
}

pub(crate) fn no_graph() -> Error {
    Error::precondition(
        "the session group has no graph: call SessionGroup_Create or load a SavedModel before \
         running",
    )
}

impl Counts for GroupState {
    fn in_flight(&self, session: usize) -> u64 {
        self.gate.inside(session)
    }

    fn queued(&self, session: usize) -> u64 {
        self.stats[session].queued()
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;
    use crate::options::policy::Policy;
    use crate::tensorflow::SessionOptions;
    use crate::{Options, SessionGroup};

    #[test]
    fn requests_pass_a_broken_session_over() {
        let mut options = Options::new();
        options.session_num(3).policy(Policy::RoundRobin);
        let group = SessionGroup::new(&SessionOptions::new(), &options).unwrap();
        let state = group.state();
        let chosen = || -> Vec<_> { (0..6).map(|_| state.choose(None).unwrap()).collect() };
        assert_eq!(chosen(), [0, 1, 2, 0, 1, 2]);
        for (broken, expected) in [(1, [0, 2, 2, 0, 2, 2]), (2, [0; 6]), (0, [0, 1, 2, 0, 1, 2])] {
            state.stats[broken].is_broken.store(true, Relaxed);
            state.has_broken.store(true, Relaxed);
            assert_eq!(chosen(), expected);
        }
        assert_eq!(state.choose(Some(4)), Ok(1));
    }

    /// `make bench-overhead` prints it; the time is for people to judge.
    #[test]
    #[ignore = "measures"]
    fn dispatch_overhead() {
        for policy in [Policy::Thread, Policy::RoundRobin, Policy::LeastLoaded] {
            let mut options = Options::new();
            options.session_num(4).policy(policy.clone());
            let group = SessionGroup::new(&SessionOptions::new(), &options).unwrap();
            let state = group.state();
            let turn = || {
                let session = state.dispatcher.choose(state).unwrap();
                let sessions = state.enter(session).unwrap();
                state.stats[session].count(|_| Ok(black_box(sessions.slots.len()))).unwrap();
            };
            let name = policy.name();
            println!("dispatch by {name}: {}", nanoseconds(turn));
        }
        let clock = nanoseconds(|| {
            black_box((Instant::now(), Instant::now()));
        });
        println!("of which the clock, looked at twice: {clock}");
    }

    /// Median, least and most of some rounds.
    fn nanoseconds(f: impl Fn()) -> String {
        const TURNS: u32 = 1_000_000;
        let mut ns: Vec<_> = (0..9)
            .map(|_| {
                let begun = Instant::now();
                (0..TURNS).for_each(|_| f());
                begun.elapsed().as_nanos() as f64 / f64::from(TURNS)
            })
            .collect();
        ns.sort_by(f64::total_cmp);
        format!("{:.0} ns ({:.0} to {:.0})", ns[4], ns[0], ns[8])
    }
}

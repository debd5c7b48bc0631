//! A version that serves, and the lock between its requests and deltas.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use session_group::{Code, Error, Request, Result, SessionGroup};
use session_group_serving::timeline::Timelines;

use crate::predict::Step;
use crate::proto::eas::PredictResponse;

/// A group with the variables of one full checkpoint and some deltas.
pub struct Served {
    group: SessionGroup,
    /// Requests hold one of them for reading while they use variables, each thread always the same, so
    /// that requests of several threads seldom write to one cache line.
    variables: [CachePadded<RwLock<()>>; LOCKS],
    /// How long the next delta waits for requests, while others wait for it, in milliseconds.
    patience: AtomicU64,
    /// Whether a delta has failed half-way, so that no request may see the variables any more. It changes only
    /// under the locks.
    half_written: AtomicBool,
}

const LOCKS: usize = 32;
/// How long a delta waits for requests: at first, and at most after attempts that were in vain.
const PATIENCE_MS: (u64, u64) = (100, 5000);

impl Served {
    pub fn new(group: SessionGroup) -> Self {
        Self {
            group,
            variables: Default::default(),
            patience: AtomicU64::new(PATIENCE_MS.0),
            half_written: AtomicBool::new(false),
        }
    }

    /// Runs a request on a session of the policy's choice.
    pub fn run(&self, step: &Step<'_>, timelines: Option<&Timelines>) -> Result<PredictResponse> {
        let (inputs, outputs) = (step.feeds(), step.fetches());
        let request = Request { inputs: &inputs, outputs: &outputs, ..Request::default() };
        let _unchanged = self.unchanged();
        if self.is_half_written() {
            return Err(Error::new(
                Code::Unavailable,
                "a delta has failed half-way, and the full checkpoint is being loaded again: send the request \
                 again in a while; get_serving_model_info() says why",
            ));
        }
        let tensors = match timelines.and_then(Timelines::next) {
            None => self.group.run_request(&request, None)?,
            Some(timeline) => timeline.record(&self.group, &request)?,
        };
        // An output may lie in the memory of a variable: it is copied before that may change.
        step.response(&tensors)
    }

    /// Runs a request on each session.
    pub fn warm_up(&self, step: &Step<'_>) -> Result<()> {
        let _unchanged = self.unchanged();
        self.group.warm_up(&step.feeds(), &step.fetches(), &[])
    }

    /// As long as it is held, no variable changes.
    pub fn unchanged(&self) -> RwLockReadGuard<'_, ()> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: usize = THREADS.fetch_add(1, Relaxed));
        self.variables[THREAD.with(|thread| thread % LOCKS)].read()
    }

    /// Waits for requests, and keeps new ones waiting, until the result is dropped. Only for so long: a
    /// slow request must not stop all others.
    pub fn exclusive(&self) -> Result<ExclusiveAccess<'_>> {
        let patience = self.patience.load(Relaxed);
        let end = Instant::now() + Duration::from_millis(patience);
        let guards: Option<Vec<_>> =
            self.variables.iter().map(|lock| lock.try_write_until(end)).collect();
        let Some(guards) = guards else {
            self.patience.store((patience * 2).min(PATIENCE_MS.1), Relaxed);
            return Err(Error::new(
                Code::Unavailable,
                format!(
                    "a request ran for more than {patience} ms, for which it was waited in vain"
                ),
            ));
        };
        self.patience.store(PATIENCE_MS.0, Relaxed);
        Ok(ExclusiveAccess {
            group: &self.group,
            half_written: &self.half_written,
            _guards: guards,
        })
    }

    /// Whether some variables have a delta's values, and others do not.
    pub fn is_half_written(&self) -> bool {
        self.half_written.load(Relaxed)
    }

    /// For runs that don't matter to requests.
    pub fn group(&self) -> &SessionGroup {
        &self.group
    }
}

/// A group on which no request runs.
pub struct ExclusiveAccess<'a> {
    pub group: &'a SessionGroup,
    half_written: &'a AtomicBool,
    _guards: Vec<RwLockWriteGuard<'a, ()>>,
}

impl ExclusiveAccess<'_> {
    /// Says whether only half of a change is done. Requests that begin when this is dropped know of it.
    pub fn set_half_written(&self, half: bool) {
        self.half_written.store(half, Relaxed);
    }
}

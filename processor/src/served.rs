//! A version that serves, and the lock between its requests and deltas.

use std::sync::PoisonError;

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use session_group::{Request, Result, SessionGroup};
use session_group_serving::timeline::Timelines;

use crate::predict::Step;
use crate::proto::eas::PredictResponse;

/// A group with the variables of one full checkpoint and some deltas.
pub struct Served {
    group: SessionGroup,
    /// Requests hold it for reading while they use variables. It has a lock for each of several
    /// groups of threads, so that requests don't write to one cache line.
    variables: ShardedLock<()>,
}

impl Served {
    pub fn new(group: SessionGroup) -> Self {
        Self { group, variables: ShardedLock::new(()) }
    }

    /// Runs a request on a session of the policy's choice.
    pub fn run(&self, step: &Step<'_>, timelines: Option<&Timelines>) -> Result<PredictResponse> {
        let (inputs, outputs) = (step.feeds(), step.fetches());
        let request = Request { inputs: &inputs, outputs: &outputs, ..Request::default() };
        let _unchanged = self.unchanged();
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
    pub fn unchanged(&self) -> ShardedLockReadGuard<'_, ()> {
        self.variables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for requests, and keeps new ones waiting until the result is dropped.
    pub fn alone(&self) -> Alone<'_> {
        let guard = self.variables.write().unwrap_or_else(PoisonError::into_inner);
        Alone { group: &self.group, _guard: guard }
    }

    /// For runs that don't matter to requests.
    pub fn group(&self) -> &SessionGroup {
        &self.group
    }
}

/// A group on which no request runs.
pub struct Alone<'a> {
    pub group: &'a SessionGroup,
    _guard: ShardedLockWriteGuard<'a, ()>,
}

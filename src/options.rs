//! What a group shall be.

use crate::cpuset::Cpusets;
use crate::error::{Error, Result};
use crate::execution::Execution;
use crate::policy::Policy;
use crate::workers::Queue;

/// The most sessions that a group can have.
pub const MAX_SESSIONS: usize = 1024;

/// How a group is made. What is not set is left to the environment, and then to defaults; see
/// [`plan`](crate::plan).
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) session_num: Option<usize>,
    pub(crate) cpusets: Option<Cpusets>,
    pub(crate) affinity: Option<bool>,
    pub(crate) policy: Policy,
    pub(crate) execution: Execution,
    pub(crate) worker_threads: Option<usize>,
    pub(crate) queue: Queue,
}

impl Options {
    /// Everything left to the environment and to defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many sessions. Default: as many as there are entries in the cpuset.
    pub fn set_session_num(&mut self, session_num: usize) -> Result<&mut Self> {
        if !(1..=MAX_SESSIONS).contains(&session_num) {
            return Err(Error::invalid(format!(
                "session_num is {session_num}: it must be 1 to {MAX_SESSIONS}"
            )));
        }
        self.session_num = Some(session_num);
        Ok(self)
    }

    /// The CPUs of each session, in the grammar of [`cpuset`](crate::cpuset).
    pub fn set_cpuset(&mut self, cpuset: &str) -> Result<&mut Self> {
        self.cpusets = Some(cpuset.parse()?);
        Ok(self)
    }

    /// Which session a request goes to.
    pub fn set_policy(&mut self, policy: Policy) -> &mut Self {
        self.policy = policy;
        self
    }

    /// On which threads a request's graph runs.
    pub fn set_execution(&mut self, execution: Execution) -> &mut Self {
        self.execution = execution;
        self
    }
}

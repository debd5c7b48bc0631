//! What is asked of a group.
//!
//! | | |
//! |---|---|
//! | [`Options`] | all of it |
//! | [`environment`] | what the environment asks for where nothing is set |
//! | [`policy`] | which session a request goes to |
//! | [`execution`] | on which threads its graph runs |
//! | `queue` | how many requests may wait for a thread |
//! | [`optimization`] | what makes it fast, each by a name to turn it off |
//! | [`kernels`] | which kernels programs use |
//! | `labels` | what the metrics and the log say of it |
//! | `named` | how these are found by their names |
//! | [`target`] | options as a session target: `session_group:4` |

pub mod environment;
pub mod execution;
pub mod kernels;
pub(crate) mod labels;
mod named;
pub mod optimization;
pub mod policy;
pub(crate) mod queue;
pub mod target;

use std::time::Duration;

use crate::cpus::cpuset::Cpusets;
use crate::error::{Error, Result};
use crate::options::execution::Execution;
use crate::options::kernels::Kernels;
use crate::options::labels::Labels;
use crate::options::optimization::{Optimization, Optimizations};
use crate::options::policy::Policy;

/// The most sessions that a group can have.
pub const MAX_SESSIONS: usize = 1024;

/// How long closing waits for requests where nothing else is said.
pub(crate) const DRAIN_TIMEOUT_MS: i64 = 30_000;

/// How to make a group. What is not set is left to the environment, and then to defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) session_num: Option<i32>,
    pub(crate) cpusets: Option<Cpusets>,
    pub(crate) affinity: Option<bool>,
    pub(crate) policy: Policy,
    pub(crate) execution: Execution,
    pub(crate) worker_threads: Option<i32>,
    pub(crate) queue: Option<(i32, bool)>,
    pub(crate) drain_timeout_ms: Option<i64>,
    pub(crate) optimizations: Optimizations,
    pub(crate) kernels: Kernels,
    pub(crate) multi_stream: bool,
    pub(crate) gpu_ids: Vec<i32>,
    pub(crate) labels: Labels,
}

impl Options {
    /// Everything left to the environment and to defaults.
    ///
    /// ```
    /// use session_group::{Options, execution::Execution, policy::Policy};
    ///
    /// let mut options = Options::new();
    /// options.session_num(4).execution(Execution::Worker).policy(Policy::LeastLoaded);
    /// options.cpuset("0-3;4-7;8-11;12-15")?;
    /// # Ok::<(), session_group::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How many sessions, 1 to [`MAX_SESSIONS`]. Default: as many as the cpuset has entries. This
    /// and the other numbers are checked when a group is made.
    pub fn session_num(&mut self, session_num: usize) -> &mut Self {
        self.session_num = Some(number(session_num));
        self
    }

    /// For the execution `worker`: how many worker threads each session has. Default: as many as
    /// it has CPUs.
    pub fn worker_threads(&mut self, worker_threads: usize) -> &mut Self {
        self.worker_threads = Some(number(worker_threads));
        self
    }

    /// For the execution `worker`: how many requests may wait for a session's worker threads, and
    /// whether one more waits for room or fails at once with `RESOURCE_EXHAUSTED`. Default: 1024,
    /// fails.
    pub fn queue(&mut self, capacity: usize, wait_when_full: bool) -> &mut Self {
        self.queue = Some((number(capacity), wait_when_full));
        self
    }

    /// How long closing lets running requests finish before it cancels them, in whole milliseconds; zero
    /// cancels at once. Default: 30 seconds; zero for a group that a session target makes, because closing
    /// TensorFlow's own session cancels at once.
    pub fn drain_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.drain_timeout_ms = Some(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
        self
    }

    /// The CPUs of each session, in the grammar of [`cpuset`](crate::cpus::cpuset).
    pub fn cpuset(&mut self, cpuset: &str) -> Result<&mut Self> {
        self.cpusets = Some(cpuset.parse()?);
        Ok(self)
    }

    /// Whether to give each session cores of its own, which are found by themselves; see
    /// [`placement`](crate::cpus::placement).
    pub fn affinity(&mut self, affinity: bool) -> &mut Self {
        self.affinity = Some(affinity);
        self
    }

    /// Which session a request goes to.
    pub fn policy(&mut self, policy: Policy) -> &mut Self {
        self.policy = policy;
        self
    }

    /// On which threads a request's graph runs.
    pub fn execution(&mut self, execution: Execution) -> &mut Self {
        self.execution = execution;
        self
    }

    /// Whether each session computes on a stream of its own of a GPU. Then the number of sessions is
    /// that on each GPU. Default: no.
    pub fn multi_stream(&mut self, multi_stream: bool) -> &mut Self {
        self.multi_stream = multi_stream;
        self
    }

    /// With [`multi_stream`](Self::multi_stream): the GPUs, by their numbers in TensorFlow. Default, or none
    /// given: all.
    pub fn gpu_ids(&mut self, gpu_ids: &[usize]) -> Result<&mut Self> {
        self.take_gpu_ids(gpu_ids.iter().map(|&id| number(id)).collect())?;
        Ok(self)
    }

    pub(crate) fn take_gpu_ids(&mut self, gpu_ids: Vec<i32>) -> Result<()> {
        for (i, id) in gpu_ids.iter().enumerate() {
            if *id < 0 {
                return Err(Error::invalid(format!("gpu_ids has {id}: GPUs are numbered from 0")));
            }
            if gpu_ids[..i].contains(id) {
                return Err(Error::invalid(format!("gpu_ids has {id} twice")));
            }
        }
        self.gpu_ids = gpu_ids;
        Ok(())
    }

    /// What the metrics and the log say of the group beside its number, such as the model that it serves: names, as
    /// Prometheus has them for labels, and values. Default: nothing.
    pub fn labels(&mut self, labels: &[(&str, &str)]) -> Result<&mut Self> {
        self.labels = Labels::new(labels)?;
        Ok(self)
    }

    /// Which kernels programs take where TensorFlow has several for an operation.
    pub fn kernels(&mut self, kernels: Kernels) -> &mut Self {
        self.kernels = kernels;
        self
    }

    /// Whether to use an optimisation. All are used by default.
    pub fn optimization(&mut self, optimization: Optimization, enabled: bool) -> &mut Self {
        self.optimizations.set(optimization, enabled);
        self
    }
}

/// As the C ABI has numbers. One that is too large for it is also larger than any limit.
fn number(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

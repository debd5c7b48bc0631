//! Deciding what a group will be: pure, from what was asked for and what the machine allows.
//!
//! | | |
//! |---|---|
//! | [`machine`] | what the machine allows |
//! | [`cpus`] | which CPUs each session gets |
//! | [`checks`] | what no group can be made with |

mod checks;
mod cpus;
pub(crate) mod machine;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cpus::cpuset::CpuSet;
use crate::error::{Error, Result};
use crate::gpu::Gpus;
use crate::memory;
use crate::options::environment::Environment;
use crate::options::execution::Execution;
use crate::options::kernels::Kernels;
use crate::options::labels::Labels;
use crate::options::optimization::{Optimization, Optimizations};
use crate::options::policy::Policy;
use crate::options::queue::{QUEUE_CAPACITY, Queue};
use crate::options::{DRAIN_TIMEOUT_MS, MAX_SESSIONS, Options};
use crate::plan::checks::{MAX_POOL_THREADS, check, drain, in_range};
use crate::plan::cpus::CpuSource;
use crate::plan::machine::Machine;
use crate::tensorflow::devices::StreamSlot;
use crate::tensorflow::session_options::{Config, Pools};

/// A queue takes its memory when it is made.
const MAX_QUEUE: usize = 1 << 16;
const MAX_WORKER_THREADS: usize = 1024;
/// In all sessions, as `MAX_POOL_THREADS`.
const MAX_THREADS: usize = 16_384;

/// What a group will be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub sessions: Vec<SessionPlan>,
    /// Never `Auto`.
    pub execution: Execution,
    /// Never `Auto`.
    pub policy: Policy,
    pub queue: Queue,
    /// How long closing lets requests finish.
    pub drain: Duration,
    pub optimizations: Optimizations,
    pub kernels: Kernels,
    /// The CPUs that this process may use.
    pub allowed: CpuSet,
    /// Of a multi-stream group.
    pub gpus: Option<Gpus>,
    /// The NUMA nodes over which what all sessions read is spread; none where it lies as it comes.
    pub table_nodes: Vec<u32>,
    /// How many CPUs' time the control groups allow, where they have a quota.
    pub quota: Option<f64>,
    /// How many bytes of large tensors the process keeps for the next request, at most.
    pub kept_bytes: u64,
    pub labels: Labels,
    pub why: Why,
}

/// Why the group will be so.
#[derive(Clone, Debug)]
pub(crate) struct Why {
    pub cpus: &'static str,
    pub threads: &'static str,
    pub execution: &'static str,
    pub policy: &'static str,
    pub tables: &'static str,
}

/// What a session will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionPlan {
    /// The CPUs that its threads are pinned to, if any.
    pub cpus: Option<CpuSet>,
    /// The NUMA nodes that these CPUs belong to.
    pub numa_nodes: Vec<u32>,
    pub intra_op_threads: i32,
    pub inter_op_threads: i32,
    /// How many threads there are in inter-op pools, of which there may be several.
    pub inter_op_pools_threads: usize,
    /// 0 unless the execution is `Worker`.
    pub worker_threads: usize,
    /// Where there are GPUs.
    pub stream_slot: Option<StreamSlot>,
}

/// Decides.
pub(crate) fn plan(
    options: &Options,
    environment: &Environment,
    config: &Config,
    machine: &Machine,
) -> Result<Plan> {
    check(config)?;
    let source = CpuSource::choose(options, environment)?;
    let gpus = Gpus::plan(options, environment, &machine.gpus)?;
    let session_num = session_num(options, &source, gpus.as_ref())?;
    let stream_slots: Option<Vec<StreamSlot>> =
        gpus.as_ref().map(|gpus| gpus.stream_slots(session_num).collect());
    let cpusets = source.cpusets(session_num, machine)?;
    if matches!(options.policy, Policy::CpuLocal) && cpusets.is_none() {
        return Err(Error::invalid(
            "policy cpu_local needs CPUs for each session: set a cpuset or thread pool affinity, \
             or choose another policy",
        ));
    }
    let is_pinned = cpusets.is_some();
    let (execution, why_execution) = execution(options, is_pinned);
    if execution == Execution::Pool && config.inter_op_threads < 0 {
        return Err(Error::invalid(format!(
            "execution pool spreads graphs over inter-op threads, but inter_op_parallelism_threads is {}, \
             which runs them on the calling thread: change one of them",
            config.inter_op_threads
        )));
    }
    let worker_threads = options
        .worker_threads
        .map(|n| in_range("the number of worker threads", n, MAX_WORKER_THREADS))
        .transpose()?;
    let kept_bytes = memory::limit(environment.kept_bytes.as_deref(), machine.memory)?;
    let (capacity, wait) = options.queue.unwrap_or((QUEUE_CAPACITY, false));
    let queue = Queue { capacity: in_range("the queue's capacity", capacity, MAX_QUEUE)?, wait };

    let drain = drain(options.drain_timeout_ms.unwrap_or(DRAIN_TIMEOUT_MS))?;

    // More threads than the quota has time for would use it up at once, and then all wait.
    let most_cpus = machine.quota.map_or(usize::MAX, |quota| quota.ceil() as usize);
    let sessions: Vec<SessionPlan> = (0..session_num)
        .map(|i| {
            let cpus = cpusets.as_ref().map(|sets| sets[i].clone());
            let share = match &cpus {
                Some(cpus) => cpus.len().min(share(most_cpus, session_num, i)),
                None => share(machine.allowed.len().min(most_cpus), session_num, i),
            }
            .min(MAX_POOL_THREADS as usize);
            let inter_op_threads = or_share(config.inter_op_threads, share);
            SessionPlan {
                numa_nodes: match (&cpus, &machine.topology) {
                    (Some(cpus), Ok(topology)) => topology.nodes_of(cpus),
                    _ => Vec::new(),
                },
                cpus,
                intra_op_threads: or_share(config.intra_op_threads, share),
                inter_op_threads,
                inter_op_pools_threads: match config.pools {
                    None => inter_op_threads as usize,
                    // Both are not negative: they count.
                    Some(Pools { of_default_size, threads, .. }) => {
                        (of_default_size * i64::from(inter_op_threads) + threads) as usize
                    }
                },
                worker_threads: match execution {
                    Execution::Worker => worker_threads.unwrap_or(share),
                    _ => 0,
                },
                stream_slot: stream_slots.as_ref().map(|stream_slots| stream_slots[i]),
            }
        })
        .collect();
    check_total(&sessions)?;
    let cpus = cpusets.map_or(machine.allowed.len(), |sets| sets.iter().map(CpuSet::len).sum());
    let is_bounded = most_cpus < cpus;
    let threads = match (config.intra_op_threads, config.inter_op_threads, is_pinned) {
        (1.., 1.., _) => "as the ConfigProto says",
        (0, 0, _) if is_bounded => "each session's share of the control group's CPU quota",
        (0, 0, true) => "one for each CPU of the session",
        (0, 0, false) => "each session's share of the allowed CPUs",
        (_, inter, _) if inter < 0 => {
            "inter_op_parallelism_threads is negative: graphs run on the calling thread"
        }
        _ => "as the ConfigProto says, else one for each CPU of the session or of its share",
    };
    let (policy, why_policy) = policy(options, execution, gpus.is_some());
    let (table_nodes, why_tables) = table_nodes(options.optimizations, &sessions, machine);
    let why = Why {
        cpus: source.why(),
        threads,
        execution: why_execution,
        policy: why_policy,
        tables: why_tables,
    };
    let allowed = machine.allowed.clone();
    Ok(Plan {
        sessions,
        execution,
        policy,
        queue,
        drain,
        optimizations: options.optimizations,
        kernels: options.kernels,
        allowed,
        gpus,
        table_nodes,
        quota: machine.quota,
        kept_bytes,
        labels: options.labels.clone(),
        why,
    })
}

impl Plan {
    /// How many threads the group will start, and TensorFlow with it: a pool of the process, one for each
    /// CPU, and few others.
    pub fn threads(&self) -> usize {
        const OTHERS: usize = 8;
        self.sessions.iter().map(SessionPlan::threads).sum::<usize>() + self.allowed.len() + OTHERS
    }
}

impl SessionPlan {
    fn threads(&self) -> usize {
        self.intra_op_threads as usize + self.inter_op_pools_threads + self.worker_threads
    }
}

/// How many sessions, on all GPUs together where there are some.
fn session_num(options: &Options, source: &CpuSource, gpus: Option<&Gpus>) -> Result<usize> {
    let on = gpus.map_or(1, |gpus| gpus.ids.len());
    let asked = options.session_num.or(match source.entries() {
        None => gpus.and_then(Gpus::default_sessions),
        Some(_) => None,
    });
    let total = match (asked, source.entries()) {
        (Some(n), _) => in_range("session_num", n, MAX_SESSIONS)? * on,
        (None, Some(entries)) => entries,
        (None, None) => {
            return Err(Error::invalid(
                "session_num is not set: say how many sessions the group shall have, or give a \
                 cpuset with an entry for each",
            ));
        }
    };
    if total > MAX_SESSIONS {
        return Err(Error::invalid(format!(
            "{} sessions on each of {on} GPUs are {total}: a group has at most {MAX_SESSIONS}",
            total / on
        )));
    }
    if total % on != 0 {
        return Err(Error::invalid(format!(
            "the cpuset has {total} entries, which can't be the same number of sessions on each of \
             {on} GPUs"
        )));
    }
    Ok(total)
}

fn check_total(sessions: &[SessionPlan]) -> Result<()> {
    let total: usize = sessions.iter().map(SessionPlan::threads).sum();
    if total > MAX_THREADS {
        return Err(Error::invalid(format!(
            "{} sessions would have {total} threads, more than {MAX_THREADS}: make fewer sessions, \
             or set smaller pools in the ConfigProto",
            sessions.len()
        )));
    }
    Ok(())
}

fn execution(options: &Options, pinned: bool) -> (Execution, &'static str) {
    let local = matches!(options.policy, Policy::CpuLocal);
    match options.execution {
        Execution::Auto if pinned && !local => {
            (Execution::Worker, "auto: sessions have CPUs of their own, callers don't")
        }
        Execution::Auto if pinned => {
            (Execution::Caller, "auto: cpu_local sends callers to the session of their CPU")
        }
        Execution::Auto => (Execution::Caller, "auto: no session has CPUs of its own"),
        chosen => (chosen, "as the program set"),
    }
}

fn policy(options: &Options, execution: Execution, has_streams: bool) -> (Policy, &'static str) {
    match (&options.policy, execution) {
        (Policy::Auto, _) if has_streams => {
            (Policy::LeastLoaded, "auto: sessions have streams of their own")
        }
        (Policy::Auto, Execution::Caller) => {
            (Policy::Thread, "auto: threads that stay with a session write to no memory of others")
        }
        (Policy::Auto, _) => (Policy::LeastLoaded, "auto: sessions have threads of their own"),
        (chosen, _) => (chosen.clone(), "as the program set"),
    }
}

/// The nodes of the sessions' CPUs, over which their tables are spread.
fn table_nodes(
    optimizations: Optimizations,
    sessions: &[SessionPlan],
    machine: &Machine,
) -> (Vec<u32>, &'static str) {
    let needed = [Optimization::InterleavedTables, Optimization::FastMemory];
    if !needed.into_iter().all(|optimization| optimizations.has(optimization)) {
        return (Vec::new(), "as the program set");
    }
    let Ok(topology) = &machine.topology else {
        return (Vec::new(), "Linux does not say which NUMA nodes there are");
    };
    let nodes: BTreeSet<u32> = match sessions.iter().all(|session| session.cpus.is_some()) {
        true => sessions.iter().flat_map(|session| session.numa_nodes.iter().copied()).collect(),
        false => topology.nodes.iter().map(|node| node.number).collect(),
    };
    let why = match nodes.len() {
        1 => "all CPUs of the sessions are on one NUMA node",
        _ => "spread over the NUMA nodes of the sessions' CPUs",
    };
    (nodes.into_iter().collect(), why)
}

/// The `i`th of `parts` shares of `whole`, as equal as can be, at least 1.
fn share(whole: usize, parts: usize, i: usize) -> usize {
    (whole / parts + usize::from(i < whole % parts)).max(1)
}

fn or_share(threads: i32, share: usize) -> i32 {
    match threads {
        0 => share as i32,
        // As TensorFlow, which then has a thread for what can't run on the calling one.
        ..0 => 1,
        threads => threads,
    }
}

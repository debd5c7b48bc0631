//! Deciding what a group will be: pure, from what was asked for and what the machine allows.

use std::time::Duration;

use crate::cpus::cpuset::{CpuSet, Cpusets};
use crate::cpus::placement::place;
use crate::cpus::topology::{self, Topology};
use crate::error::{Error, Result};
use crate::gpu::{self, Gpus};
use crate::memory;
use crate::options::execution::Execution;
use crate::options::kernels::Kernels;
use crate::options::optimization::Optimizations;
use crate::options::policy::Policy;
use crate::options::{DRAIN_TIMEOUT_MS, MAX_SESSIONS, Options, QUEUE_CAPACITY};
use crate::sessions::workers::Queue;
use crate::tensorflow::SessionOptions;
use crate::tensorflow::devices::Seat;
use crate::tensorflow::session_options::{Config, Pools};

/// The variable that gives each session its CPUs, in the grammar of [`cpuset`](crate::cpus::cpuset).
pub const CPUSET_VARIABLE: &str = "SESSION_GROUP_CPUSET";

/// A queue takes its memory when it is made.
const MAX_QUEUE: usize = 1 << 16;
const MAX_WORKER_THREADS: usize = 1024;
/// TensorFlow ends the process where the system refuses it a thread, so numbers that are out of any
/// proportion must not get that far.
const MAX_POOL_THREADS: i32 = 1024;
const MAX_THREADS: usize = 16_384;

/// The variable that gives each session its own cores where it is `1`.
pub const AFFINITY_VARIABLE: &str = "SET_SESSION_THREAD_POOL_AFFINITY";

/// What the environment asks for; an empty variable asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `SESSION_GROUP_CPUSET`.
    pub cpuset: Option<String>,
    /// `SET_SESSION_THREAD_POOL_AFFINITY`.
    pub affinity: Option<String>,
    /// `ENABLE_MPS`.
    pub mps: Option<String>,
    /// `CONTEXTS_COUNT_PER_GPU`.
    pub contexts: Option<String>,
    /// `SESSION_GROUP_KEPT_BYTES`.
    pub kept_bytes: Option<String>,
}

/// What a group can be made on.
pub(crate) struct Machine {
    /// The CPUs that this process may use.
    pub allowed: CpuSet,
    /// The same by core and NUMA node. Only placing sessions by itself needs it.
    pub topology: Result<Topology>,
    /// How many GPUs TensorFlow sees. Only multi-stream groups need it.
    pub gpus: Result<i32>,
    /// Bytes that this process may use.
    pub memory: u64,
}

impl Machine {
    /// This one, now, with the GPUs that a session with these options would use, if any shall be.
    pub fn read(gpus_of: Option<&SessionOptions>) -> Result<Self> {
        let allowed = topology::allowed()?;
        let topology = Topology::read(&allowed);
        let gpus = gpus_of.map_or(Ok(0), SessionOptions::count_gpus);
        Ok(Self { allowed, topology, gpus, memory: memory::of_this_process() })
    }
}

impl Environment {
    /// The environment of this process, now.
    pub fn read() -> Self {
        let variable = |name| {
            let value = std::env::var_os(name)?.to_string_lossy().into_owned();
            (!value.trim().is_empty()).then_some(value)
        };
        Self {
            cpuset: variable(CPUSET_VARIABLE),
            affinity: variable(AFFINITY_VARIABLE),
            mps: variable(gpu::MPS_VARIABLE),
            contexts: variable(gpu::CONTEXTS_VARIABLE),
            kept_bytes: variable(memory::KEPT_VARIABLE),
        }
    }
}

/// What a variable says that is `1` or `0`, as it is where it is not set.
pub(crate) fn is_on(name: &str, value: Option<&str>) -> Result<bool> {
    match value.map(str::trim) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => Err(Error::invalid(format!("{name} is {other:?}: set 1 or 0"))),
    }
}

/// What a group will be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub sessions: Vec<SessionPlan>,
    /// Never `Auto`.
    pub execution: Execution,
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
    /// How many bytes of large tensors the process keeps for the next request, at most.
    pub kept_bytes: u64,
    pub why: Why,
}

/// Why the group will be so.
#[derive(Clone, Debug)]
pub(crate) struct Why {
    pub cpus: &'static str,
    pub threads: &'static str,
    pub execution: &'static str,
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
    pub seat: Option<Seat>,
}

/// Decides.
pub(crate) fn plan(
    options: &Options,
    environment: &Environment,
    config: &Config,
    machine: &Machine,
) -> Result<Plan> {
    check(config)?;
    let source = Source::choose(options, environment)?;
    let gpus = Gpus::plan(options, environment, &machine.gpus)?;
    let session_num = session_num(options, &source, gpus.as_ref())?;
    let seats: Option<Vec<Seat>> = gpus.as_ref().map(|gpus| gpus.seats(session_num).collect());
    let cpusets = source.cpusets(session_num, machine)?;
    if matches!(options.policy, Policy::CpuLocal) && cpusets.is_none() {
        return Err(Error::invalid(
            "policy cpu_local needs CPUs for each session: set a cpuset or thread pool affinity, \
             or choose another policy",
        ));
    }
    let (execution, why_execution) = execution(options, cpusets.is_some());
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

    let sessions: Vec<SessionPlan> = (0..session_num)
        .map(|i| {
            let cpus = cpusets.as_ref().map(|sets| sets[i].clone());
            let share = match &cpus {
                Some(cpus) => cpus.len(),
                None => share(machine.allowed.len(), session_num, i),
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
                seat: seats.as_ref().map(|seats| seats[i]),
            }
        })
        .collect();
    check_total(&sessions)?;
    let threads = match (config.intra_op_threads, config.inter_op_threads, cpusets.is_some()) {
        (1.., 1.., _) => "as the ConfigProto says",
        (0, 0, true) => "one for each CPU of the session",
        (0, 0, false) => "each session's share of the allowed CPUs",
        (_, inter, _) if inter < 0 => {
            "inter_op_parallelism_threads is negative: graphs run on the calling thread"
        }
        _ => "as the ConfigProto says, else one for each CPU of the session or of its share",
    };
    let why = Why { cpus: source.why(), threads, execution: why_execution };
    let allowed = machine.allowed.clone();
    Ok(Plan {
        sessions,
        execution,
        policy: options.policy.clone(),
        queue,
        drain,
        optimizations: options.optimizations,
        kernels: options.kernels,
        allowed,
        gpus,
        kept_bytes,
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
fn session_num(options: &Options, source: &Source, gpus: Option<&Gpus>) -> Result<usize> {
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

/// Where the sessions' CPUs come from.
enum Source {
    Option(Cpusets),
    Variable(Cpusets),
    AffinityOption,
    AffinityVariable,
    None,
}

impl Source {
    /// What the program sets wins over what the environment says; a cpuset says more than affinity.
    fn choose(options: &Options, environment: &Environment) -> Result<Self> {
        match (&options.cpusets, options.affinity) {
            (Some(_), Some(true)) => {
                return Err(Error::invalid(
                    "both a cpuset and thread pool affinity are set: a cpuset says which CPUs, \
                     affinity finds them by itself; set one of them",
                ));
            }
            (Some(sets), _) => return Ok(Self::Option(sets.clone())),
            (None, Some(true)) => return Ok(Self::AffinityOption),
            (None, _) => {}
        }
        if let Some(text) = &environment.cpuset {
            return text.parse().map(Self::Variable).map_err(|error: Error| {
                Error::new(error.code, format!("{CPUSET_VARIABLE}: {}", error.message))
            });
        }
        let variable = match options.affinity {
            Some(_) => None,
            None => environment.affinity.as_deref(),
        };
        Ok(match is_on(AFFINITY_VARIABLE, variable)? {
            true => Self::AffinityVariable,
            false => Self::None,
        })
    }

    /// How many sessions it is for, where it says so.
    fn entries(&self) -> Option<usize> {
        match self {
            Self::Option(sets) | Self::Variable(sets) => Some(sets.entries().len()),
            _ => None,
        }
    }

    fn cpusets(&self, session_num: usize, machine: &Machine) -> Result<Option<Vec<CpuSet>>> {
        match self {
            Self::Option(sets) | Self::Variable(sets) => {
                check_cpusets(sets, session_num, &machine.allowed)?;
                Ok(Some(sets.entries().to_vec()))
            }
            Self::AffinityOption | Self::AffinityVariable => {
                let topology = machine.topology.as_ref().map_err(Error::clone)?;
                place(topology, session_num).map(Some)
            }
            Self::None => Ok(None),
        }
    }

    fn why(&self) -> &'static str {
        match self {
            Self::Option(_) => "the cpuset that the program set",
            Self::Variable(_) => "SESSION_GROUP_CPUSET",
            Self::AffinityOption => "thread pool affinity, set by the program",
            Self::AffinityVariable => "SET_SESSION_THREAD_POOL_AFFINITY",
            Self::None => "neither a cpuset nor thread pool affinity is set",
        }
    }
}

fn check_cpusets(sets: &Cpusets, session_num: usize, allowed: &CpuSet) -> Result<()> {
    if sets.entries().len() != session_num {
        return Err(Error::invalid(format!(
            "cpuset \"{sets}\" has {} entries, but the group has {session_num} sessions: give one entry \
             for each session",
            sets.entries().len()
        )));
    }
    for (i, entry) in sets.entries().iter().enumerate() {
        if let Some(cpu) = entry.cpus().iter().find(|&&cpu| !allowed.contains(cpu)) {
            return Err(Error::invalid(format!(
                "cpuset \"{sets}\", entry {i} (\"{entry}\"): this process may not use CPU \
                 {cpu}, only {allowed}"
            )));
        }
    }
    Ok(())
}

fn in_range(name: &str, n: i32, most: usize) -> Result<usize> {
    usize::try_from(n)
        .ok()
        .filter(|n| (1..=most).contains(n))
        .ok_or_else(|| Error::invalid(format!("{name} is {n}: it must be 1 to {most}")))
}

fn drain(ms: i64) -> Result<Duration> {
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| {
        Error::invalid(format!(
            "the drain timeout is {ms} ms: give 0 to cancel requests at once on closing, or more"
        ))
    })
}

fn check(config: &Config) -> Result<()> {
    if config.has_target {
        return Err(Error::invalid(
            "SessionOptions.target is set, but a session group runs in this process: leave the \
             target empty",
        ));
    }
    for (name, threads, least, negative) in [
        // TensorFlow ends the process for a negative number.
        ("intra_op_parallelism_threads", config.intra_op_threads, 0, ""),
        (
            "inter_op_parallelism_threads",
            config.inter_op_threads,
            i32::MIN,
            ", or a negative number to run graphs on the calling thread",
        ),
    ] {
        if !(least..=MAX_POOL_THREADS).contains(&threads) {
            return Err(Error::invalid(format!(
                "{name} is {threads}: give the number of threads of each session, up to \
                 {MAX_POOL_THREADS}, or 0 for one for each of its CPUs{negative}"
            )));
        }
    }
    if config.pools.is_some_and(|pools| pools.has_negative) {
        return Err(Error::invalid(
            "session_inter_op_thread_pool has a pool with a negative num_threads: give the number of \
             its threads, or 0 for as many as inter_op_parallelism_threads says",
        ));
    }
    if config.has_named_pool {
        return Err(Error::invalid(
            "session_inter_op_thread_pool has a global_name, but each session of a group has pools \
             of its own: leave the name out",
        ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::topology::Node;

    /// One node of single-thread cores.
    fn machine(cpus: u32) -> Machine {
        let cores = (0..cpus).map(CpuSet::one).collect();
        let nodes = vec![Node { number: 0, cores }];
        Machine {
            allowed: CpuSet::new(0..cpus).unwrap(),
            topology: Ok(Topology { nodes }),
            gpus: Ok(2),
            memory: 16 << 30,
        }
    }

    fn decide(options: &Options, cpus: u32) -> Result<Plan> {
        plan(options, &Environment::default(), &Config::default(), &machine(cpus))
    }

    fn options(session_num: i32) -> Options {
        let mut options = Options::new();
        options.set_session_num(session_num);
        options
    }

    fn intra(plan: &Plan) -> Vec<i32> {
        plan.sessions.iter().map(|session| session.intra_op_threads).collect()
    }

    #[test]
    fn threads_are_shared_out_to_the_last_cpu() {
        assert_eq!(intra(&decide(&options(3), 8).unwrap()), [3, 3, 2]);
        assert_eq!(intra(&decide(&options(4), 2).unwrap()), [1, 1, 1, 1]);
        // As many as may be asked for, however large the machine.
        assert_eq!(intra(&decide(&options(1), 3000).unwrap()), [1024]);
        let mut workers = options(1);
        workers.set_execution(Execution::Worker);
        assert_eq!(decide(&workers, 3000).unwrap().sessions[0].worker_threads, 1024);
    }

    #[test]
    fn the_config_decides_where_it_says_something() {
        let config = Config { intra_op_threads: 5, inter_op_threads: 7, ..Config::default() };
        let plan = plan(&options(2), &Environment::default(), &config, &machine(8)).unwrap();
        assert_eq!(plan.sessions[1].intra_op_threads, 5);
        assert_eq!(plan.sessions[1].inter_op_threads, 7);
    }

    #[test]
    fn threads_of_all_inter_op_pools_count() {
        let with = |of_default_size, threads| {
            let pools = Some(Pools { of_default_size, threads, ..Pools::default() });
            let config = Config { inter_op_threads: 7, pools, ..Config::default() };
            plan(&options(2), &Environment::default(), &config, &machine(8))
        };
        assert_eq!(with(2, 30).unwrap().sessions[0].inter_op_pools_threads, 44);
        assert!(with(0, 100_000).unwrap_err().message.contains("threads"));
    }

    #[test]
    fn sessions_are_counted_for_each_gpu() {
        let mut options = options(3);
        options.set_multi_stream(true);
        let plan = decide(&options, 12).unwrap();
        assert_eq!(intra(&plan), [2; 6]);
        assert_eq!(plan.sessions[3].seat.unwrap(), Seat { gpu: 1, stream: 1 });
        options.set_cpuset("0;1").unwrap();
        assert!(decide(&options, 12).unwrap_err().message.contains("has 6 sessions"));
        options.set_session_num(1000);
        assert!(decide(&options, 12).unwrap_err().message.contains("are 2000"));

        let mut by_cpuset = Options::new();
        by_cpuset.set_multi_stream(true).set_cpuset("0;1;2").unwrap();
        assert!(decide(&by_cpuset, 12).unwrap_err().message.contains("3 entries"));
        by_cpuset.set_cpuset("0;1;2;3").unwrap();
        assert_eq!(decide(&by_cpuset, 12).unwrap().sessions.len(), 4);
    }

    #[test]
    fn a_cpuset_gives_the_number_and_the_sizes() {
        let mut options = Options::new();
        options.set_cpuset("0-2;3").unwrap();
        let plan = decide(&options, 4).unwrap();
        assert_eq!(intra(&plan), [3, 1]);
        assert_eq!(plan.sessions[0].cpus.as_ref().unwrap().cpus(), [0, 1, 2]);
        assert_eq!(plan.execution, Execution::Worker);
        assert_eq!(plan.sessions[0].worker_threads, 3);
    }

    #[test]
    fn what_the_program_sets_wins_over_the_environment() {
        let environment = Environment { cpuset: Some("1;0".to_string()), ..Environment::default() };
        let mut options = options(2);
        let cpus = |options: &Options| {
            plan(options, &environment, &Config::default(), &machine(2)).unwrap().sessions[0]
                .cpus
                .clone()
                .unwrap()
        };
        assert_eq!(cpus(&options).cpus(), [1]);
        options.set_cpuset("0;1").unwrap();
        assert_eq!(cpus(&options).cpus(), [0]);
    }

    #[test]
    fn contradictions_are_errors_that_name_both_sides() {
        let error = |options: &Options| decide(options, 4).unwrap_err().message;
        assert!(error(&Options::new()).contains("session_num is not set"));

        let mut mismatch = options(3);
        mismatch.set_cpuset("0;1;2;3").unwrap();
        let message = error(&mismatch);
        assert!(message.contains("4 entries") && message.contains("has 3 sessions"), "{message}");

        let mut unpinned = options(2);
        unpinned.set_policy(Policy::CpuLocal);
        assert!(error(&unpinned).contains("cpu_local needs"));

        let mut outside = options(2);
        outside.set_cpuset("0;3-4").unwrap();
        let message = error(&outside);
        assert!(message.contains("entry 1") && message.contains("CPU 4, only 0-3"), "{message}");
    }

    #[test]
    fn numbers_out_of_range_are_errors() {
        for n in [0, -1, i32::MIN, 100_000] {
            let message = decide(&options(n), 4).unwrap_err().message;
            assert!(message.contains(&format!("session_num is {n}: it must be 1 to")), "{message}");
            assert!(decide(options(1).set_worker_threads(n), 4).is_err());
        }
        assert!(decide(options(1).set_queue(0, true), 4).is_err());
        assert_eq!(decide(options(1).set_queue(7, true), 4).unwrap().queue.capacity, 7);
    }

    #[test]
    fn threads_out_of_proportion_are_an_error() {
        let config = Config { intra_op_threads: 1024, ..Config::default() };
        let error = plan(&options(100), &Environment::default(), &config, &machine(4)).unwrap_err();
        assert!(error.message.contains("102500 threads"), "{error}");
    }

    #[test]
    fn a_machine_that_can_not_be_read_matters_only_for_affinity() {
        let unreadable = Machine { topology: Err(Error::invalid("unreadable")), ..machine(4) };
        let decide = |options: &Options| {
            plan(options, &Environment::default(), &Config::default(), &unreadable)
        };
        assert!(decide(options(2).set_cpuset("0;1").unwrap()).is_ok());
        assert_eq!(decide(options(2).set_affinity(true)).unwrap_err().message, "unreadable");
    }

    #[test]
    fn an_environment_that_is_wrong_is_named() {
        let environment = Environment { cpuset: Some("0;x".to_string()), ..Environment::default() };
        let error = plan(&options(2), &environment, &Config::default(), &machine(2)).unwrap_err();
        assert!(error.message.starts_with(CPUSET_VARIABLE), "{error}");
    }

    #[test]
    fn affinity_places_sessions_on_cores_of_their_own() {
        let variable = |value: &str| Environment {
            affinity: Some(value.to_string()),
            ..Environment::default()
        };
        let cpus = |options: &Options, environment: &Environment| -> Result<Vec<String>> {
            let plan = plan(options, environment, &Config::default(), &machine(5))?;
            Ok(plan.sessions.iter().flat_map(|s| &s.cpus).map(CpuSet::to_string).collect())
        };
        let pinned = ["0-2", "3-4"];
        assert_eq!(cpus(&options(2), &variable("1")).unwrap(), pinned);
        assert_eq!(cpus(options(2).set_affinity(true), &variable("0")).unwrap(), pinned);
        assert!(cpus(&options(2), &variable("0")).unwrap().is_empty());
        assert!(cpus(options(2).set_affinity(false), &variable("1")).unwrap().is_empty());
        assert!(cpus(options(2).set_affinity(false), &variable("yes")).unwrap().is_empty());
        let error = cpus(&options(2), &variable("yes")).unwrap_err();
        assert!(error.message.contains("SET_SESSION_THREAD_POOL_AFFINITY is \"yes\""), "{error}");
        let error = cpus(&options(6), &variable("1")).unwrap_err();
        assert!(error.message.contains("5 physical cores"), "{error}");
        // A cpuset says more than affinity; in the program, both are a contradiction.
        let both = Environment { cpuset: Some("4;0".to_string()), ..variable("1") };
        assert_eq!(cpus(&options(2), &both).unwrap(), ["4", "0"]);
        let mut both = options(2);
        both.set_cpuset("0;1").unwrap().set_affinity(true);
        assert!(cpus(&both, &Environment::default()).unwrap_err().message.contains("set one"));
    }

    #[test]
    fn a_target_or_threads_that_can_not_be_are_errors() {
        for config in [
            Config { has_target: true, ..Config::default() },
            Config { intra_op_threads: -1, ..Config::default() },
            Config {
                pools: Some(Pools { has_negative: true, ..Pools::default() }),
                ..Config::default()
            },
            Config { inter_op_threads: 20_000, ..Config::default() },
            Config { intra_op_threads: 20_000, ..Config::default() },
            Config { has_named_pool: true, ..Config::default() },
        ] {
            assert!(plan(&options(2), &Environment::default(), &config, &machine(2)).is_err());
        }
    }

    #[test]
    fn negative_inter_op_threads_run_graphs_on_the_calling_thread() {
        let decide = |inter_op_threads, execution| {
            let config = Config { inter_op_threads, ..Config::default() };
            let mut options = options(2);
            options.set_execution(execution);
            plan(&options, &Environment::default(), &config, &machine(8))
        };
        for threads in [-1, -7, i32::MIN] {
            let plan = decide(threads, Execution::Auto).unwrap();
            assert_eq!(plan.execution, Execution::Caller);
            assert_eq!(plan.sessions[0].inter_op_threads, 1);
            assert!(plan.why.threads.contains("negative"));
            let error = decide(threads, Execution::Pool).unwrap_err();
            assert!(error.message.contains(&threads.to_string()), "{error}");
        }
        assert!(decide(0, Execution::Pool).is_ok());
    }

    #[test]
    fn a_drain_has_an_end_or_is_an_error() {
        let drain = |ms: Option<i64>| {
            let mut options = options(1);
            if let Some(ms) = ms {
                options.set_drain_timeout_ms(ms);
            }
            decide(&options, 2).map(|plan| plan.drain.as_millis())
        };
        assert_eq!(drain(None).unwrap(), 30_000);
        assert_eq!(drain(Some(0)).unwrap(), 0);
        assert_eq!(drain(Some(i64::MAX)).unwrap(), i64::MAX as u128);
        assert!(drain(Some(-5)).unwrap_err().message.contains("-5 ms"));
    }

    #[test]
    fn auto_runs_on_the_caller_where_nothing_is_pinned_or_the_caller_is() {
        assert_eq!(decide(&options(2), 2).unwrap().execution, Execution::Caller);
        let mut local = options(2);
        local.set_cpuset("0;1").unwrap().set_policy(Policy::CpuLocal);
        assert_eq!(decide(&local, 2).unwrap().execution, Execution::Caller);
        local.set_execution(Execution::Pool);
        assert_eq!(decide(&local, 2).unwrap().execution, Execution::Pool);
    }
}

//! Deciding what a group will be: pure, from what was asked for and what the machine allows.

use crate::cpuset::{CpuSet, Cpusets};
use crate::error::{Error, Result};
use crate::execution::Execution;
use crate::options::{MAX_SESSIONS, Options};
use crate::policy::Policy;
use crate::tensorflow::session_options::Config;
use crate::workers::Queue;

/// The variable that gives each session its CPUs, in the grammar of [`cpuset`](crate::cpuset).
pub const CPUSET_VARIABLE: &str = "SESSION_GROUP_CPUSET";

/// How many requests may wait for a session's workers where nobody says.
const QUEUE_CAPACITY: i32 = 1024;
const MAX_QUEUE: usize = 1 << 20;
const MAX_WORKER_THREADS: usize = 1024;

/// What the environment asks for; an empty variable asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `SESSION_GROUP_CPUSET`.
    pub cpuset: Option<String>,
}

impl Environment {
    /// The environment of this process, now.
    pub fn read() -> Self {
        let variable = |name| {
            let value = std::env::var_os(name)?.to_string_lossy().into_owned();
            (!value.trim().is_empty()).then_some(value)
        };
        Self { cpuset: variable(CPUSET_VARIABLE) }
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
}

/// What a session will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionPlan {
    /// The CPUs that its threads are pinned to, if any.
    pub cpus: Option<CpuSet>,
    pub intra_op_threads: i32,
    pub inter_op_threads: i32,
    /// 0 unless the execution is `Worker`.
    pub worker_threads: usize,
}

/// Decides. `allowed` are the CPUs that this process may use.
pub(crate) fn plan(
    options: &Options,
    environment: &Environment,
    config: &Config,
    allowed: &CpuSet,
) -> Result<Plan> {
    check(config)?;
    let cpusets = cpusets(options, environment, allowed)?;
    let session_num = match (options.session_num, &cpusets) {
        (Some(n), _) => in_range("session_num", n, MAX_SESSIONS)?,
        (None, Some(sets)) => sets.entries().len(),
        (None, None) => {
            return Err(Error::invalid(
                "session_num is not set: say how many sessions the group shall have, or give a \
                 cpuset with an entry for each",
            ));
        }
    };
    if let Some(sets) = &cpusets
        && sets.entries().len() != session_num
    {
        return Err(Error::invalid(format!(
            "cpuset \"{sets}\" has {} entries, but session_num is {session_num}: give one entry \
             for each session",
            sets.entries().len()
        )));
    }
    let execution = execution(options, cpusets.is_some());
    let worker_threads = options
        .worker_threads
        .map(|n| in_range("the number of worker threads", n, MAX_WORKER_THREADS))
        .transpose()?;
    let (capacity, wait) = options.queue.unwrap_or((QUEUE_CAPACITY, false));
    let queue = Queue { capacity: in_range("the queue's capacity", capacity, MAX_QUEUE)?, wait };
    if matches!(options.policy, Policy::CpuLocal) && cpusets.is_none() {
        return Err(Error::invalid(
            "policy cpu_local needs CPUs for each session: set a cpuset, or choose another policy",
        ));
    }

    let sessions = (0..session_num)
        .map(|i| {
            let cpus = cpusets.as_ref().map(|sets| sets.entries()[i].clone());
            let share =
                cpus.as_ref().map_or_else(|| share(allowed.len(), session_num, i), CpuSet::len);
            SessionPlan {
                cpus,
                intra_op_threads: or_share(config.intra_op_threads, share),
                inter_op_threads: or_share(config.inter_op_threads, share),
                worker_threads: match execution {
                    Execution::Worker => worker_threads.unwrap_or(share),
                    _ => 0,
                },
            }
        })
        .collect();
    Ok(Plan { sessions, execution, policy: options.policy.clone(), queue })
}

fn in_range(name: &str, n: i32, most: usize) -> Result<usize> {
    usize::try_from(n)
        .ok()
        .filter(|n| (1..=most).contains(n))
        .ok_or_else(|| Error::invalid(format!("{name} is {n}: it must be 1 to {most}")))
}

fn check(config: &Config) -> Result<()> {
    if config.has_target {
        return Err(Error::invalid(
            "SessionOptions.target is set, but a session group runs in this process: leave the \
             target empty",
        ));
    }
    for (name, threads) in [
        ("intra_op_parallelism_threads", config.intra_op_threads),
        ("inter_op_parallelism_threads", config.inter_op_threads),
    ] {
        if threads < 0 {
            return Err(Error::invalid(format!(
                "{name} is {threads}: give the number of threads of each session, or 0 for one \
                 for each of its CPUs"
            )));
        }
    }
    Ok(())
}

/// What the program sets wins over what the environment says.
fn cpusets(
    options: &Options,
    environment: &Environment,
    allowed: &CpuSet,
) -> Result<Option<Cpusets>> {
    let cpusets = match (&options.cpusets, &environment.cpuset) {
        (Some(sets), _) => sets.clone(),
        (None, Some(text)) => text.parse().map_err(|error: Error| {
            Error::new(error.code, format!("{CPUSET_VARIABLE}: {}", error.message))
        })?,
        (None, None) => return Ok(None),
    };
    for (i, entry) in cpusets.entries().iter().enumerate() {
        if let Some(cpu) = entry.cpus().iter().find(|&&cpu| !allowed.contains(cpu)) {
            return Err(Error::invalid(format!(
                "cpuset \"{cpusets}\", entry {i} (\"{entry}\"): this process may not use CPU \
                 {cpu}, only {allowed}"
            )));
        }
    }
    Ok(Some(cpusets))
}

fn execution(options: &Options, pinned: bool) -> Execution {
    match options.execution {
        Execution::Auto if pinned && !matches!(options.policy, Policy::CpuLocal) => {
            Execution::Worker
        }
        Execution::Auto => Execution::Caller,
        chosen => chosen,
    }
}

/// The `i`th of `parts` shares of `whole`, as equal as can be, at least 1.
fn share(whole: usize, parts: usize, i: usize) -> usize {
    (whole / parts + usize::from(i < whole % parts)).max(1)
}

fn or_share(threads: i32, share: usize) -> i32 {
    if threads > 0 { threads } else { share as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(options: &Options, cpus: u32) -> Result<Plan> {
        let allowed = CpuSet::new(0..cpus).unwrap();
        plan(options, &Environment::default(), &Config::default(), &allowed)
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
    }

    #[test]
    fn the_config_decides_where_it_says_something() {
        let config = Config { intra_op_threads: 5, inter_op_threads: 7, ..Config::default() };
        let allowed = CpuSet::new(0..8).unwrap();
        let plan = plan(&options(2), &Environment::default(), &config, &allowed).unwrap();
        assert_eq!(plan.sessions[1].intra_op_threads, 5);
        assert_eq!(plan.sessions[1].inter_op_threads, 7);
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
        let environment = Environment { cpuset: Some("1;0".to_string()) };
        let allowed = CpuSet::new(0..2).unwrap();
        let mut options = options(2);
        let cpus = |options: &Options| {
            plan(options, &environment, &Config::default(), &allowed).unwrap().sessions[0]
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
        assert!(message.contains("4 entries") && message.contains("session_num is 3"), "{message}");

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
    fn an_environment_that_is_wrong_is_named() {
        let environment = Environment { cpuset: Some("0;x".to_string()) };
        let allowed = CpuSet::new(0..2).unwrap();
        let error = plan(&options(2), &environment, &Config::default(), &allowed).unwrap_err();
        assert!(error.message.starts_with(CPUSET_VARIABLE), "{error}");
    }

    #[test]
    fn a_target_or_negative_threads_are_errors() {
        let allowed = CpuSet::new(0..2).unwrap();
        for config in [
            Config { has_target: true, ..Config::default() },
            Config { intra_op_threads: -1, ..Config::default() },
            Config { inter_op_threads: -1, ..Config::default() },
        ] {
            assert!(plan(&options(2), &Environment::default(), &config, &allowed).is_err());
        }
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

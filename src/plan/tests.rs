//! What is decided, and what is refused.

use super::*;
use crate::cpus::topology::{Node, Topology};

use crate::options::environment::CPUSET_VARIABLE;

/// One node of single-thread cores.
fn machine(cpus: u32) -> Machine {
    let cores = (0..cpus).map(CpuSet::one).collect();
    let nodes = vec![Node { number: 0, cores }];
    Machine {
        allowed: CpuSet::new(0..cpus).unwrap(),
        topology: Ok(Topology { nodes }),
        gpus: Ok(2),
        quota: None,
        memory: 16 << 30,
    }
}

fn decide(options: &Options, cpus: u32) -> Result<Plan> {
    plan(options, &Environment::default(), &Config::default(), &machine(cpus))
}

fn options(session_num: i32) -> Options {
    let mut options = Options::new();
    options.session_num = Some(session_num);
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
    workers.execution(Execution::Worker);
    assert_eq!(decide(&workers, 3000).unwrap().sessions[0].worker_threads, 1024);
}

#[test]
fn a_quota_bounds_the_threads_as_the_allowed_cpus_do() {
    let within = |options: &Options, cpus, quota| {
        let machine = Machine { quota: Some(quota), ..machine(cpus) };
        plan(options, &Environment::default(), &Config::default(), &machine).unwrap()
    };
    assert_eq!(intra(&within(&options(2), 64, 3.5)), [2, 2]);
    assert_eq!(intra(&within(&options(4), 64, 0.2)), [1, 1, 1, 1]);
    assert_eq!(intra(&within(&options(2), 4, 64.0)), [2, 2]);
    assert!(within(&options(2), 64, 3.5).why.threads.contains("quota"));
    assert!(!within(&options(2), 4, 64.0).why.threads.contains("quota"));
    // So are those of sessions with CPUs of their own.
    let mut pinned = options(2);
    pinned.cpuset("0-7;8-15").unwrap();
    let planned = within(&pinned, 64, 4.0);
    assert_eq!(intra(&planned), [2, 2]);
    assert_eq!(planned.sessions[0].worker_threads, 2);
    // What the program says is left as it is.
    let config = Config { intra_op_threads: 5, inter_op_threads: 7, ..Config::default() };
    let machine = Machine { quota: Some(1.0), ..machine(8) };
    let planned = plan(&options(2), &Environment::default(), &config, &machine).unwrap();
    assert_eq!(intra(&planned), [5, 5]);
}

#[test]
fn without_a_policy_threads_stay_where_they_run_and_others_go_to_the_least_loaded() {
    let of = |execution, policy| {
        let mut options = options(2);
        options.execution(execution).policy(policy);
        decide(&options, 4).unwrap()
    };
    let auto = |execution| of(execution, Policy::Auto).policy.name();
    assert_eq!(auto(Execution::Caller), "thread");
    assert_eq!(auto(Execution::Auto), "thread");
    assert_eq!(auto(Execution::Worker), "least_loaded");
    assert_eq!(auto(Execution::Pool), "least_loaded");
    assert!(of(Execution::Auto, Policy::Auto).why.policy.contains("auto"));
    let chosen = of(Execution::Worker, Policy::RoundRobin);
    assert_eq!((chosen.policy.name(), chosen.why.policy), ("round_robin", "as the program set"));
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
    options.multi_stream(true);
    let plan = decide(&options, 12).unwrap();
    assert_eq!(intra(&plan), [2; 6]);
    assert_eq!(plan.sessions[3].stream_slot.unwrap(), StreamSlot { gpu: 1, stream: 1 });
    options.cpuset("0;1").unwrap();
    assert!(decide(&options, 12).unwrap_err().message.contains("has 6 sessions"));
    options.session_num(1000);
    assert!(decide(&options, 12).unwrap_err().message.contains("are 2000"));

    let mut by_cpuset = Options::new();
    by_cpuset.multi_stream(true).cpuset("0;1;2").unwrap();
    assert!(decide(&by_cpuset, 12).unwrap_err().message.contains("3 entries"));
    by_cpuset.cpuset("0;1;2;3").unwrap();
    assert_eq!(decide(&by_cpuset, 12).unwrap().sessions.len(), 4);
}

#[test]
fn a_cpuset_gives_the_number_and_the_sizes() {
    let mut options = Options::new();
    options.cpuset("0-2;3").unwrap();
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
    options.cpuset("0;1").unwrap();
    assert_eq!(cpus(&options).cpus(), [0]);
}

#[test]
fn contradictions_are_errors_that_name_both_sides() {
    let error = |options: &Options| decide(options, 4).unwrap_err().message;
    assert!(error(&Options::new()).contains("session_num is not set"));

    let mut mismatch = options(3);
    mismatch.cpuset("0;1;2;3").unwrap();
    let message = error(&mismatch);
    assert!(message.contains("4 entries") && message.contains("has 3 sessions"), "{message}");

    let mut unpinned = options(2);
    unpinned.policy(Policy::CpuLocal);
    assert!(error(&unpinned).contains("cpu_local needs"));

    let mut outside = options(2);
    outside.cpuset("0;3-4").unwrap();
    let message = error(&outside);
    assert!(message.contains("entry 1") && message.contains("CPU 4, only 0-3"), "{message}");
}

#[test]
fn numbers_out_of_range_are_errors() {
    for n in [0, -1, i32::MIN, 100_000] {
        let message = decide(&options(n), 4).unwrap_err().message;
        assert!(message.contains(&format!("session_num is {n}: it must be 1 to")), "{message}");
        let mut options = options(1);
        options.worker_threads = Some(n);
        assert!(decide(&options, 4).is_err());
    }
    assert!(decide(options(1).queue(0, true), 4).is_err());
    assert_eq!(decide(options(1).queue(7, true), 4).unwrap().queue.capacity, 7);
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
    let decide =
        |options: &Options| plan(options, &Environment::default(), &Config::default(), &unreadable);
    assert!(decide(options(2).cpuset("0;1").unwrap()).is_ok());
    assert_eq!(decide(options(2).affinity(true)).unwrap_err().message, "unreadable");
}

#[test]
fn tables_are_spread_over_the_nodes_of_the_sessions() {
    // Four nodes of four CPUs, the last of which has a number of its own.
    let nodes = [0, 1, 2, 8].iter().enumerate().map(|(i, &number)| {
        let first = i as u32 * 4;
        Node { number, cores: (first..first + 4).map(CpuSet::one).collect() }
    });
    let machine = Machine { topology: Ok(Topology { nodes: nodes.collect() }), ..machine(16) };
    let decide = |options: &Options| {
        let plan = plan(options, &Environment::default(), &Config::default(), &machine).unwrap();
        (plan.table_nodes, plan.why.tables)
    };
    assert_eq!(decide(&options(2)).0, [0, 1, 2, 8]);
    assert_eq!(decide(options(2).cpuset("4-7;12-15").unwrap()).0, [1, 8]);
    let (nodes, why) = decide(options(2).cpuset("4-5;6-7").unwrap());
    assert_eq!((&nodes[..], why.contains("one NUMA node")), (&[1][..], true));
    for off in [Optimization::InterleavedTables, Optimization::FastMemory] {
        let (nodes, why) = decide(options(2).optimization(off, false));
        assert!(nodes.is_empty() && why == "as the program set", "{why}");
    }
}

#[test]
fn an_environment_that_is_wrong_is_named() {
    let environment = Environment { cpuset: Some("0;x".to_string()), ..Environment::default() };
    let error = plan(&options(2), &environment, &Config::default(), &machine(2)).unwrap_err();
    assert!(error.message.starts_with(CPUSET_VARIABLE), "{error}");
}

#[test]
fn affinity_places_sessions_on_cores_of_their_own() {
    let variable =
        |value: &str| Environment { affinity: Some(value.to_string()), ..Environment::default() };
    let cpus = |options: &Options, environment: &Environment| -> Result<Vec<String>> {
        let plan = plan(options, environment, &Config::default(), &machine(5))?;
        Ok(plan.sessions.iter().flat_map(|s| &s.cpus).map(CpuSet::to_string).collect())
    };
    let pinned = ["0-2", "3-4"];
    assert_eq!(cpus(&options(2), &variable("1")).unwrap(), pinned);
    assert_eq!(cpus(options(2).affinity(true), &variable("0")).unwrap(), pinned);
    assert!(cpus(&options(2), &variable("0")).unwrap().is_empty());
    assert!(cpus(options(2).affinity(false), &variable("1")).unwrap().is_empty());
    assert!(cpus(options(2).affinity(false), &variable("yes")).unwrap().is_empty());
    let error = cpus(&options(2), &variable("yes")).unwrap_err();
    assert!(error.message.contains("SET_SESSION_THREAD_POOL_AFFINITY is \"yes\""), "{error}");
    let error = cpus(&options(6), &variable("1")).unwrap_err();
    assert!(error.message.contains("5 physical cores"), "{error}");
    // A cpuset says more than affinity; in the program, both are a contradiction.
    let both = Environment { cpuset: Some("4;0".to_string()), ..variable("1") };
    assert_eq!(cpus(&options(2), &both).unwrap(), ["4", "0"]);
    let mut both = options(2);
    both.cpuset("0;1").unwrap().affinity(true);
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
        options.execution(execution);
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
        let options = Options { drain_timeout_ms: ms, ..options(1) };
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
    local.cpuset("0;1").unwrap().policy(Policy::CpuLocal);
    assert_eq!(decide(&local, 2).unwrap().execution, Execution::Caller);
    local.execution(Execution::Pool);
    assert_eq!(decide(&local, 2).unwrap().execution, Execution::Pool);
}

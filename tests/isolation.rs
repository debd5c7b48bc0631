//! Threads are each session's own, named and pinned as they should be: read back from /proc. The
//! tests of this file take turns, since they look at all threads of the process.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;

use common::{config, load, options};
use session_group::cpuset::CpuSet;
use session_group::execution::Execution;
use session_group::policy::Policy;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{SessionGroup, topology};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> impl Drop {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The groups' threads: name without the group's number, CPUs, clock ticks of processor time.
fn threads() -> Vec<(String, String, u64)> {
    let mut threads = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let name = read("comm").trim().to_string();
        let Some((group, rest)) = name.split_once('.') else { continue };
        if !group.starts_with("sg") {
            continue;
        }
        let status = read("status");
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        // The fields after the name, which ends with a parenthesis: state, ... utime is the 12th.
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        threads.push((rest.to_string(), cpus.unwrap().trim().to_string(), ticks));
    }
    threads
}

/// How many threads there are of each name and mask.
fn counted() -> BTreeMap<(String, String), usize> {
    let mut counted = BTreeMap::new();
    for (name, cpus, _) in threads() {
        *counted.entry((name, cpus)).or_default() += 1;
    }
    counted
}

fn expected(rows: &[(&str, &str, usize)]) -> BTreeMap<(String, String), usize> {
    rows.iter().map(|&(name, cpus, n)| ((name.to_string(), cpus.to_string()), n)).collect()
}

fn serve(group: &SessionGroup) {
    let request = common::wide_deep_request(&mut common::Numbers(3), 4);
    for _ in 0..2 * group.session_num() {
        group.run(&common::feeds(&request), &["StatefulPartitionedCall:0"], &[]).unwrap();
    }
}

/// Two CPUs of this machine, which may be the same where it has only one.
fn two_cpus() -> (u32, u32) {
    let allowed = topology::allowed().unwrap();
    let cpus = allowed.cpus();
    (cpus[0], cpus[cpus.len() - 1])
}

#[test]
fn every_thread_of_a_session_carries_its_name_and_its_mask() {
    let _turn = turn();
    assert_eq!(counted(), expected(&[]));
    let (a, b) = two_cpus();
    let both = CpuSet::new([a, b]).unwrap().to_string();
    let mut group_options = options(3);
    group_options.cpuset(&format!("{a};{b};{both}")).unwrap().worker_threads(2);
    // intra_op_parallelism_threads = 2, inter_op_parallelism_threads = 3
    let session_options = config(&[0x10, 2, 0x28, 3]);
    let dir = common::dir("wide_deep");
    let group =
        SessionGroup::load(&session_options, None, &dir, &["serve"], &group_options, None).unwrap();
    let (a, b) = (a.to_string(), b.to_string());
    let rows = [
        ("s0-intra", a.as_str(), 2),
        ("s0-inter", &a, 3),
        ("s0-work", &a, 2),
        ("s1-intra", &b, 2),
        ("s1-inter", &b, 3),
        ("s1-work", &b, 2),
        ("s2-intra", &both, 2),
        ("s2-inter", &both, 3),
        ("s2-work", &both, 2),
    ];
    assert_eq!(counted(), expected(&rows));
    serve(&group);
    assert_eq!(counted(), expected(&rows), "serving changes no thread");
    group.close().unwrap();
    assert_eq!(counted(), expected(&[]), "closing ends all threads");
}

#[test]
fn pools_have_the_size_of_the_cpuset_where_the_config_leaves_it_open() {
    let _turn = turn();
    let (a, b) = two_cpus();
    let both = CpuSet::new([a, b]).unwrap();
    let mut group_options = options(1);
    group_options.cpuset(&both.to_string()).unwrap();
    let group = SessionGroup::new(&SessionOptions::new(), &group_options).unwrap();
    let (cpus, n) = (both.to_string(), both.len());
    let rows = [("s0-intra", &*cpus, n), ("s0-inter", &*cpus, n), ("s0-work", &*cpus, n)];
    assert_eq!(counted(), expected(&rows));
    drop(group);
}

/// As in TensorFlow, which then has one thread for what can't run on the calling one, and which ends the
/// process for the numbers that are refused.
#[test]
fn negative_inter_op_threads_run_graphs_on_the_calling_thread() {
    let _turn = turn();
    let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let load = |fields: &[u8], execution| {
        let mut group_options = options(2);
        group_options.execution(execution);
        let config = config(&[fields, &minus_one].concat());
        let model = common::dir("wide_deep");
        SessionGroup::load(&config, None, &model, &["serve"], &group_options, None)
    };
    let inter_op = |group: &SessionGroup| {
        serve(group);
        let of_session = |name: &str| name == "s1-inter";
        threads().iter().filter(|(name, ..)| of_session(name)).count()
    };
    // inter_op_parallelism_threads (field 5)
    let group = load(&[0x28], Execution::Auto).unwrap();
    assert_eq!(inter_op(&group), 1);
    let described = group.describe();
    assert!(described.contains("\"execution\":\"caller\""), "{described}");
    drop(group);
    let error = load(&[0x28], Execution::Pool).err().expect("a contradiction");
    assert!(error.message.contains("execution pool") && error.message.contains("-1"), "{error}");
    // With use_per_session_threads (field 9), TensorFlow takes it for 0.
    let group = load(&[0x48, 1, 0x28], Execution::Pool).unwrap();
    assert!(inter_op(&group) >= 1);
    drop(group);
    // intra_op_parallelism_threads (field 2)
    let error = load(&[0x10], Execution::Auto).err().expect("TensorFlow would end the process");
    assert!(error.message.contains("intra_op_parallelism_threads is -1"), "{error}");
    // session_inter_op_thread_pool (field 12) with num_threads (field 1)
    let error = load(&[0x62, 11, 0x08], Execution::Auto).err().expect("the same");
    assert!(error.message.contains("session_inter_op_thread_pool"), "{error}");
}

#[test]
fn groups_and_models_have_pools_of_their_own() {
    let _turn = turn();
    // intra = 3, inter = 1; then intra = 1, inter = 2
    let (three, one) = (config(&[0x10, 3, 0x28, 1]), config(&[0x10, 1, 0x28, 2]));
    let all = topology::allowed().unwrap().to_string();
    let first = SessionGroup::new(&three, &options(1)).unwrap();
    first.create(&common::graph_def("mlp_frozen")).unwrap();
    let second = SessionGroup::new(&one, &options(1)).unwrap();
    second.create(&common::graph_def("init_op")).unwrap();
    assert_eq!(counted(), expected(&[("s0-intra", &all, 4), ("s0-inter", &all, 3)]));
    drop(first);
    assert_eq!(counted(), expected(&[("s0-intra", &all, 1), ("s0-inter", &all, 2)]));
}

#[test]
fn a_pinned_caller_does_not_pass_its_cpu_on() {
    let _turn = turn();
    let allowed = topology::allowed().unwrap();
    let one = CpuSet::one(allowed.cpus()[0]);
    let one_thread = common::one_thread();
    let made = session_group::affinity::on_thread("pinned", Some(&one), || {
        SessionGroup::new(&one_thread, &options(1))
    });
    let group = made.unwrap();
    let all = allowed.to_string();
    assert_eq!(counted(), expected(&[("s0-intra", &all, 1), ("s0-inter", &all, 1)]));
    drop(group);
}

#[test]
fn heavy_work_runs_on_the_threads_of_its_own_session() {
    let _turn = turn();
    let session_options = config(&[0x10, 4, 0x28, 1]);
    let group = SessionGroup::new(&session_options, &options(2)).unwrap();
    group.create(&common::graph_def("mlp_frozen")).unwrap();
    let x = Tensor::from_slice(&[20_000, 64], &vec![0.5f32; 20_000 * 64]).unwrap();
    let request = session_group::Request {
        inputs: &[("x", &x)],
        outputs: &["y"],
        session: Some(1),
        ..session_group::Request::default()
    };
    for _ in 0..40 {
        group.run_request(&request, None).unwrap();
    }
    let ticks = |session: &str| -> u64 {
        let own = |(name, ..): &&(String, String, u64)| name.starts_with(session);
        threads().iter().filter(own).map(|(_, _, ticks)| ticks).sum()
    };
    println!("ticks: session 0 {}, session 1 {}", ticks("s0-intra"), ticks("s1-intra"));
    assert!(ticks("s1-intra") > 5, "its intra-op threads have worked");
    // The threads of an idle pool spin for a moment when they start.
    assert!(ticks("s0-intra") * 4 < ticks("s1-intra"), "those of the other session have not");
}

#[test]
fn callers_of_cpu_local_are_sent_to_the_session_of_their_cpu() {
    let _turn = turn();
    let (a, b) = two_cpus();
    let mut group_options = options(2);
    group_options.cpuset(&format!("{a};{b}")).unwrap().policy(Policy::CpuLocal);
    let group = load("wide_deep", &group_options);
    assert!(group.describe().contains("\"execution\":\"caller\""));
    if a == b {
        return; // One CPU only.
    }
    for (session, cpu) in [a, b].into_iter().enumerate() {
        let before = group.stats(session).unwrap().runs();
        let pinned = CpuSet::new([cpu]);
        session_group::affinity::on_thread("client", pinned.as_ref(), || {
            (0..5).for_each(|_| serve(&group));
            Ok(())
        })
        .unwrap();
        assert_eq!(group.stats(session).unwrap().runs() - before, 20);
    }
}

#[test]
fn callers_are_never_pinned() {
    let _turn = turn();
    let before = session_group::affinity::allowed().unwrap();
    let mut group_options = options(1);
    group_options.cpuset(&two_cpus().0.to_string()).unwrap();
    for execution in [Execution::Caller, Execution::Worker, Execution::Pool] {
        serve(&load("wide_deep", group_options.execution(execution)));
    }
    assert!(group_options.cpuset("0;x").is_err());
    assert_eq!(session_group::affinity::allowed().unwrap(), before);
}

/// Makes this test program a process that says what a group is made of, in another environment.
const DESCRIBE: &str = "TEST_ISOLATION_DESCRIBE";

#[test]
fn described_in_a_process_of_its_own() {
    if let Ok(sessions) = std::env::var(DESCRIBE) {
        let options = options(sessions.parse().unwrap());
        match SessionGroup::new(&SessionOptions::new(), &options) {
            Ok(group) => println!("\nanswer={}\nthreads={:?}", group.describe(), counted()),
            Err(error) => println!("\nanswer={error}\nthreads="),
        }
    }
}

/// What a group of so many sessions says of itself, and its threads, in a process that may use
/// `cpus` and has these variables.
fn described(sessions: usize, cpus: &str, variables: &[(&str, &str)]) -> (String, String) {
    let output = Command::new("taskset")
        .args(["--cpu-list", cpus])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "described_in_a_process_of_its_own"])
        .env(DESCRIBE, sessions.to_string())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |key| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_string();
    (line("answer="), line("threads="))
}

#[test]
fn the_environment_pins_as_it_says() {
    let (a, b) = two_cpus();
    let both = CpuSet::new([a, b]).unwrap().to_string();
    let cpuset = format!("{b};{a}");
    let (answer, threads) = described(2, &both, &[("SESSION_GROUP_CPUSET", &cpuset)]);
    assert!(answer.contains("\"cpus\":\"SESSION_GROUP_CPUSET\""), "{answer}");
    assert!(threads.contains(&format!("(\"s0-intra\", \"{b}\"): 1")), "{threads}");
    assert!(threads.contains(&format!("(\"s1-inter\", \"{a}\"): 1")), "{threads}");

    let affinity = [("SET_SESSION_THREAD_POOL_AFFINITY", "1")];
    let (answer, threads) = described(1, &both, &affinity);
    assert!(answer.contains("\"cpus\":\"SET_SESSION_THREAD_POOL_AFFINITY\""), "{answer}");
    assert!(answer.contains("\"numa_nodes\":["), "{answer}");
    assert!(threads.contains(&format!("(\"s0-work\", \"{both}\")")), "{threads}");
}

#[test]
fn the_mask_of_the_process_is_respected() {
    let (a, _) = two_cpus();
    let only = a.to_string();
    let (answer, threads) = described(2, &only, &[]);
    assert!(answer.contains(&format!("\"allowed_cpus\":\"{only}\"")), "{answer}");
    assert!(threads.contains(&format!("(\"s1-intra\", \"{only}\"): 1")), "{threads}");
    // A CPU outside of it is refused, and so are more sessions than there are cores.
    let outside = format!("{a};{}", a + 1);
    let (answer, _) = described(2, &only, &[("SESSION_GROUP_CPUSET", &outside)]);
    assert!(answer.contains(&format!("may not use CPU {}, only {only}", a + 1)), "{answer}");
    let (answer, _) = described(2, &only, &[("SET_SESSION_THREAD_POOL_AFFINITY", "1")]);
    assert!(answer.contains("may use 1 physical cores"), "{answer}");
}

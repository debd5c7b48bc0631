//! Faults: what the system refuses, what hangs, what is broken. Each is a status, and the group, or the
//! process, goes on. What would harm other tests happens in a process of its own.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{create, dir, load, model, one_thread, options, proc_bytes, proc_entries, run_on};
use session_group::cpuset::CpuSet;
use session_group::execution::Execution;
use session_group::policy::{Choose, Load, Policy};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Code, Options, Request, Result, SessionGroup};

const EXECUTIONS: [Execution; 3] = [Execution::Caller, Execution::Worker, Execution::Pool];

/// The name of the child of [`CHILDREN`] that this process is to be.
const CHILD: &str = "TEST_FAULTS_CHILD";
/// How a child ends that has found all as it should be: not by returning, which TensorFlow could delay.
const FINE: i32 = 42;

const CHILDREN: [(&str, fn()); 10] = [
    ("memory", requests_without_memory),
    ("threads", groups_without_threads),
    ("files", a_load_without_room_for_files),
    ("signals", a_load_under_signals),
    ("load", a_load_without_end),
    ("exit", an_exit_with_idle_groups),
    ("_exit", an_exit_with_requests),
    ("truncated", truncated_files),
    ("failures", failures),
    ("cpus", cpus_that_go_away),
];

#[test]
fn in_a_process_of_its_own() {
    if let Ok(name) = std::env::var(CHILD) {
        let child = CHILDREN.iter().find(|(known, _)| *known == name);
        child.expect("a child of this name").1();
        std::process::exit(FINE);
    }
}

fn command(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "in_a_process_of_its_own"]).env(CHILD, name);
    command
}

fn child(name: &str) -> ExitStatus {
    ended(command(name).spawn().unwrap())
}

/// Waits for a child, which is not to be stuck.
fn ended(mut child: Child) -> ExitStatus {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(300) {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("it was stuck");
}

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is valid.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

fn timeout(ms: i64) -> RunOptions {
    let mut options = RunOptions::parse(&[]).unwrap();
    options.set_timeout_ms(ms);
    options
}

#[test]
fn a_request_without_memory_fails_alone() {
    assert_eq!(child("memory").code(), Some(FINE));
}

fn requests_without_memory() {
    let serve = |execution| {
        let mut group_options = options(2);
        group_options.execution(execution);
        create("mlp_frozen", &group_options)
    };
    let groups = EXECUTIONS.map(serve);
    let small = Tensor::from_slice(&[1, 64], &[0.5f32; 64]).unwrap();
    let answers: Vec<_> =
        groups.iter().map(|group| group.run(&[("x:0", &small)], &["y:0"], &[]).unwrap()).collect();
    // 64 MB of input, 256 MB between the layers.
    let rows = 250_000;
    let large = Tensor::from_slice(&[rows, 64], &vec![0.5f32; rows as usize * 64]).unwrap();
    limit(libc::RLIMIT_AS, proc_bytes("status", "VmSize:") + (100 << 20));
    for (group, answer) in std::iter::zip(&groups, &answers) {
        for _ in 0..4 {
            let error = group.run(&[("x:0", &large)], &["y:0"], &[]).err().expect("no memory");
            assert_eq!(error.code, Code::ResourceExhausted, "{error}");
            let again = group.run(&[("x:0", &small)], &["y:0"], &[]).unwrap();
            assert!(common::same(&again, answer));
        }
    }
}

#[test]
fn a_group_whose_threads_the_system_refuses_is_not_made() {
    assert_eq!(child("threads").code(), Some(FINE));
}

fn groups_without_threads() {
    // intra_op_parallelism_threads (field 2) and inter_op_parallelism_threads (field 5) of 600.
    let many = common::config(&[0x10, 0xd8, 0x04, 0x28, 0xd8, 0x04]);
    let before = SessionGroup::new(&one_thread(), &options(2)).unwrap();
    let threads = proc_entries("task");
    // Stacks are 8 MB of address space each.
    limit(libc::RLIMIT_STACK, 8 << 20);
    limit(libc::RLIMIT_AS, proc_bytes("status", "VmSize:") + (800 << 20));
    for _ in 0..3 {
        let error = SessionGroup::new(&many, &options(2)).err().expect("no room for threads");
        assert_eq!(error.code, Code::ResourceExhausted, "{error}");
        assert!(error.message.contains("needs 24") && error.message.contains("ulimit"), "{error}");
    }
    assert_eq!(proc_entries("task"), threads);
    // What fits is made.
    let after = SessionGroup::new(&one_thread(), &options(2)).unwrap();
    drop((before, after));
}

#[test]
fn loading_writes_no_files() {
    // What is logged may go to a file.
    let child = command("files").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(ended(child).code(), Some(FINE));
}

/// As on a disk that is full: whoever writes to a file is ended by a signal.
fn a_load_without_room_for_files() {
    limit(libc::RLIMIT_FSIZE, 0);
    for case in common::cases() {
        let group = case.group(&options(2));
        case.run(&group, 0);
        group.close().unwrap();
    }
}

#[test]
fn signals_do_not_disturb_loading() {
    assert_eq!(child("signals").code(), Some(FINE));
}

/// A handler that does not restart what it has interrupted.
fn a_load_under_signals() {
    extern "C" fn handle(_: libc::c_int) {}
    // SAFETY: the handler does nothing; the timer is this process' own.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        for signal in [libc::SIGTERM, libc::SIGALRM] {
            assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
        }
        let every = libc::timeval { tv_sec: 0, tv_usec: 500 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                // SAFETY: handled.
                unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        for _ in 0..3 {
            for case in common::cases() {
                let answers = case.stock_answers();
                let group = case.group(options(2).execution(Execution::Worker));
                assert!(common::same(&case.run(&group, 0), &answers[0]), "{}", case.name);
            }
        }
        over.store(true, Relaxed);
    });
}

/// By default SIGTERM ends a process, also one that loads.
#[test]
fn sigterm_ends_a_process_that_loads() {
    for ms in [0, 30, 100, 300, 700, 1500] {
        let child = command("load").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(ms));
        // SAFETY: the child is ours.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        assert_eq!(ended(child).signal(), Some(libc::SIGTERM));
    }
}

fn a_load_without_end() {
    loop {
        drop(load("wide_deep_large", &options(2)));
    }
}

/// With groups that are open, but idle; by `_exit()`, also while requests run. By `exit()` that is no way
/// to end: it destroys what the kernels of TensorFlow use, in a stock session, too.
#[test]
fn a_process_with_open_groups_ends() {
    for name in ["exit", "_exit"] {
        for _ in 0..4 {
            assert_eq!(child(name).code(), Some(FINE), "{name}");
        }
    }
}

/// Lets clients send requests to groups that nobody closes; as "exit", ends them.
fn clients() {
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    let over = Arc::new(AtomicBool::new(false));
    let groups: &'static _ = Box::leak(Box::new(EXECUTIONS.map(|execution| {
        let mut group_options = options(2);
        group_options.execution(execution);
        load("wide_deep", &group_options)
    })));
    let clients: Vec<_> = (0..9)
        .map(|client| {
            let (group, over) = (&groups[client % groups.len()], over.clone());
            std::thread::spawn(move || {
                let request = common::wide_deep_request(&mut common::Numbers(client as u64), 4);
                let inputs = common::feeds(&request);
                while !over.load(Relaxed) {
                    group.run(&inputs, &["StatefulPartitionedCall:0"], &[]).unwrap();
                    SERVED.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    while SERVED.load(Relaxed) < 300 {
        assert!(!clients.iter().any(JoinHandle::is_finished), "a request failed");
        std::thread::sleep(Duration::from_millis(1));
    }
    if std::env::var(CHILD).is_ok_and(|name| name == "exit") {
        over.store(true, Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    }
}

fn an_exit_with_idle_groups() {
    clients();
    std::process::exit(FINE);
}

fn an_exit_with_requests() {
    clients();
    // SAFETY: no precondition.
    unsafe { libc::_exit(FINE) };
}

/// A kernel that hangs: its request's timeout frees the caller, and the session serves on.
#[test]
fn a_kernel_that_hangs_keeps_nobody_beyond_the_timeout() {
    for execution in EXECUTIONS {
        let mut group_options = options(2);
        group_options.execution(execution).worker_threads(1);
        let group = create("waits", &group_options);
        let x = Tensor::from_slice(&[], &[7f32]).unwrap();
        let ask = |session, inputs: &[(&str, &Tensor)], outputs: &[&str], targets: &[&str], ms| {
            let short = timeout(ms);
            let session = Some(session);
            let request = Request { inputs, outputs, targets, options: Some(&short), session };
            group.run_request(&request, None)
        };
        let begun = Instant::now();
        for session in 0..2 {
            let error = ask(session, &[], &["got"], &[], 50).err().expect("nothing to get");
            assert_eq!(error.code, Code::DeadlineExceeded, "{execution}: {error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{execution}");
        for session in 0..2 {
            ask(session, &[("x", &x)], &[], &["put"], 60_000).unwrap();
            // The queue is full, of whichever session.
            let error = ask(1 - session, &[("x", &x)], &[], &["put"], 50).err().expect("no room");
            assert_eq!(error.code, Code::DeadlineExceeded, "{execution}: {error}");
            let got = ask(1 - session, &[], &["got"], &[], 60_000).unwrap();
            assert_eq!(got[0].to_vec::<f32>().unwrap(), [7.0], "{execution}");
        }
        let late: u64 =
            (0..2).map(|i| group.stats(i).unwrap().errors(Code::DeadlineExceeded)).sum();
        assert_eq!(late, 4, "{execution}: they are reported");
        group.close().unwrap();
    }
}

/// A kernel that fails, in the middle of others: the next request is not harmed.
#[test]
fn a_kernel_that_fails_fails_its_request() {
    for execution in EXECUTIONS {
        let mut group_options = options(2);
        group_options.execution(execution);
        let group = load("lookups", &group_options);
        let case = common::cases().into_iter().find(|case| case.name == "lookups").unwrap();
        let good = case.run(&group, 0);
        let out_of_range = Tensor::from_slice(&[1, 3], &[1i64, 2, 1_000_000]).unwrap();
        let mut wrong = common::feeds(&case.requests[0]);
        wrong[0].1 = &out_of_range;
        for session in [0, 1, 0, 1] {
            let error =
                run_on(&group, session, &wrong, case.outputs, &[]).err().expect("no such row");
            assert_eq!(error.code, Code::InvalidArgument, "{execution}: {error}");
            assert!(common::same(&case.run(&group, 0), &good), "{execution}");
        }
    }
}

/// Graphs for which stock TensorFlow ends the process: by an exception that nobody catches, which leaves
/// its session locked, by a check of its optimisers, by a size that does not fit into an int.
#[test]
fn graphs_that_tensorflow_can_not_bear_are_a_status() {
    let exception = include_bytes!("../fuzz/seeds/graph_def/exception");
    let group = SessionGroup::new(&one_thread(), &options(2)).unwrap();
    assert_eq!(group.create(exception).unwrap_err().code, Code::Internal);
    for _ in 0..2 {
        let error = group.create(&common::graph_def("trivial")).unwrap_err();
        assert!(error.message.contains("make a new group"), "{error}");
    }
    // The session stays in memory.
    assert_eq!(group.close().unwrap_err().code, Code::Internal);
    group.close().unwrap();

    // A constant without its value.
    let mut graph_def = common::graph_def("trivial");
    let at = graph_def.windows(7).position(|bytes| bytes == b"\x0a\x05value").expect("a constant");
    graph_def[at + 2] = b'V';
    let group = SessionGroup::new(&one_thread(), &options(2)).unwrap();
    let error = group.create(&graph_def).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("no attribute value"), "{error}");
    group.create(&common::graph_def("trivial")).unwrap();
    assert_eq!(ask(&group, None), Ok(1));
}

/// Every file of a model, cut off at many lengths: a status each time, and nothing is left of it.
#[test]
fn truncated_files_are_a_status_and_leave_nothing_behind() {
    assert_eq!(child("truncated").code(), Some(FINE));
}

fn truncated_files() {
    let copy = Copy::of("wide_deep");
    let attempt =
        || SessionGroup::load(&one_thread(), None, copy.path(), &["serve"], &options(2), None);
    let mut refused = 0;
    let mut sweep = || {
        for file in copy.files() {
            let whole = fs::read(&file).unwrap();
            for eighth in 0..8 {
                fs::write(&file, &whole[..whole.len() * eighth / 8]).unwrap();
                if let Err(error) = attempt() {
                    assert!(error.message.contains(copy.path()), "{error}");
                    refused += 1;
                }
            }
            fs::write(&file, &whole).unwrap();
        }
    };
    sweep();
    let left = || (proc_entries("task"), proc_entries("fd"));
    let before = left();
    sweep();
    assert_eq!(left(), before);
    // The fingerprint and the debug information are for people.
    assert!(refused >= 2 * 3 * 7, "{refused}");
    attempt().unwrap();
}

/// The same for bytes that are not those of the file.
#[test]
fn files_of_something_else_are_a_status() {
    let copy = Copy::of("wide_deep");
    for file in copy.files() {
        let whole = fs::read(&file).unwrap();
        for garbage in [vec![0xff; whole.len()], b"<html>404</html>".to_vec()] {
            fs::write(&file, garbage).unwrap();
            let result =
                SessionGroup::load(&one_thread(), None, copy.path(), &["serve"], &options(2), None);
            if let Err(error) = result {
                assert!(error.message.contains(copy.path()), "{error}");
            }
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let _ = SessionGroup::load(&one_thread(), None, copy.path(), &["serve"], &options(2), None);
        fs::remove_dir(&file).unwrap();
        fs::write(&file, whole).unwrap();
    }
    drop(
        SessionGroup::load(&one_thread(), None, copy.path(), &["serve"], &options(2), None)
            .unwrap(),
    );
}

/// A copy of a model, to be broken.
struct Copy(PathBuf);

impl Copy {
    fn of(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let to = std::env::temp_dir()
            .join(format!("session_group_faults.{}.{number}", std::process::id()));
        copy_folder(&model(name), &to);
        Self(to)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Those that loading needs.
    fn files(&self) -> Vec<PathBuf> {
        let variables = fs::read_dir(self.0.join("variables")).unwrap();
        let mut files: Vec<_> = variables.map(|entry| entry.unwrap().path()).collect();
        files.push(self.0.join("saved_model.pb"));
        files
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// CPUs are taken away from a group that serves, as by taking them offline or by a smaller cpuset of the
/// container: Linux moves its threads, and it serves on.
#[test]
fn cpus_that_go_away_do_not_disturb() {
    assert_eq!(child("cpus").code(), Some(FINE));
}

fn cpus_that_go_away() {
    let allowed = session_group::affinity::allowed().unwrap();
    let &[first, .., last] = allowed.cpus() else {
        panic!("needs two CPUs");
    };
    for (execution, policy) in [
        (Execution::Caller, Policy::CpuLocal),
        (Execution::Worker, Policy::RoundRobin),
        (Execution::Pool, Policy::LeastLoaded),
    ] {
        let mut group_options = options(2);
        group_options.cpuset(&format!("{first};{last}")).unwrap();
        group_options.execution(execution).policy(policy);
        let group = load("wide_deep", &group_options);
        let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        let request = common::wide_deep_request(&mut common::Numbers(7), 4);
        let inputs = common::feeds(&request);
        let expected = group.run(&inputs, &["StatefulPartitionedCall:0"], &[]).unwrap();
        let wait_for_more = || {
            let seen = served.load(Relaxed);
            while served.load(Relaxed) < seen + 200 {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        while !over.load(Relaxed) {
                            let got = group.run(&inputs, &["StatefulPartitionedCall:0"], &[]);
                            assert!(common::same(&got.unwrap(), &expected));
                            served.fetch_add(1, Relaxed);
                        }
                    })
                })
                .collect();
            wait_for_more();
            let masks = threads_that_may_use(&CpuSet::one(last));
            confine(masks.keys().copied(), &CpuSet::one(first));
            assert_eq!(threads_that_may_use(&CpuSet::one(last)), BTreeMap::new());
            wait_for_more();
            for (&thread, mask) in &masks {
                confine([thread], mask);
            }
            assert_eq!(threads_that_may_use(&CpuSet::one(last)), masks);
            wait_for_more();
            over.store(true, Relaxed);
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        group.close().unwrap();
    }
}

/// The threads of this process whose masks have any of these CPUs, with their masks.
fn threads_that_may_use(cpus: &CpuSet) -> BTreeMap<u32, CpuSet> {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|thread| Some((thread, session_group::affinity::allowed_to(thread).ok()?)))
        .filter(|(_, mask)| cpus.cpus().iter().any(|cpu| mask.contains(*cpu)))
        .collect()
}

fn confine(threads: impl IntoIterator<Item = u32>, cpus: &CpuSet) {
    for thread in threads {
        // Threads that have ended meanwhile are no failure.
        let _ = Command::new("taskset")
            .args(["--pid", "--cpu-list", &cpus.to_string(), &thread.to_string()])
            .output()
            .unwrap();
    }
}

/// A policy that does something with its own group before it answers.
struct Reenters {
    group: OnceLock<Arc<SessionGroup>>,
    act: fn(&SessionGroup) -> Result<i32>,
    said: Mutex<Option<Result<i32>>>,
}

impl Choose for Reenters {
    fn choose(&self, _: &Load<'_>) -> Result<i32> {
        let result = self.group.get().map_or(Ok(0), |group| (self.act)(group));
        *self.said.lock().unwrap() = Some(result.clone());
        result
    }
}

fn ask(group: &SessionGroup, session: Option<usize>) -> Result<i32> {
    let x = Tensor::from_slice(&[1], &[1f32])?;
    let request = Request { inputs: &[("x", &x)], outputs: &["y"], session, ..Request::default() };
    group.run_request(&request, None).map(|_| 1)
}

#[test]
fn a_policy_that_reenters_its_group_is_told_how() {
    for execution in EXECUTIONS {
        let reenter = |act: fn(&SessionGroup) -> Result<i32>| {
            let policy = Arc::new(Reenters { group: OnceLock::new(), act, said: Mutex::new(None) });
            let mut group_options = options(2);
            group_options.execution(execution).policy(Policy::Custom(policy.clone()));
            let group = Arc::new(create("trivial", &group_options));
            assert!(policy.group.set(group.clone()).is_ok());
            let result = ask(&group, None);
            let said = policy.said.lock().unwrap().clone().expect("the policy was asked");
            assert_eq!(result, said.clone().map(|_| 1), "an error of the policy is the request's");
            // It is asked again, and not stuck.
            assert_eq!(ask(&group, None), result);
            said
        };
        let error = reenter(|group| ask(group, None)).unwrap_err();
        assert_eq!(error.code, Code::FailedPrecondition, "{execution}");
        assert!(error.message.contains("SessionGroup_RunOn"), "{error}");
        // By a session's number, and for statistics, it may.
        assert_eq!(reenter(|group| ask(group, Some(0))), Ok(1));
        assert_eq!(reenter(|group| Ok(i32::from(group.stats(0).is_none()))), Ok(0));
    }
}

/// A policy that blocks keeps its own callers waiting, and nobody else.
#[test]
fn a_policy_that_blocks_does_not_keep_others() {
    struct Blocks(Mutex<()>);
    impl Choose for Blocks {
        fn choose(&self, _: &Load<'_>) -> Result<i32> {
            drop(self.0.lock());
            Ok(0)
        }
    }
    let policy = Arc::new(Blocks(Mutex::new(())));
    let mut group_options = options(2);
    group_options.policy(Policy::Custom(policy.clone()));
    let group = create("trivial", &group_options);
    let blocked = policy.0.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&group, None));
        assert_eq!(ask(&group, Some(1)), Ok(1));
        // Not even closing waits for who is still being told where to go.
        group.close().unwrap();
        drop(blocked);
        assert_eq!(waiting.join().unwrap().unwrap_err().code, Code::FailedPrecondition);
    });
}

/// What a group reads of the process, it leaves as it was.
#[test]
fn the_environment_is_left_alone() {
    let before: Vec<_> = std::env::vars_os().collect();
    drop(load("wide_deep", &options(2)));
    assert_eq!(std::env::vars_os().collect::<Vec<_>>(), before);
}

/// TensorFlow's own factory of sessions refuses a name that it has seen, also after a failure.
#[test]
fn session_metadata_does_not_keep_names() {
    // experimental (field 16) { session_metadata (field 11) { name: "m" version: 1 } }
    let named = [0x10, 1, 0x28, 1, 0x82, 1, 7, 0x5a, 5, 0x0a, 1, b'm', 0x10, 1];
    let options = options(2);
    let make = || SessionGroup::new(&common::config(&named), &options).unwrap();
    assert!(make().create(b"no graph").is_err());
    let groups = [make(), make()];
    for group in &groups {
        group.create(&common::graph_def("trivial")).unwrap();
        assert_eq!(ask(group, None), Ok(1));
    }
}

/// Making groups that are refused late, and loading what isn't there, again and again.
#[test]
fn failures_leave_nothing_behind() {
    assert_eq!(child("failures").code(), Some(FINE));
}

fn failures() {
    let fail = || {
        let mut group_options = Options::new();
        group_options.session_num(2).execution(Execution::Worker);
        assert!(
            SessionGroup::load(
                &one_thread(),
                None,
                "/nonexistent",
                &["serve"],
                &group_options,
                None
            )
            .is_err()
        );
        assert!(
            SessionGroup::load(
                &one_thread(),
                None,
                dir("wide_deep"),
                &["no"],
                &group_options,
                None
            )
            .is_err()
        );
        let group = SessionGroup::new(&SessionOptions::new(), &group_options).unwrap();
        assert!(group.create(b"no graph").is_err());
        assert!(ask(&group, None).is_err());
    };
    fail();
    let left = || (proc_entries("task"), proc_entries("fd"));
    let before = left();
    (0..50).for_each(|_| fail());
    assert_eq!(left(), before);
}

/// Their large constants are looked at before TensorFlow looks at the graph.
#[test]
fn malformed_graphs_with_large_constants_are_refused() {
    for name in [
        "malformed_cycle",
        "malformed_loop",
        "malformed_twice",
        "malformed_inputs",
        "malformed_references",
    ] {
        let group = SessionGroup::new(&common::one_thread(), &options(2)).unwrap();
        let error = group.create(&common::graph_def(name)).err().unwrap();
        assert_eq!(error.code, Code::InvalidArgument, "{name}: {error}");
    }
}

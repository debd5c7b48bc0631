//! Closing ends: requests have the drain timeout to finish, are cancelled then, and keep what they use if
//! even that does not end them.

mod common;

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use common::{create, load, options};
use session_group::execution::Execution;
use session_group::tensorflow::Tensor;
use session_group::{Code, Options, Result, SessionGroup};

const EXECUTIONS: [Execution; 3] = [Execution::Caller, Execution::Worker, Execution::Pool];

/// Cancels at once.
fn impatient(execution: Execution) -> Options {
    let mut options = options(2);
    options.execution(execution).drain_timeout(Duration::ZERO);
    options
}

type Feeds = Vec<(&'static str, Tensor)>;

/// A request on a thread of its own, which is on its way.
fn start(
    group: &Arc<SessionGroup>,
    feeds: Feeds,
    fetch: &'static str,
) -> JoinHandle<Result<Vec<Tensor>>> {
    let theirs = group.clone();
    let in_flight = |group: &SessionGroup| -> u64 {
        (0..group.session_num()).map(|i| group.stats(i).unwrap().in_flight).sum()
    };
    let before = in_flight(group);
    let request = spawn(move || theirs.run(&common::feeds(&feeds), &[fetch], &[]));
    while in_flight(group) == before && !request.is_finished() {
        sleep(Duration::from_millis(1));
    }
    // Until it is inside the graph.
    sleep(Duration::from_millis(100));
    request
}

fn scalar<T: session_group::tensorflow::Element>(value: T) -> Tensor {
    Tensor::from_slice(&[], &[value]).unwrap()
}

/// What would take minutes or for ever, and can be cancelled: a loop of low-level control flow, one that is
/// an operation, an operation that waits, and many operations one after the other.
fn endless(which: &str, options: &Options) -> (SessionGroup, Feeds, &'static str) {
    match which {
        "slow" => {
            let feeds = vec![("slow/n", scalar(i32::MAX)), ("slow/x", scalar(1f32))];
            (create("slow", options), feeds, "slow/y")
        }
        "control_flow" => {
            let x = Tensor::from_slice(&[1], &[1f32]).unwrap();
            let feeds = vec![("serving_default_n:0", scalar(i32::MAX)), ("serving_default_x:0", x)];
            (load("control_flow", options), feeds, "StatefulPartitionedCall:0")
        }
        "waits" => (create("waits", options), Vec::new(), "got"),
        "steps" => {
            let x = Tensor::from_slice(&[1024, 1024], &vec![0.5f32; 1 << 20]).unwrap();
            (create("steps", options), vec![("x", x)], "y")
        }
        _ => unreachable!(),
    }
}

#[test]
fn closing_cancels_what_does_not_end() {
    for execution in EXECUTIONS {
        for which in ["slow", "control_flow", "waits", "steps"] {
            // TensorFlow's executor runs operations that don't wait to the last of them.
            if which == "steps" && execution == Execution::Pool {
                continue;
            }
            let (group, feeds, fetch) = endless(which, &impatient(execution));
            let group = Arc::new(group);
            let requests: Vec<_> =
                (0..3).map(|_| start(&group, feeds.clone_all(), fetch)).collect();
            group.close().unwrap_or_else(|error| panic!("{which}, {execution}: {error}"));
            for request in requests {
                let error = request.join().unwrap().err().expect("it was cancelled");
                assert_eq!(error.code, Code::Cancelled, "{which}, {execution}: {error}");
            }
            let refused = group.run(&common::feeds(&feeds), &[fetch], &[]).err().unwrap();
            assert_eq!(refused.code, Code::FailedPrecondition, "{which}, {execution}: {refused}");
        }
    }
}

#[test]
fn a_drain_lets_requests_finish_before_it_cancels_the_others() {
    for execution in EXECUTIONS {
        let mut group_options = options(2);
        group_options.execution(execution).drain_timeout(Duration::from_secs(5));
        let group = Arc::new(create("slow", &group_options));
        let endless =
            start(&group, vec![("slow/n", scalar(i32::MAX)), ("slow/x", scalar(1f32))], "slow/y");
        let finite =
            start(&group, vec![("slow/n", scalar(50_000)), ("slow/x", scalar(1f32))], "slow/y");
        group.close().unwrap();
        finite.join().unwrap().unwrap_or_else(|error| panic!("{execution}: {error}"));
        let error = endless.join().unwrap().err().expect("it was cancelled");
        assert_eq!(error.code, Code::Cancelled, "{execution}: {error}");
    }
}

/// A file that has nothing until somebody writes to it.
struct Pipe(PathBuf);

impl Pipe {
    fn new(name: &str) -> Self {
        let name = format!("session-group-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let c_path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a zero-terminated string.
        assert_eq!(unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) }, 0);
        Self(path)
    }

    fn feeds(&self) -> Feeds {
        vec![("name", Tensor::from_strings(&[], &[self.0.to_str().unwrap()]).unwrap())]
    }

    /// Ends who waits for it.
    fn release(&self) {
        drop(OpenOptions::new().write(true).open(&self.0).unwrap());
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_can_not_be_cancelled_keeps_what_it_uses_until_it_ends() {
    for execution in EXECUTIONS {
        let pipe = Pipe::new(&execution.to_string());
        let group = Arc::new(create("read_file", &impatient(execution)));
        let request = start(&group, pipe.feeds(), "contents");
        let error = group.close().unwrap_err();
        assert_eq!(error.code, Code::DeadlineExceeded, "{execution}: {error}");
        assert!(error.message.contains("closed, but 1 requests still run"), "{execution}: {error}");
        assert!(error.message.contains("close the group again"), "{execution}: {error}");
        let refused = group.run(&[], &["contents"], &[]).err().unwrap();
        assert_eq!(refused.code, Code::FailedPrecondition, "{execution}");
        assert!(!request.is_finished());
        assert_eq!(group.stats(0).unwrap().in_flight, 1, "{execution}");
        pipe.release();
        // Read or cancelled: it ends.
        let _ = request.join().unwrap();
        group.close().unwrap();
        assert_eq!(group.stats(0).unwrap().in_flight, 0, "{execution}");
    }
}

#[test]
fn dropping_a_group_leaves_what_still_runs_alone() {
    let pipe = Pipe::new("dropped");
    let group = create("read_file", &impatient(Execution::Caller));
    let callable = group.make_callable(&["name"], &["contents"], &[]).unwrap();
    let feeds = pipe.feeds();
    let request = spawn(move || callable.run(&[&feeds[0].1]).map(drop));
    while group.stats(0).unwrap().in_flight == 0 {
        sleep(Duration::from_millis(1));
    }
    sleep(Duration::from_millis(100));
    drop(group);
    assert!(!request.is_finished());
    pipe.release();
    let _ = request.join().unwrap();
}

/// Tensors are not for copying, but requests of several threads have the same.
trait CloneAll {
    fn clone_all(&self) -> Self;
}

impl CloneAll for Feeds {
    fn clone_all(&self) -> Self {
        let copy = |tensor: &Tensor| {
            Tensor::from_bytes(tensor.dtype(), &tensor.dims(), tensor.bytes()).unwrap()
        };
        self.iter().map(|(name, tensor)| (*name, copy(tensor))).collect()
    }
}

//! RunOptions and RunMetadata do what they do with TF_SessionRun.

mod common;

use std::time::{Duration, Instant};

use common::{create, load, options};
use session_group::execution::Execution;
use session_group::stats::Snapshot;
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::{Buffer, Tensor};
use session_group::{Code, Request, Result, SessionGroup};

const EXECUTIONS: [Execution; 3] = [Execution::Caller, Execution::Worker, Execution::Pool];

fn slow(group: &SessionGroup, rounds: i32, options: Option<&RunOptions>) -> Result<Vec<Tensor>> {
    let (n, x) = (Tensor::from_slice(&[], &[rounds])?, Tensor::from_slice(&[], &[1f32])?);
    let inputs = [("slow/n", &n), ("slow/x", &x)];
    let request = Request { inputs: &inputs, outputs: &["slow/y"], options, ..Request::default() };
    group.run_request(&request, None)
}

#[test]
fn a_timeout_stops_a_running_graph_and_does_not_harm_the_next() {
    for execution in EXECUTIONS {
        let mut group_options = options(2);
        group_options.execution(execution);
        let group = create("slow", &group_options);
        slow(&group, 10, None).unwrap();
        let mut short = RunOptions::parse(&[]).unwrap();
        short.set_timeout_ms(50);
        let start = Instant::now();
        // Would take minutes.
        let error = slow(&group, i32::MAX, Some(&short)).err().expect("a timeout");
        assert_eq!(error.code, Code::DeadlineExceeded, "{execution}: {error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{execution}");
        slow(&group, 10, Some(&short)).unwrap();
        slow(&group, 10, None).unwrap();
    }
}

#[test]
fn the_operation_timeout_of_the_session_options_stops_a_running_graph() {
    // operation_timeout_in_ms (field 11) = 50
    let group = SessionGroup::new(&common::config(&[0x58, 50]), &options(1)).unwrap();
    group.create(&common::graph_def("slow")).unwrap();
    let error = slow(&group, i32::MAX, None).err().expect("a timeout");
    assert_eq!(error.code, Code::DeadlineExceeded, "{error}");
}

#[test]
fn the_time_in_the_queue_counts_and_an_expired_request_is_not_run() {
    let mut group_options = options(1);
    group_options.execution(Execution::Worker).worker_threads(1);
    let group = create("slow", &group_options);
    // What is done the first time comes before the queue.
    slow(&group, 1, None).unwrap();
    let mut short = RunOptions::parse(&[]).unwrap();
    short.set_timeout_ms(20);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut long = RunOptions::parse(&[]).unwrap();
            long.set_timeout_ms(2_000);
            slow(&group, i32::MAX, Some(&long))
        });
        // Until it is on its way, is queued, and is taken from the queue.
        let wait_while = |is: fn(&Snapshot) -> bool| {
            while group.stats(0).is_some_and(|stats| is(&stats)) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        wait_while(|stats| stats.in_flight == 0);
        std::thread::sleep(Duration::from_millis(50));
        wait_while(|stats| stats.queued > 0);
        let error = slow(&group, 1, Some(&short)).err().expect("a timeout");
        assert_eq!(error.code, Code::DeadlineExceeded);
        assert!(error.message.contains("it was not run"), "{error}");
        assert!(busy.join().unwrap().is_err());
    });
    slow(&group, 1, None).unwrap();
}

#[test]
fn a_full_trace_fills_the_metadata() {
    for execution in EXECUTIONS {
        let mut group_options = options(2);
        group_options.execution(execution);
        let group = load("wide_deep", &group_options);
        let request = common::wide_deep_request(&mut common::Numbers(7), 2);
        let traced = RunOptions::parse(&[0x08, 3]).unwrap(); // trace_level = FULL_TRACE
        let run = |options: Option<&RunOptions>| {
            let mut metadata = Buffer::new();
            let inputs = common::feeds(&request);
            let outputs = &["StatefulPartitionedCall:0"];
            let request = Request { inputs: &inputs, outputs, options, ..Request::default() };
            let got = group.run_request(&request, Some(&mut metadata)).unwrap();
            (got, metadata)
        };
        let (plain, empty) = run(None);
        let (got, metadata) = run(Some(&traced));
        assert!(common::same(&plain, &got));
        assert!(empty.bytes().is_empty());
        let text = String::from_utf8_lossy(metadata.bytes());
        assert!(text.contains("MatMul") && text.contains("CPU:0"), "step stats name the kernels");
    }
}

#[test]
fn options_that_are_wrong_are_errors() {
    assert_eq!(RunOptions::parse(&[0xff]).err().unwrap().code, Code::InvalidArgument);
    let group = create("slow", &options(1));
    let no_such_pool = RunOptions::parse(&[0x18, 7]).unwrap(); // inter_op_thread_pool = 7
    let error = slow(&group, 1, Some(&no_such_pool)).err().unwrap();
    assert!(error.message.contains("inter_op_thread_pool"), "{error}");
}

#[test]
fn a_timeout_is_kept_between_the_steps_of_a_program() {
    let group = common::create("mlp_frozen", &common::options(1));
    let rows = 100_000;
    let x = Tensor::from_slice(&[rows, 64], &vec![0.5f32; rows as usize * 64]).unwrap();
    let [mut soon, mut late] = [(); 2].map(|()| RunOptions::parse(&[]).unwrap());
    soon.set_timeout_ms(1);
    late.set_timeout_ms(60_000);
    let request = Request {
        inputs: &[("x:0", &x)],
        outputs: &["y:0"],
        options: Some(&soon),
        ..Request::default()
    };
    let error = group.run_request(&request, None).err().unwrap();
    assert_eq!(error.code, Code::DeadlineExceeded, "{error}");
    assert!(error.message.contains("steps"), "not on the pool: {error}");
    let one = Tensor::from_slice(&[1, 64], &[0.5f32; 64]).unwrap();
    let request = Request { inputs: &[("x:0", &one)], options: Some(&late), ..request };
    assert_eq!(group.run_request(&request, None).unwrap()[0].dims(), [1, 8]);
}

//! Loops and branches as programs: as stock TensorFlow answers, on small stacks, in bounded memory, ended
//! by a timeout.

mod common;

use std::process::Command;

use common::{create, options, resident, same};
use session_group::execution::Execution;
use session_group::stats::{Snapshot, Way};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::{Buffer, Tensor};
use session_group::{Code, Request, Result, SessionGroup};
use stock_session::{ON_CALLING_THREAD, StockSession};

/// Far less than a thread's usual 8 MiB, or what a frame for each turn would take.
const SMALL_STACK: usize = 256 << 10;
const MIB: u64 = 1 << 20;

fn on_small_stack<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(SMALL_STACK);
        thread.spawn_scoped(scope, f).unwrap().join().unwrap()
    })
}

/// Whether this is a process for one test alone, whose memory is measured. If not, runs the test in one.
fn is_alone(test: &str) -> bool {
    const CHILD: &str = "TEST_CONTROL_FLOW";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    false
}

fn group(name: &str, execution: Execution) -> SessionGroup {
    let mut group_options = options(1);
    group_options.execution(execution);
    create(name, &group_options)
}

fn scalar<T: session_group::tensorflow::Element>(value: T) -> Tensor {
    Tensor::from_slice(&[], &[value]).unwrap()
}

fn stats(group: &SessionGroup) -> Snapshot {
    group.stats(0).unwrap()
}

/// That all requests so far ran as programs, with nothing unusual.
fn assert_all_programs(group: &SessionGroup) {
    let stats = stats(group);
    assert_eq!(stats.ran(Way::Program), stats.runs(), "{stats:?}");
    assert_eq!((stats.unresolved, stats.unfused, stats.on_pool), (0, 0, 0));
}

#[test]
fn map_fn_over_constants_is_a_program_of_any_length_on_a_small_stack() {
    let stock = StockSession::create(&common::one_thread(), &common::graph_def("mapped"));
    for fetch in ["short:0", "long:0"] {
        let x = scalar(0.75f32);
        let expected = stock.run(&stock.step(&["x:0"], &[fetch]), &[&x], &ON_CALLING_THREAD);
        for execution in [Execution::Caller, Execution::Worker] {
            let group = group("mapped", execution);
            for _ in 0..3 {
                let got = on_small_stack(|| group.run(&[("x:0", &x)], &[fetch], &[])).unwrap();
                assert!(same(&got, &expected), "{fetch} {execution}");
            }
            assert_all_programs(&group);
        }
    }
}

fn turns(group: &SessionGroup, n: i32, options: Option<&RunOptions>) -> Result<Vec<Tensor>> {
    let (n, x) = (scalar(n), scalar(1f32));
    let inputs = [("slow/n:0", &n), ("slow/x:0", &x)];
    let request =
        Request { inputs: &inputs, outputs: &["slow/y:0"], options, ..Request::default() };
    group.run_request(&request, None)
}

#[test]
fn a_million_turns_take_the_memory_of_one() {
    if !is_alone("a_million_turns_take_the_memory_of_one") {
        return;
    }
    let group = group("slow", Execution::Caller);
    on_small_stack(|| {
        turns(&group, 1_000, None).unwrap();
        let before = resident();
        for _ in 0..2 {
            turns(&group, 1_000_000, None).unwrap();
        }
        // Two bytes for each turn would be 4 MB.
        let grown = resident().saturating_sub(before);
        assert!(grown < 2 * MIB, "{grown} bytes");
    });
    assert_all_programs(&group);
}

#[test]
fn a_timeout_ends_a_long_loop_and_the_next_request_is_a_program() {
    for execution in [Execution::Caller, Execution::Worker] {
        let group = group("slow", execution);
        let expected = turns(&group, 100, None).unwrap();
        let mut soon = RunOptions::parse(&[]).unwrap();
        soon.set_timeout_ms(20);
        for _ in 0..3 {
            // 2^31 turns would take minutes.
            let error = turns(&group, i32::MAX, Some(&soon)).err().expect("a timeout");
            assert_eq!(error.code, Code::DeadlineExceeded, "{error}");
            assert!(same(&turns(&group, 100, None).unwrap(), &expected));
        }
        assert_all_programs(&group);
    }
}

/// y after n turns of the loop in `calls`.
fn called(group: &SessionGroup, n: i32, trace: bool) -> Result<Vec<Tensor>> {
    let (n, x) = (scalar(n), scalar(1f32));
    let inputs = [("n:0", &n), ("x:0", &x)];
    let traced = RunOptions::parse(&[0x08, 3])?; // trace_level = FULL_TRACE
    let request = Request {
        inputs: &inputs,
        outputs: &["y:0"],
        options: trace.then_some(&traced),
        ..Request::default()
    };
    group.run_request(&request, trace.then(Buffer::new).as_mut())
}

#[test]
fn a_loop_that_calls_functions_needs_no_stack_for_its_turns() {
    const TURNS: i32 = 20_000;
    let stock = StockSession::create(&common::one_thread(), &common::graph_def("calls"));
    let inputs = [&scalar(TURNS), &scalar(1f32)];
    let expected = stock.run(&stock.step(&["n:0", "x:0"], &["y:0"]), &inputs, &[]);
    for execution in [Execution::Caller, Execution::Worker] {
        let group = group("calls", execution);
        on_small_stack(|| {
            // By names, which TensorFlow's executor would do by one call in another on one thread.
            assert!(same(&called(&group, TURNS, true).unwrap(), &expected), "{execution}");
            assert!(same(&called(&group, TURNS, false).unwrap(), &expected), "{execution}");
        });
        let stats = stats(&group);
        assert_eq!((stats.ran(Way::Options), stats.ran(Way::Program)), (1, 1), "{stats:?}");
        assert_eq!(stats.on_pool, 1, "what recurses has the pool's stacks");
    }
}

/// TensorFlow's own optimisers write such a Merge.
#[test]
fn what_needs_both_sides_of_a_branch_never_comes() {
    let group = create("both_sides", &options(2));
    group.run(&[], &[], &["initialize"]).unwrap();
    let p = |value: i32| Tensor::from_slice(&[], &[value]).unwrap();
    for round in 0..2 {
        let error = group.run(&[("p:0", &p(1))], &["m:0"], &["assign"]).err().unwrap();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        let v = group.run(&[], &["v:0"], &[]).unwrap();
        assert_eq!(
            v[0].to_vec::<f32>().unwrap(),
            [7., 7.],
            "nothing was assigned in round {round}"
        );
    }
    let m = group.run(&[("p:0", &p(0))], &["m:0"], &["assign"]).unwrap();
    assert_eq!(m[0].to_vec::<f32>().unwrap(), [-1., -2.]);
    assert_eq!(group.run(&[], &["v:0"], &[]).unwrap()[0].to_vec::<f32>().unwrap(), [1., 2.]);
}

//! What optimisations must not break: variables that are written while the group serves, errors, and
//! requests that only TensorFlow's own session can run.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Numbers, create, feeds, load, lookups_request, options, run_on, same};
use session_group::optimization::Optimization;
use session_group::tensorflow::Tensor;
use session_group::{Code, Result, SessionGroup};
use stock_session::{ON_CALLING_THREAD, StockSession};

const SESSIONS: usize = 3;

fn write(group: &SessionGroup, session: usize, target: &str, ids: &[i32], x: f32) {
    let x = Tensor::from_slice(&[], &[x]).unwrap();
    let ids = Tensor::from_slice(&[ids.len() as i64], ids).unwrap();
    let inputs = [("x", &x), ("ids", &ids)];
    // What the target does not need must not be fed.
    let inputs = if target == "scatter" { &inputs[..] } else { &inputs[..1] };
    run_on(group, session, inputs, &[], &[target]).unwrap();
}

fn v(group: &SessionGroup, session: usize) -> Vec<f32> {
    run_on(group, session, &[], &["v:0"], &[]).unwrap()[0].to_vec().unwrap()
}

fn rows(group: &SessionGroup, session: usize, ids: &[i32]) -> Vec<f32> {
    let ids = Tensor::from_slice(&[ids.len() as i64], ids).unwrap();
    run_on(group, session, &[("ids:0", &ids)], &["rows:0"], &[]).unwrap()[0].to_vec().unwrap()
}

#[test]
fn every_session_sees_what_any_session_wrote() {
    let group = create("writes", &options(SESSIONS));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    for round in 0..6 {
        // All read before, so that there is something to be out of date.
        for session in 0..SESSIONS {
            v(&group, session);
            rows(&group, session, &[0, 7]);
        }
        let (writer, x) = (round % SESSIONS, (round + 1) as f32);
        write(&group, writer, "assign", &[], x);
        write(&group, (writer + 1) % SESSIONS, "add", &[], 0.5);
        write(&group, (writer + 2) % SESSIONS, "scatter", &[round as i32], x);
        for session in 0..SESSIONS {
            assert_eq!(v(&group, session), [x + 0.5; 4]);
            let expected = [[x; 4], [0.; 4]].concat();
            assert_eq!(rows(&group, session, &[round as i32, 7]), expected);
        }
    }
}

#[test]
fn a_tensor_that_was_fetched_keeps_its_value() {
    let group = create("writes", &options(2));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    let before = run_on(&group, 0, &[], &["v:0"], &[]).unwrap();
    for target in ["assign", "add"] {
        write(&group, 1, target, &[], 5.);
    }
    assert_eq!(before[0].to_vec::<f32>().unwrap(), [0.; 4]);
    assert_eq!(v(&group, 0), [10.; 4]);
    drop(group);
    assert_eq!(before[0].to_vec::<f32>().unwrap(), [0.; 4]);
}

#[test]
fn readers_never_see_half_of_an_assignment() {
    let group = create("writes", &options(SESSIONS));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (group, done) = (&group, &done);
            scope.spawn(move || {
                let mut last = 0.;
                while !done.load(Ordering::Acquire) {
                    let got = v(group, session);
                    assert!(got.iter().all(|x| *x == got[0]), "{got:?}");
                    assert!(got[0] >= last, "{got:?} after {last}");
                    last = got[0];
                }
            });
        }
        // Also where this thread panics, for which the others would wait.
        let _done = SetOnDrop(&done);
        for i in 1..=300 {
            write(&group, i % SESSIONS, "assign", &[], i as f32);
            // This thread's own write is there for its next request, wherever that runs.
            assert_eq!(v(&group, (i + 1) % SESSIONS), [i as f32; 4]);
        }
    });
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_variable_without_a_value_is_an_error_until_it_has_one() {
    let group = create("writes", &options(2));
    for session in 0..2 {
        let error = run_on(&group, session, &[], &["missing:0"], &[]).err().unwrap();
        assert_eq!(error.code, Code::FailedPrecondition, "{error}");
    }
    run_on(&group, 1, &[], &[], &["late"]).unwrap();
    for session in 0..2 {
        let got = run_on(&group, session, &[], &["missing:0"], &[]).unwrap();
        assert_eq!(got[0].to_vec::<f32>().unwrap(), [7.]);
    }
}

/// A request for the lookups whose first index is this one.
fn with_first_index(index: i64) -> Vec<(&'static str, Tensor)> {
    let mut request = lookups_request(&mut Numbers(9), 2);
    request[0].1 = Tensor::from_slice(&[2, 3], &[index, 1, 2, 3, 4, 5]).unwrap();
    request
}

#[test]
fn an_index_out_of_range_fails_its_request_as_it_would_without_optimisations() {
    let outputs = ["StatefulPartitionedCall:3", "StatefulPartitionedCall:4"];
    let optimised = load("lookups", &options(2));
    let mut plain = options(2);
    for optimization in Optimization::all() {
        plain.optimization(optimization, false);
    }
    let plain = load("lookups", &plain);
    let good = with_first_index(0);
    let expected = plain.run(&feeds(&good), &outputs, &[]).unwrap();
    for index in [10, -1, i64::MAX, i64::MIN] {
        let bad = with_first_index(index);
        let got = optimised.run(&feeds(&bad), &outputs, &[]).err().unwrap();
        let expected_error = plain.run(&feeds(&bad), &outputs, &[]).err().unwrap();
        assert_eq!(got.code, expected_error.code);
        assert!(got.message.contains(&format!("= {index} is not in [0, 10)")), "{got}");
        assert!(same(&optimised.run(&feeds(&good), &outputs, &[]).unwrap(), &expected));
    }
}

#[test]
fn what_is_fed_is_left_as_it_is_even_where_kernels_could_write_in_place() {
    let group = load("lookups", &options(1));
    let request = lookups_request(&mut Numbers(4), 3);
    let bytes = |request: &[(&str, Tensor)]| -> Vec<Vec<u8>> {
        request.iter().map(|(_, tensor)| tensor.bytes().to_vec()).collect()
    };
    let before = bytes(&request);
    for _ in 0..3 {
        group.run(&feeds(&request), &["StatefulPartitionedCall:3"], &[]).unwrap();
        assert_eq!(bytes(&request), before);
    }
}

#[test]
fn numbers_too_small_for_the_normal_form_are_flushed_as_in_tensorflows_own_threads() {
    let tiny = Tensor::from_slice(&[1, 64], &[1e-39f32; 64]).unwrap();
    let outputs = ["layer0:0"];
    let stock = StockSession::create(&common::one_thread(), &common::graph_def("mlp_frozen"));
    let step = stock.step(&["x:0"], &outputs);
    let on_pool = stock.run(&step, &[&tiny], &[]);
    let group = create("mlp_frozen", &options(1));
    assert!(same(&group.run(&[("x:0", &tiny)], &outputs, &[]).unwrap(), &on_pool));
    assert!(on_pool[0].to_vec::<f32>().unwrap().iter().all(|&y| y == 0.));
    // The calling thread of a stock session keeps them.
    assert!(!same(&stock.run(&step, &[&tiny], &ON_CALLING_THREAD), &on_pool));
}

#[test]
fn a_callable_is_a_request_without_names() {
    for name in ["lookups", "tf1_saved_model", "control_flow", "wide_deep"] {
        let case = common::cases().into_iter().find(|case| case.name == name).unwrap();
        let expected = case.stock_answers();
        let group = case.group(&options(2));
        let names: Vec<&str> = case.requests[0].iter().map(|(name, _)| *name).collect();
        let callable = group.make_callable(&names, case.outputs, &[]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for i in (0..expected.len()).cycle().take(20) {
                        let inputs: Vec<&Tensor> =
                            case.requests[i].iter().map(|(_, tensor)| tensor).collect();
                        assert!(same(&callable.run(&inputs).unwrap(), &expected[i]), "{name}");
                    }
                });
            }
        });
        let inputs: Vec<&Tensor> = case.requests[0].iter().map(|(_, tensor)| tensor).collect();
        let code = |result: Result<Vec<Tensor>>| result.err().unwrap().code;
        assert_eq!(code(callable.run(&inputs[1..])), Code::InvalidArgument, "too few inputs");
        // It outlives the group, which it then says.
        drop(group);
        assert_eq!(code(callable.run(&inputs)), Code::FailedPrecondition);
    }
}

#[test]
fn a_callable_for_what_is_not_there_is_refused() {
    let group = load("lookups", &options(2));
    let error = group.make_callable(&[], &["nowhere:0"], &[]).err().unwrap();
    assert!(error.message.contains("nowhere"), "{error}");
    let wrong = Tensor::from_slice(&[1], &[1f64]).unwrap();
    let names = ["serving_default_ids:0", "serving_default_words:0", "serving_default_x:0"];
    let callable = group.make_callable(&names, &["StatefulPartitionedCall:3"], &[]).unwrap();
    let error = callable.run(&[&wrong, &wrong, &wrong]).err().unwrap();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("serving_default_ids:0"), "{error}");
}

fn plain(sessions: usize) -> session_group::Options {
    let mut options = options(sessions);
    for optimization in Optimization::all() {
        options.optimization(optimization, false);
    }
    options
}

#[test]
fn what_a_branch_writes_is_written_once_even_where_lookups_have_to_be_tried_again() {
    for options in [options(2), plain(2)] {
        let group = create("if_write", &options);
        group.run(&[], &[], &["init"]).unwrap();
        let x = Tensor::from_slice(&[], &[1f32]).unwrap();
        let i = Tensor::from_slice(&[2], &[1i32, 2]).unwrap();
        for expected in [1., 2., 3.] {
            let out = group.run(&[("x:0", &x), ("i:0", &i)], &["out:0"], &[]).unwrap();
            assert_eq!(out[0].dims(), [2, 2, 6]);
            let v = group.run(&[], &["v:0"], &[]).unwrap();
            assert_eq!(v[0].to_vec::<f32>().unwrap(), [expected]);
        }
    }
}

#[test]
fn a_graph_on_another_device_runs_there() {
    // device_count { key: "CPU" value: 2 }, one thread in each pool.
    let two_cpus = common::config(&[0x0a, 7, 0x0a, 3, b'C', b'P', b'U', 0x10, 2, 0x10, 1, 0x28, 1]);
    let group = SessionGroup::new(&two_cpus, &options(2)).unwrap();
    group.create(&common::graph_def("second_cpu")).unwrap();
    group.run(&[], &[], &["init"]).unwrap();
    for _ in 0..2 {
        let v = group.run(&[], &["v:0"], &[]).unwrap();
        assert_eq!(v[0].to_vec::<f32>().unwrap(), [3.]);
    }
}

#[test]
fn a_function_keeps_its_table() {
    for options in [options(1), plain(1)] {
        let group = create("function_table", &options);
        for key in 0..3i64 {
            let key_tensor = Tensor::from_slice(&[1], &[key]).unwrap();
            let size = group.run(&[("key:0", &key_tensor)], &["size:0"], &[]).unwrap();
            assert_eq!(size[0].to_vec::<f32>().unwrap(), [key as f32 + 1.]);
        }
    }
}

#[test]
fn functions_that_are_compiled_keep_their_constants() {
    let x = Tensor::from_slice(&[1, 256], &[0.5f32; 256]).unwrap();
    let run = |options| {
        let group = load("jit", options);
        group.run(&[("serving_default_x:0", &x)], &["PartitionedCall:0"], &[]).unwrap()
    };
    assert!(same(&run(&options(2)), &run(&plain(2))));
}

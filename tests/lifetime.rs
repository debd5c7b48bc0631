//! Closing drains, and a closed group leaves nothing behind. One test a process would be cleanest;
//! the tests of this file take turns instead, since they look at the whole process.

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::{create, load, options, proc_entries, resident};
use session_group::execution::Execution;
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::{Buffer, Tensor};
use session_group::{Code, Request, SessionGroup};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> impl Drop {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn slow(group: &SessionGroup, rounds: i32) -> session_group::Result<Vec<Tensor>> {
    let (n, x) = (Tensor::from_slice(&[], &[rounds])?, Tensor::from_slice(&[], &[1f32])?);
    group.run(&[("slow/n", &n), ("slow/x", &x)], &["slow/y"], &[])
}

#[test]
fn closing_lets_running_requests_finish_and_turns_later_ones_away() {
    let _turn = turn();
    for execution in [Execution::Caller, Execution::Worker, Execution::Pool] {
        let mut group_options = options(2);
        group_options.execution(execution);
        let group = create("slow", &group_options);
        let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        match slow(&group, 2_000) {
                            Ok(_) => answered.fetch_add(1, Relaxed),
                            Err(error) => {
                                assert_eq!(error.code, Code::FailedPrecondition, "{error}");
                                assert!(error.message.contains("closed"), "{error}");
                                refused.fetch_add(1, Relaxed);
                                return;
                            }
                        };
                    }
                });
            }
            while answered.load(Relaxed) < 16 {
                std::thread::sleep(Duration::from_millis(1));
            }
            scope.spawn(|| group.close().unwrap());
            group.close().unwrap();
        });
        assert_eq!(refused.into_inner(), 8, "each client is refused once, none hangs or crashes");
        assert_eq!(group.session_num(), 2);
        assert_eq!(group.list_devices().unwrap_err().code, Code::FailedPrecondition);
        assert_eq!(
            group.create(&common::graph_def("slow")).unwrap_err().code,
            Code::FailedPrecondition
        );
        group.close().unwrap();
    }
}

#[test]
fn two_hundred_lives_leave_memory_threads_and_files_as_they_were() {
    let _turn = turn();
    let live = |i: usize| {
        let mut group_options = options(2);
        group_options.execution([Execution::Caller, Execution::Worker][i % 2]);
        let group = load("wide_deep", &group_options);
        let request = common::wide_deep_request(&mut common::Numbers(7), 4);
        for _ in 0..4 {
            group.run(&common::feeds(&request), &["StatefulPartitionedCall:0"], &[]).unwrap();
        }
        if !i.is_multiple_of(3) {
            group.close().unwrap();
        }
    };
    // What TensorFlow sets up once, and what the allocator keeps, settles in the first lives.
    (0..40).for_each(live);
    let (memory, threads, files) = (resident(), proc_entries("task"), proc_entries("fd"));
    (0..200).for_each(live);
    let grown = resident().saturating_sub(memory);
    println!("200 lives: resident memory grew by {} kB", grown / 1024);
    assert_eq!((proc_entries("task"), proc_entries("fd")), (threads, files));
    // The model has 1.4 MB of variables: a leak of one set in ten lives would be 28 MB.
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[test]
fn closing_frees_the_variables_at_once() {
    let _turn = turn();
    let group = load("wide_deep_large", &options(2));
    let loaded = resident();
    group.close().unwrap();
    let closed = resident();
    println!("closing freed {} MB", (loaded - closed) >> 20);
    assert!(loaded - closed > 300 << 20);
    drop(group);
}

#[test]
fn a_group_that_never_had_a_graph_closes() {
    let _turn = turn();
    let group = SessionGroup::new(&common::one_thread(), &options(4)).unwrap();
    let error = slow(&group, 1).err().unwrap();
    assert_eq!(error.code, Code::FailedPrecondition);
    assert!(error.message.contains("SessionGroup_Create"), "{error}");
}

/// Of program, of TensorFlow's session, and of a callable of either.
#[test]
fn outputs_that_are_used_again_are_dropped_first() {
    let _turn = turn();
    let x = Tensor::from_slice(&[4096, 64], &vec![0.5f32; 4096 * 64]).unwrap();
    let wrong = Tensor::from_slice(&[1], &[1i32]).unwrap();
    for execution in [Execution::Caller, Execution::Worker, Execution::Pool] {
        let mut group_options = options(1);
        group_options.execution(execution);
        let group = create("mlp_frozen", &group_options);
        let callable = group.make_callable(&["x:0"], &["layer0:0"], &[]).unwrap();
        let mut outputs = [None];
        let run = |x: &Tensor, called: bool, outputs: &mut [Option<Tensor>]| match called {
            true => callable.run_into(&[x], outputs),
            false => {
                let inputs = [("x:0", x)];
                let request =
                    Request { inputs: &inputs, outputs: &["layer0:0"], ..Request::default() };
                group.run_into(&request, outputs, None)
            }
        };
        for called in [false, true] {
            (0..20).for_each(|_| run(&x, called, &mut outputs).unwrap());
            let bytes = outputs[0].as_ref().unwrap().bytes().len() as u64;
            let memory = resident();
            (0..100).for_each(|_| run(&x, called, &mut outputs).unwrap());
            let grown = resident().saturating_sub(memory);
            assert!(grown < 30 * bytes, "{execution}, {called}: {grown} of 100 times {bytes}");
            run(&wrong, called, &mut outputs).unwrap_err();
            assert!(outputs[0].is_none(), "{execution}, {called}: all or none");
        }
        run(&x, false, &mut outputs).unwrap();
        let mut too_many = [outputs[0].take(), None];
        run(&x, false, &mut too_many).unwrap_err();
        assert!(too_many[0].is_none());
        group.close().unwrap();
    }
}

/// A buffer for metadata, too.
#[test]
fn metadata_of_an_earlier_request_does_not_stay() {
    let _turn = turn();
    let group = create("slow", &options(1));
    let (n, x) =
        (Tensor::from_slice(&[], &[3i32]).unwrap(), Tensor::from_slice(&[], &[1f32]).unwrap());
    // trace_level (field 1) = FULL_TRACE
    let traced = RunOptions::parse(&[0x08, 3]).unwrap();
    let inputs = [("slow/n", &n), ("slow/x", &x)];
    let options = Some(&traced);
    let request = Request { inputs: &inputs, outputs: &["slow/y"], options, ..Request::default() };
    let mut metadata = Buffer::new();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        group.run_request(&request, Some(&mut metadata)).unwrap();
        sizes.push(metadata.bytes().len());
    }
    assert!(sizes[0] > 0 && sizes[2] < 2 * sizes[0], "{sizes:?}");
    let unknown = Request { outputs: &["nothing"], ..request };
    assert!(group.run_request(&unknown, Some(&mut metadata)).is_err());
    assert!(metadata.bytes().is_empty(), "that is of an earlier request");
}

/// A child has none of the group's threads.
#[test]
fn a_group_fails_in_a_forked_child_and_goes_on_in_its_parent() {
    let _turn = turn();
    for execution in [Execution::Caller, Execution::Worker] {
        let mut group_options = options(2);
        group_options.execution(execution);
        let group = create("slow", &group_options);
        let callable = group.make_callable(&["slow/n", "slow/x"], &["slow/y"], &[]).unwrap();
        slow(&group, 10).unwrap();
        // SAFETY: the child calls the library, which is what is tested, and ends without unwinding.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: no precondition. A child that hangs is ended.
            unsafe { libc::alarm(20) };
            let forked = |result: session_group::Result<()>| matches!(result, Err(error) if error.code == Code::FailedPrecondition && error.message.contains("forked"));
            let x = Tensor::from_slice(&[], &[1f32]).unwrap();
            let fine = forked(slow(&group, 10).map(drop))
                && forked(callable.run(&[&x, &x]).map(drop))
                && forked(group.list_devices().map(|_| ()))
                && forked(group.close())
                && group.describe().contains("\"closed\":false");
            drop(callable);
            drop(group);
            // SAFETY: ends the child here, without what the test program has to do at its end.
            unsafe { libc::_exit(if fine { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: the child is ours, and the pointer valid.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "{execution}: the child has failed, or was stuck");
        slow(&group, 10).unwrap();
        group.close().unwrap();
    }
}

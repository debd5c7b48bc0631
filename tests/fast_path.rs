//! Nothing takes the fast path away for good: whatever a group was asked before, requests run as programs
//! whose reads are resolved and whose lookups are fused.

mod common;

use common::{
    Numbers, create, feeds, load, lookups_request, options, resident, run_on, same,
    wide_deep_request,
};
use session_group::execution::Execution;
use session_group::memory::memory_stats;
use session_group::stats::{Snapshot, Way};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::{Buffer, Tensor};
use session_group::{Code, Request, SessionGroup};

const SESSIONS: usize = 2;
const MIB: u64 = 1 << 20;

const SCORES: &[&str] = &["StatefulPartitionedCall:0"];

type Feeds = Vec<(&'static str, Tensor)>;

fn snapshot(group: &SessionGroup, session: usize) -> Snapshot {
    group.stats(session).unwrap()
}

/// Runs a request some times on each session and checks that each time it was a program, and that the
/// last ones had nothing to look for.
fn assert_fast(group: &SessionGroup, request: &Feeds, fetches: &[&str], after: &str) {
    for session in 0..SESSIONS {
        let run = || run_on(group, session, &feeds(request), fetches, &[]).unwrap();
        let first = run();
        let before = snapshot(group, session);
        for _ in 0..5 {
            assert!(same(&run(), &first), "after {after}");
        }
        let now = snapshot(group, session);
        assert_eq!(now.ran(Way::Program), before.ran(Way::Program) + 5, "after {after}: {now:?}");
        assert_eq!(now.unresolved, before.unresolved, "after {after}");
        assert_eq!(now.unfused, before.unfused, "after {after}");
    }
}

fn traced(group: &SessionGroup, session: usize, request: &Feeds, fetches: &[&str]) {
    let options = RunOptions::parse(&[0x08, 3]).unwrap(); // trace_level = FULL_TRACE
    let inputs = feeds(request);
    let request = Request {
        inputs: &inputs,
        outputs: fetches,
        options: Some(&options),
        session: Some(session),
        ..Request::default()
    };
    let mut metadata = Buffer::new();
    group.run_request(&request, Some(&mut metadata)).unwrap();
    assert!(!metadata.bytes().is_empty());
}

/// Requests that fail, by the code of each.
fn malformed(group: &SessionGroup, session: usize, request: &Feeds, fetches: &[&str]) {
    let code = |inputs: &[(&str, &Tensor)], fetches: &[&str]| {
        run_on(group, session, inputs, fetches, &[]).err().unwrap().code
    };
    let inputs = feeds(request);
    assert_eq!(code(&inputs[1..], fetches), Code::InvalidArgument, "a feed is missing");
    let wrong = Tensor::from_slice(&[1], &[1f64]).unwrap();
    let mut mistyped = inputs.clone();
    mistyped[0].1 = &wrong;
    assert_eq!(code(&mistyped, fetches), Code::InvalidArgument, "a type");
    let name = inputs[0].0;
    let flat = Tensor::from_slice(&[0], &[0i64; 0]).unwrap();
    let mut misshaped = inputs.clone();
    misshaped[0] = (name, &flat);
    assert_eq!(code(&misshaped, fetches), Code::InvalidArgument, "a shape");
}

/// Whatever runs requests, names that the graph does not have are found before TensorFlow optimises the
/// graph, which takes long and keeps others waiting.
#[test]
fn wrong_names_cost_nothing() {
    let request = wide_deep_request(&mut Numbers(1), 2);
    let inputs = feeds(&request);
    let twice = [&inputs[..], &inputs[..1]].concat();
    let unknown = [&[("nobody:0", inputs[0].1)], &inputs[1..]].concat();
    for execution in [Execution::Caller, Execution::Pool] {
        let mut options = options(1);
        options.execution(execution);
        let group = load("wide_deep", &options);
        let message = |inputs: &[(&str, &Tensor)], fetches: &[&str], targets: &[&str]| {
            run_on(&group, 0, inputs, fetches, targets).err().unwrap().message
        };
        let name = inputs[0].0;
        let no_operation = "the graph has no operation \"nothing\" to run as a target";
        // The second time, too, and on what is known to be right by then.
        for _ in 0..2 {
            assert!(message(&unknown, SCORES, &[]).contains("no tensor \"nobody:0\""));
            assert!(message(&inputs, &["nowhere:0"], &[]).contains("no tensor \"nowhere:0\""));
            // TensorFlow may make nodes below one of the graph's.
            let below = message(&inputs, &["StatefulPartitionedCall/nowhere:0"], &[]);
            assert!(below.contains("not found in the Graph"), "{below}");
            assert_eq!(message(&inputs, SCORES, &["nothing"]), no_operation);
            assert_eq!(message(&twice, SCORES, &[]), format!("the request feeds {name} twice"));
            assert!(message(&inputs, &[], &[]).contains("nothing to fetch and no target"));
            let seventh = format!("{}7", &SCORES[0][..SCORES[0].len() - 1]);
            assert!(message(&inputs, &[&seventh], &[]).contains("the node has only output"));
            run_on(&group, 0, &inputs, SCORES, &[]).unwrap();
        }
    }
}

/// What runs by names, fails, is odd or in a hurry, on a model that only reads.
fn trouble(group: &SessionGroup, request: &Feeds, fetches: &[&str]) {
    // Also as the very first.
    for session in 0..SESSIONS {
        traced(group, session, request, fetches);
    }
    assert_fast(group, request, fetches, "a trace");
    for session in 0..SESSIONS {
        malformed(group, session, request, fetches);
    }
    assert_fast(group, request, fetches, "requests that failed");
    let [mut soon, mut late] = [(); 2].map(|()| RunOptions::parse(&[]).unwrap());
    soon.set_timeout_ms(1);
    late.set_timeout_ms(60_000);
    let inputs = feeds(request);
    for options in [&soon, &late] {
        for _ in 0..20 {
            let request = Request {
                inputs: &inputs,
                outputs: fetches,
                options: Some(options),
                ..Request::default()
            };
            // Whether a millisecond is enough depends on the machine.
            if let Err(error) = group.run_request(&request, None) {
                assert_eq!(error.code, Code::DeadlineExceeded, "{error}");
            }
        }
    }
    assert_fast(group, request, fetches, "timeouts");
    let twice: Vec<&str> = fetches.iter().chain(fetches).copied().collect();
    let targets: Vec<&str> = fetches.iter().map(|fetch| fetch.split(':').next().unwrap()).collect();
    for session in 0..SESSIONS {
        let once = run_on(group, session, &inputs, fetches, &[]).unwrap();
        let got = run_on(group, session, &inputs, &twice, &targets).unwrap();
        assert!(same(&got[..once.len()], &once) && same(&got[once.len()..], &once));
    }
    assert_fast(group, request, fetches, "a fetch that is asked for twice");
}

#[test]
fn models_with_embeddings_stay_fast_after_requests_that_are_not() {
    let group = load("wide_deep", &options(SESSIONS));
    let request = wide_deep_request(&mut Numbers(3), 4);
    trouble(&group, &request, &["StatefulPartitionedCall:0"]);

    let group = load("lookups", &options(SESSIONS));
    let request = lookups_request(&mut Numbers(4), 3);
    let fetches = ["StatefulPartitionedCall:3", "StatefulPartitionedCall:0"];
    trouble(&group, &request, &fetches);
    // Indices out of range take the lookups apart, for that request.
    let mut bad = lookups_request(&mut Numbers(5), 2);
    bad[0].1 = Tensor::from_slice(&[2, 3], &[10i64, 1, 2, 3, 4, 5]).unwrap();
    for session in 0..SESSIONS {
        let error = run_on(&group, session, &feeds(&bad), &fetches, &[]).err().unwrap();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        assert!(snapshot(&group, session).unfused > 0);
    }
    assert_fast(&group, &request, &fetches, "an index out of range");
}

/// A request for `partly_missing`.
fn partly(wants: bool) -> Feeds {
    vec![
        ("ids:0", Tensor::from_slice(&[3], &[1i32, 5, 999]).unwrap()),
        ("wants:0", Tensor::from_slice(&[], &[i32::from(wants)]).unwrap()),
    ]
}

fn initialised() -> SessionGroup {
    let group = create("partly_missing", &options(SESSIONS));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    group
}

/// Writes in each way, then the initialiser again; a variable may be brought back from sparse updates
/// at once only twice, after that it takes a pause.
fn write(group: &SessionGroup, session: usize, target: &str) {
    let x = Tensor::from_slice(&[], &[0.5f32]).unwrap();
    let ids = Tensor::from_slice(&[2], &[1i32, 5]).unwrap();
    let inputs = [("x:0", &x), ("ids:0", &ids)];
    let n = match target {
        "scatter" => 2,
        "initialize" | "late" => 0,
        _ => 1,
    };
    run_on(group, session, &inputs[..n], &[], &[target]).unwrap();
}

#[test]
fn writes_of_every_kind_leave_reads_resolved() {
    let group = initialised();
    write(&group, 1, "late");
    let request = partly(true);
    assert_fast(&group, &request, &["total:0"], "the initialisers");
    for target in ["assign", "add", "initialize", "scatter", "add", "scatter", "assign"] {
        for session in 0..SESSIONS {
            write(&group, session, target);
            run_on(&group, 1 - session, &feeds(&request), &["total:0"], &[]).unwrap();
        }
        // A variable that is scattered into often stays in the mode for it for up to a second or so, as
        // EndCopyOnRead() says; then the next request ends the mode.
        wait_until_resolved(&group, &request);
        assert_fast(&group, &request, &["total:0"], target);
    }
}

/// Runs requests until one has read all variables in the resolved way, on each session.
fn wait_until_resolved(group: &SessionGroup, request: &Feeds) {
    for session in 0..SESSIONS {
        let begun = std::time::Instant::now();
        loop {
            let before = snapshot(group, session).unresolved;
            run_on(group, session, &feeds(request), &["total:0"], &[]).unwrap();
            if snapshot(group, session).unresolved == before {
                break;
            }
            assert!(begun.elapsed().as_secs() < 60, "unresolved for ever");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// How many large tensors were made since the process began.
fn large_tensors() -> u64 {
    let stats = memory_stats();
    stats.hits + stats.misses
}

#[test]
fn a_variable_without_a_value_leaves_the_others_resolved() {
    let group = initialised();
    let without = partly(false);
    for session in 0..SESSIONS {
        run_on(&group, session, &feeds(&without), &["total:0"], &[]).unwrap();
        let error =
            run_on(&group, session, &feeds(&partly(true)), &["total:0"], &[]).err().unwrap();
        assert_eq!(error.code, Code::FailedPrecondition, "{error}");
    }
    // From here on, who reads the table in TensorFlow's way gets a copy of it, of 4 MB.
    write(&group, 0, "scatter");
    for session in 0..SESSIONS {
        run_on(&group, session, &feeds(&without), &["total:0"], &[]).unwrap();
        let before = (snapshot(&group, session), large_tensors());
        for _ in 0..100 {
            run_on(&group, session, &feeds(&without), &["total:0"], &[]).unwrap();
        }
        let now = snapshot(&group, session);
        assert_eq!(now.ran(Way::Program), before.0.ran(Way::Program) + 100, "{now:?}");
        assert_eq!(now.unresolved, before.0.unresolved + 100, "one has no value");
        assert_eq!(now.unfused, before.0.unfused);
        assert_eq!(large_tensors(), before.1, "the table is read where it lies");
    }
    write(&group, 1, "late");
    assert_fast(&group, &partly(true), &["total:0"], "the last initialiser");
}

#[test]
fn two_thousand_signatures_take_no_program_away_and_little_memory() {
    let group = initialised();
    write(&group, 0, "late");
    let (request, x) = (partly(true), Tensor::from_slice(&[], &[0.5f32]).unwrap());
    assert_fast(&group, &request, &["total:0"], "nothing");
    let names: Vec<String> = (0..11).map(|i| format!("out{i}:0")).collect();
    let mut reversed = Vec::new();
    let mut at_768 = 0;
    for subset in 1..=1000usize {
        let forward: Vec<&str> =
            (0..11).filter(|bit| subset >> bit & 1 == 1).map(|bit| names[bit].as_str()).collect();
        reversed.clone_from(&forward);
        reversed.reverse();
        for fetches in [&forward, &reversed] {
            let got = run_on(&group, subset % SESSIONS, &[("x:0", &x)], fetches, &[]).unwrap();
            assert_eq!(got.len(), fetches.len());
        }
        // As many as a group keeps.
        if subset == 768 {
            at_768 = resident();
        }
    }
    let grown = resident().saturating_sub(at_768);
    assert!(grown < 48 * MIB, "{grown} bytes for programs that are kept no longer");
    assert_fast(&group, &request, &["total:0"], "2,000 signatures");
    for session in 0..SESSIONS {
        let now = snapshot(&group, session);
        // The initialisers are no programs.
        assert!(now.ran(Way::NoRoom) == 0 && now.ran(Way::Program) >= 1000, "{now:?}");
    }
}

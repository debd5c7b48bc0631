//! What a group says of itself is so: how each signature runs and why, and how many requests ran in which
//! way.

mod common;

use std::sync::Barrier;
use std::time::Duration;

use common::{Numbers, create, feeds, load, options, wide_deep_request};
use serde_json::Value;
use session_group::execution::Execution;
use session_group::optimization::Optimization;
use session_group::stats::{Snapshot, Way};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::Tensor;
use session_group::{Code, Options, Request, Result, SessionGroup};

fn explained(group: &SessionGroup) -> Value {
    serde_json::from_str(&group.explain()).unwrap()
}

/// What is said of the only signature that fetches this tensor.
fn signature(group: &SessionGroup, fetch: &str) -> Value {
    let all = explained(group);
    let fetches = |one: &&Value| one["fetches"].as_array().unwrap().contains(&fetch.into());
    let found: Vec<&Value> = all["signatures"].as_array().unwrap().iter().filter(fetches).collect();
    assert_eq!(found.len(), 1, "{fetch}: {all}");
    found[0].clone()
}

fn stats(group: &SessionGroup) -> Vec<Snapshot> {
    (0..group.session_num()).map(|session| group.stats(session).unwrap()).collect()
}

/// A group that keeps reference variables, so that their graphs are no programs.
fn with_references(session_num: usize) -> SessionGroup {
    let mut options = options(session_num);
    options.optimization(Optimization::ResourceVariables, false);
    load("tf1_saved_model", &options)
}

/// How many requests ran in which way, over all sessions; the others are none. Each request counts once.
fn assert_ways(group: &SessionGroup, expected: &[(Way, u64)]) {
    let stats = stats(group);
    for way in Way::ALL {
        let ran: u64 = stats.iter().map(|session| session.ran(way)).sum();
        let expected = expected.iter().find(|(one, _)| *one == way).map_or(0, |(_, n)| *n);
        assert_eq!(ran, expected, "{}", way.name());
    }
    for session in &stats {
        assert_eq!(session.ways.iter().sum::<u64>(), session.runs());
    }
}

fn slow(group: &SessionGroup, rounds: i32, options: Option<&RunOptions>) -> Result<Vec<Tensor>> {
    let (n, x) = (Tensor::from_slice(&[], &[rounds])?, Tensor::from_slice(&[], &[1f32])?);
    let inputs = [("slow/n", &n), ("slow/x", &x)];
    let request = Request { inputs: &inputs, outputs: &["slow/y"], options, ..Request::default() };
    group.run_request(&request, None)
}

fn timeout(ms: i64) -> RunOptions {
    let mut options = RunOptions::parse(&[]).unwrap();
    options.set_timeout_ms(ms);
    options
}

fn full_trace() -> RunOptions {
    RunOptions::parse(&[0x08, 3]).unwrap() // trace_level = FULL_TRACE
}

/// What any number of requests may ask for at a time; TensorFlow allows one trace.
fn partition_graphs() -> RunOptions {
    RunOptions::parse(&[0x28, 1]).unwrap() // output_partition_graphs = true
}

/// A graph with variables of TensorFlow 1, which programs have not.
fn of_tf1(group: &SessionGroup, options: Option<&RunOptions>) -> Result<Vec<Tensor>> {
    let word = Tensor::from_strings(&[1], &["a"])?;
    let n = Tensor::from_slice(&[], &[2])?;
    let inputs = [("word", &word), ("n", &n)];
    let request = Request { inputs: &inputs, outputs: &["y"], options, ..Request::default() };
    group.run_request(&request, None)
}

#[test]
fn a_program_is_explained() {
    let group = load("wide_deep", &options(2));
    assert_eq!(explained(&group)["signatures"], Value::Array(Vec::new()));
    let request = wide_deep_request(&mut Numbers(3), 4);
    for _ in 0..6 {
        group.run(&feeds(&request), &["StatefulPartitionedCall:0"], &[]).unwrap();
    }
    let all = explained(&group);
    assert_eq!((&all["programs"], &all["why_not"]), (&true.into(), &Value::Null));
    let one = signature(&group, "StatefulPartitionedCall:0");
    assert_eq!(
        one["feeds"],
        serde_json::json!([
            "serving_default_country:0",
            "serving_default_dense:0",
            "serving_default_ids:0"
        ])
    );
    assert_eq!(one["targets"], serde_json::json!([]));
    assert_eq!(one["runs_as"], "program");
    assert_eq!((&one["why"], &one["advice"]), (&Value::Null, &Value::Null));
    assert_eq!((&one["writes"], &one["may_wait"]), (&false.into(), &false.into()));
    // 26 embeddings with 26 wide ones, a country, 3 layers.
    assert_eq!(one["resolved_variables"], 2 * 26 + 1 + 2 * 3);
    // One, asked for keys and for its size.
    assert_eq!(one["resolved_tables"], 1);
    assert!(one["fused_lookups"].as_u64().unwrap() >= 2 * 26, "{one}");
    assert!(one["steps"].as_u64().unwrap() > 3, "{one}");
    assert_eq!(one["loops"], 0);
    assert!(one["constant_bytes"].as_u64().unwrap() > 0, "{one}");
    assert!(one["compile_ms"].as_f64().unwrap() > 0.0, "{one}");

    assert_eq!(all["requests"]["runs"], 6);
    assert_eq!(all["requests"]["ways"]["program"], 6);
    for (i, session) in all["sessions"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&session["session"], &session["ways"]["program"]), (&i.into(), &3.into()));
    }
    assert_ways(&group, &[(Way::Program, 6)]);
    assert!(stats(&group).iter().all(|session| session.unfused == 0 && session.unresolved == 0));
}

#[test]
fn loops_and_writes_are_explained() {
    let group = create("slow", &options(1));
    slow(&group, 3, None).unwrap();
    assert_eq!(signature(&group, "slow/y:0")["loops"], 1);

    let group = create("writes", &options(1));
    group.run(&[], &[], &["initialize"]).unwrap();
    group.run(&[], &["v"], &[]).unwrap();
    assert_eq!(signature(&group, "v:0")["writes"], false);
    let all = explained(&group);
    let writing = all["signatures"].as_array().unwrap().iter();
    let writing: Vec<_> = writing.filter(|one| one["writes"] == true).collect();
    assert_eq!(writing.len(), 1, "{all}");
    assert_eq!(writing[0]["targets"], serde_json::json!(["initialize"]));
}

#[test]
fn why_a_signature_is_no_program_names_the_node_and_what_to_do() {
    let group = with_references(2);
    of_tf1(&group, None).unwrap();
    let one = signature(&group, "y:0");
    assert_eq!(one["runs_as"], "names");
    assert_eq!(one["why"], "a ref variable (node weights)");
    assert!(one["advice"].as_str().unwrap().contains("use_resource=True"), "{one}");
    assert_eq!((&one["steps"], &one["may_wait"]), (&Value::Null, &Value::Null));
    assert_ways(&group, &[(Way::NoProgram, 1)]);
    assert!(stats(&group).iter().all(|session| session.on_pool == 0));
    // Nothing else could stop it.
    of_tf1(&group, Some(&timeout(60_000))).unwrap();
    assert_ways(&group, &[(Way::NoProgram, 2)]);
    assert_eq!(stats(&group).iter().map(|session| session.on_pool).sum::<u64>(), 1);

    let group = create("iterator", &options(1));
    common::run_on(&group, 0, &[], &[], &["begin"]).unwrap();
    common::run_on(&group, 0, &[], &["next:0"], &[]).unwrap();
    let one = signature(&group, "next:0");
    let why = one["why"].as_str().unwrap();
    assert!(why.starts_with("state in a kernel (Iterator") && why.contains(", node "), "{one}");
    assert!(one["advice"].as_str().unwrap().contains("input pipeline"), "{one}");
    assert_ways(&group, &[(Way::NoProgram, 2)]);
}

#[test]
fn requests_with_other_names_for_the_same_are_one_signature() {
    let group = create("slow", &options(1));
    slow(&group, 1, None).unwrap();
    let (n, x) =
        (Tensor::from_slice(&[], &[1]).unwrap(), Tensor::from_slice(&[], &[1f32]).unwrap());
    group.run(&[("slow/x:0", &x), ("slow/n:0", &n)], &["slow/y:0"], &[]).unwrap();
    assert_eq!(explained(&group)["signatures"].as_array().unwrap().len(), 1);
    assert_ways(&group, &[(Way::Program, 2)]);
}

#[test]
fn after_closing_the_counters_are_left() {
    let group = create("slow", &options(1));
    slow(&group, 1, None).unwrap();
    group.close().unwrap();
    assert_eq!(slow(&group, 1, None).err().unwrap().code, Code::FailedPrecondition);
    let all = explained(&group);
    assert_eq!((&all["closed"], &all["requests"]["runs"]), (&true.into(), &1.into()));
    assert_eq!(all["signatures"], Value::Array(Vec::new()));
}

#[test]
fn a_trace_is_run_options_also_where_there_is_no_program() {
    let group = with_references(1);
    of_tf1(&group, Some(&full_trace())).unwrap();
    assert_ways(&group, &[(Way::Options, 1)]);

    let group = create("slow", &options(1));
    slow(&group, 1, Some(&full_trace())).unwrap();
    // A timeout alone is nothing that a program can't have.
    slow(&group, 1, Some(&timeout(60_000))).unwrap();
    assert_ways(&group, &[(Way::Options, 1), (Way::Program, 1)]);
}

#[test]
fn a_timeout_on_an_operation_that_may_wait_takes_the_pool() {
    let group = load("jit", &options(1));
    let x = Tensor::from_slice(&[1, 256], &[1f32; 256]).unwrap();
    let run = |options: Option<&RunOptions>| {
        let inputs = [("serving_default_x:0", &x)];
        let outputs = &["PartitionedCall:0"];
        let request = Request { inputs: &inputs, outputs, options, ..Request::default() };
        group.run_request(&request, None).unwrap()
    };
    let without = run(None);
    assert_eq!(signature(&group, "PartitionedCall:0")["may_wait"], true);
    let with = run(Some(&timeout(60_000)));
    assert!(common::same(&without, &with));
    assert_ways(&group, &[(Way::Program, 1), (Way::MayWait, 1)]);
    assert_eq!(stats(&group)[0].on_pool, 1);
}

#[test]
fn a_group_without_programs_says_so() {
    let pool = |options: &mut Options| {
        options.execution(Execution::Pool);
    };
    let off = |options: &mut Options| {
        options.optimization(Optimization::SerialExecutor, false);
    };
    type Set<'a> = &'a dyn Fn(&mut Options);
    let cases: [(Set<'_>, &str, u64); 2] =
        [(&pool, "execution is \"pool\"", 1), (&off, "\"serial_executor\" is off", 0)];
    for (set, why, on_pool) in cases {
        let mut options = options(2);
        set(&mut options);
        let group = create("slow", &options);
        slow(&group, 1, None).unwrap();
        // Refused before it runs in any way.
        group.run(&[], &["no_such_thing:0"], &[]).err().unwrap();
        assert_ways(&group, &[(Way::Disabled, 1), (Way::NotRun, 1)]);
        assert_eq!(stats(&group).iter().map(|session| session.on_pool).sum::<u64>(), on_pool);
        let all = explained(&group);
        assert_eq!(all["programs"], false);
        assert!(all["why_not"].as_str().unwrap().contains(why), "{all}");
        // Prepared by the callable, and yet not run as a program.
        group.make_callable(&["slow/n", "slow/x"], &["slow/y"], &[]).unwrap();
        let one = signature(&group, "slow/y:0");
        assert_eq!((&one["runs_as"], &one["why"]), (&"names".into(), &all["why_not"]));
    }
}

#[test]
fn what_is_not_run_is_counted_as_such() {
    let group = create("slow", &options(1));
    let error = group.run(&[], &["no_such_thing:0"], &[]).err().unwrap();
    assert!(error.message.contains("no_such_thing"), "{error}");
    assert_ways(&group, &[(Way::NotRun, 1)]);
    // It is forgotten, as it was nothing.
    assert_eq!(explained(&group)["signatures"], Value::Array(Vec::new()));
}

/// A group with one worker thread, and what happens to a request while another one keeps it busy.
fn while_busy(queue: usize, f: impl FnOnce(&SessionGroup)) -> SessionGroup {
    let mut options = options(1);
    options.execution(Execution::Worker).worker_threads(1).queue(queue, false);
    let group = create("slow", &options);
    slow(&group, 1, None).unwrap();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| slow(&group, i32::MAX, Some(&timeout(2_000))));
        let wait_while = |is: fn(&Snapshot) -> bool| {
            while is(&group.stats(0).unwrap()) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        // Until the worker has taken it.
        wait_while(|stats| stats.in_flight == 0);
        std::thread::sleep(Duration::from_millis(50));
        wait_while(|stats| stats.queued > 0);
        f(&group);
        assert_eq!(busy.join().unwrap().err().unwrap().code, Code::DeadlineExceeded);
    });
    group
}

#[test]
fn a_deadline_that_passes_in_the_queue_is_not_run() {
    let group = while_busy(8, |group| {
        let error = slow(group, 1, Some(&timeout(20))).err().unwrap();
        assert!(error.message.contains("was not run"), "{error}");
    });
    assert_ways(&group, &[(Way::Program, 2), (Way::NotRun, 1)]);
    assert_eq!(group.stats(0).unwrap().errors(Code::DeadlineExceeded), 2);
}

#[test]
fn a_request_that_a_full_queue_refuses_is_not_run() {
    let group = while_busy(1, |group| {
        std::thread::scope(|scope| {
            // There is room for one, whichever comes first.
            let both = [(); 2].map(|()| scope.spawn(|| slow(group, 1, None)));
            let results = both.map(|one| one.join().unwrap().map(drop));
            let refused: Vec<_> = results.iter().filter_map(|one| one.as_ref().err()).collect();
            let [error] = refused[..] else { panic!("{results:?}") };
            assert_eq!(error.code, Code::ResourceExhausted, "{error}");
        });
    });
    assert_ways(&group, &[(Way::Program, 3), (Way::NotRun, 1)]);
    assert_eq!(group.stats(0).unwrap().rejected, 1);
}

#[test]
fn callables_are_counted_by_their_way_too() {
    let group = create("slow", &options(1));
    let callable = group.make_callable(&["slow/n", "slow/x"], &["slow/y"], &[]).unwrap();
    // Prepared, but not run.
    assert_ways(&group, &[]);
    assert_eq!(signature(&group, "slow/y:0")["loops"], 1);
    let (n, x) =
        (Tensor::from_slice(&[], &[1]).unwrap(), Tensor::from_slice(&[], &[1f32]).unwrap());
    callable.run(&[&n, &x]).unwrap();
    callable.run(&[&x, &n]).err().unwrap();
    assert_ways(&group, &[(Way::Program, 2)]);

    let group = with_references(1);
    let callable = group.make_callable(&["word", "n"], &["y"], &[]).unwrap();
    let word = Tensor::from_strings(&[1], &["a"]).unwrap();
    callable.run(&[&word, &n]).unwrap();
    assert_ways(&group, &[(Way::NoProgram, 1)]);
}

#[test]
fn unusual_runs_of_programs_are_counted() {
    let group = create("writes", &options(1));
    group.run(&[], &["missing:0"], &[]).err().unwrap();
    assert_eq!(group.stats(0).unwrap().unresolved, 1);
    group.run(&[], &[], &["late"]).unwrap();
    group.run(&[], &["missing:0"], &[]).unwrap();
    assert_eq!(group.stats(0).unwrap().unresolved, 1);

    let group = create("writes", &options(1));
    group.run(&[], &[], &["initialize"]).unwrap();
    let rows = |id: i32| {
        let ids = Tensor::from_slice(&[2], &[0, id]).unwrap();
        group.run(&[("ids", &ids)], &["rows"], &[])
    };
    rows(7).unwrap();
    assert_eq!(signature(&group, "rows:0")["fused_lookups"], 1);
    assert_eq!(group.stats(0).unwrap().unfused, 0);
    let error = rows(8).err().unwrap();
    assert!(error.message.contains("is not in [0, 8)"), "{error}");
    assert_eq!(group.stats(0).unwrap().unfused, 1);
    assert_ways(&group, &[(Way::Program, 3)]);
    assert_eq!(explained(&group)["requests"]["unfused"], 1);
}

/// Any thread may ask while others run all kinds of requests; each is counted once, and nothing goes down.
#[test]
fn ways_add_up_to_the_answers_under_8_threads() {
    const ROUNDS: u64 = 50;
    let group = with_references(3);
    let begin = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (group, begin) = (&group, &begin);
            scope.spawn(move || {
                begin.wait();
                for _ in 0..ROUNDS {
                    match thread % 4 {
                        0 => drop(of_tf1(group, None).unwrap()),
                        1 => drop(of_tf1(group, Some(&partition_graphs())).unwrap()),
                        2 => drop(group.run(&[], &["no_such_thing:0"], &[]).err().unwrap()),
                        _ => drop(group.run(&[], &["Const:0"], &[]).unwrap()),
                    }
                    let stats = stats(group);
                    for session in &stats {
                        assert_eq!(session.ways.iter().sum::<u64>(), session.runs());
                    }
                    explained(group);
                }
            });
        }
    });
    let each = 2 * ROUNDS;
    assert_ways(
        &group,
        &[(Way::NoProgram, each), (Way::Options, each), (Way::NotRun, each), (Way::Program, each)],
    );
    let errors: u64 = stats(&group).iter().map(|session| session.runs() - session.answers[0]).sum();
    assert_eq!(errors, each);
}

/// Makes this test program a process that runs a model, whose log can be read.
const LOGGED: &str = "TEST_EXPLAIN_LOGGED";

#[test]
fn logged_in_a_process_of_its_own() {
    if std::env::var_os(LOGGED).is_some() {
        let group = with_references(2);
        for _ in 0..4 {
            of_tf1(&group, None).unwrap();
        }
        slow(&create("slow", &options(2)), 1, None).unwrap();
    }
}

#[test]
fn what_can_not_run_as_a_program_is_logged_once() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "logged_in_a_process_of_its_own"])
        .env(LOGGED, "1")
        .env("TF_CPP_MIN_LOG_LEVEL", "0")
        .output()
        .unwrap();
    assert!(output.status.success());
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("not as a program")).collect();
    let [line] = lines[..] else { panic!("{lines:?} of {log}") };
    assert!(
        line.contains("session group 0: requests that fetch y:0 run on TensorFlow's session"),
        "{line}"
    );
    assert!(line.contains("because of a ref variable (node weights); make"), "{line}");
}

//! What one session loads, initialises or writes is there for all of a group, and for nobody else.

mod common;

use common::{create, load, options, run_on};
use session_group::tensorflow::Tensor;
use session_group::tensorflow::{DataType, Variable};
use session_group::{Code, Result, SessionGroup};

fn y(group: &SessionGroup, session: usize) -> Result<Vec<f32>> {
    let word = Tensor::from_strings(&[3], &["a", "b", "c"]).unwrap();
    run_on(group, session, &[("word", &word)], &["y"], &[])?[0].to_vec()
}

fn increase(group: &SessionGroup, session: usize, delta: f32) {
    let delta = Tensor::from_slice(&[], &[delta]).unwrap();
    run_on(group, session, &[("delta", &delta)], &[], &["increase"]).unwrap();
}

#[test]
fn a_graph_initialised_by_one_session_serves_in_all() {
    for initialised_by in 0..3 {
        let group = create("init_op", &options(3));
        assert_eq!(y(&group, 0).unwrap_err().code, Code::FailedPrecondition, "not initialised yet");
        run_on(&group, initialised_by, &[], &[], &["initialize"]).unwrap();
        for session in 0..3 {
            assert_eq!(y(&group, session).unwrap(), [111.25, 112.5, 110.]);
        }
    }
}

#[test]
fn a_write_by_any_session_is_seen_by_all() {
    let group = create("init_op", &options(3));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    for (writer, expected) in [(0, 112.), (1, 114.), (2, 116.)] {
        increase(&group, writer, 1.);
        for reader in 0..3 {
            // Resource and ref variable have both grown by 1.
            assert_eq!(y(&group, reader).unwrap()[2], expected);
        }
    }
}

#[test]
fn a_variable_that_is_written_where_it_lies_is_seen_by_all() {
    let group = create("init_op", &options(3));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    let write = |name, dtype, dims: &[i64]| {
        let variable = Variable { container: "", name, dtype, dims };
        group
            .write_variable(&variable, |bytes| bytes.copy_from_slice(&20f32.to_ne_bytes()))
            .unwrap()
    };
    let seen = |expected| (0..3).for_each(|i| assert_eq!(y(&group, i).unwrap()[2], expected));
    seen(110.);
    let (float, double) = (DataType::Float, DataType::Double);
    // As it was initialised, it is the memory of a constant, which has to stay as it is.
    assert!(!write("resource", float, &[]));
    increase(&group, 1, 1.);
    seen(112.);
    assert!(write("resource", float, &[]));
    seen(121.);
    // Another name, type or shape; and a reference variable, which is kept elsewhere.
    assert!(!write("none", float, &[]));
    assert!(!write("resource", double, &[]));
    assert!(!write("resource", float, &[1]));
    assert!(!write("ref", float, &[]));
    increase(&group, 1, 1.);
    seen(123.);
}

#[test]
fn a_reference_variable_without_attributes_of_default_values_is_shared() {
    let group = create("stripped", &options(2));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    let x = Tensor::from_slice(&[2], &[1f32, 10.]).unwrap();
    for (session, before) in [(1, [1f32, 2.]), (0, [2., 12.])] {
        let read = run_on(&group, 1 - session, &[("x", &x)], &["y"], &[]).unwrap();
        assert_eq!(read[0].to_vec::<f32>().unwrap(), [before[0] + 1., before[1] + 10.]);
        let after = run_on(&group, session, &[("x", &x)], &["add"], &[]).unwrap();
        assert_eq!(after[0].to_vec::<f32>().unwrap(), [before[0] + 1., before[1] + 10.]);
    }
}

#[test]
fn groups_with_equal_names_never_see_each_other() {
    let one = create("init_op", &options(2));
    let other = create("init_op", &options(2));
    run_on(&one, 0, &[], &[], &["initialize"]).unwrap();
    assert!(y(&other, 0).is_err(), "nobody has initialised the other group");
    run_on(&other, 1, &[], &[], &["initialize"]).unwrap();
    increase(&one, 1, 5.);
    assert_eq!(y(&one, 0).unwrap()[2], 120.);
    assert_eq!(y(&other, 0).unwrap()[2], 110.);
    drop(one);
    assert_eq!(y(&other, 1).unwrap()[2], 110.);
}

#[test]
fn a_mutable_table_without_a_shared_name_is_shared() {
    let group = create("mutable_table", &options(4));
    let key = Tensor::from_strings(&[2], &["one", "two"]).unwrap();
    let value = Tensor::from_slice(&[2], &[1i64, 2]).unwrap();
    run_on(&group, 3, &[("key", &key), ("value", &value)], &[], &["insert"]).unwrap();
    for session in 0..4 {
        let found = run_on(&group, session, &[("key", &key)], &["y"], &[]).unwrap();
        assert_eq!(found[0].to_vec::<i64>().unwrap(), [1, 2]);
    }
}

#[test]
fn tables_of_all_kinds_are_shared_and_found_once() {
    let group = create("tables", &options(2));
    let key = Tensor::from_slice(&[3], &[3i64, 7, 30]).unwrap();
    let found = |session: usize, table: &str| {
        run_on(&group, session, &[("key", &key)], &[table], &[]).map(|mut found| found.remove(0))
    };
    // Before it has been filled, as TensorFlow says it.
    let error = found(0, "double").err().unwrap();
    assert_eq!(error.code, Code::FailedPrecondition, "{error}");
    assert!(error.message.contains("Table not initialized"), "{error}");
    run_on(&group, 1, &[], &[], &["init"]).unwrap();
    for session in 0..2 {
        assert_eq!(found(session, "double").unwrap().to_vec::<i64>().unwrap(), [6, 14, 0]);
        let size = run_on(&group, session, &[], &["size"], &[]).unwrap();
        assert_eq!(size[0].to_vec::<i64>().unwrap(), [10]);
    }
    // What is put in later is seen at once, by all.
    for (session, table, half) in
        [(0, "rows", [1.5, 3., 3.5, 7., 15., 30.].to_vec()), (1, "dense", [1.5, 3.5, 15.].to_vec())]
    {
        let missing = vec![-1f32; half.len()];
        for _ in 0..2 {
            assert_eq!(found(1 - session, table).unwrap().to_vec::<f32>().unwrap(), missing);
        }
        let target = format!("insert_{table}");
        run_on(&group, session, &[("key", &key)], &[], &[&target]).unwrap();
        for session in 0..2 {
            assert_eq!(found(session, table).unwrap().to_vec::<f32>().unwrap(), half, "{table}");
        }
    }
    let explained: serde_json::Value = serde_json::from_str(&group.explain()).unwrap();
    for signature in explained["signatures"].as_array().unwrap() {
        assert_eq!(signature["runs_as"], "program", "{signature}");
        let reads = signature["writes"] == false;
        assert_eq!(signature["resolved_tables"], i32::from(reads), "{signature}");
    }
}

#[test]
fn a_tf1_saved_model_with_ref_variables_and_an_unnamed_table_serves_in_all() {
    let group = load("tf1_saved_model", &options(3));
    let word = Tensor::from_strings(&[3], &["a", "b", "c"]).unwrap();
    let n = Tensor::from_slice(&[], &[0i32]).unwrap();
    for session in 0..3 {
        let got = run_on(&group, session, &[("word", &word), ("n", &n)], &["y"], &[]).unwrap();
        assert_eq!(got[0].to_vec::<f32>().unwrap(), [0.25, 1.5, -2.]);
    }
}

#[test]
fn an_iterator_is_its_sessions_own_and_ends_with_it() {
    for round in 0..10 {
        let group = create("iterator", &options(2));
        let error = run_on(&group, 0, &[], &["next"], &[]).err().unwrap();
        assert_eq!(error.code, Code::FailedPrecondition, "not begun yet: {error}");
        for session in 0..2 {
            run_on(&group, session, &[], &[], &["begin"]).unwrap();
        }
        for (session, expected) in [(1, 0), (0, 0), (1, 2), (1, 4), (0, 2)] {
            let next = run_on(&group, session, &[], &["next"], &[]).unwrap();
            assert_eq!(next[0].to_vec::<i64>().unwrap(), [expected]);
        }
        if round % 2 == 0 {
            group.close().unwrap();
        }
    }
}

#[test]
fn an_iterator_with_a_shared_name_is_refused() {
    // It would run functions of the session that made it in threads that outlive that session.
    let group = SessionGroup::new(&common::one_thread(), &options(2)).unwrap();
    let error = group.create(&common::graph_def("iterator_shared")).unwrap_err();
    assert_eq!(error.code, Code::Unimplemented);
    assert!(error.message.contains("IteratorV2"), "{error}");
    group.create(&common::graph_def("iterator")).unwrap();
}

#[test]
fn a_graph_can_be_extended_while_it_serves() {
    let group = create("init_op", &options(2));
    run_on(&group, 0, &[], &[], &["initialize"]).unwrap();
    group.extend(&common::graph_def("slow")).unwrap();
    let (n, x) =
        (Tensor::from_slice(&[], &[0i32]).unwrap(), Tensor::from_slice(&[], &[3f32]).unwrap());
    for session in 0..2 {
        let got =
            run_on(&group, session, &[("slow/n", &n), ("slow/x", &x)], &["slow/y"], &[]).unwrap();
        assert_eq!(got[0].to_vec::<f32>().unwrap(), [3.]);
        assert_eq!(y(&group, session).unwrap()[2], 110.);
    }
    // A graph whose names are taken is refused, and the group serves on.
    group.extend(&common::graph_def("init_op")).unwrap_err();
    assert_eq!(y(&group, 1).unwrap()[2], 110.);
}

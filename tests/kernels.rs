//! Which kernels programs take: measured by default, or those of a session of the same process.

mod common;

use std::process::Command;

use common::{create, one_thread, options, same};
use session_group::kernels::Kernels;
use session_group::tensorflow::Tensor;
use stock_session::{ON_CALLING_THREAD, StockSession};

/// Makes this test program a process that prints the bits of stock TensorFlow without oneDNN.
const PRINTS: &str = "TEST_KERNELS_PRINTS";
/// A product with a bias, the one operation between feed and fetch that has two kernels.
const FETCH: [&str; 1] = ["layer0:0"];

fn request(rows: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * 64).map(|i| ((i * 37 % 101) as f32 - 50.) * 0.013).collect();
    Tensor::from_slice(&[rows as i64, 64], &values).unwrap()
}

fn stock(rows: usize) -> Vec<Tensor> {
    let stock = StockSession::create(&one_thread(), &common::graph_def("mlp_frozen"));
    stock.run(&stock.step(&["x:0"], &FETCH), &[&request(rows)], &ON_CALLING_THREAD)
}

fn bits(tensors: &[Tensor]) -> Vec<u32> {
    tensors[0].to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

const ROWS: [usize; 3] = [1, 8, 100];

#[test]
fn measured_kernels_give_the_bits_of_stock_with_onednn_or_without() {
    if std::env::var_os(PRINTS).is_some() {
        for rows in ROWS {
            println!("bits {:?}", bits(&stock(rows)));
        }
        return;
    }
    let without = Command::new(std::env::current_exe().unwrap())
        .args(["measured_kernels_give", "--nocapture"])
        .env(PRINTS, "1")
        .env("TF_ENABLE_ONEDNN_OPTS", "0")
        .output()
        .unwrap();
    let without = String::from_utf8_lossy(&without.stdout).into_owned();
    let without: Vec<&str> =
        without.lines().filter_map(|line| line.strip_prefix("bits ")).collect();
    assert_eq!(without.len(), ROWS.len());

    let mut auto = options(2);
    auto.kernels(Kernels::Auto);
    let group = create("mlp_frozen", &auto);
    for (rows, without) in std::iter::zip(ROWS, without) {
        let x = request(rows);
        let with = format!("{:?}", bits(&stock(rows)));
        let answers: Vec<String> = (0..40)
            .map(|_| format!("{:?}", bits(&group.run(&[("x:0", &x)], &FETCH, &[]).unwrap())))
            .collect();
        assert!(answers.iter().all(|answer| *answer == with || *answer == without), "{rows} rows");
        // Until it is decided, answers are those of this process; then they stay as they are.
        assert_eq!(answers[0], with);
        let changes = answers.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes <= 1, "{changes} changes with {rows} rows");
    }
    let explained = group.explain();
    for wanted in ["\"kernels\":", "\"rows\":1}", "\"rows\":8}", "\"rows\":64}"] {
        assert!(explained.contains(wanted), "{wanted} is not in {explained}");
    }
}

#[test]
fn stock_kernels_give_the_bits_of_this_process() {
    let group = create("mlp_frozen", &options(2));
    for rows in ROWS {
        let x = request(rows);
        let expected = stock(rows);
        for _ in 0..20 {
            assert!(same(&group.run(&[("x:0", &x)], &FETCH, &[]).unwrap(), &expected));
        }
    }
}

/// What fails must not decide for what does not.
#[test]
fn requests_that_fail_measure_nothing() {
    let mut auto = options(1);
    auto.kernels(Kernels::Auto);
    let group = create("mlp_frozen", &auto);
    let wrong = Tensor::from_slice(&[1, 63], &[1f32; 63]).unwrap();
    for _ in 0..40 {
        assert!(group.run(&[("x:0", &wrong)], &FETCH, &[]).is_err());
    }
    assert!(!group.explain().contains("\"rows\":"), "{}", group.explain());
    let x = request(1);
    for _ in 0..40 {
        group.run(&[("x:0", &x)], &FETCH, &[]).unwrap();
    }
    assert!(group.explain().contains("\"rows\":1}"), "{}", group.explain());
}

//! Sessions add next to nothing to the weights, be these variables or constants.

mod common;

use std::process::Command;

use common::{load, options, proc_bytes, resident};
use session_group::tensorflow::Tensor;

/// 26 tables of 192,000 rows: 16 + 1 floats each.
const VARIABLES: u64 = 26 * 192_000 * 17 * 4;
/// A table and two kernels.
const CONSTANTS: u64 = (1_250_000 * 64 + 2 * 64 * 16_384) * 4;

/// Makes this test program a process that loads the model into so many sessions and measures itself.
const SESSIONS: &str = "TEST_MEMORY_SESSIONS";

#[test]
fn another_session_adds_little_to_variables_of_300_mb() {
    const { assert!(VARIABLES > 300_000_000) };
    if let Some(sessions) = asked_for() {
        let request = common::wide_deep_request(&mut common::Numbers(3), 8);
        let group = load("wide_deep_large", &options(sessions));
        for _ in 0..4 * sessions {
            group.run(&common::feeds(&request), &["StatefulPartitionedCall:0"], &[]).unwrap();
        }
        return report();
    }
    let name = "another_session_adds_little";
    let (one, nine) = (measure(name, 1), measure(name, 9));
    let each = nine.resident.saturating_sub(one.resident) / 8;
    println!(
        "variables {} MB; resident with 1 session {} MB, with 9 {} MB: {:.2} % of the variables each",
        VARIABLES >> 20,
        one.resident >> 20,
        nine.resident >> 20,
        each as f64 / VARIABLES as f64 * 100.
    );
    assert!(one.resident > VARIABLES, "the variables are resident at all");
    assert!(each < VARIABLES / 100, "{each} bytes for each session");
}

#[test]
fn constants_of_300_mb_are_there_once() {
    const { assert!(CONSTANTS > 300_000_000) };
    if asked_for() == Some(0) {
        // What TensorFlow takes by itself, which differs between builds and machines.
        let x = Tensor::from_slice(&[1], &[1f32]).unwrap();
        common::create("trivial", &options(8)).run(&[("x:0", &x)], &["y:0"], &[]).unwrap();
        return report();
    }
    if let Some(sessions) = asked_for() {
        let ids = Tensor::from_slice(&[4], &[0, 7, 1_000_000, 1_249_999]).unwrap();
        let group = load("frozen_large", &options(sessions));
        for _ in 0..4 * sessions {
            group.run(&[("ids:0", &ids)], &["y:0"], &[]).unwrap();
        }
        return report();
    }
    let [base, one, eight] = [0, 1, 8].map(|sessions| measure("constants_of_300_mb", sessions));
    println!(
        "constants {} MB; at most resident with 1 session {} MB, with 8 {} MB, afterwards {} MB; \
         without any constants {} MB",
        CONSTANTS >> 20,
        one.peak >> 20,
        eight.peak >> 20,
        eight.resident >> 20,
        base.peak >> 20,
    );
    assert!(one.resident > CONSTANTS, "the constants are resident at all");
    assert!(eight.peak < base.peak + CONSTANTS * 13 / 10, "{} bytes", eight.peak);
}

#[test]
fn values_that_were_replaced_do_not_stay() {
    if asked_for().is_none() {
        let before = measure("values_that_were_replaced", 1);
        println!(
            "after 12 replacements of 8 MB that 12 programs had read: {} bytes more",
            before.resident
        );
        assert!(before.resident < 3 * (8 << 20), "{} bytes", before.resident);
        return;
    }
    let group = common::create("replaced", &options(2));
    group.run(&[], &[], &["init"]).unwrap();
    let ids = Tensor::from_slice(&[2], &[1i32, 2]).unwrap();
    let mut before = 0;
    for round in 0..12 {
        // A program of its own for each round, which nobody runs again.
        let target = format!("t{round}");
        for _ in 0..2 {
            group.run(&[("i:0", &ids)], &["rows:0"], &[&target]).unwrap();
        }
        group.run(&[], &[], &["assign"]).unwrap();
        if round == 1 {
            before = resident();
        }
    }
    println!("memory={},0", resident().saturating_sub(before));
}

struct Memory {
    resident: u64,
    peak: u64,
}

fn asked_for() -> Option<usize> {
    std::env::var(SESSIONS).ok().map(|sessions| sessions.parse().unwrap())
}

fn report() {
    println!("memory={},{}", resident(), proc_bytes("status", "VmHWM:"));
}

/// Runs one test of this program in a process of its own.
fn measure(test: &str, sessions: usize) -> Memory {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", test])
        .env(SESSIONS, sessions.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("memory="));
    let (resident, peak) = line
        .and_then(|(_, numbers)| numbers.split_once(','))
        .unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    Memory { resident: resident.parse().unwrap(), peak: peak.parse().unwrap() }
}

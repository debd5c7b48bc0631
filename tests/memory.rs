//! Each session beyond the first adds less than 2 % of the weights.

mod common;

use std::process::Command;

use common::{load, options, resident};

/// 26 tables of 192,000 rows: 16 + 1 floats each.
const WEIGHTS: u64 = 26 * 192_000 * 17 * 4;

/// Makes this test program a process that loads the model into so many sessions and measures itself.
const SESSIONS: &str = "TEST_MEMORY_SESSIONS";

#[test]
fn another_session_adds_little_to_a_model_of_300_mb() {
    const { assert!(WEIGHTS > 300_000_000) };
    if let Ok(sessions) = std::env::var(SESSIONS) {
        return measure(sessions.parse().unwrap());
    }
    let (one, nine) = (resident_with(1), resident_with(9));
    let each = nine.saturating_sub(one) / 8;
    println!(
        "weights {} MB; resident with 1 session {} MB, with 9 {} MB: {:.2} % of the weights each",
        WEIGHTS >> 20,
        one >> 20,
        nine >> 20,
        each as f64 / WEIGHTS as f64 * 100.
    );
    assert!(one > WEIGHTS, "the weights are resident at all");
    assert!(each < WEIGHTS / 50, "{each} bytes for each session");
}

fn measure(sessions: i32) {
    let request = common::wide_deep_request(&mut common::Numbers(3), 8);
    let group = load("wide_deep_large", &options(sessions));
    for _ in 0..4 * sessions {
        group.run(&common::feeds(&request), &["StatefulPartitionedCall:0"], &[]).unwrap();
    }
    println!("resident={}", resident());
}

fn resident_with(sessions: i32) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "another_session_adds_little"])
        .env(SESSIONS, sessions.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("resident="));
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
        .1
        .parse()
        .unwrap()
}

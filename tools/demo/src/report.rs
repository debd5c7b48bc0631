//! The table, and what it says.

use comfy_table::{CellAlignment, Table, presets};

use crate::Settings;
use crate::contender::{Answer, Kind, Outcome};

pub fn print(outcomes: &[Outcome], settings: &Settings) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "",
        "load s",
        "resident MB",
        "requests/s",
        "(min to max)",
        "p50 \u{b5}s",
        "p99 \u{b5}s",
        "answers",
    ]);
    let reference = &outcomes[0];
    for (kind, outcome) in Kind::ALL.into_iter().zip(outcomes) {
        table.add_row([
            kind.name(settings),
            format!("{:.2}", outcome.load_seconds),
            format!("{}", outcome.resident >> 20),
            format!("{:.0}", median(outcome)),
            format!("{:.0} to {:.0}", least(outcome), most(outcome)),
            outcome.p50_us.to_string(),
            outcome.p99_us.to_string(),
            if agree(reference, outcome) { "agree".into() } else { "DIFFER".to_string() },
        ]);
    }
    for i in 1..=6 {
        table.column_mut(i).expect("a column").set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");

    let [one, independent, group] = outcomes else { return };
    println!(
        "The group serves {:.2} times the requests of one stock session, and {:.2} times those of \
         {} independent ones, with {:.2} times their memory.",
        median(group) / median(one),
        median(group) / median(independent),
        settings.sessions(),
        group.resident as f64 / independent.resident as f64
    );
    for (other, outcome) in [(Kind::One, one), (Kind::Independent, independent)] {
        if median(group) < median(outcome) {
            println!("The group is NOT ahead of: {}.", other.name(settings));
        }
        if group.p99_us > outcome.p99_us {
            println!("The group's p99 is NOT below that of: {}.", other.name(settings));
        }
    }
}

fn sorted(outcome: &Outcome) -> Vec<f64> {
    let mut qps = outcome.qps.clone();
    qps.sort_by(f64::total_cmp);
    qps
}

fn median(outcome: &Outcome) -> f64 {
    sorted(outcome)[outcome.qps.len() / 2]
}

fn least(outcome: &Outcome) -> f64 {
    sorted(outcome)[0]
}

fn most(outcome: &Outcome) -> f64 {
    sorted(outcome)[outcome.qps.len() - 1]
}

/// Stock sessions cut sums into as many parts as they have threads, so floats may differ by rounding.
fn agree(a: &Outcome, b: &Outcome) -> bool {
    a.answers.len() == b.answers.len()
        && a.answers.iter().zip(&b.answers).all(|pair| match pair {
            (Answer::Floats(a), Answer::Floats(b)) => {
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * a.abs().max(1.0);
                a.len() == b.len() && a.iter().zip(b).all(close)
            }
            (Answer::Strings(a), Answer::Strings(b)) => a == b,
            (Answer::Bytes(a), Answer::Bytes(b)) => a == b,
            _ => false,
        })
}

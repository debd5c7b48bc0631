//! What more sessions cost: memory, and time until they answer.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::contender::Contender;
use crate::machine::Machine;
use crate::process::Running;
use crate::settings::{Model, Setup, name};
use crate::stats::median;

/// What to compare.
#[derive(Args)]
pub struct Settings {
    #[command(flatten)]
    setup: Setup,
    /// Sessions of the large group
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=1024))]
    many: u16,
    /// Models
    #[arg(long, value_delimiter = ',', default_values = ["wide-deep", "mlp-frozen-huge", "large-variables"])]
    models: Vec<Model>,
    /// How often each is loaded
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Folder of the report
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    model: String,
    title: String,
    /// Of each round.
    ready_seconds: Vec<f64>,
    resident_bytes: Vec<u64>,
    peak_resident_bytes: Vec<u64>,
}

/// Loads each in turns, lets it answer, and prints what it took.
pub fn compare(settings: &Settings) -> Result<()> {
    let mut rows = Vec::new();
    let mut rng = StdRng::seed_from_u64(1);
    let mut order = [0, 1, 2];
    for &model in &settings.models {
        let row = |title: String| Row {
            model: name(&model),
            title,
            ready_seconds: Vec::new(),
            resident_bytes: Vec::new(),
            peak_resident_bytes: Vec::new(),
        };
        let many = settings.many;
        let mut ways = [
            (Contender::StockInline, 1, row("TensorFlow, 1 session".into())),
            (Contender::GroupCaller, 1, row("group of 1".into())),
            (Contender::GroupCaller, many, row(format!("group of {many}"))),
        ];
        for round in 0..=settings.rounds {
            // Memory that another process has just freed is quicker to get: nobody is always second.
            order.shuffle(&mut rng);
            for &i in &order {
                let (contender, sessions, row) = &mut ways[i];
                let setup = settings.setup.with_sessions(*sessions);
                let mut running = Running::start(*contender, model, 1, &setup)
                    .with_context(|| format!("{}, {}", name(&model), row.title))?;
                // The first round is to get the files into memory.
                if round == 0 {
                    continue;
                }
                running.turn(1.0, None)?;
                row.ready_seconds.push(running.ready.ready_seconds);
                row.resident_bytes.push(running.resident()?);
                row.peak_resident_bytes.push(running.peak_resident()?);
            }
        }
        rows.extend(ways.map(|(.., row)| row));
    }
    let report = Report { machine: Machine::read()?, rows };
    let table = table(&report.rows);
    print!("{table}");
    std::fs::create_dir_all(&settings.out)?;
    std::fs::write(settings.out.join("memory.json"), serde_json::to_string_pretty(&report)?)?;
    std::fs::write(settings.out.join("memory.md"), table)?;
    Ok(())
}

/// Ratios are to the group of one.
fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| model | | ready s | ÷ group of 1 | resident MB | ÷ group of 1 | at most MB |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let one = rows.iter().find(|one| one.model == row.model && one.title == "group of 1");
        let ratio = |of: fn(&Row) -> f64| one.map_or(f64::NAN, |one| of(row) / of(one));
        table += &format!(
            "| {} | {} | {:.2} | {:.2} | {:.0} | {:.2} | {:.0} |\n",
            row.model,
            row.title,
            row.seconds(),
            ratio(Row::seconds),
            row.resident(),
            ratio(Row::resident),
            megabytes(&row.peak_resident_bytes),
        );
    }
    table
}

impl Row {
    fn seconds(&self) -> f64 {
        median(&self.ready_seconds)
    }

    fn resident(&self) -> f64 {
        megabytes(&self.resident_bytes)
    }
}

fn megabytes(bytes: &[u64]) -> f64 {
    median(&bytes.iter().map(|&bytes| bytes as f64 / 1e6).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_group_of_one() {
        let row = |title: &str, seconds, megabytes: u64| Row {
            model: "m".into(),
            title: title.into(),
            ready_seconds: vec![seconds],
            resident_bytes: vec![megabytes * 1_000_000],
            peak_resident_bytes: vec![megabytes * 2_000_000],
        };
        let table = table(&[row("group of 1", 2.0, 500), row("group of 8", 3.0, 600)]);
        assert!(table.contains("| m | group of 1 | 2.00 | 1.00 | 500 | 1.00 | 1000 |"), "{table}");
        assert!(table.contains("| m | group of 8 | 3.00 | 1.50 | 600 | 1.20 | 1200 |"), "{table}");
    }
}

//! The results in files: [`markdown`] is the tables, [`plot`] a picture of them; the JSON has everything.

mod markdown;
mod plot;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::Machine;
use crate::results::{Comparison, Outcome};
use crate::settings::Settings;
use crate::{compare, feeds, noise};

/// Everything.
#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub command: String,
    pub sessions: usize,
    pub rounds: u32,
    pub seconds: f64,
    pub zipf_exponent: f64,
    pub open_load: f64,
    pub tolerated_outside_load: f64,
    pub comparisons: Vec<Comparison>,
}

/// Writes a report as NAME.json, its tables as NAME.md and its picture as NAME.svg.
pub fn write_files(
    out: &Path,
    name: &str,
    report: &impl Serialize,
    tables: &str,
    picture: &str,
) -> Result<()> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    fs::write(out.join(format!("{name}.json")), serde_json::to_string_pretty(report)?)?;
    fs::write(out.join(format!("{name}.md")), tables)?;
    fs::write(out.join(format!("{name}.svg")), picture)?;
    Ok(())
}

/// Writes the report into its folder and prints its tables. Returns how many contenders failed.
pub fn write(comparisons: Vec<Comparison>, settings: &Settings) -> Result<usize> {
    let report = Report {
        machine: Machine::read()?,
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        sessions: settings.setup.sessions()?,
        rounds: settings.rounds(),
        seconds: settings.seconds()?,
        zipf_exponent: feeds::ZIPF_EXPONENT,
        open_load: compare::OPEN_LOAD,
        tolerated_outside_load: noise::TOLERATED,
        comparisons,
    };
    let out = &settings.out;
    let tables = markdown::tables(&report);
    write_files(out, "results", &report, &tables, &plot::svg(&report))?;
    println!("{tables}");
    println!("Written to {}: results.json, results.md, results.svg", out.display());
    let entries = report.comparisons.iter().flat_map(|comparison| &comparison.entries);
    Ok(entries.filter(|entry| matches!(entry.outcome, Outcome::Failed(_))).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Contender;
    use crate::results::{Entry, Open, Results, Round};
    use crate::stats::median;

    fn open(rate: f64, p50_us: f64) -> Open {
        Open {
            rate,
            requests: 140,
            p50_us: Some(p50_us),
            p99_us: Some(2.5 * p50_us),
            p999_us: None,
            rounds: vec![Round { qps: rate, repeats: 0, outside_load: 0.1 }],
        }
    }

    /// Processes with oneDNN and, faster, without, a group that is twice as fast as these, and a contender
    /// that failed.
    pub fn report() -> Report {
        let measured = |contender: Contender, qps: [f64; 2]| Entry {
            contender,
            outcome: Outcome::Measured(Box::new(Results {
                load_seconds: 0.5,
                ready_seconds: 0.75,
                resident_bytes: 600_000_000,
                gpu_bytes: None,
                deviation: 0.25,
                version: "TensorFlow 2".into(),
                onednn: Some(!contender.is_without_onednn()),
                closed: qps.map(|qps| Round { qps, repeats: 1, outside_load: 0.01 }).into(),
                open_own: open(0.7 * median(&qps), 100.0),
                open_same: open(280.0, 40.0),
            })),
        };
        Report {
            machine: Machine::example(),
            command: "--quick".into(),
            sessions: 2,
            rounds: 2,
            seconds: 1.0,
            zipf_exponent: 1.05,
            open_load: 0.7,
            tolerated_outside_load: 0.05,
            comparisons: vec![Comparison {
                model: "trivial".into(),
                title: "x + 1".into(),
                batch: 8,
                entries: vec![
                    measured(Contender::Processes, [500.0, 300.0]),
                    measured(Contender::ProcessesEigen, [1000.0, 500.0]),
                    measured(Contender::GroupCaller, [2000.0, 1000.0]),
                    Entry {
                        contender: Contender::Onnx,
                        outcome: Outcome::Failed("no | library".into()),
                    },
                ],
            }],
        }
    }

    #[test]
    fn the_json_tells_results_from_failures() {
        let json = serde_json::to_value(report()).unwrap();
        let entries = &json["comparisons"][0]["entries"];
        assert_eq!(entries[2]["contender"], "group-caller");
        let measured = &entries[2]["outcome"]["measured"];
        assert_eq!(measured["closed"][0]["qps"], 2000.0);
        assert_eq!(measured["open_same"]["rate"], 280.0);
        assert_eq!(entries[1]["outcome"]["measured"]["onednn"], false);
        assert_eq!(entries[3]["outcome"]["failed"], "no | library");
    }
}

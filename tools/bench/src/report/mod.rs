//! What was found: [`markdown`] is the tables, [`plot`] a picture of them; the JSON is everything.

mod markdown;
mod plot;

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::contender::{Contender, Family};
use crate::machine::Machine;
use crate::settings::Settings;
use crate::stats::{median, median_ratio};
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

/// All contenders on one model with one batch.
#[derive(Serialize)]
pub struct Comparison {
    pub model: String,
    pub title: String,
    pub batch: u32,
    pub entries: Vec<Entry>,
}

#[derive(Serialize)]
pub struct Entry {
    pub contender: Contender,
    pub outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Why.
    Failed(String),
    Measured(Box<Results>),
}

/// What a contender has shown.
#[derive(Serialize)]
pub struct Results {
    pub load_seconds: f64,
    /// Loading and the first answers.
    pub ready_seconds: f64,
    pub resident_bytes: u64,
    /// Of a GPU's memory, where there is one.
    pub gpu_bytes: Option<u64>,
    /// The largest difference from a stock session's answers, as a part of what is tolerated.
    pub deviation: f32,
    /// The name and version of what served.
    pub version: String,
    /// Whether TensorFlow used oneDNN, where it served.
    pub onednn: Option<bool>,
    pub closed: Vec<Round>,
    /// At its share of the contender's own peak.
    pub open_own: Open,
    /// At its share of the slowest contender's peak.
    pub open_same: Open,
}

/// A contender's turn.
#[derive(Serialize)]
pub struct Round {
    /// Requests a second that were answered.
    pub qps: f64,
    /// How often it was repeated, and what load from outside was left.
    pub repeats: u32,
    pub outside_load: f64,
}

/// The turns in an open loop.
#[derive(Serialize)]
pub struct Open {
    /// Requests a second that were to be sent.
    pub rate: f64,
    /// Those of all rounds.
    pub requests: u64,
    /// Quantiles of all rounds' latencies together, where there are enough for that.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub rounds: Vec<Round>,
}

/// Writes the report into its folder and prints its tables. Gives how many contenders failed.
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
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let tables = markdown::tables(&report);
    fs::write(out.join("results.json"), serde_json::to_string_pretty(&report)?)?;
    fs::write(out.join("results.md"), &tables)?;
    fs::write(out.join("results.svg"), plot::svg(&report))?;
    println!("{tables}");
    println!("Written to {}: results.json, results.md, results.svg", out.display());
    let entries = report.comparisons.iter().flat_map(|comparison| &comparison.entries);
    Ok(entries.filter(|entry| matches!(entry.outcome, Outcome::Failed(_))).count())
}

impl Comparison {
    /// Requests a second of a contender, for each round. Nothing where it failed or did not take part.
    fn qps_of(&self, contender: Contender) -> Vec<f64> {
        let entry = self.entries.iter().find(|entry| entry.contender == contender);
        entry.map(Entry::qps).unwrap_or_default()
    }

    /// What a GPU's memory a contender has taken, in MB.
    fn gpu_megabytes(&self, contender: Contender) -> Option<f64> {
        let entry = self.entries.iter().find(|entry| entry.contender == contender)?;
        match &entry.outcome {
            Outcome::Measured(results) => results.gpu_bytes.map(|bytes| bytes as f64 / 1e6),
            Outcome::Failed(_) => None,
        }
    }

    /// A family's configuration with the most requests a second.
    fn best(&self, family: Family) -> Option<Contender> {
        let all = self.entries.iter().filter(|entry| entry.contender.family() == family);
        let measured = all.filter(|entry| !entry.qps().is_empty());
        let median = |entry: &&Entry| median(&entry.qps());
        Some(measured.max_by(|a, b| median(a).total_cmp(&median(b)))?.contender)
    }

    /// How many times the requests of a family's best configuration a contender serves.
    fn ratio(&self, entry: &Entry, family: Family) -> Option<f64> {
        let (own, others) = (entry.qps(), self.qps_of(self.best(family)?));
        (!own.is_empty() && !others.is_empty()).then(|| median_ratio(&own, &others))
    }
}

impl Entry {
    fn qps(&self) -> Vec<f64> {
        match &self.outcome {
            Outcome::Failed(_) => Vec::new(),
            Outcome::Measured(results) => results.closed.iter().map(|turn| turn.qps).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            machine: Machine {
                date: "2026-01-31".into(),
                cpu: "CPU".into(),
                cpus: 2,
                memory_bytes: 8_000_000_000,
                kernel: "6.1".into(),
            },
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

//! What was found: [`markdown`] is the tables; the JSON is everything.

mod markdown;

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
    Measured {
        load_seconds: f64,
        /// Loading and the first answers.
        ready_seconds: f64,
        resident_bytes: u64,
        /// The largest difference from a stock session's answers, as a part of what is tolerated.
        deviation: f32,
        /// The name and version of what served.
        version: String,
        closed: Vec<Closed>,
        open: Vec<Open>,
    },
}

/// A turn in a closed loop.
#[derive(Serialize)]
pub struct Closed {
    pub qps: f64,
    /// How often it was repeated, and what load from outside was left.
    pub repeats: u32,
    pub outside_load: f64,
}

/// A turn in an open loop.
#[derive(Serialize)]
pub struct Open {
    /// Requests a second that were to be sent, and that were answered.
    pub rate: f64,
    pub qps: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub repeats: u32,
    pub outside_load: f64,
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
    println!("{tables}");
    println!("Written to {}: results.json, results.md", out.display());
    let entries = report.comparisons.iter().flat_map(|comparison| &comparison.entries);
    Ok(entries.filter(|entry| matches!(entry.outcome, Outcome::Failed(_))).count())
}

impl Comparison {
    /// Requests a second of a contender, for each round. Nothing where it failed or did not take part.
    fn qps_of(&self, contender: Contender) -> Vec<f64> {
        let entry = self.entries.iter().find(|entry| entry.contender == contender);
        entry.map(Entry::qps).unwrap_or_default()
    }

    /// The ONNX Runtime configuration with the most requests a second.
    fn best_onnx(&self) -> Option<Contender> {
        let onnx = self.entries.iter().filter(|entry| entry.contender.family() == Family::Onnx);
        let measured = onnx.filter(|entry| !entry.qps().is_empty());
        let median = |entry: &&Entry| median(&entry.qps());
        Some(measured.max_by(|a, b| median(a).total_cmp(&median(b)))?.contender)
    }

    /// How many times the requests of `reference` a contender serves.
    fn ratio(&self, entry: &Entry, reference: Contender) -> Option<f64> {
        let (own, others) = (entry.qps(), self.qps_of(reference));
        (!own.is_empty() && !others.is_empty()).then(|| median_ratio(&own, &others))
    }
}

impl Entry {
    fn qps(&self) -> Vec<f64> {
        match &self.outcome {
            Outcome::Failed(_) => Vec::new(),
            Outcome::Measured { closed, .. } => closed.iter().map(|turn| turn.qps).collect(),
        }
    }
}

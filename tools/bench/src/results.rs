//! What contenders have shown: [`compare`](crate::compare) fills this in, [`report`](crate::report) writes it.

use serde::Serialize;

use crate::contender::{Contender, Family};
use crate::stats::{median, median_ratio};

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

/// The measurements of a contender.
#[derive(Serialize)]
pub struct Results {
    pub load_seconds: f64,
    /// Loading and the first answers.
    pub ready_seconds: f64,
    pub resident_bytes: u64,
    /// Taken from the GPU, if the contender runs on one.
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
    /// How often it was repeated, and the load from outside that remained.
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

impl Comparison {
    /// Requests a second of a contender, for each round. Empty where it failed or did not take part.
    pub fn qps_of(&self, contender: Contender) -> Vec<f64> {
        let entry = self.entries.iter().find(|entry| entry.contender == contender);
        entry.map(Entry::qps).unwrap_or_default()
    }

    /// How much of a GPU's memory a contender has taken, in MB.
    pub fn gpu_megabytes(&self, contender: Contender) -> Option<f64> {
        let entry = self.entries.iter().find(|entry| entry.contender == contender)?;
        match &entry.outcome {
            Outcome::Measured(results) => results.gpu_bytes.map(|bytes| bytes as f64 / 1e6),
            Outcome::Failed(_) => None,
        }
    }

    /// The contender of a family with the most requests a second.
    pub fn best(&self, family: Family) -> Option<Contender> {
        let all = self.entries.iter().filter(|entry| entry.contender.family() == family);
        let measured = all.filter(|entry| !entry.qps().is_empty());
        let median = |entry: &&Entry| median(&entry.qps());
        Some(measured.max_by(|a, b| median(a).total_cmp(&median(b)))?.contender)
    }

    /// How many times the requests of a family's best configuration a contender serves.
    pub fn ratio(&self, entry: &Entry, family: Family) -> Option<f64> {
        let (own, others) = (entry.qps(), self.qps_of(self.best(family)?));
        (!own.is_empty() && !others.is_empty()).then(|| median_ratio(&own, &others))
    }
}

impl Entry {
    pub fn qps(&self) -> Vec<f64> {
        match &self.outcome {
            Outcome::Failed(_) => Vec::new(),
            Outcome::Measured(results) => results.closed.iter().map(|turn| turn.qps).collect(),
        }
    }
}

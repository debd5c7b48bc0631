//! What was found, as JSON and as tables.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::plot;
use crate::contender::Contender;
use crate::machine::Machine;
use crate::report::write_files;
use crate::stats::{median, range};

/// Everything.
#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    /// Where it is 2, the CPUs after the first half of them are second threads of the same cores.
    pub threads_per_core: usize,
    pub command: String,
    pub batch: u32,
    pub rounds: u32,
    pub seconds: f64,
    /// Numbers of CPUs.
    pub cpus: Vec<usize>,
    pub models: Vec<Scaled>,
}

/// All contenders on one model.
#[derive(Serialize)]
pub struct Scaled {
    pub model: String,
    pub title: String,
    pub curves: Vec<Curve>,
}

/// A contender over numbers of CPUs.
#[derive(Serialize)]
pub struct Curve {
    pub contender: Contender,
    pub points: Vec<Point>,
}

#[derive(Clone, Default, Serialize)]
pub struct Point {
    pub cpus: usize,
    /// Requests a second, of each round.
    pub qps: Vec<f64>,
    /// Why it could not go on.
    pub failure: Option<String>,
}

impl Point {
    pub fn median(&self) -> Option<f64> {
        (self.failure.is_none() && !self.qps.is_empty()).then(|| median(&self.qps))
    }
}

impl Curve {
    pub fn failed(&self) -> bool {
        self.points.iter().any(|point| point.failure.is_some())
    }

    /// The contender's title, without a number that changes along the curve.
    pub fn title(&self) -> String {
        self.contender.title(0).replace(" 0 ", " N ").replace("of 0", "of N")
    }

    /// Requests a second per CPU, as a part of those on one CPU.
    pub fn efficiency(&self, point: &Point) -> Option<f64> {
        let one = self.points.iter().find(|one| one.cpus == 1)?.median()?;
        Some(point.median()? / (point.cpus as f64 * one))
    }
}

/// Writes the report into its folder.
pub fn write(report: &Report, out: &Path) -> Result<()> {
    write_files(out, "scaling", report, &tables(report), &plot::svg(report))
}

/// A table for each model: a row for each contender, a column for each number of CPUs.
pub fn tables(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{} CPUs of {}, {} hardware threads per core, {}. Batch {}; median requests a second of {} turns \
         of {} s; in brackets the efficiency: requests a second per CPU against one CPU. The last \
         column is the spread at the most CPUs, highest to lowest turn.\n",
        machine.cpus,
        machine.cpu,
        report.threads_per_core,
        machine.date,
        report.batch,
        report.rounds,
        report.seconds,
    );
    for model in &report.models {
        // Writing to a string never fails.
        let _ = write!(text, "\n## {}\n\n| CPUs |", model.title);
        for cpus in &report.cpus {
            let _ = write!(text, " {cpus} |");
        }
        let _ = write!(text, " spread |\n|---|{}--:|\n", "--:|".repeat(report.cpus.len()));
        for curve in &model.curves {
            let _ = write!(text, "| {} |", curve.title());
            for cpus in &report.cpus {
                let point = curve.points.iter().find(|point| point.cpus == *cpus);
                let _ = write!(text, " {} |", cell(curve, point));
            }
            let _ = writeln!(text, " {} |", spread(curve));
        }
        for (curve, point) in failures(model) {
            let why = point.failure.as_deref().unwrap_or_default();
            let _ = write!(text, "\n{} on {} CPUs failed: {why}\n", curve.title(), point.cpus);
        }
    }
    text
}

fn cell(curve: &Curve, point: Option<&Point>) -> String {
    let Some(point) = point else { return "–".into() };
    match (point.median(), curve.efficiency(point)) {
        (Some(qps), Some(efficiency)) => format!("{qps:.0} ({efficiency:.2})"),
        (Some(qps), None) => format!("{qps:.0}"),
        (None, _) => "failed".into(),
    }
}

fn spread(curve: &Curve) -> String {
    let last = curve.points.iter().rev().find(|point| !point.qps.is_empty());
    last.map_or("–".into(), |point| {
        let (least, most) = range(&point.qps);
        format!("{:.0} %", 100.0 * (most / least - 1.0))
    })
}

fn failures(model: &Scaled) -> impl Iterator<Item = (&Curve, &Point)> {
    let points = |curve| -> Vec<(&Curve, &Point)> {
        let curve: &Curve = curve;
        curve.points.iter().map(|point| (curve, point)).collect()
    };
    model.curves.iter().flat_map(points).filter(|(_, point)| point.failure.is_some())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A group that scales, and one session that does not; a third fails on two CPUs.
    pub fn report() -> Report {
        let curve = |contender, one: f64, two: Option<f64>| Curve {
            contender,
            points: vec![
                Point { cpus: 1, qps: vec![one, one], failure: None },
                Point {
                    cpus: 2,
                    qps: two.into_iter().flat_map(|two| [two, 1.1 * two]).collect(),
                    failure: two.is_none().then(|| "no library".into()),
                },
            ],
        };
        Report {
            machine: Machine::example(),
            threads_per_core: 1,
            command: "scaling".into(),
            batch: 1,
            rounds: 2,
            seconds: 0.3,
            cpus: vec![1, 2],
            models: vec![Scaled {
                model: "trivial".into(),
                title: "x + 1".into(),
                curves: vec![
                    curve(Contender::StockInline, 1000.0, Some(1000.0)),
                    curve(Contender::GroupCallable, 2000.0, Some(4000.0)),
                    curve(Contender::OnnxShared, 1500.0, None),
                ],
            }],
        }
    }

    #[test]
    fn tables_say_efficiency_and_failures() {
        let text = tables(&report());
        for row in [
            "| TensorFlow, 1 session, inline | 1000 (1.00) | 1050 (0.53) | 10 % |",
            "| group of N, callable | 2000 (1.00) | 4200 (1.05) | 10 % |",
            "| ONNX Runtime, N sessions, shared | 1500 (1.00) | failed | 0 % |",
            "ONNX Runtime, N sessions, shared on 2 CPUs failed: no library",
        ] {
            assert!(text.contains(row), "{text}");
        }
    }
}

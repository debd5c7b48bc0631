//! The report as a picture: a panel for each model and batch, a bar for each contender.

use svg::node::element::Group;

use super::Report;
use crate::contender::Family;
use crate::drawing::{FAINT, INK, line, page, rectangle, text};
use crate::results::{Comparison, Entry, Outcome};
use crate::stats::{median, range};

const MARGIN: f64 = 24.0;
/// The width of the contenders' names, at the left.
const NAMES: f64 = 210.0;
const HEADING: f64 = 128.0;
const PANEL: f64 = 300.0;
/// The longest bar; what is right of it belongs to the numbers.
const BAR: f64 = 170.0;
const ROW: f64 = 17.0;
/// Above a panel's bars, and below them.
const TITLE: f64 = 34.0;
const GAP: f64 = 22.0;

/// A row of panels for each model, a column for each batch.
pub fn svg(report: &Report) -> String {
    let models = distinct(report.comparisons.iter().map(|comparison| &comparison.model));
    let batches = distinct(report.comparisons.iter().map(|comparison| &comparison.batch));
    let rows = report.comparisons.iter().map(|comparison| comparison.entries.len()).max();
    let height = TITLE + ROW * rows.unwrap_or(0) as f64 + GAP;
    let full_width = 2.0 * MARGIN + NAMES + PANEL * batches.len() as f64;
    let full_height = HEADING + height * models.len() as f64 + MARGIN;

    let mut document = page(full_width, full_height).add(heading(report));
    for comparison in &report.comparisons {
        let row = place(&models, &&comparison.model);
        let column = place(&batches, &&comparison.batch);
        let (x, y) = (MARGIN + NAMES + PANEL * column, HEADING + height * row);
        document = document.add(panel(comparison, x, y));
        if column == 0.0 {
            document = document.add(names(comparison, report.sessions, y));
        }
    }
    document.to_string()
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

fn place<T: PartialEq>(values: &[T], value: &T) -> f64 {
    values.iter().position(|other| other == value).unwrap_or(0) as f64
}

fn heading(report: &Report) -> Group {
    let machine = &report.machine;
    let about = [
        format!("{} CPUs of {}, {}.", machine.cpus, machine.cpu, machine.date),
        "Bars: median; lines: least to most; dashed: best TensorFlow without a group.".into(),
        format!(
            "p99 at the same load for all: {:.0} % of the slowest one's peak.",
            report.open_load * 100.0
        ),
    ];
    let mut group = Group::new()
        .add(text("Requests a second", MARGIN, 34.0, 18.0, INK).set("font-weight", 600))
        .add(text(&about[0], MARGIN, 54.0, 11.0, FAINT))
        .add(text(&about[1], MARGIN, 70.0, 11.0, FAINT))
        .add(text(&about[2], MARGIN, 86.0, 11.0, FAINT));
    let mut x = MARGIN;
    for (family, name) in [
        (Family::Group, "session group"),
        (Family::Stock, "stock TensorFlow"),
        (Family::Onnx, "ONNX Runtime"),
        (Family::Openvino, "OpenVINO"),
    ] {
        group = group.add(rectangle(x, 98.0, 10.0, 10.0, colour(family)).set("rx", 2)).add(text(
            name,
            x + 15.0,
            107.0,
            11.0,
            INK,
        ));
        x += 35.0 + 6.5 * name.len() as f64;
    }
    group
}

/// The model's name and, below it, the contenders'.
fn names(comparison: &Comparison, sessions: usize, y: f64) -> Group {
    let mut group = Group::new()
        .add(text(&comparison.title, MARGIN, y + 18.0, 13.0, INK).set("font-weight", 600));
    for (i, entry) in comparison.entries.iter().enumerate() {
        let y = y + TITLE + ROW * i as f64 + 12.0;
        let weight = if entry.contender.family() == Family::Group { 600 } else { 400 };
        let name = text(&entry.contender.title(sessions), MARGIN, y, 11.0, INK);
        group = group.add(name.set("font-weight", weight));
    }
    group
}

fn panel(comparison: &Comparison, x: f64, y: f64) -> Group {
    let batch = format!("batch {}", comparison.batch);
    let mut group = Group::new().add(text(&batch, x, y + 18.0, 11.0, FAINT));
    let most = comparison.entries.iter().flat_map(Entry::qps).fold(f64::MIN_POSITIVE, f64::max);
    let scale = BAR / most;
    if let Some(stock) = comparison.best(Family::Stock) {
        let at = x + median(&comparison.qps_of(stock)) * scale;
        let top = y + TITLE - 4.0;
        let bottom = y + TITLE + ROW * comparison.entries.len() as f64;
        group = group.add(line((at, top), (at, bottom), FAINT).set("stroke-dasharray", "3 3"));
    }
    for (i, entry) in comparison.entries.iter().enumerate() {
        group = group.add(bar(entry, x, y + TITLE + ROW * i as f64, scale));
    }
    group
}

fn bar(entry: &Entry, x: f64, y: f64, scale: f64) -> Group {
    let baseline = y + 12.0;
    let open = match &entry.outcome {
        Outcome::Failed(_) => return Group::new().add(text("failed", x, baseline, 10.0, FAINT)),
        Outcome::Measured(results) => &results.open_same,
    };
    let qps = entry.qps();
    let (least, most) = range(&qps);
    let p99 = open.p99_us.map_or("–".into(), time);
    let middle = y + (ROW - 3.0) / 2.0;
    let length = median(&qps) * scale;
    let fill = colour(entry.contender.family());
    Group::new()
        .add(rectangle(x, y, length.max(1.0), ROW - 3.0, fill).set("rx", 2))
        .add(line((x + least * scale, middle), (x + most * scale, middle), INK))
        .add(
            // With a halo, because the dashed line may pass behind.
            text(&short(median(&qps)), x + most * scale + 5.0, baseline, 10.0, INK)
                .set("paint-order", "stroke")
                .set("stroke", "#ffffff")
                .set("stroke-width", 3),
        )
        .add(
            text(&format!("p99 {p99}"), x + PANEL - 20.0, baseline, 10.0, FAINT)
                .set("text-anchor", "end"),
        )
}

fn colour(family: Family) -> &'static str {
    match family {
        Family::Group => "#2f7de1",
        Family::Stock => "#b8c2cc",
        Family::Onnx => "#f2a65a",
        Family::Openvino => "#9d8ec7",
    }
}

/// Three digits: `38.1k`.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = if value >= 99.95 || unit.is_empty() {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

fn time(microseconds: f64) -> String {
    match microseconds {
        us if us >= 9_950.0 => format!("{:.0} ms", us / 1000.0),
        us if us >= 995.0 => format!("{:.1} ms", us / 1000.0),
        us => format!("{us:.0} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(123_456.0), "123k");
        assert_eq!(short(38_080.0), "38.1k");
        assert_eq!(short(1_234.0), "1.23k");
        assert_eq!(short(2_000_000.0), "2.00M");
        assert_eq!(short(12.0), "12");
        assert_eq!(time(119.6), "120 µs");
        assert_eq!(time(1_234.0), "1.2 ms");
        assert_eq!(time(20_000.0), "20 ms");
    }

    #[test]
    fn every_contender_is_in_the_picture() {
        let svg = svg(&report());
        for name in
            ["group of 2, caller", "TensorFlow, 2 processes", "failed", "batch 8", "p99 100 µs"]
        {
            assert!(svg.contains(name), "{name} is missing: {svg}");
        }
    }
}

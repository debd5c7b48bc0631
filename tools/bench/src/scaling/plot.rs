//! The report as a picture: a panel for each model, a line for each contender.

use svg::node::element::{Circle, Group, Polyline};

use super::report::{Report, Scaled};
use crate::contender::Family;
use crate::drawing::{FAINT, INK, line, page, text};

const MARGIN: f64 = 24.0;
const HEADING: f64 = 112.0;
/// Where the lines are.
const PANEL: (f64, f64) = (380.0, 260.0);
/// Left of a panel for its scale, right of it for the contenders' names.
const SCALE: f64 = 58.0;
const NAMES: f64 = 240.0;
const GAP: f64 = 64.0;

/// Of the contenders of a family, one after the other.
const STOCK: [&str; 3] = ["#b44d12", "#e8833a", "#7a3208"];
const ONNX: [&str; 2] = ["#6b4ba3", "#a78bd6"];
const OPENVINO: [&str; 2] = ["#4b5563", "#9aa3af"];
const GROUPS: [&str; 6] = ["#0b5cad", "#2f9bd8", "#0f8a7a", "#5fbf8f", "#1b3f72", "#86b6e8"];

/// Panels below each other.
pub fn svg(report: &Report) -> String {
    let width = 2.0 * MARGIN + SCALE + PANEL.0 + NAMES;
    let height = HEADING + (PANEL.1 + GAP) * report.models.len() as f64;
    let machine = &report.machine;
    let about = [
        format!(
            "{} CPUs of {}, {} hardware threads per core, {}. Batch {}.",
            machine.cpus, machine.cpu, report.threads_per_core, machine.date, report.batch
        ),
        "Medians. Dashed: the fastest on one CPU, times the number of CPUs.".into(),
    ];
    let mut document = page(width, height)
        .add(text("Requests a second by CPUs", MARGIN, 34.0, 18.0, INK).set("font-weight", 600))
        .add(text(&about[0], MARGIN, 54.0, 11.0, FAINT))
        .add(text(&about[1], MARGIN, 70.0, 11.0, FAINT));
    for (i, model) in report.models.iter().enumerate() {
        let y = HEADING + (PANEL.1 + GAP) * i as f64;
        document = document.add(panel(report, model, MARGIN + SCALE, y));
    }
    document.to_string()
}

fn panel(report: &Report, model: &Scaled, x: f64, y: f64) -> Group {
    let most_cpus = report.cpus.iter().copied().max().unwrap_or(1) as f64;
    let medians =
        model.curves.iter().flat_map(|curve| &curve.points).filter_map(|point| point.median());
    let most = medians.fold(f64::MIN_POSITIVE, f64::max);
    let at = |cpus: f64, qps: f64| {
        (x + PANEL.0 * cpus / most_cpus, y + PANEL.1 * (1.0 - qps / (1.05 * most)))
    };

    let mut group = Group::new()
        .add(text(&model.title, x - SCALE, y - 12.0, 13.0, INK).set("font-weight", 600))
        .add(line(at(0.0, 0.0), at(most_cpus, 0.0), FAINT))
        .add(line(at(0.0, 0.0), (x, y), FAINT));
    for &cpus in &report.cpus {
        let (left, bottom) = at(cpus as f64, 0.0);
        group = group.add(text(&cpus.to_string(), left - 4.0, bottom + 15.0, 11.0, FAINT));
    }
    let step = step(most);
    for tick in 1..=(most / step) as u32 {
        let qps = f64::from(tick) * step;
        let (left, height) = at(0.0, qps);
        group = group.add(line((left, height), at(most_cpus, qps), "#eceff3")).add(text(
            &short(qps),
            left - 44.0,
            height + 4.0,
            11.0,
            FAINT,
        ));
    }
    let one = model.curves.iter().flat_map(|curve| &curve.points).filter(|point| point.cpus == 1);
    if let Some(best) = one.filter_map(|point| point.median()).reduce(f64::max) {
        let cpus = most_cpus.min(1.05 * most / best);
        let ideal = line(at(0.0, 0.0), at(cpus, cpus * best), FAINT);
        group = group.add(ideal.set("stroke-dasharray", "4 4"));
    }

    let mut labels = Vec::new();
    let mut used = [0; 4];
    for curve in &model.curves {
        let (family, colours): (usize, &[&str]) = match curve.contender.family() {
            Family::Stock => (0, &STOCK),
            Family::Group => (1, &GROUPS),
            Family::Onnx => (2, &ONNX),
            Family::Openvino => (3, &OPENVINO),
        };
        let colour = colours[used[family] % colours.len()];
        used[family] += 1;
        let points =
            curve.points.iter().filter_map(|point| Some((point.cpus as f64, point.median()?)));
        let places: Vec<_> = points.map(|(cpus, qps)| at(cpus, qps)).collect();
        let Some(last) = places.last() else { continue };
        labels.push((last.1, curve.title(), colour));
        let list =
            places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
        group = group.add(
            Polyline::new()
                .set("points", list)
                .set("fill", "none")
                .set("stroke", colour)
                .set("stroke-width", 1.8),
        );
        for &(cx, cy) in &places {
            group = group
                .add(Circle::new().set("cx", cx).set("cy", cy).set("r", 2.4).set("fill", colour));
        }
    }
    for (height, title, colour) in spread(labels, y + PANEL.1) {
        group = group.add(text(&title, x + PANEL.0 + 12.0, height + 4.0, 11.0, colour));
    }
    group
}

/// Labels from the top, moved so that none lies on another and none below `bottom`.
fn spread(mut labels: Vec<(f64, String, &str)>, bottom: f64) -> Vec<(f64, String, &str)> {
    const HEIGHT: f64 = 14.0;
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for i in 1..labels.len() {
        labels[i].0 = labels[i].0.max(labels[i - 1].0 + HEIGHT);
    }
    let mut limit = bottom;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(limit);
        limit = label.0 - HEIGHT;
    }
    labels
}

/// The step of a scale with up to five: 1, 2 or 5 times a power of ten.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| most / step <= 5.0)
        .unwrap_or(10.0 * power)
}

fn short(qps: f64) -> String {
    match qps {
        _ if qps >= 1e6 => format!("{} M", qps / 1e6),
        _ if qps >= 1e3 => format!("{} k", qps / 1e3),
        _ => format!("{qps}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_has_a_line_and_a_name() {
        let picture = svg(&super::super::report::tests::report());
        assert_eq!(picture.matches("<polyline").count(), 3);
        for name in ["TensorFlow, 1 session, inline", "group of N, callable", "ONNX Runtime"] {
            assert!(picture.contains(name), "{picture}");
        }
    }

    #[test]
    fn labels_keep_apart() {
        let labels = [10.0, 12.0, 99.0, 100.0].map(|height| (height, String::new(), "")).into();
        let heights: Vec<f64> = spread(labels, 100.0).iter().map(|label| label.0).collect();
        assert_eq!(heights, [10.0, 24.0, 86.0, 100.0]);
    }

    #[test]
    fn scales_have_up_to_five_steps() {
        assert_eq!([9.0, 49_000.0, 100.0].map(step), [2.0, 10_000.0, 20.0]);
    }
}

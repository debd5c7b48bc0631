//! The report as Markdown: a summary, then a table for each model and batch.

use super::{Comparison, Entry, Outcome, Report};
use crate::contender::Contender;
use crate::noise::TOLERATED;
use crate::stats::{geometric_mean, median, range};

pub fn tables(report: &Report) -> String {
    let mut text = heading(report);
    text += &summary(report);
    for comparison in &report.comparisons {
        text += &table(comparison, report.sessions);
    }
    text + &notes(report)
}

fn heading(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "{}, {} CPUs of {}, {:.0} GB, Linux {}; {}.\n\
         {} clients, {} rounds of {} s; `{}`.\n\n",
        machine.date,
        machine.cpus,
        machine.cpu,
        machine.memory_bytes as f64 / 1e9,
        machine.kernel,
        versions(report).join(", "),
        report.sessions,
        report.rounds,
        report.seconds,
        format!("session-group-bench {}", report.command).trim_end(),
    )
}

fn versions(report: &Report) -> Vec<String> {
    let mut versions = Vec::new();
    for entry in report.comparisons.iter().flat_map(|comparison| &comparison.entries) {
        if let Outcome::Measured { version, .. } = &entry.outcome
            && !versions.contains(version)
        {
            versions.push(version.clone());
        }
    }
    versions
}

/// Requests a second, as multiples of those of N processes.
fn summary(report: &Report) -> String {
    let Some(first) = report.comparisons.first() else { return String::new() };
    let mut text = format!("### Requests a second ÷ those of {} processes\n\n|", report.sessions);
    for comparison in &report.comparisons {
        text += &format!(" | {} {}", comparison.model, comparison.batch);
    }
    text += " | mean |\n|---";
    text += &"|--:".repeat(report.comparisons.len() + 1);
    text += "|\n";
    for entry in &first.entries {
        let mut ratios = Vec::new();
        text += &format!("| {}", entry.contender.title(report.sessions));
        for comparison in &report.comparisons {
            let own = comparison.entries.iter().find(|own| own.contender == entry.contender);
            let ratio = own.and_then(|own| comparison.ratio(own, comparison.processes()));
            ratios.extend(ratio);
            text += &format!(" | {}", number(ratio, 2));
        }
        let all = ratios.len() == report.comparisons.len();
        text += &format!(" | {} |\n", number(all.then(|| geometric_mean(&ratios)), 2));
    }
    text + "\n"
}

fn table(comparison: &Comparison, sessions: usize) -> String {
    let mut text = format!(
        "### {} (`{}`), batch {}\n\n\
         | | requests/s | min to max | ÷ {sessions} processes | ÷ best ONNX Runtime | p50 µs | p99 µs \
         | resident MB | ready s |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        comparison.title, comparison.model, comparison.batch,
    );
    for entry in &comparison.entries {
        text += &row(comparison, entry, sessions);
    }
    text + &gpu_memory(comparison, sessions) + "\n"
}

/// What the contenders have taken of a GPU's memory, and what one more stream takes.
fn gpu_memory(comparison: &Comparison, sessions: usize) -> String {
    let took = |entry: &Entry| {
        let megabytes = comparison.gpu_megabytes(entry.contender)?;
        Some(format!("{} {megabytes:.0}", entry.contender.title(sessions)))
    };
    let took: Vec<String> = comparison.entries.iter().filter_map(took).collect();
    if took.is_empty() {
        return String::new();
    }
    let (one, eight) = (Contender::GpuStreams1, Contender::GpuStreams8);
    let added = comparison.gpu_megabytes(one).zip(comparison.gpu_megabytes(eight));
    let added = added.map(|(one, eight)| (eight - one) / 7.0);
    format!(
        "\nThe GPU's memory, MB: {}. Of each further stream: {}.\n",
        took.join("; "),
        number(added, 0)
    )
}

fn row(comparison: &Comparison, entry: &Entry, sessions: usize) -> String {
    let title = entry.contender.title(sessions);
    let (ready_seconds, resident, open) = match &entry.outcome {
        Outcome::Failed(error) => return format!("| {title} | failed: {} |\n", one_line(error)),
        Outcome::Measured { ready_seconds, resident_bytes, open, .. } => {
            (*ready_seconds, *resident_bytes as f64 / 1e6, open)
        }
    };
    let qps = entry.qps();
    let (least, most) = range(&qps);
    let best_onnx = comparison.best_onnx();
    let of = |value: fn(&super::Open) -> f64| median(&open.iter().map(value).collect::<Vec<_>>());
    format!(
        "| {title} | {:.0} | {least:.0} to {most:.0} | {} | {} | {:.0} | {:.0} | {resident:.0} | \
         {ready_seconds:.2} |\n",
        median(&qps),
        number(comparison.ratio(entry, comparison.processes()), 2),
        number(best_onnx.and_then(|onnx| comparison.ratio(entry, onnx)), 2),
        of(|turn| turn.p50_us),
        of(|turn| turn.p99_us),
    )
}

fn notes(report: &Report) -> String {
    let mut turns = 0;
    let mut repeats = 0;
    let mut disturbed = 0;
    let mut deviation = 0f32;
    for entry in report.comparisons.iter().flat_map(|comparison| &comparison.entries) {
        let Outcome::Measured { closed, open, deviation: own, .. } = &entry.outcome else {
            continue;
        };
        deviation = deviation.max(*own);
        let closed = closed.iter().map(|turn| (turn.repeats, turn.outside_load));
        let open = open.iter().map(|turn| (turn.repeats, turn.outside_load));
        for (again, load) in closed.chain(open) {
            turns += 1;
            repeats += again;
            disturbed += u32::from(load > TOLERATED);
        }
    }
    format!(
        "Medians of rounds; ratios are those of the same round. p50 and p99 at {:.0} % of the \
         contender's own peak, from the intended time of sending. Resident memory of processes counts \
         pages of files once, and that of ONNX Runtime and OpenVINO leaves out TensorFlow's libraries, \
         which the benchmark itself has loaded.\n\
         {turns} turns, {repeats} repeats because of load from outside; {disturbed} turns had more \
         than {:.0} % even so. Answers of all that did not fail are those of a stock session; the \
         largest difference is {:.0} % of what is tolerated.\n",
        report.open_load * 100.0,
        TOLERATED * 100.0,
        deviation * 100.0,
    )
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".into(), |value| format!("{value:.digits$}"))
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_gpus_memory_is_told() {
        let mut report = report();
        for (i, contender) in [Contender::GpuStreams1, Contender::GpuStreams8].iter().enumerate() {
            let entry = &mut report.comparisons[0].entries[i];
            entry.contender = *contender;
            if let Outcome::Measured { gpu_bytes, .. } = &mut entry.outcome {
                *gpu_bytes = Some(1_000_000_000 + 700_000_000 * i as u64);
            }
        }
        let line = "MB: group of 1, its own stream 1000; group of 8, 8 streams 1700. Of each further \
                    stream: 100.";
        assert!(tables(&report).contains(line), "{}", tables(&report));
    }

    #[test]
    fn ratios_medians_and_failures_are_in_the_tables() {
        let tables = tables(&report());
        for line in [
            "| group of 2, caller | 2.00 | 2.00 |",
            "| ONNX Runtime, 1 session | – | – |",
            "| TensorFlow, 2 processes | 750 | 500 to 1000 | 1.00 | – | 100 | 250 | 600 | 0.75 |",
            "| ONNX Runtime, 1 session | failed: no \\| library |",
        ] {
            assert!(tables.contains(line), "{line} is missing:\n{tables}");
        }
        assert!(
            tables.contains("6 turns, 4 repeats because of load from outside; 2 turns had more")
        );
    }
}

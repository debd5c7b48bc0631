//! The report as Markdown: a summary, then a table for each model and batch.

use super::Report;
use crate::contender::{Contender, Family};
use crate::noise::TOLERATED;
use crate::results::{Comparison, Entry, Open, Outcome};
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
        if let Outcome::Measured(results) = &entry.outcome
            && !versions.contains(&results.version)
        {
            versions.push(results.version.clone());
        }
    }
    versions
}

/// Requests a second, as multiples of those of stock TensorFlow where it is fastest.
fn summary(report: &Report) -> String {
    let Some(first) = report.comparisons.first() else { return String::new() };
    let mut text =
        String::from("### Requests a second ÷ those of the best TensorFlow without a group\n\n|");
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
            let ratio = own.and_then(|own| comparison.ratio(own, Family::Stock));
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
         | | oneDNN | requests/s | min to max | ÷ best TensorFlow | ÷ best ONNX Runtime \
         | resident MB | ready s |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
        comparison.title, comparison.model, comparison.batch,
    );
    for entry in &comparison.entries {
        text += &row(comparison, entry, sessions);
    }
    text += &best(comparison, sessions);
    text += &latencies(comparison, sessions);
    text + &gpu_memory(comparison, sessions) + "\n"
}

/// Which configurations the ratios are to.
fn best(comparison: &Comparison, sessions: usize) -> String {
    let of = |name: &str, family| {
        comparison.best(family).map(|best| format!("Best {name}: {}.", best.title(sessions)))
    };
    let all = [of("TensorFlow", Family::Stock), of("ONNX Runtime", Family::Onnx)];
    format!("\n{}\n", all.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// Latencies under both loads of the open loop.
fn latencies(comparison: &Comparison, sessions: usize) -> String {
    let mut text = String::from(
        "\n| own load | requests/s | p50 µs | p99 µs | p99.9 µs | same load: requests/s | p50 µs \
         | p99 µs | p99.9 µs |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for entry in &comparison.entries {
        let Outcome::Measured(results) = &entry.outcome else { continue };
        let title = entry.contender.title(sessions);
        let (own, same) = (quantiles(&results.open_own), quantiles(&results.open_same));
        text += &format!("| {title} | {own} | {same} |\n");
    }
    text
}

fn quantiles(open: &Open) -> String {
    let us = |quantile| number(quantile, 0);
    format!("{:.0} | {} | {} | {}", open.rate, us(open.p50_us), us(open.p99_us), us(open.p999_us))
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
    let results = match &entry.outcome {
        Outcome::Failed(error) => return format!("| {title} | failed: {} |\n", one_line(error)),
        Outcome::Measured(results) => results,
    };
    let qps = entry.qps();
    let (least, most) = range(&qps);
    format!(
        "| {title} | {} | {:.0} | {least:.0} to {most:.0} | {} | {} | {:.0} | {:.2} |\n",
        results.onednn.map_or("–", |on| if on { "on" } else { "off" }),
        median(&qps),
        number(comparison.ratio(entry, Family::Stock), 2),
        number(comparison.ratio(entry, Family::Onnx), 2),
        results.resident_bytes as f64 / 1e6,
        results.ready_seconds,
    )
}

fn notes(report: &Report) -> String {
    let mut turns = 0;
    let mut repeats = 0;
    let mut disturbed = 0;
    let mut deviation = 0f32;
    for entry in report.comparisons.iter().flat_map(|comparison| &comparison.entries) {
        let Outcome::Measured(results) = &entry.outcome else { continue };
        deviation = deviation.max(results.deviation);
        let open = results.open_own.rounds.iter().chain(&results.open_same.rounds);
        for turn in results.closed.iter().chain(open) {
            turns += 1;
            repeats += turn.repeats;
            disturbed += u32::from(turn.outside_load > TOLERATED);
        }
    }
    format!(
        "Requests a second are medians of rounds; ratios are those of the same round. Best TensorFlow and \
         best ONNX Runtime are their configurations with the most requests a second for that model and \
         batch. Latencies are those of all rounds together, from the intended time of sending, at {load:.0} % \
         of the contender's own peak and at {load:.0} % of the slowest contender's, which is the same load \
         for all; – is where there were too few requests for that quantile. Resident memory of processes counts \
         pages of files once, and that of ONNX Runtime and OpenVINO leaves out TensorFlow's libraries, \
         which the benchmark itself has loaded.\n\
         {turns} turns, {repeats} repeats because of load from outside; {disturbed} turns had more \
         than {:.0} % even so. Answers of all that did not fail are those of a stock session; the \
         largest difference is {:.0} % of what is tolerated.\n",
        TOLERATED * 100.0,
        deviation * 100.0,
        load = report.open_load * 100.0,
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
            if let Outcome::Measured(results) = &mut entry.outcome {
                results.gpu_bytes = Some(1_000_000_000 + 700_000_000 * i as u64);
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
            "| TensorFlow, 2 processes | on | 400 | 300 to 500 | 0.55 | – | 600 | 0.75 |",
            "| TensorFlow, 2 processes, Eigen | off | 750 | 500 to 1000 | 1.00 | – | 600 | 0.75 |",
            "Best TensorFlow: TensorFlow, 2 processes, Eigen.\n",
            "| TensorFlow, 2 processes, Eigen | 525 | 100 | 250 | – | 280 | 40 | 100 | – |",
            "| ONNX Runtime, 1 session | failed: no \\| library |",
        ] {
            assert!(tables.contains(line), "{line} is missing:\n{tables}");
        }
        assert!(
            tables.contains("12 turns, 6 repeats because of load from outside; 6 turns had more")
        );
    }
}

//! The statistics of a group in Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write;

use crate::gpu::Stream;
use crate::memory::MemoryStats;
use crate::options::labels::Labels;
use crate::request::state::GroupState;
use crate::request::stats::{CODES, Snapshot, Way};

/// The names of `TF_Code`s, by number.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What is known of a group.
pub(crate) struct OfGroup {
    pub number: u64,
    pub labels: Labels,
    pub sessions: Vec<Snapshot>,
}

impl OfGroup {
    pub fn new(group: &GroupState) -> Self {
        let labels = group.plan.labels.clone();
        Self { number: group.number, labels, sessions: group.snapshots() }
    }
}

/// The metrics of groups and of the process.
pub(crate) fn text(groups: &[OfGroup], memory: &MemoryStats) -> String {
    let mut out = String::new();
    let labelled = |group: &OfGroup| {
        let (number, more) = (group.number, group.labels.of_sample());
        let labels = move |i| format!("group=\"{number}\",session=\"{i}\"{more}");
        (0..group.sessions.len()).map(labels).collect::<Vec<_>>()
    };
    let sessions: Vec<(String, &Snapshot)> = std::iter::zip(
        groups.iter().flat_map(labelled),
        groups.iter().flat_map(|group| &group.sessions),
    )
    .collect();
    // Writing to a String can't fail, so the results below are dropped.

    head(&mut out, "requests_total", "counter", "Requests answered, by the TF_Code of the answer.");
    for (labels, session) in &sessions {
        for (code, &count) in session.answers.iter().enumerate() {
            // Codes that never occurred would be a lot of zeros; OK is always there.
            if count > 0 || code == 0 {
                let name = CODE_NAMES[code];
                let _ = writeln!(out, "{NAME}requests_total{{{labels},code=\"{name}\"}} {count}");
            }
        }
    }
    let name = "requests_by_way_total";
    head(&mut out, name, "counter", "Requests answered, by the way in which they ran.");
    for (labels, session) in &sessions {
        for way in Way::ALL {
            let (label, count) = (way.name(), session.ran(way));
            let _ = writeln!(out, "{NAME}{name}{{{labels},way=\"{label}\"}} {count}");
        }
    }
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Snapshot) -> f64| {
        head(&mut out, name, kind, help);
        for (labels, session) in &sessions {
            let _ = writeln!(out, "{NAME}{name}{{{labels}}} {}", value(session));
        }
    };
    let rejected = "Requests refused because the session's queue was full.";
    each("rejected_total", "counter", rejected, &|session| session.rejected as f64);
    let on_pool = "Requests that ran by their names on the session's inter-op pool.";
    each("on_pool_total", "counter", on_pool, &|session| session.on_pool as f64);
    let unresolved = "Programs run that had to read a variable in TensorFlow's way.";
    each("unresolved_total", "counter", unresolved, &|session| session.unresolved as f64);
    let unfused = "Programs run that gathered rows one table after the other.";
    each("unfused_total", "counter", unfused, &|session| session.unfused as f64);
    let in_flight = "Requests given to the session and not answered yet.";
    each("in_flight", "gauge", in_flight, &|session| session.in_flight as f64);
    let queued = "Requests that wait for a worker thread of the session.";
    each("queued", "gauge", queued, &|session| session.queued as f64);
    let busy = "Time that threads have run requests on the session.";
    each("busy_seconds_total", "counter", busy, &|session| session.busy.as_secs_f64());

    let streams: Vec<_> =
        sessions.iter().filter_map(|(labels, session)| Some((labels, session.stream?))).collect();
    if !streams.is_empty() {
        head(&mut out, "stream_info", "gauge", "Where a session of a multi-stream group computes.");
    }
    for (labels, stream) in streams {
        let Stream { gpu, virtual_device, stream_group, leader } = stream;
        let _ = writeln!(
            out,
            "{NAME}stream_info{{{labels},gpu=\"{gpu}\",virtual_device=\"{virtual_device}\",\
             stream_group=\"{stream_group}\",leader=\"{leader}\"}} 1"
        );
    }

    let name = "request_duration_seconds";
    head(&mut out, name, "histogram", "Time from the call to the answer, queue included.");
    for (labels, session) in &sessions {
        // The requests of the histogram itself, so that the buckets never exceed the count.
        let mut last = 0;
        for (bound, count) in session.below_powers_of_two() {
            let le = bound.as_secs_f64();
            let _ = writeln!(out, "{NAME}{name}_bucket{{{labels},le=\"{le}\"}} {count}");
            last = count;
        }
        let count = session.runs().max(last);
        let _ = writeln!(out, "{NAME}{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{NAME}{name}_sum{{{labels}}} {}", session.latency.as_secs_f64());
        let _ = writeln!(out, "{NAME}{name}_count{{{labels}}} {count}");
    }

    let MemoryStats { in_use_bytes, kept_bytes, kept_limit_bytes, hits, misses, moved } = *memory;
    let mut of_process = |name: &str, kind: &str, help: &str, value: u64| {
        let name = format!("large_tensors_{name}");
        head(&mut out, &name, kind, help);
        let _ = writeln!(out, "{NAME}{name} {value}");
    };
    let in_use = "Bytes of tensors of 1 MiB and more, of all groups.";
    of_process("in_use_bytes", "gauge", in_use, in_use_bytes);
    let kept = "Bytes that such tensors have freed and that are kept for the next request.";
    of_process("kept_bytes", "gauge", kept, kept_bytes);
    let limit = "What is kept at most: 0 while no group is open.";
    of_process("kept_limit_bytes", "gauge", limit, kept_limit_bytes);
    of_process("hits_total", "counter", "Tensors that got memory which was kept.", hits);
    of_process("misses_total", "counter", "Tensors that got memory from the system.", misses);
    let help = "Tensors that got memory which another CPU had last.";
    of_process("moved_total", "counter", help, moved);
    out
}

const NAME: &str = "session_group_";

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {NAME}{name} {help}\n# TYPE {NAME}{name} {kind}");
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::error::Error;
    use crate::request::stats::SessionStats;

    const MEMORY: MemoryStats = MemoryStats {
        in_use_bytes: 1,
        kept_bytes: 2,
        kept_limit_bytes: 3,
        hits: 4,
        misses: 5,
        moved: 6,
    };

    #[test]
    fn the_text_says_what_was_counted() {
        let stats = [SessionStats::new(false), SessionStats::new(false)];
        stats[1].answered(Instant::now() - Duration::from_millis(3), Way::Program, &Ok(()));
        stats[1].answered(Instant::now(), Way::NotRun, &Err::<(), _>(Error::invalid("")));
        stats[1].on_pool();
        stats[1].noted(true, false);
        stats[1].rejected();
        let sessions = vec![stats[0].snapshot(0), stats[1].snapshot(2)];
        let group = OfGroup { number: 7, labels: Labels::default(), sessions };
        let text = text(&[group], &MEMORY);
        for line in [
            "# TYPE session_group_requests_total counter",
            "session_group_requests_total{group=\"7\",session=\"0\",code=\"OK\"} 0",
            "session_group_requests_total{group=\"7\",session=\"1\",code=\"OK\"} 1",
            "session_group_requests_total{group=\"7\",session=\"1\",code=\"INVALID_ARGUMENT\"} 1",
            "# TYPE session_group_requests_by_way_total counter",
            "session_group_requests_by_way_total{group=\"7\",session=\"0\",way=\"program\"} 0",
            "session_group_requests_by_way_total{group=\"7\",session=\"1\",way=\"program\"} 1",
            "session_group_requests_by_way_total{group=\"7\",session=\"1\",way=\"not_run\"} 1",
            "session_group_requests_by_way_total{group=\"7\",session=\"1\",way=\"visit\"} 0",
            "session_group_on_pool_total{group=\"7\",session=\"1\"} 1",
            "session_group_unresolved_total{group=\"7\",session=\"1\"} 1",
            "session_group_unfused_total{group=\"7\",session=\"1\"} 0",
            "session_group_rejected_total{group=\"7\",session=\"1\"} 1",
            "session_group_in_flight{group=\"7\",session=\"1\"} 2",
            // 2^21 and 2^22 ns
            "session_group_request_duration_seconds_bucket{group=\"7\",session=\"1\",le=\"0.002097152\"} 1",
            "session_group_request_duration_seconds_bucket{group=\"7\",session=\"1\",le=\"0.004194304\"} 2",
            "session_group_request_duration_seconds_bucket{group=\"7\",session=\"1\",le=\"+Inf\"} 2",
            "session_group_request_duration_seconds_count{group=\"7\",session=\"1\"} 2",
            "session_group_large_tensors_in_use_bytes 1",
            "session_group_large_tensors_kept_bytes 2",
            "session_group_large_tensors_kept_limit_bytes 3",
            "session_group_large_tensors_hits_total 4",
            "session_group_large_tensors_misses_total 5",
            "session_group_large_tensors_moved_total 6",
        ] {
            assert!(text.lines().any(|got| got == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn every_metric_is_described_once_and_every_line_is_a_sample() {
        let group = |number, labels: &[_]| OfGroup {
            number,
            labels: Labels::new(labels).unwrap(),
            sessions: vec![SessionStats::new(false).snapshot(0)],
        };
        let text = text(&[group(0, &[]), group(1, &[("model_name", "a")])], &MEMORY);
        let labels = "{group=\"1\",session=\"0\",model_name=\"a\"";
        assert!(text.contains(&format!("queued{labels}}} 0")), "{text}");
        assert!(text.contains(&format!("requests_total{labels},code=\"OK\"}} 0")), "{text}");
        let mut described = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(described.insert(rest.split(' ').next().unwrap().to_string()), "{line}");
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let is_of_process = name.starts_with("session_group_large_tensors_");
                assert!(name.ends_with('}') != is_of_process, "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert_eq!(described.len(), 10 + 6);
    }
}

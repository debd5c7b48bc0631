//! Timelines of chosen requests, as files that a browser's trace viewer opens.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use prost::Message;
use serde_json::{Value, json};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::{Buffer, Tensor};
use session_group::{Error, Request, Result, SessionGroup};
use tracing::{info, warn};

use crate::tensorflow::{self, RunMetadata, StepStats};

/// Which of a model's requests are traced.
#[derive(Clone, Debug)]
pub struct TraceSchedule {
    /// The first of them, counted from 0.
    pub start: i64,
    /// From one of them to the next.
    pub interval: i64,
    /// How many.
    pub count: i64,
    /// Where their timelines are written, as `<model>-timeline-<number>.json`.
    pub folder: PathBuf,
}

/// What a user sets of a schedule: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct TraceSettings {
    /// The first request to trace, counted from 0.
    pub start_step: Option<i64>,
    /// The number of requests from one that is traced to the next, at least 1.
    pub interval_step: Option<i64>,
    /// How many requests to trace, at least 1.
    pub trace_count: Option<i64>,
    /// The folder for timelines.
    pub path: Option<PathBuf>,
}

impl TraceSettings {
    /// The schedule that they describe; `None` where nothing is set. `prefix` is what their names begin with in
    /// messages, such as `--` on a command line.
    pub fn schedule(self, prefix: &str) -> Result<Option<TraceSchedule>> {
        let numbers = [
            ("start_step", self.start_step, 0),
            ("interval_step", self.interval_step, 1),
            ("trace_count", self.trace_count, 1),
        ];
        let Some(folder) = self.path else {
            return match numbers.iter().find(|(_, number, _)| number.is_some()) {
                None => Ok(None),
                Some((name, ..)) => Err(Error::invalid(format!(
                    "{prefix}timeline_{name} is set without {prefix}timeline_path: set that, too, to the \
                     folder for timelines"
                ))),
            };
        };
        let mut checked = [0; 3];
        for ((name, number, least), checked) in numbers.into_iter().zip(&mut checked) {
            *checked = number.filter(|&number| number >= least).ok_or_else(|| {
                Error::invalid(format!(
                    "{prefix}timeline_path needs {prefix}timeline_{name}: set that, too, to {least} or more"
                ))
            })?;
        }
        let [start, interval, count] = checked;
        Ok(Some(TraceSchedule { start, interval, count, folder }))
    }
}

/// Counts the requests of a model.
pub struct Timelines {
    schedule: TraceSchedule,
    model: String,
    step: AtomicI64,
}

/// One request that is traced.
pub struct Timeline<'a> {
    of: &'a Timelines,
    index: i64,
}

impl Timelines {
    /// Makes the folder.
    pub fn new(schedule: TraceSchedule, model: &str) -> Result<Self> {
        fs::create_dir_all(&schedule.folder).map_err(|error| {
            Error::invalid(format!("timeline_path {}: {error}", schedule.folder.display()))
        })?;
        Ok(Self { schedule, model: model.to_string(), step: AtomicI64::new(0) })
    }

    /// Counts a request, and returns its timeline if it is to be traced.
    pub fn next(&self) -> Option<Timeline<'_>> {
        let since = self.step.fetch_add(1, Relaxed) - self.schedule.start;
        let index = since / self.schedule.interval;
        let chosen =
            since >= 0 && since % self.schedule.interval == 0 && index < self.schedule.count;
        chosen.then_some(Timeline { of: self, index })
    }
}

impl Timeline<'_> {
    /// Runs the request and writes its timeline. If only the writing fails, that is logged, and the request succeeds.
    pub fn record(self, group: &SessionGroup, request: &Request<'_>) -> Result<Vec<Tensor>> {
        let timeout_in_ms = request.options.map_or(0, RunOptions::timeout_ms);
        let traced = tensorflow::RunOptions {
            trace_level: tensorflow::run_options::TraceLevel::FullTrace as i32,
            timeout_in_ms,
            ..tensorflow::RunOptions::default()
        };
        let options = RunOptions::parse(&traced.encode_to_vec())?;
        let mut metadata = Buffer::new();
        let request = Request { options: Some(&options), ..*request };
        let outputs = group.run_request(&request, Some(&mut metadata))?;
        let file = format!("{}-timeline-{}.json", self.of.model, self.index);
        let file = self.of.schedule.folder.join(file);
        let written = RunMetadata::decode(metadata.bytes()).map_err(anyhow::Error::from).and_then(
            |metadata| {
                let events = events(&metadata.step_stats.unwrap_or_default());
                Ok(fs::write(&file, serde_json::to_vec(&json!({ "traceEvents": events }))?)?)
            },
        );
        match written {
            Ok(()) => info!("wrote {}", file.display()),
            Err(error) => warn!("can't write {}: {error}", file.display()),
        }
        Ok(outputs)
    }
}

/// Chrome's trace events: a process for each device, and as many threads as operations overlap.
fn events(stats: &StepStats) -> Vec<Value> {
    let mut events = Vec::new();
    for (pid, device) in stats.dev_stats.iter().enumerate() {
        events.push(json!({
            "ph": "M", "name": "process_name", "pid": pid, "args": { "name": device.device },
        }));
        let mut nodes: Vec<_> = device.node_stats.iter().collect();
        nodes.sort_by_key(|node| node.all_start_micros);
        let mut lanes: Vec<i64> = Vec::new();
        for node in nodes {
            let (start, duration) = (node.all_start_micros, node.all_end_rel_micros);
            let free = lanes.iter().position(|&end| end <= start);
            let lane = free.unwrap_or_else(|| {
                lanes.push(0);
                lanes.len() - 1
            });
            lanes[lane] = start + duration;
            let (op, inputs) = operation(&node.timeline_label);
            let mut args = serde_json::Map::from_iter([
                ("name".to_string(), json!(node.node_name)),
                ("op".to_string(), json!(op)),
            ]);
            for (i, input) in inputs.into_iter().enumerate() {
                args.insert(format!("input{i}"), json!(input));
            }
            events.push(json!({
                "ph": "X", "cat": "Op", "name": op, "pid": pid, "tid": lane,
                "ts": start, "dur": duration, "args": args,
            }));
        }
    }
    events
}

/// The operation and its inputs, of a label as `name = Op(a, b)`.
fn operation(label: &str) -> (&str, Vec<&str>) {
    let parsed = label.split_once(" = ").and_then(|(_, call)| {
        let (op, inputs) = call.split_once('(')?;
        let inputs = inputs.split_once(')')?.0;
        Some((op, inputs.split(", ").filter(|input| !input.is_empty()).collect()))
    });
    parsed.unwrap_or(("unknown", Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::{DeviceStepStats, NodeExecStats};

    #[test]
    fn chosen_requests_are_traced() {
        let folder = std::env::temp_dir();
        let schedule = TraceSchedule { start: 3, interval: 2, count: 2, folder };
        let timelines = Timelines::new(schedule, "m").unwrap();
        let chosen: Vec<_> = (0..10).map(|_| timelines.next().map(|one| one.index)).collect();
        let expected = [None, None, None, Some(0), None, Some(1), None, None, None, None];
        assert_eq!(chosen, expected);
    }

    #[test]
    fn a_schedule_is_set_in_full_or_not_at_all() {
        let nothing = TraceSettings::default();
        assert!(nothing.clone().schedule("--").unwrap().is_none());
        let all = TraceSettings {
            start_step: Some(0),
            interval_step: Some(1),
            trace_count: Some(2),
            path: Some("/t".into()),
        };
        let schedule = all.clone().schedule("--").unwrap().unwrap();
        assert_eq!((schedule.start, schedule.interval, schedule.count), (0, 1, 2));
        let says = |settings: TraceSettings, says: &str| {
            let message = settings.schedule("--").unwrap_err().message;
            assert!(message.contains(says), "{says:?} in {message:?}");
        };
        says(
            TraceSettings { path: None, ..all.clone() },
            "--timeline_start_step is set without --timeline_path",
        );
        says(
            TraceSettings { interval_step: Some(0), ..all.clone() },
            "needs --timeline_interval_step: set that, too, to 1 or more",
        );
        says(TraceSettings { trace_count: None, ..all }, "needs --timeline_trace_count");
    }

    #[test]
    fn operations_that_overlap_have_lanes_of_their_own() {
        let node = |start, duration, label: &str| NodeExecStats {
            node_name: "n".to_string(),
            all_start_micros: start,
            all_end_rel_micros: duration,
            timeline_label: label.to_string(),
            ..NodeExecStats::default()
        };
        let device = DeviceStepStats {
            device: "cpu".to_string(),
            node_stats: vec![
                node(10, 5, "a = Add(x, y:1)"),
                node(12, 1, ""),
                node(15, 1, "b = No()"),
            ],
            ..DeviceStepStats::default()
        };
        let events = events(&StepStats { dev_stats: vec![device] });
        assert_eq!(events[1]["args"]["input1"], "y:1");
        let lanes: Vec<_> =
            events[1..].iter().map(|event| event["tid"].as_u64().unwrap()).collect();
        assert_eq!(lanes, [0, 1, 0]);
        assert_eq!(events[2]["name"], "unknown");
        assert_eq!(events[3]["name"], "No");
    }
}

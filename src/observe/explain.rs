//! What a group has prepared, how it runs it and why so, as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::options::execution::Execution;
use crate::prepare::compiled::Compiled;
use crate::prepare::obstacle::advice;
use crate::prepare::signature::Names;
use crate::request::state::GroupState;
use crate::request::stats::{Snapshot, Way};
use crate::sessions::set::SessionSet;

/// What a group has prepared, how it runs, and why so.
pub(crate) fn group(group: &GroupState) -> Value {
    let disabled = if group.plan.execution == Execution::Pool {
        Some("the group's execution is \"pool\"")
    } else if !group.runs_programs() {
        Some("the optimisation \"serial_executor\" is off")
    } else {
        None
    };
    let session_set = group.enter_for_all().ok();
    json(&Explained {
        group: group.number,
        closed: group.gate.is_closed(),
        disabled,
        session_set: session_set.as_deref(),
        sessions: &group.snapshots(),
    })
}

/// What is written of a group.
struct Explained<'a> {
    group: u64,
    closed: bool,
    /// Why the group runs no programs at all, if so.
    disabled: Option<&'a str>,
    /// `None` once they are gone.
    session_set: Option<&'a SessionSet>,
    sessions: &'a [Snapshot],
}

/// A JSON object; `SessionGroup_Explain` documents its fields.
fn json(explained: &Explained<'_>) -> Value {
    let &Explained { group, closed, disabled, session_set, sessions } = explained;
    let mut signatures = Vec::new();
    if let Some(session_set) = session_set {
        session_set.for_each_compiled(|names, compiled| {
            signatures.push(signature(names, compiled, disabled));
        });
    }
    let of_sessions: Vec<Value> = sessions
        .iter()
        .enumerate()
        .map(|(i, session)| {
            let mut counters = counters(std::slice::from_ref(session));
            counters.insert("session".to_string(), i.into());
            counters.into()
        })
        .collect();
    json!({
        "group": group,
        "closed": closed,
        "programs": disabled.is_none(),
        "why_not": disabled,
        "signatures": signatures,
        "requests": counters(sessions),
        "sessions": of_sessions,
    })
}

fn signature(names: &Names, compiled: &Compiled, disabled: Option<&str>) -> Value {
    let [feeds, fetches, targets] = names.all();
    let why = disabled.or(compiled.obstacle());
    let advice = compiled.program.obstacle().filter(|&own| why == Some(own)).and_then(advice);
    let made = compiled.made();
    let facts = made.map(|made| made.facts());
    json!({
        "feeds": feeds,
        "fetches": fetches,
        "targets": targets,
        "runs_as": if why.is_none() { "program" } else { "names" },
        "why": why,
        "advice": advice,
        "writes": compiled.writes(),
        "compile_ms": milliseconds(compiled.took),
        "may_wait": made.map(|made| made.may_wait()),
        "steps": facts.map(|facts| facts.steps),
        "loops": facts.map(|facts| facts.loops),
        "resolved_variables": facts.map(|facts| facts.variables),
        "resolved_tables": facts.map(|facts| facts.tables),
        "fused_lookups": facts.map(|facts| facts.gathers),
        "constant_bytes": facts.map(|facts| facts.constant_bytes),
        "kernels": kernels(compiled),
    })
}

/// The kernels that were chosen by measuring, of each node by the least number of rows.
fn kernels(compiled: &Compiled) -> Value {
    let choices = compiled.program.choices().unwrap_or_default();
    let choices = choices.into_iter().map(|choice| {
        json!({
            "node": choice.node,
            "rows": choice.rows,
            "onednn": !choice.is_other,
        })
    });
    choices.collect()
}

/// What the sessions have done, summed up.
fn counters(sessions: &[Snapshot]) -> Map<String, Value> {
    let sum =
        |count: &dyn Fn(&Snapshot) -> u64| Value::from(sessions.iter().map(count).sum::<u64>());
    let ways: Map<String, Value> = Way::ALL
        .into_iter()
        .map(|way| (way.name().to_string(), sum(&|session| session.ran(way))))
        .collect();
    [
        ("runs", sum(&|session| session.runs())),
        ("ways", ways.into()),
        ("on_pool", sum(&|session| session.on_pool)),
        ("unresolved", sum(&|session| session.unresolved)),
        ("unfused", sum(&|session| session.unfused)),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into_iter()
    .collect()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

//! What a group is, and why, as JSON and as a line for the log.

use serde_json::{Value, json};

use crate::optimization::Optimization;
use crate::plan::{Plan, SessionPlan};
use crate::tensorflow::version;

/// A JSON object; `SessionGroup_Describe` documents its fields.
pub(crate) fn json(group: u64, plan: &Plan, closed: bool) -> Value {
    let sessions: Vec<Value> = plan
        .sessions
        .iter()
        .enumerate()
        .map(|(i, session)| {
            json!({
                "session": i,
                "cpus": session.cpus.as_ref().map(ToString::to_string),
                "numa_nodes": session.numa_nodes,
                "intra_op_threads": session.intra_op_threads,
                "inter_op_threads": session.inter_op_threads,
                "worker_threads": session.worker_threads,
            })
        })
        .collect();
    let optimizations: Vec<String> = Optimization::all()
        .filter(|&optimization| plan.optimizations.has(optimization))
        .map(|optimization| optimization.to_string())
        .collect();
    json!({
        "group": group,
        "tensorflow": version::BUILT_FOR,
        "closed": closed,
        "execution": plan.execution.to_string(),
        "policy": plan.policy.name(),
        "allowed_cpus": plan.allowed.to_string(),
        "optimizations": optimizations,
        "queue": { "capacity": plan.queue.capacity, "wait_when_full": plan.queue.wait },
        "why": { "cpus": plan.why.cpus, "threads": plan.why.threads, "execution": plan.why.execution },
        "sessions": sessions,
    })
}

/// One line, as it is logged when a group is made.
pub(crate) fn line(group: u64, plan: &Plan) -> String {
    let cpus =
        plan.sessions.iter().map(|session| session.cpus.as_ref()).collect::<Option<Vec<_>>>();
    let cpus = cpus.map_or("not pinned".to_string(), |sets| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        format!("CPUs {}", sets.join(";"))
    });
    format!(
        "session group {group}: {} sessions, {cpus} ({}), execution {} ({}), policy {}, threads of a \
         session: {} ({})",
        plan.sessions.len(),
        plan.why.cpus,
        plan.execution,
        plan.why.execution,
        plan.policy.name(),
        threads(plan),
        plan.why.threads,
    )
}

/// The sizes of the sessions' pools, as "2" or "1 to 2".
fn threads(plan: &Plan) -> String {
    let range = |size: &dyn Fn(&SessionPlan) -> usize| {
        let least = plan.sessions.iter().map(size).min().unwrap_or(0);
        let most = plan.sessions.iter().map(size).max().unwrap_or(0);
        if least == most { most.to_string() } else { format!("{least} to {most}") }
    };
    let mut text = format!(
        "{} intra-op, {} inter-op",
        range(&|session| session.intra_op_threads as usize),
        range(&|session| session.inter_op_threads as usize)
    );
    if plan.sessions[0].worker_threads > 0 {
        text += &format!(", {} worker", range(&|session| session.worker_threads));
    }
    text
}

//! What a group is, and why, as JSON and as a line for the log.

use serde_json::{Value, json};

use crate::gpu::{Mps, Stream};
use crate::options::environment::CONTEXTS_VARIABLE;
use crate::options::optimization::Optimization;
use crate::plan::{Plan, SessionPlan};
use crate::request::state::GroupState;
use crate::tensorflow::version;

/// What a group is, and why.
pub(crate) fn group(group: &GroupState) -> Value {
    let streams = group.streams.as_ref().map(|streams| &*streams.all);
    json(group.number, &group.plan, streams, group.gate.is_closed())
}

/// A JSON object; `SessionGroup_Describe` documents its fields.
fn json(group: u64, plan: &Plan, streams: Option<&[Stream]>, closed: bool) -> Value {
    let sessions: Vec<Value> = plan
        .sessions
        .iter()
        .enumerate()
        .map(|(i, session)| {
            let mut session = json!({
                "session": i,
                "cpus": session.cpus.as_ref().map(ToString::to_string),
                "numa_nodes": session.numa_nodes,
                "intra_op_threads": session.intra_op_threads,
                "inter_op_threads": session.inter_op_threads,
                "worker_threads": session.worker_threads,
            });
            if let Some(stream) = streams.map(|streams| streams[i]) {
                session["gpu"] = stream.gpu.into();
                session["virtual_device"] = stream.virtual_device.into();
                session["stream_group"] = stream.stream_group.into();
                session["leader"] = stream.leader.into();
            }
            session
        })
        .collect();
    let optimizations: Vec<String> = Optimization::all()
        .filter(|&optimization| plan.optimizations.has(optimization))
        .map(|optimization| optimization.to_string())
        .collect();
    let multi_stream = plan.gpus.as_ref().map(|gpus| {
        let mps = gpus
            .mps
            .map(|mps| json!({ "contexts_per_gpu": 1, "contexts_asked_for": mps.contexts }));
        json!({ "gpu_ids": gpus.ids, "mps": mps })
    });
    json!({
        "group": group,
        "tensorflow": version::BUILT_FOR,
        "closed": closed,
        "execution": plan.execution.to_string(),
        "kernels": plan.kernels.to_string(),
        "policy": plan.policy.name(),
        "allowed_cpus": plan.allowed.to_string(),
        "cpu_quota": plan.quota,
        "table_nodes": plan.table_nodes,
        "optimizations": optimizations,
        "queue": { "capacity": plan.queue.capacity, "wait_when_full": plan.queue.wait },
        "kept_bytes": plan.kept_bytes,
        "drain_timeout_ms": plan.drain.as_millis() as i64,
        "why": {
            "cpus": plan.why.cpus,
            "threads": plan.why.threads,
            "execution": plan.why.execution,
            "policy": plan.why.policy,
            "tables": plan.why.tables,
        },
        "multi_stream": multi_stream,
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
    let gpus = plan.gpus.as_ref().map_or(String::new(), |gpus| {
        let ids: Vec<String> = gpus.ids.iter().map(ToString::to_string).collect();
        let contexts = match gpus.mps {
            Some(Mps { contexts: Some(n @ 2..) }) => format!(
                ", which have one CUDA context in this process ({CONTEXTS_VARIABLE} is {n}, but that \
                 is all that TensorFlow has)"
            ),
            _ => String::new(),
        };
        format!(", each with a stream of GPU {}{contexts}", ids.join(" or "))
    });
    format!(
        "session group {group}{}: {} sessions{gpus}, {cpus} ({}), execution {} ({}), policy {} ({}), threads of a \
         session: {} ({})",
        plan.labels.of_line(),
        plan.sessions.len(),
        plan.why.cpus,
        plan.execution,
        plan.why.execution,
        plan.policy.name(),
        plan.why.policy,
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

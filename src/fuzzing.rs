//! What fuzz targets call and programs don't. Only there with `--cfg fuzzing`, which `cargo fuzz` sets.

use crate::cpus::cpuset::CpuSet;
use crate::cpus::topology::Topology;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::environment::Environment;
use crate::plan;
use crate::tensorflow::session_options::Config;

pub use crate::ffi::all as abi;

/// A machine that may not be there.
pub struct Machine {
    /// The CPUs that the process may use.
    pub allowed: CpuSet,
    /// The same by core and node.
    pub topology: Topology,
    /// How many GPUs TensorFlow sees; `None` where it has none.
    pub gpus: Option<i32>,
    /// How many CPUs' time it may use.
    pub quota: Option<f64>,
}

/// What a session would be.
pub struct Session {
    /// The CPUs that it would be pinned to.
    pub cpus: Option<CpuSet>,
    /// How many intra-op, inter-op and worker threads it would have.
    pub threads: [i64; 3],
}

/// What a group would be, with these numbers of intra-op and inter-op threads in the ConfigProto.
pub fn plan(
    options: &Options,
    environment: &Environment,
    [intra_op_threads, inter_op_threads]: [i32; 2],
    operation_timeout_ms: i64,
    machine: &Machine,
) -> Result<Vec<Session>> {
    let config =
        Config { intra_op_threads, inter_op_threads, operation_timeout_ms, ..Config::default() };
    let gpus = machine.gpus.ok_or_else(|| Error::precondition("no GPU"));
    let topology = Ok(machine.topology.clone());
    let allowed = machine.allowed.clone();
    let quota = machine.quota;
    let machine = plan::machine::Machine { allowed, topology, gpus, quota, memory: 16 << 30 };
    let plan = plan::plan(options, environment, &config, &machine)?;
    let session = |session: plan::SessionPlan| Session {
        cpus: session.cpus,
        threads: [
            session.intra_op_threads.into(),
            session.inter_op_threads.into(),
            session.worker_threads as i64,
        ],
    };
    Ok(plan.sessions.into_iter().map(session).collect())
}

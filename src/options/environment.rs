//! What the environment asks of a group.

use crate::error::{Error, Result};

/// The variable that gives each session its CPUs, in the grammar of [`cpuset`](crate::cpus::cpuset).
pub const CPUSET_VARIABLE: &str = "SESSION_GROUP_CPUSET";

/// The variable that gives each session its own cores where it is `1`.
pub const AFFINITY_VARIABLE: &str = "SET_SESSION_THREAD_POOL_AFFINITY";

/// Asks for CUDA's Multi-Process Service where it is `1`.
pub const MPS_VARIABLE: &str = "ENABLE_MPS";
/// How many CUDA contexts DeepRec makes on a GPU.
pub const CONTEXTS_VARIABLE: &str = "CONTEXTS_COUNT_PER_GPU";
/// Limits the memory of large tensors that is kept, in bytes; 0 keeps nothing.
pub const KEPT_VARIABLE: &str = "SESSION_GROUP_KEPT_BYTES";

/// What the environment asks for; an empty variable asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `SESSION_GROUP_CPUSET`.
    pub cpuset: Option<String>,
    /// `SET_SESSION_THREAD_POOL_AFFINITY`.
    pub affinity: Option<String>,
    /// `ENABLE_MPS`.
    pub mps: Option<String>,
    /// `CONTEXTS_COUNT_PER_GPU`.
    pub contexts: Option<String>,
    /// `SESSION_GROUP_KEPT_BYTES`.
    pub kept_bytes: Option<String>,
}

impl Environment {
    /// The environment of this process, now.
    pub fn read() -> Self {
        let variable = |name| {
            let value = std::env::var_os(name)?.to_string_lossy().into_owned();
            (!value.trim().is_empty()).then_some(value)
        };
        Self {
            cpuset: variable(CPUSET_VARIABLE),
            affinity: variable(AFFINITY_VARIABLE),
            mps: variable(MPS_VARIABLE),
            contexts: variable(CONTEXTS_VARIABLE),
            kept_bytes: variable(KEPT_VARIABLE),
        }
    }
}

/// What a variable says that is `1` or `0`, as it is where it is not set.
pub(crate) fn is_on(name: &str, value: Option<&str>) -> Result<bool> {
    match value.map(str::trim) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => Err(Error::invalid(format!("{name} is {other:?}: set 1 or 0"))),
    }
}

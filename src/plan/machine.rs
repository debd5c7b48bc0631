//! What a group can be made on.

use crate::control_groups;
use crate::cpus::cpuset::CpuSet;
use crate::cpus::topology::{self, Topology};
use crate::error::Result;
use crate::memory;
use crate::tensorflow::SessionOptions;

/// What a group can be made on.
pub(crate) struct Machine {
    /// The CPUs that this process may use.
    pub allowed: CpuSet,
    /// The same by core and NUMA node. Only placing sessions by itself needs it.
    pub topology: Result<Topology>,
    /// How many GPUs TensorFlow sees. Only multi-stream groups need it.
    pub gpus: Result<i32>,
    /// How many CPUs' time its control groups allow this process, where they have a quota.
    pub quota: Option<f64>,
    /// Bytes that this process may use.
    pub memory: u64,
}

impl Machine {
    /// This one, now, with the GPUs that a session with these options would use, if any shall be.
    pub fn read(gpus_of: Option<&SessionOptions>) -> Result<Self> {
        let allowed = topology::allowed()?;
        let topology = Topology::read(&allowed);
        let gpus = gpus_of.map_or(Ok(0), SessionOptions::count_gpus);
        let (quota, memory) = (control_groups::cpus(), memory::of_this_process());
        Ok(Self { allowed, topology, gpus, quota, memory })
    }
}

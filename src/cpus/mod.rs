//! The CPUs of the machine: sets of them, who may use which, and threads that stay on theirs.
//!
//! | | |
//! |---|---|
//! | [`cpuset`] | sets of CPUs, and the grammar of `SESSION_GROUP_CPUSET` |
//! | [`topology`] | the cores and NUMA nodes of the CPUs that this process may use |
//! | [`placement`] | dividing them among sessions |
//! | [`affinity`] | starting, naming and pinning threads |

pub mod affinity;
pub mod cpuset;
pub mod placement;
pub mod topology;

//! What a group says about itself.
//!
//! | | |
//! |---|---|
//! | [`describe`] | what it is, and why: JSON |
//! | [`explain`] | what it has prepared, how that runs, and why: JSON |
//! | [`metrics`] | what it has done: Prometheus' text format |
//! | [`registry`] | all groups of the process |

pub mod describe;
pub mod explain;
pub mod metrics;
pub mod registry;

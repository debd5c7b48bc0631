//! N TensorFlow sessions in one process, one copy of the model, every core busy.
//!
//! A [`SessionGroup`] wraps N sessions of the stock TensorFlow runtime. They share variables and
//! lookup tables, which are loaded once; each has its own inter-op and intra-op threads. A request
//! goes to one of them, chosen by a [`Policy`](policy::Policy).
//!
//! ```no_run
//! use session_group::{Options, SessionGroup, tensorflow::{SessionOptions, Tensor}};
//!
//! # fn main() -> session_group::Result<()> {
//! let mut options = Options::new();
//! options.set_session_num(4);
//! let model = "/models/wide_deep/1";
//! let group = SessionGroup::load(&SessionOptions::new(), None, model, &["serve"], &options, None)?;
//! let ids = Tensor::from_slice(&[1, 26], &[7i64; 26])?;
//! let scores = group.run(&[("serving_default_ids:0", &ids)], &["StatefulPartitionedCall:0"], &[])?;
//! println!("{:?}", scores[0].to_vec::<f32>()?);
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: [`options`] and [`cpuset`] say what a group shall be, [`plan`] decides what it
//! will be, [`group`] is the group, `members` are its sessions, and `run` is the way of a request to
//! one of them: as a program that [`optimization`] describes, found in `cache` or held by a
//! [`callable`]. `stats` counts it, and `explain` says how it runs and why. `gate` keeps its sessions alive while requests run on them,
//! [`policy`] chooses a session, [`execution`] says on which threads its graph runs, `workers` are
//! such threads, `fork` tells a child from the process that has them, and [`affinity`] starts threads where they belong. [`gpu`] gives sessions streams of
//! a GPU. [`memory`] is what the process keeps of large tensors for the next request. [`tensorflow`] is all that knows TensorFlow, and `ffi` is the C ABI over the rest.

pub mod affinity;
mod cache;
pub mod callable;
mod closing;
pub mod cpuset;
mod describe;
pub mod error;
pub mod execution;
mod explain;
mod ffi;
mod fork;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
pub mod gpu;
pub mod group;
pub mod kernels;
mod members;
pub mod memory;
mod metrics;
mod mps;
mod names;
pub mod optimization;
pub mod options;
pub mod placement;
pub mod plan;
pub mod policy;
mod recent;
pub mod registry;
mod run;
mod signature;
mod slot;
pub mod stats;
mod sync;
pub mod target;
pub mod tensorflow;
mod ticket;
pub mod topology;
mod workers;

pub use error::{Code, Error, Result};
pub use group::SessionGroup;
pub use options::Options;
pub use run::Request;

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
//! The rooms, from the bottom up; each `mod.rs` is a map:
//!
//! | | |
//! |---|---|
//! | `cpus` | sets of CPUs, topology, placement, pinned threads |
//! | `options` | what is asked of a group, and by what names |
//! | `tensorflow` | all that knows TensorFlow: safe Rust over the C++ in `tensorflow/cpp` |
//! | `gpu` | several sessions on a GPU, each on a stream of its own |
//! | `plan` | what the group will be, decided from options, environment and machine |
//! | `prepare` | from the names in a request to what is prepared for it |
//! | `sessions` | the sessions, their gate, their worker threads |
//! | `request` | the way of a request to a session and back |
//! | `observe` | describe, explain, metrics, registry |
//! | `group` | the group itself |
//! | `ffi` | the C ABI |

mod cpus;
pub mod error;
mod ffi;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gpu;
pub mod group;
pub mod memory;
mod observe;
pub mod options;
mod plan;
mod prepare;
mod process;
mod request;
mod sessions;
mod sync;
pub mod tensorflow;

pub use cpus::{affinity, cpuset, placement, topology};
pub use error::{Code, Error, Result};
pub use group::SessionGroup;
pub use observe::registry;
pub use options::{Options, environment, execution, kernels, optimization, policy, target};
pub use request::run::Request;
pub use request::{callable, stats};

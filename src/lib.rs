//! N TensorFlow sessions in one process, one copy of the model, every core busy.
//!
//! A [`SessionGroup`] wraps N sessions of the stock TensorFlow runtime. They share variables and
//! lookup tables, which are loaded once; each has its own inter-op and intra-op threads. A request
//! goes to one of them, chosen by a [`Policy`](policy::Policy).
//!
//! ```
//! use session_group::tensorflow::{SessionOptions, Tensor};
//! use session_group::{Options, SessionGroup};
//!
//! let model = "models/build/strings";
//! let options = Options::new().session_num(2).clone();
//! let group = SessionGroup::load(&SessionOptions::new(), None, model, &["serve"], &options, None)?;
//! let text = Tensor::from_strings(&[1], &["to be or not to be"])?;
//! let words = group.run(&[("serving_default_text:0", &text)], &["PartitionedCall:1"], &[])?;
//! assert_eq!(words[0].dims(), [4]);
//! # Ok::<(), session_group::Error>(())
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
//! | `ffi` | the C ABI, with the feature `c-abi` |

// What only the C ABI calls stays where it belongs.
#![cfg_attr(not(feature = "c-abi"), allow(dead_code))]

mod control_groups;
mod cpus;
pub mod error;
#[cfg(feature = "c-abi")]
mod ffi;
#[cfg(fuzzing)]
pub mod fuzzing;
// So that it compiles when it is needed.
#[cfg(all(test, not(fuzzing)))]
#[allow(unused)]
mod fuzzing;
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
mod stripes;
mod sync;
pub mod tensorflow;

pub use cpus::{affinity, cpuset, placement, topology};
pub use error::{Code, Error, Result};
pub use group::SessionGroup;
pub use observe::registry;
pub use options::{Options, environment, execution, kernels, optimization, policy, target};
pub use request::run::Request;
pub use request::{callable, stats};

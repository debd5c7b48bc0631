//! The only place that knows TensorFlow.
//!
//! [`version`] checks that the loaded library is the one this crate was built for. `status`, `buffer`,
//! `dtype`, `tensor` and `session_options` are TensorFlow's own C types with owners. `graph`, `run_options`,
//! `devices`, `session` and `program` stand over the C++ shim, declared in `shim`: sessions that share
//! variables, and optimised graphs, which TensorFlow's C API can't make. `export_dir` says what to load
//! where there is no SavedModel. `group_session` is a group as a session of TensorFlow's C++ API;
//! `policy_function` calls what a program brings; `log` writes to TensorFlow's log; [`library`] adds operations
//! to TensorFlow's; `large_blocks` is the memory of large tensors.

pub(crate) mod buffer;
pub(crate) mod devices;
mod dtype;
mod export_dir;
pub(crate) mod graph;
#[cfg(feature = "c-abi")]
pub(crate) mod group_session;
pub(crate) mod large_blocks;
pub mod library;
pub(crate) mod log;
#[cfg(feature = "c-abi")]
pub(crate) mod policy_function;
pub(crate) mod program;
pub(crate) mod run_options;
pub(crate) mod session;
pub(crate) mod session_options;
/// cbindgen:ignore
pub(crate) mod shim;
pub(crate) mod status;
pub(crate) mod tensor;
pub mod version;

pub use buffer::Buffer;
pub use devices::Variable;
pub use dtype::DataType;
pub use graph::SavedModel;
pub use run_options::RunOptions;
pub use session::Device;
pub use session_options::SessionOptions;
pub use tensor::{Element, MOST_DIMS, Tensor};

//! The C ABI: one file for each noun, in the order of the header.
//!
//! Each function checks its arguments, calls the crate and reports the outcome; `check` holds the
//! checks. No function lets a panic out. cbindgen turns these files into `include/session_group.h`.
//!
//! All functions rely on the rules that the header states for C: a pointer is NULL or points to a live
//! object of its type, made by the matching function; strings are zero-terminated; arrays have the
//! length that comes with them; only one thread at a time uses a status, a buffer to fill, or options.
//! Nothing is used after the function that deletes it.
#![cfg_attr(fuzzing, allow(missing_docs))] // One comment may cover several fields.

mod check;

// In the order of the header. rustfmt keeps it because blank lines separate the groups.
mod options;

mod group;

mod load;

mod run;
mod session;

mod callable;

mod stats;

/// All functions and types, as Rust sees them.
#[cfg(any(fuzzing, test))]
#[cfg_attr(not(fuzzing), allow(unused))]
pub mod all {
    pub use super::callable::*;
    pub use super::group::*;
    pub use super::load::*;
    pub use super::options::*;
    pub use super::run::*;
    pub use super::session::*;
    pub use super::stats::*;
}

//! The C ABI: one file for each noun, in the order of the header.
//!
//! Functions check what they are given, call the crate, and report; `check` holds what they check
//! with. No panic leaves them. cbindgen turns these files into `include/session_group.h`.
//!
//! All rely on the same rules, which the header states to C: a pointer is NULL or points to
//! something live of its type, made by the matching function; strings are zero-terminated; arrays
//! are as long as said; a status, a buffer to fill and options are used by one thread at a time.
//! What is documented as deleted is not used again.
#![cfg_attr(fuzzing, allow(missing_docs))] // Which C has from the lines above several.

mod check;

// In the order of the header, which rustfmt keeps where lines are apart.
mod options;

mod group;

mod load;

mod run;
mod session;

mod callable;

mod stats;

/// All functions and types, as Rust sees them.
#[cfg(fuzzing)]
pub mod all {
    pub use super::callable::*;
    pub use super::group::*;
    pub use super::load::*;
    pub use super::options::*;
    pub use super::run::*;
    pub use super::session::*;
    pub use super::stats::*;
}

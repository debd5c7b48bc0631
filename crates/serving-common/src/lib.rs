//! What the model server and the processor share.
//!
//! | | |
//! |---|---|
//! | [`tensorflow`] | TensorFlow's messages |
//! | [`text_format`] | messages in text files |
//! | [`tensor`] | tensors in messages |
//! | [`signature`] | names, types and defaults in signatures |
//! | [`sessions`] | from a program's settings to options of groups and sessions |
//! | [`timeline`] | timelines of chosen requests |
//! | [`checksum`] | checksums in TensorFlow's files |
//! | [`text`] | clients' texts in error messages |
//! | [`paths`] | paths that are given to programs |
//! | [`operations`] | operations that are not TensorFlow's own |

pub mod checksum;
pub mod operations;
pub mod paths;
pub mod sessions;
pub mod signature;
pub mod tensor;
pub mod text;
pub mod text_format;
pub mod timeline;

#[allow(missing_docs, dead_code, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}

pub use generated::tensorflow;

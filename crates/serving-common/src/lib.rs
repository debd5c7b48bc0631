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

pub mod checksum;
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

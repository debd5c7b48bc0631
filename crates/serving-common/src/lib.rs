//! What the model server and the processor share.

pub mod checksum;
pub mod signature;
pub mod tensor;
pub mod text;
pub mod timeline;

#[allow(missing_docs, dead_code, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}

pub use generated::tensorflow;

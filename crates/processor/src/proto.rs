//! The processor's messages, and the parts of TensorFlow's that it reads.

#[allow(missing_docs, dead_code, clippy::all)]
mod generated {
    pub mod serving_processor {
        include!(concat!(env!("OUT_DIR"), "/serving_processor.rs"));
    }
    /// Generated code finds messages of other packages by these paths.
    pub mod tensorflow {
        pub use session_group_serving::tensorflow::*;
        pub mod eas {
            include!(concat!(env!("OUT_DIR"), "/tensorflow.eas.rs"));
        }
    }
}

pub use generated::serving_processor as model;
pub use generated::tensorflow::eas;

/// Descriptors of all messages, serialised.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

//! KServe's protocol, version 2, which Triton's clients speak, beside TensorFlow Serving's.
//!
//! | | |
//! |---|---|
//! | [`datatype`] | its names of types |
//! | [`parameters`] | what the parameters of a request mean, and which are refused |
//! | [`raw`], [`typed`] | tensors as bytes, and as lists of numbers in messages |
//! | [`infer`] | from the inputs of a request to outputs, by what [`crate::predict`] does |
//! | [`about`] | what is said about the server and its models |
//! | [`grpc`] | the service |
//! | [`http`] | its paths and bodies, which [`crate::rest`] answers |

mod about;
mod datatype;
pub mod grpc;
pub mod http;
mod infer;
mod parameters;
mod raw;
mod typed;

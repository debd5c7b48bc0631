//! What fuzz targets share: [`status`] to call the C ABI with, [`models`] to run, [`wire`] to change
//! protocol buffers so that they can still be parsed, and [`stock`] to see what TensorFlow does by itself.

pub mod models;
pub mod status;
pub mod stock;
pub mod wire;

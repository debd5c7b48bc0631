//! JSON as TensorFlow Serving has it: NaN and infinities are numbers.
//!
//! `read` finds values where they lie in a body; `column` makes tensors of them, and `values` text of tensors, for
//! `write`.

pub mod column;
pub mod read;
pub mod values;
pub mod write;

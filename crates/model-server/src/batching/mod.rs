//! Computes requests that arrive together in one run, as TensorFlow Serving defines it: concatenates the rows of
//! all, runs them once, and splits the outputs again. One set of threads serves all models; each version and
//! set of names has a queue. A request that waits for its batch is a future.
//!
//! | | |
//! |---|---|
//! | `parameters` | how large batches get, and how long they wait |
//! | `batcher` | puts the requests of a version into queues, and waits for their answers |
//! | `queues` | the batches that wait, and which is to run |
//! | `scheduler` | the threads that run them |
//! | `rows` | rows of tensors: several requests' in one, and those of one again |

mod batcher;
mod parameters;
mod queues;
mod rows;
mod scheduler;
#[cfg(test)]
mod tests;

pub use batcher::Batcher;
pub use parameters::Batching;
pub use rows::{in_size, rows};
pub use scheduler::Scheduler;

//! What [`process`](crate::process), the parent, and [`server`](crate::server), its child, say to each other: lines of
//! JSON.
//!
//! The child writes `Said<Ready>` when it serves, then reads a [`Turn`] and writes `Said<Measured>`, again and
//! again, until the parent closes its input.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a child says first.
#[derive(Serialize, Deserialize)]
pub struct Ready {
    pub load_seconds: f64,
    /// Loading, and the first answer of every client.
    pub ready_seconds: f64,
    /// The answers to the first requests of the pool.
    pub answers: Vec<Vec<f32>>,
    /// The name and version of what serves.
    pub version: String,
    /// Whether TensorFlow uses oneDNN, where it serves.
    pub onednn: Option<bool>,
    /// Resident bytes before loading: mostly TensorFlow's libraries, which are linked in.
    pub resident_at_start: u64,
}

/// What a child says: a result or an error's message.
pub type Said<T> = Result<T, String>;

/// What clients do until they are told otherwise.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Turn {
    /// On [`clock`](crate::clock), the same for all processes.
    pub start: Duration,
    pub seconds: f64,
    /// Requests a second of each client; `None` for a closed loop.
    pub rate: Option<f64>,
}

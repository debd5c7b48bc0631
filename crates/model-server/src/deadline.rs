//! The time until which the client of a request waits, and what a run gets of it.

use std::time::Instant;

use session_group::tensorflow::RunOptions;
use session_group::{Code, Error, Result};

/// Options with a timeout that ends at the deadline; `None` without a deadline. An error where it has passed.
pub fn run_options(deadline: Option<Instant>) -> Result<Option<RunOptions>> {
    let Some(deadline) = deadline else { return Ok(None) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(deadline_exceeded());
    }
    let mut options = RunOptions::parse(&[])?;
    // Rounded up to whole milliseconds, because a timeout of 0 would mean no timeout.
    options.set_timeout_ms((left.as_micros().div_ceil(1000)).try_into().unwrap_or(i64::MAX));
    Ok(Some(options))
}

pub fn deadline_exceeded() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed before the request was run")
}

//! A client that sends its next request when the last is answered.

use std::time::Duration;

use anyhow::Result;

use super::{Measured, histogram};
use crate::clock;
use crate::contender::Client;
use crate::protocol::Turn;

/// Sends requests of the pool, one after the other, until the turn is over.
pub fn run(
    client: &mut dyn Client,
    pool: impl Iterator<Item = usize>,
    turn: Turn,
) -> Result<Measured> {
    let mut latencies = histogram();
    let end = turn.start + Duration::from_secs_f64(turn.seconds);
    clock::sleep_until(turn.start);
    let begun = clock::now();
    let mut sent = begun;
    for request in pool {
        client.run(request)?;
        let answered = clock::now();
        latencies.saturating_record((answered - sent).as_nanos() as u64);
        sent = answered;
        if sent >= end {
            break;
        }
    }
    Ok(Measured::new(&latencies, (sent - begun).as_secs_f64()))
}

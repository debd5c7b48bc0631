//! A client that sends requests at times of a Poisson process, whether or not the last is answered.
//!
//! A latency counts from the time at which the request was to be sent: where answers are late, the
//! requests behind them are late, too, and that shows.

use std::time::Duration;

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp};

use super::{Measured, histogram};
use crate::clock;
use crate::contender::Client;
use crate::protocol::Turn;

/// A turn that takes so many times its length is ended: the contender can't keep up.
const PATIENCE: f64 = 2.0;

/// Sends requests of the pool, on average so many a second, until the turn is over.
pub fn run(
    client: &mut dyn Client,
    pool: impl Iterator<Item = usize>,
    turn: Turn,
    rate: f64,
    seed: u64,
) -> Result<Measured> {
    let mut latencies = histogram();
    let mut rng = StdRng::seed_from_u64(seed);
    let gap = Exp::new(rate)?;
    let end = turn.start + Duration::from_secs_f64(turn.seconds);
    let too_late = turn.start + Duration::from_secs_f64(turn.seconds * PATIENCE);
    let mut intended = turn.start;
    let mut now = clock::now();
    for request in pool {
        intended += Duration::from_secs_f64(gap.sample(&mut rng));
        if intended >= end || now >= too_late {
            break;
        }
        // The clock is not read again where the request is late already.
        if now < intended {
            clock::sleep_until(intended);
        }
        client.run(request)?;
        now = clock::now();
        latencies.saturating_record((now - intended).as_nanos() as u64);
    }
    let seconds = (now.max(end) - turn.start).as_secs_f64();
    Ok(Measured::new(&latencies, seconds))
}

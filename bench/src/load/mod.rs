//! How clients send requests: [`closed`], one after the other for the most requests a second;
//! [`open`], at given times for latencies.

pub mod closed;
pub mod open;

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What clients do until they are told otherwise.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Turn {
    /// On [`clock`](crate::clock), the same for all processes.
    pub start: Duration,
    pub seconds: f64,
    /// Requests a second of each client; `None` for a closed loop.
    pub rate: Option<f64>,
}

/// What clients have seen in a turn.
#[derive(Serialize, Deserialize)]
pub struct Measured {
    /// Requests a second.
    pub qps: f64,
    /// Nanoseconds and how many requests took so long.
    latencies: Vec<(u64, u64)>,
}

impl Measured {
    fn new(latencies: &Histogram<u64>, seconds: f64) -> Self {
        let counts =
            latencies.iter_recorded().map(|at| (at.value_iterated_to(), at.count_at_value()));
        Self { qps: latencies.len() as f64 / seconds, latencies: counts.collect() }
    }

    /// Several clients' as one.
    pub fn sum(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self { qps: 0.0, latencies: Vec::new() };
        for part in parts {
            sum.qps += part.qps;
            sum.latencies.extend(part.latencies);
        }
        sum
    }

    /// A quantile of the latencies, in microseconds.
    pub fn quantile(&self, quantile: f64) -> Result<f64> {
        let mut histogram = histogram();
        for &(value, count) in &self.latencies {
            histogram.record_n(value, count)?;
        }
        Ok(histogram.value_at_quantile(quantile) as f64 / 1000.0)
    }
}

/// Up to a minute, in nanoseconds, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let part = |nanoseconds: &[u64]| {
            let mut latencies = histogram();
            nanoseconds.iter().for_each(|&n| latencies.record(n).unwrap());
            Measured::new(&latencies, 2.0)
        };
        let sum = Measured::sum([part(&[1000, 1000, 1000]), part(&[9000])]);
        assert_eq!(sum.qps, 2.0);
        assert!((sum.quantile(0.5).unwrap() - 1.0).abs() < 0.01);
        assert!((sum.quantile(0.99).unwrap() - 9.0).abs() < 0.01);
    }
}

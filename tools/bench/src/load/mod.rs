//! How clients send requests: [`closed`], one after the other for the most requests a second;
//! [`open`], at given times for latencies.

pub mod closed;
pub mod open;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

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
}

/// The latencies of turns, together.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        Self(histogram())
    }

    pub fn add(&mut self, turn: &Measured) -> Result<()> {
        for &(value, count) in &turn.latencies {
            self.0.record_n(value, count)?;
        }
        Ok(())
    }

    /// How many there are.
    pub fn requests(&self) -> u64 {
        self.0.len()
    }

    /// A quantile in microseconds. `None` where so few requests were sent that it would be the longest of them:
    /// fewer than a thousand, for a quantile of 0.999.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let beyond = self.requests() as f64 * (1.0 - quantile);
        // A thousandth of a thousand is a little less than one, in floats.
        (beyond > 0.9995).then(|| self.0.value_at_quantile(quantile) as f64 / 1000.0)
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
        let mut latencies = Latencies::new();
        latencies.add(&sum).unwrap();
        latencies.add(&part(&[1000])).unwrap();
        assert_eq!(latencies.requests(), 5);
        assert!((latencies.quantile(0.5).unwrap() - 1.0).abs() < 0.01);
        assert!((latencies.quantile(0.8).unwrap() - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_tail_needs_enough_requests() {
        let mut latencies = Latencies::new();
        latencies.add(&Measured { qps: 1.0, latencies: vec![(1000, 998), (9000, 1)] }).unwrap();
        assert_eq!(latencies.quantile(0.999), None);
        assert!((latencies.quantile(0.99).unwrap() - 1.0).abs() < 0.01);
        latencies.add(&Measured { qps: 1.0, latencies: vec![(9000, 1)] }).unwrap();
        assert!((latencies.quantile(0.999).unwrap() - 9.0).abs() < 0.01);
    }
}

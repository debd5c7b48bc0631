//! Makes metrics, each of them known to the registry.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets,
};

use super::per_thread::PerThread;

/// A name, a text of help, and the names of labels. They are constants, so none can be wrong.
pub(super) type Named<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Makes metrics of a registry.
pub(super) struct Families<'a> {
    pub registry: &'a Registry,
    pub serving_threads: usize,
}

impl Families<'_> {
    /// One for all threads.
    pub fn shared<T: Collector + Clone + 'static>(
        &self,
        make: fn(Named<'_>) -> T,
        named: Named<'_>,
    ) -> T {
        self.known(make(named))
    }

    /// One for each serving thread, for what each request counts.
    pub fn per_thread<T: Collector + 'static>(
        &self,
        make: fn(Named<'_>) -> T,
        named: Named<'_>,
    ) -> PerThread<T> {
        self.known(PerThread::new(self.serving_threads, || make(named)))
    }

    fn known<T: Collector + Clone + 'static>(&self, made: T) -> T {
        self.registry.register(Box::new(made.clone())).expect("registered once");
        made
    }
}

pub(super) fn counters((name, help, labels): Named<'_>) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name")
}

pub(super) fn gauges((name, help, labels): Named<'_>) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name")
}

/// As TensorFlow Serving has them.
pub(super) fn microseconds(named: Named<'_>) -> HistogramVec {
    histograms(named, exponential_buckets(10.0, 1.8, 33))
}

/// As TensorFlow Serving has those of batches.
pub(super) fn microseconds_in_batches(named: Named<'_>) -> HistogramVec {
    histograms(named, exponential_buckets(100.0, 1.2, 52))
}

pub(super) fn seconds(named: Named<'_>) -> HistogramVec {
    histograms(named, exponential_buckets(1e-5, 2.0, 24))
}

pub(super) fn sizes(named: Named<'_>) -> HistogramVec {
    histograms(named, exponential_buckets(1.0, 2.0, 14))
}

fn histograms(
    (name, help, labels): Named<'_>,
    buckets: prometheus::Result<Vec<f64>>,
) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(buckets.expect("growing"));
    HistogramVec::new(opts, labels).expect("a valid name")
}

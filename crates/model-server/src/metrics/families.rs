//! Makes metrics, each of them known to the registry.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// Makes metrics of a registry. Names and labels are constants, so none can be wrong or twice.
pub(super) struct Families<'a>(pub &'a Registry);

impl Families<'_> {
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.known(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.known(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// As TensorFlow Serving has them.
    pub fn microseconds(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.histograms(name, help, labels, exponential_buckets(10.0, 1.8, 33))
    }

    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.histograms(name, help, labels, exponential_buckets(1e-5, 2.0, 24))
    }

    pub fn sizes(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.histograms(name, help, labels, exponential_buckets(1.0, 2.0, 14))
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: prometheus::Result<Vec<f64>>,
    ) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.expect("growing"));
        self.known(HistogramVec::new(opts, labels))
    }

    fn known<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = made.expect("a valid name");
        self.0.register(Box::new(made.clone())).expect("registered once");
        made
    }
}

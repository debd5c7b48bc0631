//! Metrics of which each serving thread has its own, so that no two threads write to one cache line. Reading sums
//! them up.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily};

thread_local! {
    /// Which ones are those of the thread. The first are those of all threads that serve no connections.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// From now on the thread counts by itself, as the serving thread of this number from 0 on.
pub fn count_as_serving_thread(number: usize) {
    OWN.set(1 + number);
}

/// What each thread has one of.
pub(super) struct PerThread<T>(Arc<[T]>);

impl<T> PerThread<T> {
    pub fn new(serving_threads: usize, make: impl Fn() -> T) -> Self {
        Self((0..=serving_threads).map(|_| make()).collect())
    }

    /// The calling thread's.
    pub fn own(&self) -> &T {
        // One that was not known of has none.
        self.0.get(OWN.get()).unwrap_or(&self.0[0])
    }

    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> PerThread<U> {
        PerThread(self.0.iter().map(make).collect())
    }
}

impl<T> Clone for PerThread<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Collector> Collector for PerThread<T> {
    fn desc(&self) -> Vec<&Desc> {
        self.0[0].desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Each has one family.
        let mut families = self.0.iter().flat_map(Collector::collect);
        let Some(mut all) = families.next() else { return Vec::new() };
        let mut by_labels: BTreeMap<_, Metric> = BTreeMap::new();
        for metric in
            all.take_metric().into_iter().chain(families.flat_map(|mut f| f.take_metric()))
        {
            let labels = metric.get_label().iter();
            let labels: Vec<_> = labels.map(|label| label.value().to_string()).collect();
            by_labels.entry(labels).and_modify(|sum| add(sum, &metric)).or_insert(metric);
        }
        all.set_metric(by_labels.into_values().collect());
        vec![all]
    }
}

/// Adds to each kind of value; those that a metric is not are zero.
fn add(sum: &mut Metric, more: &Metric) {
    let mut counter = Counter::default();
    counter.set_value(sum.get_counter().get_value() + more.get_counter().get_value());
    sum.set_counter(counter);
    let mut gauge = Gauge::default();
    gauge.set_value(sum.get_gauge().get_value() + more.get_gauge().get_value());
    sum.set_gauge(gauge);
    let histogram = added(sum.get_histogram(), more.get_histogram());
    sum.set_histogram(histogram);
}

/// Of two with the same buckets.
fn added(one: &Histogram, other: &Histogram) -> Histogram {
    let mut sum = Histogram::default();
    sum.set_sample_count(one.get_sample_count() + other.get_sample_count());
    sum.set_sample_sum(one.get_sample_sum() + other.get_sample_sum());
    let buckets = one.get_bucket().iter().zip(other.get_bucket()).map(|(one, other)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(one.upper_bound());
        bucket.set_cumulative_count(one.cumulative_count() + other.cumulative_count());
        bucket
    });
    sum.set_bucket(buckets.collect());
    sum
}

#[cfg(test)]
mod tests {
    use std::thread;

    use prometheus::{
        HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    };

    use super::*;

    #[test]
    fn what_threads_count_is_summed_up() {
        let counters =
            PerThread::new(2, || IntCounterVec::new(Opts::new("c", "-"), &["a"]).unwrap());
        let gauges = PerThread::new(2, || IntGaugeVec::new(Opts::new("g", "-"), &["a"]).unwrap());
        let histograms = PerThread::new(2, || {
            let opts = HistogramOpts::new("h", "-").buckets(vec![1.0, 2.0]);
            HistogramVec::new(opts, &["a"]).unwrap()
        });
        let count = |times: u64| {
            counters.own().with_label_values(&["x"]).inc_by(times);
            gauges.own().with_label_values(&["x"]).add(times as i64);
            (0..times).for_each(|i| histograms.own().with_label_values(&["x"]).observe(i as f64));
        };
        count(1);
        thread::scope(|scope| {
            for number in 0..4 {
                let count = &count;
                scope.spawn(move || {
                    count_as_serving_thread(number);
                    count(number as u64 + 1);
                });
            }
        });
        counters.0[2].with_label_values(&["only here"]).inc();
        let registry = Registry::new();
        registry.register(Box::new(counters.clone())).unwrap();
        registry.register(Box::new(gauges)).unwrap();
        registry.register(Box::new(histograms)).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        // The last two have no own ones.
        assert_eq!(
            counters.all().map(|c| c.with_label_values(&["x"]).get()).collect::<Vec<_>>(),
            [8, 1, 2]
        );
        for line in [
            "c{a=\"x\"} 11",
            "c{a=\"only here\"} 1",
            "g{a=\"x\"} 11",
            "h_bucket{a=\"x\",le=\"1\"} 8",
            "h_bucket{a=\"x\",le=\"2\"} 10",
            "h_bucket{a=\"x\",le=\"+Inf\"} 11",
            "h_sum{a=\"x\"} 10",
            "h_count{a=\"x\"} 11",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
    }
}

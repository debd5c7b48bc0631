//! What is counted for each version of a model, for as long as it is loaded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};
use session_group::Code;

use super::families::{Named, counters, gauges, seconds, sizes};
use super::{Families, PerThread, STATUSES, status};

/// A model's name, and a version as labels have it.
const LABELS: [&str; 2] = ["model_name", "version"];

/// Those of all versions.
pub(super) struct Versions {
    loaded: IntGaugeVec,
    requests: PerThread<IntCounterVec>,
    runtime: PerThread<HistogramVec>,
    batch_wait: HistogramVec,
    batch_waiting: IntGaugeVec,
    batch_rows: HistogramVec,
    batch_padded_rows: HistogramVec,
    /// A version that is loaded anew has two owners for a while, but the same counters.
    live: Mutex<HashMap<(String, i64), Weak<OfVersion>>>,
}

/// Those of one.
pub struct OfVersion {
    all: Arc<Versions>,
    pub model: String,
    pub version: i64,
    /// As labels have it.
    version_text: String,
    runtime: PerThread<Histogram>,
    batch_wait: Histogram,
    /// Requests that wait in batches.
    pub batch_waiting: IntGauge,
    batch_rows: Histogram,
    batch_padded_rows: Histogram,
}

impl Versions {
    pub fn new(families: &Families<'_>) -> Arc<Self> {
        let [model, version] = LABELS;
        let named = |name, help| -> Named<'_> { (name, help, &LABELS) };
        Arc::new(Self {
            loaded: families.shared(
                gauges,
                named("session_group_server_loaded_versions", "1 for each version that is loaded"),
            ),
            requests: families.per_thread(
                counters,
                (
                    "session_group_server_requests_total",
                    "Requests that a version was found for, by status",
                    &[model, version, "status"],
                ),
            ),
            runtime: families.per_thread(
                seconds,
                named(
                    "session_group_server_runtime_seconds",
                    "Time that a version computes an answer, its batch included",
                ),
            ),
            batch_wait: families.shared(
                seconds,
                named(
                    "session_group_server_batch_queue_seconds",
                    "Time that requests wait for their batch",
                ),
            ),
            batch_waiting: families.shared(
                gauges,
                named(
                    "session_group_server_batch_waiting_requests",
                    "Requests that wait for their batch",
                ),
            ),
            batch_rows: families
                .shared(sizes, named("session_group_server_batch_rows", "Rows of a batch")),
            batch_padded_rows: families.shared(
                sizes,
                named("session_group_server_batch_padded_rows", "Rows of a batch with its padding"),
            ),
            live: Mutex::default(),
        })
    }

    pub fn of(self: &Arc<Self>, model: &str, version: i64) -> Arc<OfVersion> {
        let mut live = self.lock();
        let known = live.entry((model.to_string(), version)).or_default();
        if let Some(of_version) = known.upgrade() {
            return of_version;
        }
        let version_text = version.to_string();
        let labels = [model, version_text.as_str()];
        self.loaded.with_label_values(&labels).set(1);
        let of_version = Arc::new(OfVersion {
            all: self.clone(),
            model: model.to_string(),
            version,
            runtime: self.runtime.map(|own| own.with_label_values(&labels)),
            batch_wait: self.batch_wait.with_label_values(&labels),
            batch_waiting: self.batch_waiting.with_label_values(&labels),
            batch_rows: self.batch_rows.with_label_values(&labels),
            batch_padded_rows: self.batch_padded_rows.with_label_values(&labels),
            version_text,
        });
        *known = Arc::downgrade(&of_version);
        of_version
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, i64), Weak<OfVersion>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfVersion {
    pub fn answered(&self, code: Option<Code>) {
        let labels = [self.model.as_str(), self.version_text.as_str(), status(code)];
        self.all.requests.own().with_label_values(&labels).inc();
    }

    pub fn computed(&self, took: Duration) {
        self.runtime.own().observe(took.as_secs_f64());
    }

    /// A request has waited for its batch.
    pub fn batch_waited(&self, waited: Duration) {
        self.batch_waiting.dec();
        self.batch_wait.observe(waited.as_secs_f64());
    }

    /// A batch is run.
    pub fn batch(&self, rows: usize, padded: usize) {
        self.batch_rows.observe(rows as f64);
        self.batch_padded_rows.observe(padded as f64);
    }
}

impl Drop for OfVersion {
    fn drop(&mut self) {
        let key = (std::mem::take(&mut self.model), self.version);
        let mut live = self.all.lock();
        // The version may have come back meanwhile.
        if live.get(&key).is_none_or(|known| known.strong_count() > 0) {
            return;
        }
        live.remove(&key);
        let labels = [key.0.as_str(), self.version_text.as_str()];
        let all = &self.all;
        for gauges in [&all.loaded, &all.batch_waiting] {
            let _ = gauges.remove_label_values(&labels);
        }
        let in_batches = [&all.batch_wait, &all.batch_rows, &all.batch_padded_rows];
        for histograms in all.runtime.all().chain(in_batches) {
            let _ = histograms.remove_label_values(&labels);
        }
        for requests in all.requests.all() {
            for status in STATUSES.iter().copied() {
                // Not all have occurred.
                let _ = requests.remove_label_values(&[labels[0], labels[1], status]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn counters_go_with_the_last_owner_of_their_version() {
        let metrics = Metrics::default();
        let has = |text: &str| metrics.text().lines().any(|line| line.starts_with(text));
        let line =
            "session_group_server_requests_total{model_name=\"a\",status=\"OK\",version=\"1\"} ";
        let (old, new) = (metrics.of_version("a", 1), metrics.of_version("a", 1));
        old.answered(None);
        drop(old);
        new.answered(None);
        assert!(has(&format!("{line}2")), "{}", metrics.text());
        drop(new);
        assert!(!metrics.text().contains("model_name=\"a\""), "{}", metrics.text());
        metrics.of_version("a", 1).answered(None);
        assert!(!has(line));
        let back = metrics.of_version("a", 1);
        back.answered(None);
        assert!(has(&format!("{line}1")));
    }
}

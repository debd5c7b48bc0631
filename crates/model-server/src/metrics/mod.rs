//! Counters and histograms under TensorFlow Serving's names, and those of the server, of the process and of the session
//! groups beside them, in Prometheus' text format. docs/metrics.md lists them.

mod families;
mod of_version;
mod per_thread;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};
use session_group::tensorflow::version;
use session_group::{Code, registry};

use crate::proto::tensorflow::error;
use families::{Families, counters, gauges, microseconds, microseconds_in_batches, seconds, sizes};
pub use of_version::OfVersion;
use of_version::Versions;
use per_thread::PerThread;
pub use per_thread::count_as_serving_thread;

/// May be used by many threads at a time.
pub struct Metrics {
    registry: Registry,
    requests: PerThread<IntCounterVec>,
    latency: PerThread<HistogramVec>,
    runtime: PerThread<HistogramVec>,
    warm_up: HistogramVec,
    batch_wait: HistogramVec,
    batch_rows: Histogram,
    batch_padded_rows: Histogram,
    batch_runs: IntCounter,
    pub loads: IntCounterVec,
    /// Requests that wait for a thread.
    pub waiting: IntGauge,
    thread_wait: PerThread<HistogramVec>,
    in_flight: PerThread<IntGaugeVec>,
    versions: Arc<Versions>,
}

impl Default for Metrics {
    /// For a server without serving threads.
    fn default() -> Self {
        Self::new(0)
    }
}

impl Metrics {
    pub fn new(serving_threads: usize) -> Self {
        let registry = Registry::new();
        let families = Families { registry: &registry, serving_threads };
        let _ = registry.register(Box::new(ProcessCollector::for_self()));
        let build_info = (
            "session_group_server_build_info",
            "1; the labels say which server and which TensorFlow",
            &["server", "tensorflow"][..],
        );
        families
            .shared(gauges, build_info)
            .with_label_values(&[env!("CARGO_PKG_VERSION"), version::loaded().as_str()])
            .set(1);
        let model_path = &["model_path", "status"];
        Self {
            requests: families.per_thread(
                counters,
                (
                    ":tensorflow:serving:request_count",
                    "Requests, by model and status",
                    &["model_name", "status"],
                ),
            ),
            latency: families.per_thread(
                microseconds,
                (
                    ":tensorflow:serving:request_latency",
                    "Microseconds from a request to its answer",
                    &["model_name", "API", "entrypoint"],
                ),
            ),
            runtime: families.per_thread(
                microseconds,
                (
                    ":tensorflow:serving:runtime_latency",
                    "Microseconds that a model computes an answer, its batch included",
                    &["model_name", "API", "runtime"],
                ),
            ),
            warm_up: families.shared(
                microseconds,
                (
                    ":tensorflow:serving:model_warmup_latency",
                    "Microseconds of warming up",
                    model_path,
                ),
            ),
            batch_wait: families.shared(
                microseconds_in_batches,
                (
                    ":tensorflow:serving:batching_session:queuing_latency",
                    "Microseconds that requests wait for their batch",
                    &["thread_pool_name"],
                ),
            ),
            batch_rows: families
                .shared(
                    sizes,
                    (
                        ":tensorflow:serving:batching_session:input_batch_size",
                        "Rows of a batch",
                        &[],
                    ),
                )
                .with_label_values::<&str>(&[]),
            batch_padded_rows: families
                .shared(
                    sizes,
                    (
                        ":tensorflow:serving:batching_session:processed_batch_size",
                        "Rows of a batch with its padding",
                        &[],
                    ),
                )
                .with_label_values::<&str>(&[]),
            batch_runs: families
                .shared(
                    counters,
                    (":tensorflow:serving:batching_session:wrapped_run_count", "Batches run", &[]),
                )
                .with_label_values::<&str>(&[]),
            loads: families.shared(
                counters,
                (":tensorflow:cc:saved_model:load_attempt_count", "Loads of versions", model_path),
            ),
            waiting: families
                .shared(
                    gauges,
                    (
                        "session_group_server_waiting_requests",
                        "Requests that wait for a thread of the server",
                        &[],
                    ),
                )
                .with_label_values::<&str>(&[]),
            thread_wait: families.per_thread(
                seconds,
                (
                    "session_group_server_queue_seconds",
                    "Time that requests wait for a thread of the server",
                    &["model_name", "entrypoint"],
                ),
            ),
            in_flight: families.per_thread(
                gauges,
                (
                    "session_group_server_in_flight_requests",
                    "Requests that have come and are not answered",
                    &["model_name", "entrypoint"],
                ),
            ),
            versions: Versions::new(&families),
            registry,
        }
    }
}

/// Counts a request as long as it is not answered.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// A request has come.
    pub fn begun(&self, model: &str, entrypoint: &str) -> InFlight {
        let in_flight = self.in_flight.own().with_label_values(&[model, entrypoint]);
        in_flight.inc();
        InFlight(in_flight)
    }

    /// A request has waited for a thread.
    pub fn has_thread(&self, model: &str, entrypoint: &str, waited: Duration) {
        let histogram = self.thread_wait.own().with_label_values(&[model, entrypoint]);
        histogram.observe(waited.as_secs_f64());
    }

    /// A request was answered. Only what succeeds counts as latency.
    pub fn answered(
        &self,
        model: &str,
        api: &str,
        entrypoint: &str,
        code: Option<Code>,
        took: Duration,
    ) {
        self.requests.own().with_label_values(&[model, status(code)]).inc();
        if code.is_none() {
            self.latency.own().with_label_values(&[model, api, entrypoint]).observe(micros(took));
        }
    }

    /// An answer was computed.
    pub fn computed(&self, model: &str, api: &str, took: Duration) {
        self.runtime.own().with_label_values(&[model, api, "TF1"]).observe(micros(took));
    }

    pub fn warmed_up(&self, path: &str, code: Option<Code>, took: Duration) {
        self.warm_up.with_label_values(&[path, status(code)]).observe(micros(took));
    }

    /// A request has waited for its batch.
    pub fn batch_waited(&self, of_version: &OfVersion, waited: Duration) {
        self.batch_wait.with_label_values(&[""]).observe(micros(waited));
        of_version.batch_waited(waited);
    }

    /// A batch is run.
    pub fn batch(&self, of_version: &OfVersion, rows: usize, padded: usize) {
        self.batch_runs.inc();
        self.batch_rows.observe(rows as f64);
        self.batch_padded_rows.observe(padded as f64);
        of_version.batch(rows, padded);
    }

    /// What is counted for a version from now on.
    pub fn of_version(&self, model: &str, version: i64) -> Arc<OfVersion> {
        self.versions.of(model, version)
    }

    /// All of them.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail, and names are text.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned() + &registry::metrics_text_of_all()
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The names of all codes.
static STATUSES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let codes = (0..=16).filter_map(|code| error::Code::try_from(code).ok());
    codes.map(|code| code.as_str_name()).collect()
});

/// The name of a code, as gRPC spells it.
pub fn status(code: Option<Code>) -> &'static str {
    let code = error::Code::try_from(code.map_or(0, |code| code as i32));
    code.map_or("UNKNOWN", |code| code.as_str_name())
}

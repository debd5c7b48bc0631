//! Counters and histograms under TensorFlow Serving's names, and those of the session groups beside them,
//! in Prometheus' text format.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder, exponential_buckets,
};
use session_group::{Code, registry};

/// May be used by many threads at a time.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
    runtime: HistogramVec,
    warm_up: HistogramVec,
    batch_wait: HistogramVec,
    batch_rows: Histogram,
    batch_padded_rows: Histogram,
    batch_runs: IntCounter,
    /// Requests that wait for a thread.
    pub waiting: IntGauge,
    pub loads: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let latencies = || exponential_buckets(10.0, 1.8, 33).expect("growing");
        let sizes = || exponential_buckets(1.0, 2.0, 14).expect("growing");
        let histograms = |name: &str, help: &str, labels: &[&str], buckets| {
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            let made = HistogramVec::new(opts, labels).expect("a valid name");
            registry.register(Box::new(made.clone())).expect("registered once");
            made
        };
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(sizes());
            let made = Histogram::with_opts(opts).expect("a valid name");
            registry.register(Box::new(made.clone())).expect("registered once");
            made
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(made.clone())).expect("registered once");
            made
        };
        let requests = counters(
            ":tensorflow:serving:request_count",
            "Requests, by model and status",
            &["model_name", "status"],
        );
        let latency = histograms(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request to its answer",
            &["model_name", "API", "entrypoint"],
            latencies(),
        );
        let runtime = histograms(
            ":tensorflow:serving:runtime_latency",
            "Microseconds in the session group",
            &["model_name", "API", "runtime"],
            latencies(),
        );
        let warm_up = histograms(
            ":tensorflow:serving:model_warmup_latency",
            "Microseconds of warming up",
            &["model_path", "status"],
            latencies(),
        );
        let batch_wait = histograms(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Microseconds that requests wait for their batch",
            &["thread_pool_name"],
            exponential_buckets(100.0, 1.2, 52).expect("growing"),
        );
        let batch_rows =
            histogram(":tensorflow:serving:batching_session:input_batch_size", "Rows of a batch");
        let batch_padded_rows = histogram(
            ":tensorflow:serving:batching_session:processed_batch_size",
            "Rows of a batch with its padding",
        );
        let batch_runs = IntCounter::new(
            ":tensorflow:serving:batching_session:wrapped_run_count",
            "Batches run",
        )
        .expect("a valid name");
        registry.register(Box::new(batch_runs.clone())).expect("registered once");
        let loads = counters(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "Loads of versions",
            &["model_path", "status"],
        );
        let waiting = IntGauge::new(
            "session_group_server_waiting_requests",
            "Requests that wait for a thread of the server",
        )
        .expect("a valid name");
        registry.register(Box::new(waiting.clone())).expect("registered once");
        Self {
            registry,
            requests,
            latency,
            runtime,
            warm_up,
            batch_wait,
            batch_rows,
            batch_padded_rows,
            batch_runs,
            waiting,
            loads,
        }
    }
}

impl Metrics {
    /// A request was answered. Only what succeeds counts as latency.
    pub fn answered(
        &self,
        model: &str,
        api: &str,
        entrypoint: &str,
        code: Option<Code>,
        took: Duration,
    ) {
        self.requests.with_label_values(&[model, status(code)]).inc();
        if code.is_none() {
            self.latency.with_label_values(&[model, api, entrypoint]).observe(micros(took));
        }
    }

    /// A request was computed.
    pub fn computed(&self, model: &str, api: &str, took: Duration) {
        self.runtime.with_label_values(&[model, api, "TF1"]).observe(micros(took));
    }

    pub fn warmed_up(&self, path: &str, code: Option<Code>, took: Duration) {
        self.warm_up.with_label_values(&[path, status(code)]).observe(micros(took));
    }

    /// A request has waited for its batch.
    pub fn batch_waited(&self, waited: Duration) {
        self.batch_wait.with_label_values(&[""]).observe(micros(waited));
    }

    /// A batch is run.
    pub fn batch(&self, rows: usize, padded: usize) {
        self.batch_runs.inc();
        self.batch_rows.observe(rows as f64);
        self.batch_padded_rows.observe(padded as f64);
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

/// The name of a code, as gRPC spells it.
pub fn status(code: Option<Code>) -> &'static str {
    crate::proto::tensorflow::error::Code::try_from(code.map_or(0, |code| code as i32))
        .map_or("UNKNOWN", |code| code.as_str_name())
}

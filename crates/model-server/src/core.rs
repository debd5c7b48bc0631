//! What both protocols share: finding the servable, waiting for a thread, computing, and counting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use session_group::{Code, Error, Result};
use session_group_serving::text::beginning;
use tracing::info;

use crate::catalog::Catalog;
use crate::deadline::deadline_exceeded;
use crate::lane::{Client, Lane, Thread};
use crate::manager::Manager;
use crate::metrics::{Metrics, status};
use crate::predict::ResponseFormat;
use crate::proto::serving::ModelSpec;
use crate::servable::Servable;

/// What answers requests. Shared by all connections.
pub struct Core {
    pub catalog: Arc<Catalog>,
    pub manager: Manager,
    pub format: ResponseFormat,
    pub metrics: Arc<Metrics>,
    pub logs_access: bool,
}

/// The part of a request that both protocols have.
pub struct Call {
    pub api: &'static str,
    /// The model's name, as it was sent.
    pub model: String,
    pub client: Client,
    pub deadline: Option<Instant>,
    /// When it arrived.
    pub begun: Instant,
    /// Whether TensorFlow Serving's request_count counts it.
    pub is_counted: bool,
}

impl Core {
    /// Makes an answer on a thread of the lane. A future that is dropped before that thread starts makes none.
    pub async fn answer<T: Send + 'static>(
        self: &Arc<Self>,
        lane: &Arc<Lane>,
        call: Call,
        work: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Call { api, model, client, deadline, begun, is_counted } = call;
        let core = self.clone();
        let thread = lane.thread(client, &model, &self.metrics);
        let result = on_thread(thread, deadline, move || work(&core)).await;
        let code = result.as_ref().err().map(|error| error.code);
        if is_counted {
            // Unknown names share a counter, because clients could send any number of them.
            let model = if self.catalog.knows(&model) { model.as_str() } else { "" };
            self.metrics.answered(model, api, lane.name, code, begun.elapsed());
        }
        self.log(lane.name, api, &model, result.as_ref().err(), begun.elapsed());
        result
    }

    /// Computes with the servable that a request names. `api` is as gRPC names it.
    pub fn compute<T>(
        &self,
        api: &str,
        spec: Option<&ModelSpec>,
        compute: impl FnOnce(&Servable) -> Result<T>,
    ) -> Result<T> {
        let servable = self.catalog.find(spec)?;
        let begun = Instant::now();
        let result = compute(&servable);
        self.metrics.computed(&servable.name, api, begun.elapsed());
        result
    }

    /// Logs a request if the access log is on.
    pub fn log(
        &self,
        protocol: &str,
        api: &str,
        model: &str,
        error: Option<&Error>,
        took: Duration,
    ) {
        if !self.logs_access {
            return;
        }
        let status = status(error.map(|error| error.code));
        let micros = took.as_micros() as u64;
        let message = error.map(|error| error.message.as_str()).unwrap_or_default();
        info!(target: "access", protocol, api, model, status, micros, message);
    }
}

async fn on_thread<T: Send + 'static>(
    thread: impl Future<Output = Result<Thread>>,
    deadline: Option<Instant>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let thread = match deadline {
        None => thread.await?,
        // Even if no thread gets free until then.
        Some(deadline) => tokio::time::timeout_at(deadline.into(), thread)
            .await
            .map_err(|_| deadline_exceeded())??,
    };
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(deadline_exceeded());
    }
    let work = move || {
        let _thread = thread;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(panicked()),
        Err(_) => Err(ending()),
    }
}

fn panicked() -> Error {
    Error::new(Code::Internal, "computing the answer panicked: see the log")
}

fn ending() -> Error {
    Error::new(Code::Unavailable, "the server is ending")
}

/// The text's first `most` bytes, followed by `end` if there were more.
pub fn shortened(mut text: String, most: usize, end: &str) -> String {
    if text.len() > most {
        text.truncate(beginning(&text, most).len());
        text.push_str(end);
    }
    text
}

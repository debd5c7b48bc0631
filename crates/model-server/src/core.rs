//! What both protocols share: finding the servable, waiting for a thread, computing, and counting.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use session_group::{Code, Error, Result};
use session_group_serving::operations::explained;
use session_group_serving::text::beginning;
use tokio::runtime::Handle;
use tracing::info;

use crate::arrival::Arrival;
use crate::catalog::Catalog;
use crate::deadline::deadline_exceeded;
use crate::flags::CUSTOM_OPERATIONS;
use crate::lane::{Lane, Thread};
use crate::manager::Manager;
use crate::metrics::{Metrics, OfVersion, status};
use crate::pace::{Kind, Manner, observed};
use crate::predict::ResponseFormat;
use crate::proto::serving::ModelSpec;
use crate::servable::Servable;
use crate::stopwatch::Stopwatch;
use crate::turns::{Turn, Turns};

/// What answers requests. Shared by all connections.
pub struct Core {
    pub catalog: Arc<Catalog>,
    pub manager: Manager,
    pub format: ResponseFormat,
    pub metrics: Arc<Metrics>,
    pub logs_access: bool,
    /// What takes less is computed on the thread that serves the connection.
    pub short: Duration,
    /// Has the threads that compute everything else.
    pub computing: Handle,
}

/// The part of a request that both protocols have.
pub struct Call {
    pub api: &'static str,
    /// The model's name, as it was sent.
    pub model: String,
    pub arrival: Arrival,
    /// Since when it is answered.
    pub begun: Instant,
    /// Whether TensorFlow Serving's request_count counts it.
    pub is_counted: bool,
    /// `None` for what may always take long.
    pub kind: Option<Kind>,
}

/// What is found out about a request while it is answered.
#[derive(Default)]
pub struct Found {
    version: OnceLock<Arc<OfVersion>>,
    signature: OnceLock<String>,
}

impl Core {
    /// Makes an answer on a thread of the lane, which is free for others while the work waits. A future that is dropped
    /// before that thread starts, or while the work waits, makes none.
    pub async fn answer<T: Send + 'static, W: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        lane: &Arc<Lane>,
        call: Call,
        work: impl FnOnce(Arc<Core>, Arc<Found>) -> W + Send + 'static,
    ) -> Result<T> {
        let core = self.clone();
        // Unknown names share their counters, because clients could send any number of them.
        let known = if self.catalog.knows(&call.model) { call.model.as_str() } else { "" };
        let in_flight = self.metrics.begun(known, lane.name);
        let found = Arc::new(Found::default());
        let finds = found.clone();
        let work = caught(call.arrival.deadline, async move { work(core, finds).await });
        let result = if let Some(kind) = call.kind.filter(|kind| kind.is_short(self.short)) {
            self.metrics.has_thread(known, lane.name, Duration::ZERO);
            let watch = Stopwatch::start();
            let result = work.await;
            if let Some(took) = watch.stop(self.short) {
                kind.took_here(took, self.short);
            }
            result
        } else {
            self.in_turns(lane, &call, known, work).await
        };
        let Call { api, model, arrival, begun, is_counted, .. } = &call;
        let code = result.as_ref().err().map(|error| error.code);
        drop(in_flight);
        if *is_counted {
            self.metrics.answered(known, api, lane.name, code, begun.elapsed());
        }
        if let Some(version) = found.version.get() {
            version.answered(code);
        }
        if self.logs_access {
            let peer = &*arrival.peer;
            let version = found.version.get().map(|version| version.version);
            let signature = found.signature.get().map(String::as_str);
            let status = status(code);
            let micros = begun.elapsed().as_micros() as u64;
            let message = result.as_ref().err().map(|error| error.message.as_str());
            info!(
                target: "access",
                protocol = lane.name, peer, api, model, version, signature, status, micros,
                message = message.unwrap_or_default(),
            );
        }
        result
    }

    /// What a request of so many bytes is like, for a signature and the outputs that it asks for by name; none: all.
    pub fn kind(
        &self,
        api: &str,
        spec: Option<&ModelSpec>,
        signature: &str,
        outputs: &[&str],
        bytes: usize,
    ) -> Option<Kind> {
        if self.short.is_zero() {
            return None;
        }
        let servable = self.catalog.find(spec).ok()?;
        Some(Kind::new(&servable, api, signature, outputs, bytes))
    }

    /// Waits for a thread of a lane, until the deadline.
    async fn thread(&self, lane: &Arc<Lane>, call: &Call, known: &str) -> Result<Thread> {
        let asked = Instant::now();
        let thread = lane.thread(call.arrival.client, &call.model, &self.metrics);
        let thread = match call.arrival.deadline {
            None => thread.await?,
            // Even if no thread gets free until then.
            Some(deadline) => tokio::time::timeout_at(deadline.into(), thread)
                .await
                .map_err(|_| deadline_exceeded())??,
        };
        self.metrics.has_thread(known, lane.name, asked.elapsed());
        Ok(thread)
    }

    /// Computes on a thread of a lane until the work is done, or waits for its batch, and goes on after that. Where
    /// requests of this kind take little of a thread besides their batch, all is done on this one, which serves the
    /// connection.
    async fn in_turns<T: Send + 'static>(
        &self,
        lane: &Arc<Lane>,
        call: &Call,
        known: &str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let kind = call.kind;
        let quick = || kind.and_then(|kind| kind.quick(self.short));
        let observes = kind.is_some_and(|kind| !kind.is_straight());
        let mut manner = None;
        let mut turns = Turns::new(work);
        let mut turn = match quick() {
            Some(Manner::Batched) => turns.turn_here(),
            _ => Turn::NeedsThread,
        };
        if !matches!(turn, Turn::NeedsThread) {
            self.metrics.has_thread(known, lane.name, Duration::ZERO);
        }
        let answer = loop {
            turn = match turn {
                Turn::Done(answer) => break answer?,
                Turn::NeedsThread => {
                    let thread = self.thread(lane, call, known).await?;
                    let next = move || {
                        let _thread = thread;
                        let (turn, manner) = match observes {
                            true => observed(|| turns.turn()),
                            false => (turns.turn(), None),
                        };
                        (turn, turns, manner)
                    };
                    (turn, turns, manner) = self.on_thread(next).await?;
                    turn
                }
                Turn::Waits => {
                    turns.wait().await;
                    match quick() {
                        Some(_) => turns.turn_here(),
                        // None of the lane, because slow requests may have all of those, and this one is nearly done.
                        None => {
                            (turn, turns) = self.on_thread(move || (turns.turn(), turns)).await?;
                            turn
                        }
                    }
                }
            };
        };
        if let Some(kind) = kind {
            kind.took_cpu(turns.took, self.short, manner);
        }
        Ok(answer)
    }

    /// Fails only at the server's end: work does not panic.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.computing.spawn_blocking(work).await.map_err(|_| ending())
    }

    /// Computes with the servable that a request names, and its signature. `api` is as gRPC names it.
    pub async fn compute<T, W: Future<Output = Result<T>>>(
        &self,
        api: &str,
        spec: Option<&ModelSpec>,
        signature: &str,
        found: &Found,
        compute: impl FnOnce(Arc<Servable>) -> W,
    ) -> Result<T> {
        let servable = self.catalog.find(spec)?;
        let counts = found.version.get_or_init(|| servable.counts.clone());
        let _ = found.signature.set(servable.signature(signature).0.to_string());
        let begun = Instant::now();
        // Only a part of a model may lack an operation, and only that fails.
        let result = compute(servable).await;
        let result = result.map_err(|error| explained(error, CUSTOM_OPERATIONS))?;
        let took = begun.elapsed();
        self.metrics.computed(&counts.model, api, took);
        counts.computed(took);
        Ok(result)
    }
}

/// Work that does not begin after its deadline, and fails where it panics.
async fn caught<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T>>) -> Result<T> {
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(deadline_exceeded());
    }
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
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

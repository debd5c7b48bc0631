//! A version of a model, loaded: a session group and its signatures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use prost::Message;
use session_group::tensorflow::{Buffer, SessionOptions, Tensor};
use session_group::{Code, Error, Options, Request, Result, SessionGroup};
use session_group_serving::signature::DEFAULT_SIGNATURE;
use session_group_serving::timeline::Timelines;

use crate::batching::{Batcher, Batching, Scheduler, rows};
use crate::deadline::run_options;
use crate::metrics::{Metrics, OfVersion};
use crate::pace::{self, Manner};
use crate::proto::tensorflow::{MetaGraphDef, SignatureDef};
use crate::turns::on_own_thread;
use crate::warm_runs::WarmUp;

/// A version that serves. Many threads may use it at a time.
pub struct Servable {
    /// In this process; no other has it.
    pub number: u64,
    pub name: String,
    pub version: i64,
    pub signatures: BTreeMap<String, SignatureDef>,
    pub counts: Arc<OfVersion>,
    /// Dropped before the batcher, which waits until no batch has it any more.
    group: Arc<SessionGroup>,
    batcher: Option<Batcher>,
    timelines: Option<Arc<Timelines>>,
    /// Until it serves.
    warm_up: Option<WarmUp>,
}

/// How to make the sessions of a model.
pub struct Sessions {
    pub session_options: SessionOptions,
    pub options: Options,
    pub tags: Vec<String>,
}

impl Servable {
    pub fn load(
        name: &str,
        version: i64,
        path: &Path,
        sessions: &Sessions,
        timelines: Option<Arc<Timelines>>,
        batching: Option<Batching>,
        metrics: &Metrics,
    ) -> Result<Self> {
        let path = path.to_str().ok_or_else(|| {
            Error::invalid(format!("the model's path {} is not UTF-8: rename it", path.display()))
        })?;
        let tags: Vec<&str> = sessions.tags.iter().map(String::as_str).collect();
        let mut meta_graph_def = Buffer::new();
        let group = SessionGroup::load(
            &sessions.session_options,
            None,
            path,
            &tags,
            &sessions.options,
            Some(&mut meta_graph_def),
        )?;
        let meta_graph_def = MetaGraphDef::decode(meta_graph_def.bytes())
            .map_err(|error| Error::new(Code::DataLoss, format!("MetaGraphDef: {error}")))?;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            number: NUMBER.fetch_add(1, Relaxed),
            name: name.to_string(),
            version,
            signatures: meta_graph_def.signature_def,
            counts: metrics.of_version(name, version),
            group: Arc::new(group),
            batcher: None,
            timelines,
            warm_up: Some(WarmUp::new(batching)),
        })
    }

    /// Ends warming up. From now on requests run in batches, if they are to.
    pub fn warmed_up(mut self, scheduler: Option<&Scheduler>) -> Self {
        let batching = self.warm_up.take().and_then(|warm_up| warm_up.batching);
        self.batcher = scheduler.zip(batching).map(|(scheduler, batching)| {
            Batcher::new(scheduler, self.group.clone(), batching, self.counts.clone())
        });
        self
    }

    pub fn session_num(&self) -> usize {
        self.group.session_num()
    }

    /// Runs the graph on a session of the policy's choice, alone or in a batch; while warming up, on all.
    pub async fn run(
        &self,
        inputs: Vec<(&str, Tensor)>,
        outputs: &[&str],
        has_defaults: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>> {
        let Some(batcher) = &self.batcher else {
            return self.run_alone(&inputs, outputs, deadline);
        };
        match rows(&inputs, has_defaults)? {
            0 => {
                on_own_thread().await;
                self.run_alone(&inputs, outputs, deadline)
            }
            rows => {
                pace::has_run(|| Manner::Batched);
                batcher.run(inputs, rows, outputs, deadline).await
            }
        }
    }

    fn run_alone(
        &self,
        inputs: &[(&str, Tensor)],
        outputs: &[&str],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>> {
        let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let options = run_options(deadline)?;
        let request =
            Request { inputs: &inputs, outputs, options: options.as_ref(), ..Request::default() };
        if let Some(warm_up) = &self.warm_up {
            return warm_up.run(&self.group, &request);
        }
        let answer = match self.timelines.as_ref().and_then(|timelines| timelines.next()) {
            None => self.group.run_request(&request, None),
            Some(timeline) => timeline.record(&self.group, &request),
        };
        pace::has_run(|| {
            let names: Vec<&str> = inputs.iter().map(|&(name, _)| name).collect();
            match self.batcher.is_none() && self.group.is_straight(&names, outputs) {
                true => Manner::Straight,
                false => Manner::Other,
            }
        });
        answer
    }

    /// What is prepared for requests, how it runs, and why, as JSON.
    pub fn explain(&self) -> String {
        self.group.explain()
    }

    /// The signature of this name, or the default signature for an empty name; with the name that it has.
    pub fn signature<'a>(&'a self, name: &'a str) -> (&'a str, Option<&'a SignatureDef>) {
        let name = if name.is_empty() { DEFAULT_SIGNATURE } else { name };
        (name, self.signatures.get(name))
    }
}

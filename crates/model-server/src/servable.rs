//! A version of a model, loaded: a session group and its signatures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use session_group::tensorflow::run_options::RunOptions;
use session_group::tensorflow::{Buffer, SessionOptions, Tensor};
use session_group::{Code, Error, Options, Request, Result, SessionGroup};
use session_group_serving::timeline::Timelines;

use crate::batching::Batcher;
use crate::proto::tensorflow::{MetaGraphDef, SignatureDef};

/// The signature of requests that name none.
pub const DEFAULT_SIGNATURE: &str = "serving_default";

/// What is served of a version. May be used by many threads at a time.
pub struct Servable {
    pub name: String,
    pub version: i64,
    pub signatures: BTreeMap<String, SignatureDef>,
    group: Arc<SessionGroup>,
    batcher: Option<Batcher>,
    timelines: Option<Arc<Timelines>>,
    /// Whether each request runs on all sessions.
    is_warming_up: bool,
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
    ) -> Result<Self> {
        let path = path
            .to_str()
            .ok_or_else(|| Error::invalid(format!("{} is no path in UTF-8", path.display())))?;
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
        Ok(Self {
            name: name.to_string(),
            version,
            signatures: meta_graph_def.signature_def,
            group: Arc::new(group),
            batcher: None,
            timelines,
            is_warming_up: true,
        })
    }

    /// Ends the time in which each request runs on all sessions. From now on they may run in batches.
    pub fn warmed_up(
        mut self,
        batcher: impl FnOnce(&Arc<SessionGroup>) -> Option<Batcher>,
    ) -> Self {
        self.batcher = batcher(&self.group);
        self.is_warming_up = false;
        self
    }

    pub fn session_num(&self) -> usize {
        self.group.session_num()
    }

    /// Runs the graph on a session of the policy's choice, alone or in a batch; while warming up, on all.
    pub fn run(
        &self,
        inputs: Vec<(&str, Tensor)>,
        outputs: &[&str],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>> {
        if let Some(batcher) = &self.batcher {
            return batcher.run(inputs, outputs, deadline);
        }
        let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let options = options_until(deadline)?;
        let request =
            Request { inputs: &inputs, outputs, options: options.as_ref(), ..Request::default() };
        if self.is_warming_up {
            let on = |session| Request { session: Some(session), ..request };
            let run = |session| self.group.run_request(&on(session), None);
            (1..self.session_num()).try_for_each(|session| run(session).map(drop))?;
            return run(0);
        }
        match self.timelines.as_ref().and_then(|timelines| timelines.next()) {
            None => self.group.run_request(&request, None),
            Some(timeline) => timeline.record(&self.group, &request),
        }
    }

    /// What is prepared for requests, how it runs and why so, as JSON.
    pub fn explain(&self) -> String {
        self.group.explain()
    }

    /// The signature of this name; without one, the default signature. With its full name.
    pub fn signature<'a>(&'a self, name: &'a str) -> (&'a str, Option<&'a SignatureDef>) {
        let name = if name.is_empty() { DEFAULT_SIGNATURE } else { name };
        (name, self.signatures.get(name))
    }
}

/// Options with what is left of the time.
pub fn options_until(deadline: Option<Instant>) -> Result<Option<RunOptions>> {
    let Some(deadline) = deadline else { return Ok(None) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(deadline_exceeded());
    }
    let mut options = RunOptions::parse(&[])?;
    // Whole milliseconds, of which none would be no timeout.
    options.set_timeout_ms((left.as_micros().div_ceil(1000)).try_into().unwrap_or(i64::MAX));
    Ok(Some(options))
}

pub fn deadline_exceeded() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed before the request was run")
}

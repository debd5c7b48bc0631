//! A version of a model, loaded: a session group and its signatures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use session_group::tensorflow::{Buffer, SessionOptions, Tensor};
use session_group::{Code, Error, Options, Request, Result, SessionGroup};
use session_group_serving::signature::DEFAULT_SIGNATURE;
use session_group_serving::timeline::Timelines;

use crate::batching::Batcher;
use crate::deadline::run_options;
use crate::proto::tensorflow::{MetaGraphDef, SignatureDef};

/// A version that serves. Many threads may use it at a time.
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

    /// Ends warming up, during which each request runs on all sessions. From now on they may run in batches.
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
        has_defaults: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>> {
        if let Some(batcher) = &self.batcher {
            return batcher.run(inputs, outputs, has_defaults, deadline);
        }
        let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let options = run_options(deadline)?;
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

//! Requests whose names are looked up once.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::prepare::recent::Recent;
use crate::prepare::signature::Signature;
use crate::request::run::{Request, RequestSpec};
use crate::request::state::{GroupState, no_graph};
use crate::request::tensors::{Ordered, RequestTensors};
use crate::tensorflow::Tensor;

/// A set of feeds, fetches and targets, prepared for all sessions of a group; the counterpart of
/// TensorFlow's `MakeCallable`. May be used by many threads at a time, and dropped before or after
/// the group.
pub struct Callable {
    group: Arc<GroupState>,
    /// Where the program is, which is pinned; `None` where it has to run by its names.
    recent: Option<Arc<Recent>>,
    feeds: Vec<String>,
    fetches: Vec<String>,
    targets: Vec<String>,
}

impl Callable {
    /// Prepares a request on all sessions of a group.
    pub(crate) fn new(
        group: &Arc<GroupState>,
        feeds: &[&str],
        fetches: &[&str],
        targets: &[&str],
    ) -> Result<Self> {
        let sessions = group.enter_for_all()?;
        if !sessions.has_graph() {
            return Err(no_graph());
        }
        // Also where it is not run as a program, this finds what is wrong with the names.
        let signature = Signature { feeds: feeds.into(), fetches, targets };
        let mut recent = None;
        if let Some(ready) = sessions.prepare(&signature)?
            && group.runs_programs()
        {
            let mut is_program = true;
            for session in 0..sessions.slots.len() {
                let instance = sessions.instance(session, ready.compiled());
                // A timeout has to end what waits, which takes the session and so the names.
                is_program &= instance
                    .is_some_and(|instance| !instance.may_wait() || group.defaults.timeout_ms <= 0);
            }
            if is_program {
                sessions.pin(&ready);
                recent = Some(ready.recent.clone());
            }
        }
        if recent.is_none() {
            // Then they run it by its names, for which they need their graph.
            (0..sessions.slots.len())
                .try_for_each(|session| sessions.session(session).map(drop))?;
        }
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Ok(Self {
            group: group.clone(),
            recent,
            feeds: owned(feeds),
            fetches: owned(fetches),
            targets: owned(targets),
        })
    }

    /// Runs on the session that the policy chooses. Inputs are in the order of the feeds, what it
    /// gives in that of the fetches.
    pub fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let mut outputs: Vec<Option<Tensor>> = self.fetches.iter().map(|_| None).collect();
        self.run_into(inputs, &mut outputs)?;
        Ok(outputs.into_iter().flatten().collect())
    }

    /// As [`run`](Self::run). `outputs` has room for a tensor for each fetch and gets them all, or
    /// none: what is in it is dropped first.
    pub fn run_into(&self, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
        outputs.fill_with(|| None);
        if inputs.len() != self.feeds.len() {
            return Err(Error::invalid(format!(
                "there are {} inputs, but the callable has {} feeds",
                inputs.len(),
                self.feeds.len()
            )));
        }
        if outputs.len() != self.fetches.len() {
            return Err(Error::invalid(format!(
                "there is room for {} outputs, but the callable has {} fetches",
                outputs.len(),
                self.fetches.len()
            )));
        }
        match self.recent {
            Some(_) => self.run_tensors(None, false, &mut Ordered { inputs, outputs }),
            None => {
                let inputs: Vec<_> =
                    std::iter::zip(self.feeds.iter().map(String::as_str), inputs.iter().copied())
                        .collect();
                let [_, fetches, targets] = self.names();
                let (outputs_named, targets) = (&fetches, &targets);
                let request = Request {
                    inputs: &inputs,
                    outputs: outputs_named,
                    targets,
                    ..Request::default()
                };
                self.group.run_request(&request, outputs, None)
            }
        }
    }

    /// Runs these tensors, which must be able to run by names.
    pub(crate) fn run_tensors(
        &self,
        session: Option<usize>,
        wants_metadata: bool,
        tensors: &mut dyn RequestTensors,
    ) -> Result<()> {
        if let Some(recent) = &self.recent {
            return self.group.run_prepared(recent, session, wants_metadata, tensors);
        }
        let [feeds, fetches, targets] = self.names();
        let signature = Signature { feeds: feeds.into(), fetches: &fetches, targets: &targets };
        let spec = RequestSpec { signature, options: None, session, wants_metadata };
        self.group.run(&spec, tensors)
    }

    fn names(&self) -> [Vec<&str>; 3] {
        [&self.feeds, &self.fetches, &self.targets]
            .map(|names| names.iter().map(String::as_str).collect())
    }
}

impl Drop for Callable {
    fn drop(&mut self) {
        // Where the group is closed, it is gone.
        if let Some(recent) = &self.recent
            && let Ok(sessions) = self.group.enter_for_all()
        {
            sessions.unpin(recent.place);
        }
    }
}

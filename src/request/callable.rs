//! Requests whose names are looked up once.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::prepare::recent::Recent;
use crate::prepare::signature::{Order, Signature};
use crate::request::run::{Call, Request, Shared, Terms};
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::Session;
use crate::tensorflow::{Tensor, program};

/// A set of feeds, fetches and targets, prepared for all sessions of a group; the counterpart of
/// TensorFlow's `MakeCallable`. May be used by many threads at a time, and dropped before or after
/// the group.
pub struct Callable {
    pub(crate) group: Arc<Shared>,
    /// Where the program is, which is pinned; `None` where it has to run by its names.
    pub(crate) recent: Option<Arc<Recent>>,
    pub(crate) feeds: Vec<String>,
    pub(crate) fetches: Vec<String>,
    pub(crate) targets: Vec<String>,
}

impl Callable {
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
            Some(_) => self.run_call(None, false, &mut PreparedCall { inputs, outputs }),
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

    /// Runs what `call` brings, which must be able to run by names.
    pub(crate) fn run_call(
        &self,
        session: Option<usize>,
        wants_metadata: bool,
        call: &mut dyn Call,
    ) -> Result<()> {
        if let Some(recent) = &self.recent {
            return self.group.run_prepared(recent, session, wants_metadata, call);
        }
        let [feeds, fetches, targets] = self.names();
        let signature = Signature { feeds: feeds.into(), fetches: &fetches, targets: &targets };
        self.group.run(&Terms { signature, options: None, session, wants_metadata }, call)
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
            && let Ok(members) = self.group.enter(self.group.plan.sessions.len())
        {
            members.unpin(recent.place);
        }
    }
}

/// The tensors of a callable that was prepared, which is run as a program.
struct PreparedCall<'a> {
    inputs: &'a [&'a Tensor],
    outputs: &'a mut [Option<Tensor>],
}

impl Call for PreparedCall<'_> {
    fn run_callable(
        &mut self,
        callable: &program::Callable,
        order: &Order,
        timeout_ms: i64,
        notes: &mut program::Notes,
    ) -> Result<()> {
        callable.run(self.inputs.iter().copied(), self.outputs, order, timeout_ms, notes)
    }

    fn run_session(&mut self, _: &Session, _: &RunOptions) -> Result<()> {
        unreachable!("what may wait under a timeout is not prepared, and nobody wants metadata")
    }

    fn forget(&mut self) {
        self.outputs.fill_with(|| None);
    }
}

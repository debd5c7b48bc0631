//! Requests whose names are looked up once.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::run::{Request, Shared};
use crate::tensorflow::Tensor;

/// A set of feeds, fetches and targets, prepared for all sessions of a group; the counterpart of
/// TensorFlow's `MakeCallable`. May be used by many threads at a time, and dropped before or after
/// the group.
pub struct Callable {
    pub(crate) group: Arc<Shared>,
    /// Where the program is among those that the group has prepared, if it is.
    pub(crate) place: Option<usize>,
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
    /// none.
    pub fn run_into(&self, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
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
        if let Some(place) = self.place {
            return self.group.run_prepared(place, inputs, outputs);
        }
        let inputs: Vec<_> =
            std::iter::zip(self.feeds.iter().map(String::as_str), inputs.iter().copied()).collect();
        let [fetches, targets] = [&self.fetches, &self.targets]
            .map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        let request =
            Request { inputs: &inputs, outputs: &fetches, targets: &targets, ..Request::default() };
        self.group.run(&request, outputs, None)
    }
}

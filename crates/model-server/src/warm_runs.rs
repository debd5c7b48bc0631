//! How requests run before a version serves: on each session, and in each size that batches may have, so that no client
//! waits for what is done the first time.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use session_group::tensorflow::Tensor;
use session_group::{Request, Result, SessionGroup};

use crate::batching::{Batching, in_size};

/// What is done with each request.
pub struct WarmUp {
    pub batching: Option<Batching>,
    /// The names of what was run in all sizes.
    done: Mutex<HashSet<String>>,
}

impl WarmUp {
    pub fn new(batching: Option<Batching>) -> Self {
        Self { batching, done: Mutex::default() }
    }

    /// Runs a request on all sessions; the first of its names in all sizes of batches, too.
    pub fn run(&self, group: &SessionGroup, request: &Request<'_>) -> Result<Vec<Tensor>> {
        let answer = on_all(group, request)?;
        let Some(batching) = &self.batching else { return Ok(answer) };
        let mut feeds: Vec<&str> = request.inputs.iter().map(|(name, _)| *name).collect();
        feeds.sort_unstable();
        let mut fetches = request.outputs.to_vec();
        fetches.sort_unstable();
        let names = format!("{feeds:?} {fetches:?}");
        if !self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(names) {
            return Ok(answer);
        }
        for &size in &batching.allowed {
            // Some requests are run alone, whatever the parameters say.
            let Some(inputs) = in_size(request.inputs, size)? else { break };
            let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
            on_all(group, &Request { inputs: &inputs, ..*request })?;
        }
        Ok(answer)
    }
}

fn on_all(group: &SessionGroup, request: &Request<'_>) -> Result<Vec<Tensor>> {
    let on = |session| Request { session: Some(session), ..*request };
    let run = |session| group.run_request(&on(session), None);
    (1..group.session_num()).try_for_each(|session| run(session).map(drop))?;
    run(0)
}

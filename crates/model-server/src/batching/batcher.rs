//! From a request to its batch, and from the batch's outputs to the request's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result, SessionGroup};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::parameters::Batching;
use super::queues::{Batch, Job, Names, Outputs, Queue, Queues, Task, expired};
use super::rows::joined;
use super::scheduler::{Scheduler, Shared};
use crate::metrics::OfVersion;
use crate::tensor;

/// Puts the requests of a version into batches. A request that waits holds it.
pub struct Batcher {
    number: u64,
    group: Arc<SessionGroup>,
    batching: Arc<Batching>,
    pub(super) counts: Arc<OfVersion>,
    shared: Arc<Shared>,
}

impl Batcher {
    /// Of the requests of a group.
    pub fn new(
        scheduler: &Scheduler,
        group: Arc<SessionGroup>,
        batching: Batching,
        counts: Arc<OfVersion>,
    ) -> Self {
        let shared = scheduler.shared.clone();
        let number = shared.lock().next_batcher();
        Self { number, group, batching: Arc::new(batching), counts, shared }
    }

    /// Computes a request with so many rows, together with others that arrive at about the same time.
    pub async fn run(
        &self,
        inputs: Vec<(&str, Tensor)>,
        rows: usize,
        outputs: &[&str],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>> {
        let feeds: BTreeMap<&str, Tensor> = inputs.into_iter().collect();
        let mut fetches: Vec<&str> = outputs.to_vec();
        fetches.sort_unstable();
        fetches.dedup();
        let owned = |name: &&str| name.to_string();
        let names = Names {
            feeds: feeds.keys().map(owned).collect(),
            fetches: fetches.iter().map(owned).collect(),
        };
        let inputs = Arc::new(feeds.into_values().collect());
        let replies = self.enqueue(names, inputs, rows, deadline)?;
        let given = joined(answers(replies, deadline).await?)?;
        let mut given: BTreeMap<&str, Tensor> = fetches.into_iter().zip(given).collect();
        let mut answer = Vec::with_capacity(outputs.len());
        for (at, name) in outputs.iter().enumerate() {
            answer.push(match outputs[at + 1..].contains(name) {
                // A tensor is copied only if its name is fetched again.
                true => tensor::rows(&given[name], 0, rows)?,
                false => given.remove(name).expect("one for each name"),
            });
        }
        Ok(answer)
    }

    /// The queue of requests with these names.
    pub(super) fn queue<'q>(&self, queues: &'q mut Queues, names: Names) -> &'q mut Queue {
        queues.of(self.number, names, |names| Job {
            names,
            batching: self.batching.clone(),
            counts: self.counts.clone(),
            group: Arc::downgrade(&self.group),
        })
    }

    /// Puts a request into batches. Each part of it is answered by itself; the parts are in order.
    fn enqueue(
        &self,
        names: Names,
        inputs: Arc<Vec<Tensor>>,
        rows: usize,
        deadline: Option<Instant>,
    ) -> Result<Vec<oneshot::Receiver<Outputs>>> {
        let batching = &self.batching;
        if rows > batching.max_request {
            return Err(Error::invalid(format!(
                "Task size {rows} is larger than maximum input batch size {}",
                batching.max_request
            )));
        }
        let mut queues = self.shared.lock();
        let batches = &mut self.queue(&mut queues, names).batches;
        // Requests that nobody waits for take no room from others.
        if let Some(open) = batches.back_mut()
            && open.rows < batching.max_batch
            && open.rows + rows >= batching.max_batch
        {
            self.counts.batch_waiting.sub(open.forget_gone() as i64);
            if open.tasks.is_empty() {
                batches.pop_back();
            }
        }
        let sizes =
            sizes(batches.back().map_or(0, |open| batching.max_batch - open.rows), rows, batching);
        let fits = batches.back().is_some_and(|open| open.rows + sizes[0] <= batching.max_batch);
        let (number, more) = (batches.len(), sizes.len() - usize::from(fits));
        if more > 0 && number + more > batching.max_enqueued {
            return Err(Error::new(
                Code::Unavailable,
                format!(
                    "The batch scheduling queue to which this task was submitted is full; currently {number} \
                     batches enqueued and max_enqueued_batches is {}",
                    batching.max_enqueued
                ),
            ));
        }
        let since = Instant::now();
        let mut begin = 0;
        let mut changes = false;
        let mut replies = Vec::with_capacity(sizes.len());
        for rows in sizes {
            let (reply, replied) = oneshot::channel();
            replies.push(replied);
            let task = Task { inputs: inputs.clone(), begin, rows, since, deadline, reply };
            begin += rows;
            match batches.back_mut().filter(|open| open.rows + rows <= batching.max_batch) {
                Some(open) => {
                    open.rows += rows;
                    open.tasks.push(task);
                    changes |= open.rows == batching.max_batch;
                }
                None => {
                    batches.push_back(Batch { rows, tasks: vec![task], opened: since });
                    changes = true;
                }
            }
            self.counts.batch_waiting.inc();
        }
        drop(queues);
        // Nobody has to look at a batch again that is neither new nor full.
        if changes {
            self.shared.changed.notify_one();
        }
        Ok(replies)
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        let mut queues = self.shared.lock();
        let is_own = |queue: &mut Queue| queue.batcher == self.number;
        let own: Vec<_> = queues.all.extract_if(.., is_own).collect();
        drop(queues);
        // Nobody waits for them any more.
        let tasks = own.iter().flat_map(|queue| &queue.batches).map(|batch| batch.tasks.len());
        self.counts.batch_waiting.sub(tasks.sum::<usize>() as i64);
        // Nor for what is running. It ends before the group does, which no batch is to free.
        while Arc::strong_count(&self.group) > 1 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The outputs of all parts of a request, if they are there before its deadline.
async fn answers(
    replies: Vec<oneshot::Receiver<Outputs>>,
    deadline: Option<Instant>,
) -> Result<Vec<Vec<Tensor>>> {
    let lost = |_| {
        Error::new(Code::Internal, "the batch of this request ended without an answer: see the log")
    };
    let all = async {
        let mut parts = Vec::with_capacity(replies.len());
        for replied in replies {
            parts.push(replied.await.map_err(lost)??);
        }
        Ok(parts)
    };
    match deadline {
        None => all.await,
        Some(deadline) => timeout_at(deadline.into(), all).await.unwrap_or_else(|_| Err(expired())),
    }
}

/// How many rows of a request go into the open batch, which has room for some, and into those after it.
fn sizes(room: usize, rows: usize, batching: &Batching) -> Vec<usize> {
    if !batching.splits || rows <= room {
        return vec![rows];
    }
    let mut sizes = Vec::new();
    let mut left = rows;
    let mut next = if room > 0 { room } else { batching.max_batch };
    while left > 0 {
        let size = left.min(next);
        sizes.push(size);
        left -= size;
        next = batching.max_batch;
    }
    sizes
}

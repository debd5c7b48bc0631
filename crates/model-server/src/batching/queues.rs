//! The batches that wait, by version and names.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Instant;

use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result, SessionGroup};
use tokio::sync::oneshot;

use super::parameters::Batching;
use crate::metrics::OfVersion;
use crate::tensor;

/// All that wait.
#[derive(Default)]
pub struct Queues {
    /// One for each version and names. They take turns.
    pub all: Vec<Queue>,
    next: usize,
    batchers: u64,
    pub is_closing: bool,
}

/// Requests that may share batches.
pub struct Queue {
    pub batcher: u64,
    pub job: Arc<Job>,
    /// Only the last one accepts more requests.
    pub batches: VecDeque<Batch>,
}

/// The names that a run feeds and fetches, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    pub feeds: Vec<String>,
    pub fetches: Vec<String>,
}

/// How the batches of a queue run.
pub struct Job {
    pub names: Names,
    pub batching: Arc<Batching>,
    pub counts: Arc<OfVersion>,
    pub group: Weak<SessionGroup>,
}

/// Tasks that run together, in so far as their inputs do.
pub struct Batch {
    pub tasks: Vec<Task>,
    pub rows: usize,
    pub opened: Instant,
}

/// A request that waits in a batch, or a part of one.
pub struct Task {
    /// The whole request's, in the order of the queue's names.
    pub inputs: Arc<Vec<Tensor>>,
    /// Which of its rows.
    pub begin: usize,
    pub rows: usize,
    pub since: Instant,
    pub deadline: Option<Instant>,
    /// Closed once nobody waits for it any more.
    pub reply: oneshot::Sender<Outputs>,
}

/// What a task is answered.
pub type Outputs = Result<Vec<Tensor>>;

impl Batch {
    /// Forgets tasks that nobody waits for. Says how many there were.
    pub fn forget_gone(&mut self) -> usize {
        let before = self.tasks.len();
        self.tasks.retain(|task| !task.reply.is_closed());
        self.rows = self.tasks.iter().map(|task| task.rows).sum();
        before - self.tasks.len()
    }
}

impl Task {
    /// What is its own of an input, where that is not all of it.
    pub fn part(&self, input: usize) -> Result<Option<Tensor>> {
        let whole = &self.inputs[input];
        let is_part = whole.dims()[0] != self.rows as i64;
        is_part.then(|| tensor::rows(whole, self.begin, self.rows)).transpose()
    }
}

/// The answer to a request whose deadline passes before its batch is done.
pub fn expired() -> Error {
    Error::new(Code::DeadlineExceeded, "Run() timeout exceeded while waiting in batching queue")
}

/// More queues than this are not kept for requests to come: clients may ask for any set of outputs.
pub const MOST_IDLE: usize = 64;

impl Queues {
    /// A number that no other batcher has.
    pub fn next_batcher(&mut self) -> u64 {
        self.batchers += 1;
        self.batchers
    }

    /// The queue of a batcher and names.
    pub fn of(&mut self, batcher: u64, names: Names, job: impl FnOnce(Names) -> Job) -> &mut Queue {
        let is_own = |queue: &Queue| queue.batcher == batcher && queue.job.names == names;
        let place = self.all.iter().position(is_own).unwrap_or_else(|| {
            if self.all.len() >= MOST_IDLE {
                self.all.retain(|queue| !queue.batches.is_empty());
            }
            let (job, batches) = (Arc::new(job(names)), VecDeque::new());
            self.all.push(Queue { batcher, job, batches });
            self.all.len() - 1
        });
        &mut self.all[place]
    }

    /// A batch that is ready to run, or when to look again.
    pub fn take(&mut self) -> std::result::Result<(Arc<Job>, Batch), Option<Instant>> {
        let now = Instant::now();
        let mut look_again: Option<Instant> = None;
        let n = self.all.len();
        for i in 0..n {
            let place = (self.next + i) % n;
            let queue = &mut self.all[place];
            let Some(first) = queue.batches.front() else { continue };
            let due = first.opened + queue.job.batching.timeout;
            let is_ready = queue.batches.len() > 1
                || first.rows >= queue.job.batching.max_batch
                || due <= now
                || self.is_closing;
            if !is_ready {
                look_again = Some(look_again.map_or(due, |at| at.min(due)));
                continue;
            }
            let batch = queue.batches.pop_front().expect("looked at above");
            let job = queue.job.clone();
            self.next = place + 1;
            return Ok((job, batch));
        }
        Err(look_again)
    }
}

//! The threads that run batches: each of them takes a batch that is due, and leaves the look at others to the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Request, Result, SessionGroup};

use super::queues::{Batch, Job, Queues, Task, expired};
use super::rows::{are_mergeable, merge, split};
use crate::deadline::run_options;
use crate::metrics::Metrics;

/// The threads that run batches.
pub struct Scheduler {
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share with those that give them work.
pub struct Shared {
    pub queues: Mutex<Queues>,
    pub changed: Condvar,
    pub metrics: Arc<Metrics>,
}

impl Scheduler {
    pub fn new(threads: usize, metrics: Arc<Metrics>) -> Result<Self> {
        if threads < 1 {
            return Err(Error::invalid(format!(
                "num_batch_threads must be positive; was {threads}"
            )));
        }
        let shared =
            Arc::new(Shared { queues: Mutex::default(), changed: Condvar::new(), metrics });
        let mut scheduler = Self { shared: shared.clone(), threads: Vec::new() };
        for _ in 0..threads {
            let shared = shared.clone();
            let thread = thread::Builder::new().name("batch".into()).spawn(move || shared.work());
            scheduler.threads.push(thread.map_err(|error| {
                Error::new(Code::ResourceExhausted, format!("can't start a thread: {error}"))
            })?);
        }
        Ok(scheduler)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queues = self.lock();
        loop {
            match queues.take() {
                Ok((job, batch)) => {
                    let others_wait = queues.all.iter().any(|queue| !queue.batches.is_empty());
                    drop(queues);
                    // Another thread has to look at them: they may be due, too, or will be while this one runs.
                    if others_wait {
                        self.changed.notify_one();
                    }
                    self.run(&job, batch);
                    queues = self.lock();
                }
                Err(_) if queues.is_closing => return,
                Err(None) => {
                    queues = self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
                }
                Err(Some(until)) => {
                    let timeout = until.saturating_duration_since(Instant::now());
                    let waited = self.changed.wait_timeout(queues, timeout);
                    queues = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn run(&self, job: &Job, batch: Batch) {
        let now = Instant::now();
        for task in &batch.tasks {
            self.metrics.batch_waited(&job.counts, now - task.since);
        }
        for tasks in alike(batch.tasks, job.batching.pads) {
            self.answer(job, tasks);
        }
    }

    /// Runs tasks together. What one of them may have spoilt runs again in halves, so that the others get their
    /// answers.
    fn answer(&self, job: &Job, mut tasks: Vec<Task>) {
        let now = Instant::now();
        // Their clients have stopped waiting, or are about to.
        tasks.retain(|task| !task.reply.is_closed());
        let is_late = |task: &Task| task.deadline.is_some_and(|deadline| deadline <= now);
        let (late, mut tasks): (Vec<_>, Vec<_>) = tasks.into_iter().partition(is_late);
        for task in late {
            let _ = task.reply.send(Err(expired()));
        }
        if tasks.is_empty() {
            return;
        }
        // A panic must not end the thread, because nothing would replace it.
        let computed = catch_unwind(AssertUnwindSafe(|| self.outputs(job, &tasks)));
        match computed.unwrap_or_else(|_| Err(panicked())) {
            Ok(outputs) => {
                for (task, outputs) in tasks.into_iter().zip(outputs) {
                    let _ = task.reply.send(Ok(outputs));
                }
            }
            Err(error) if tasks.len() > 1 && may_be_of_one(error.code) => {
                let others = tasks.split_off(tasks.len() / 2);
                self.answer(job, tasks);
                self.answer(job, others);
            }
            Err(error) => {
                for task in tasks {
                    let _ = task.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// The outputs of each task.
    fn outputs(&self, job: &Job, tasks: &[Task]) -> Result<Vec<Vec<Tensor>>> {
        let group = job.group.upgrade();
        let group = group.ok_or_else(|| {
            Error::precondition(
                "the version was unloaded before its batch ran: send the request again",
            )
        })?;
        let sizes: Vec<usize> = tasks.iter().map(|task| task.rows).collect();
        let rows: usize = sizes.iter().sum();
        let padded = job.batching.rounded(rows);
        self.metrics.batch(&job.counts, rows, padded);
        let merged: Vec<Tensor> = (0..job.names.feeds.len())
            .map(|i| {
                let parts: Vec<_> = tasks.iter().map(|task| task.part(i)).collect::<Result<_>>()?;
                let parts: Vec<&Tensor> = std::iter::zip(tasks, &parts)
                    .map(|(task, part)| part.as_ref().unwrap_or(&task.inputs[i]))
                    .collect();
                merge(&parts, padded - rows)
            })
            .collect::<Result<_>>()?;
        let names = job.names.feeds.iter().map(String::as_str);
        let inputs: Vec<_> = names.zip(&merged).collect();
        let fetches: Vec<&str> = job.names.fetches.iter().map(String::as_str).collect();
        // The last of the deadlines; none if one of the requests has none.
        let deadlines: Option<Vec<Instant>> = tasks.iter().map(|task| task.deadline).collect();
        let deadline = deadlines.and_then(|all| all.into_iter().max());
        let outputs = run(&group, &inputs, &fetches, deadline)?;
        let mut each: Vec<Vec<Tensor>> = sizes.iter().map(|_| Vec::new()).collect();
        for output in outputs {
            for (own, part) in each.iter_mut().zip(split(&output, &sizes, padded)?) {
                own.push(part);
            }
        }
        Ok(each)
    }
}

/// Whether the inputs of one request may be why a batch has failed, rather than what all share.
fn may_be_of_one(code: Code) -> bool {
    !matches!(
        code,
        Code::DeadlineExceeded | Code::Cancelled | Code::Unavailable | Code::ResourceExhausted
    )
}

/// Tasks whose inputs can be put together, in their order.
fn alike(tasks: Vec<Task>, pads: bool) -> Vec<Vec<Task>> {
    let mut all: Vec<Vec<Task>> = Vec::new();
    for task in tasks {
        let is_like = |tasks: &&mut Vec<Task>| {
            let mut pairs = std::iter::zip(&*tasks[0].inputs, &*task.inputs);
            pairs.all(|(one, other)| are_mergeable(one, other, pads))
        };
        match all.iter_mut().find(is_like) {
            Some(tasks) => tasks.push(task),
            None => all.push(vec![task]),
        }
    }
    all
}

fn panicked() -> Error {
    Error::new(Code::Internal, "computing the batch panicked: see the log")
}

fn run(
    group: &SessionGroup,
    inputs: &[(&str, &Tensor)],
    outputs: &[&str],
    deadline: Option<Instant>,
) -> Result<Vec<Tensor>> {
    let options = run_options(deadline)?;
    let request = Request { inputs, outputs, options: options.as_ref(), ..Request::default() };
    group.run_request(&request, None)
}

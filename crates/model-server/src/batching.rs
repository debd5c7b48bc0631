//! Computes requests that arrive together in one run, as TensorFlow Serving defines it: concatenates the rows of
//! all, runs them once, and splits the outputs again. One set of threads serves all models; each version and
//! set of names has a queue.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Request, Result, SessionGroup};

use crate::deadline::run_options;
use crate::metrics::Metrics;
use crate::proto::serving::BatchingParameters;
use crate::tensor;

/// How large batches get, and how long a batch waits for more requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    max_batch_size: usize,
    timeout: Duration,
    max_enqueued: usize,
    allowed: Vec<usize>,
    pads: bool,
}

impl Batching {
    pub fn new(parameters: &BatchingParameters) -> Result<Self> {
        let max_batch_size = parameters.max_batch_size.unwrap_or(1000);
        let timeout = parameters.batch_timeout_micros.unwrap_or(0);
        let max_enqueued = parameters.max_enqueued_batches.unwrap_or(10);
        for (name, value, least) in [
            ("max_batch_size must be positive", max_batch_size, 1),
            ("batch_timeout_micros must be non-negative", timeout, 0),
            ("max_enqueued_batches must be non-negative", max_enqueued, 0),
        ] {
            if value < least {
                return Err(Error::invalid(format!("{name}; was {value}")));
            }
        }
        let allowed = &parameters.allowed_batch_sizes;
        if let Some(&last) = allowed.last().filter(|&&last| last != max_batch_size) {
            return Err(Error::invalid(format!(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was {last}; \
                 expected {max_batch_size}"
            )));
        }
        if let Some(wrong) = allowed.iter().find(|&&size| size < 1) {
            return Err(Error::invalid(format!(
                "allowed_batch_sizes has {wrong}, which is below 1"
            )));
        }
        Ok(Self {
            max_batch_size: max_batch_size as usize,
            timeout: Duration::from_micros(timeout as u64),
            max_enqueued: (max_enqueued as usize).max(1),
            allowed: allowed.iter().map(|&size| size as usize).collect(),
            pads: parameters.pad_variable_length_inputs,
        })
    }

    /// The version's own parameters, if its folder has them.
    pub fn of_version(path: &Path) -> Result<Option<Self>> {
        let file = path.join("batching_params.pbtxt");
        match file.exists() {
            false => Ok(None),
            true => crate::proto::read_text(&file, "tensorflow.serving.BatchingParameters")
                .and_then(|parameters| Self::new(&parameters))
                .map(Some),
        }
    }

    /// How many rows a batch of `rows` runs with: the next allowed size.
    fn rounded(&self, rows: usize) -> usize {
        self.allowed.iter().copied().find(|&size| size >= rows).unwrap_or(rows)
    }
}

/// The threads that run batches.
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queues: Mutex<Queues>,
    changed: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Queues {
    /// One for each version and names. They take turns.
    all: Vec<Queue>,
    next: usize,
    next_batcher: u64,
    is_closing: bool,
}

struct Queue {
    batcher: u64,
    job: Arc<Job>,
    /// Only the last one accepts more requests.
    batches: VecDeque<Batch>,
}

/// The names that a run feeds and fetches, sorted.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    feeds: Vec<String>,
    fetches: Vec<String>,
}

/// How the batches of a queue run.
struct Job {
    names: Names,
    batching: Arc<Batching>,
    group: Weak<SessionGroup>,
}

struct Batch {
    tasks: Vec<Task>,
    rows: usize,
    opened: Instant,
}

/// A request that waits in a batch.
struct Task {
    /// In the order of the queue's names.
    inputs: Vec<Tensor>,
    rows: usize,
    since: Instant,
    deadline: Option<Instant>,
    reply: Sender<Result<Vec<Tensor>>>,
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

    /// Computes the requests of a group in batches.
    pub fn batcher(&self, group: Arc<SessionGroup>, batching: Batching) -> Batcher {
        let mut queues = self.shared.lock();
        queues.next_batcher += 1;
        let number = queues.next_batcher;
        drop(queues);
        Batcher { number, group, batching: Arc::new(batching), shared: self.shared.clone() }
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

/// Puts the requests of a version into batches.
pub struct Batcher {
    number: u64,
    group: Arc<SessionGroup>,
    batching: Arc<Batching>,
    shared: Arc<Shared>,
}

impl Batcher {
    /// Computes a request, together with others that arrive at about the same time. One without rows is computed alone,
    /// and so is one that `has_defaults`, which the client can't give as many rows as its own inputs, if they have others.
    pub fn run(
        &self,
        inputs: Vec<(&str, Tensor)>,
        outputs: &[&str],
        has_defaults: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>> {
        let rows = match rows(&inputs) {
            Err(_) if has_defaults => 0,
            rows => rows?,
        };
        if rows == 0 {
            let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
            return run(&self.group, &inputs, outputs, deadline);
        }
        let feeds: BTreeMap<&str, Tensor> = inputs.into_iter().collect();
        let mut fetches: Vec<&str> = outputs.to_vec();
        fetches.sort_unstable();
        fetches.dedup();
        let owned = |name: &&str| name.to_string();
        let names = Names {
            feeds: feeds.keys().map(owned).collect(),
            fetches: fetches.iter().map(owned).collect(),
        };
        let (reply, replied) = bounded(1);
        let task = Task {
            inputs: feeds.into_values().collect(),
            rows,
            since: Instant::now(),
            deadline,
            reply,
        };
        self.enqueue(names, task)?;
        let lost = |_| {
            Error::new(
                Code::Internal,
                "the batch of this request ended without an answer: see the log",
            )
        };
        let given = replied.recv().map_err(lost)??;
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

    fn enqueue(&self, names: Names, task: Task) -> Result<()> {
        let most = self.batching.max_batch_size;
        if task.rows > most {
            return Err(Error::invalid(format!(
                "Task size {} is larger than maximum input batch size {most}",
                task.rows
            )));
        }
        let mut queues = self.shared.lock();
        let is_own = |queue: &Queue| queue.batcher == self.number && queue.job.names == names;
        let place = match queues.all.iter().position(is_own) {
            Some(place) => place,
            None => {
                let (batching, group) = (self.batching.clone(), Arc::downgrade(&self.group));
                queues.all.push(Queue {
                    batcher: self.number,
                    job: Arc::new(Job { names, batching, group }),
                    batches: VecDeque::new(),
                });
                queues.all.len() - 1
            }
        };
        let batches = &mut queues.all[place].batches;
        let number = batches.len();
        match batches.back_mut().filter(|batch| batch.rows + task.rows <= most) {
            Some(batch) => {
                batch.rows += task.rows;
                batch.tasks.push(task);
            }
            None if number >= self.batching.max_enqueued => {
                return Err(Error::new(
                    Code::Unavailable,
                    format!(
                        "The batch scheduling queue to which this task was submitted is full; currently {number} \
                         batches enqueued and max_enqueued_batches is {}",
                        self.batching.max_enqueued
                    ),
                ));
            }
            None => {
                batches.push_back(Batch {
                    rows: task.rows,
                    tasks: vec![task],
                    opened: Instant::now(),
                });
            }
        }
        drop(queues);
        self.shared.changed.notify_one();
        Ok(())
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        // No request waits any more, because each that does holds the batcher.
        self.shared.lock().all.retain(|queue| queue.batcher != self.number);
    }
}

/// The size of the first dimension, which must be the same for all inputs.
fn rows(inputs: &[(&str, Tensor)]) -> Result<usize> {
    let mut rows = None;
    for (_, tensor) in inputs {
        let dims = tensor.dims();
        let &first = dims.first().ok_or_else(|| {
            Error::invalid("Batching Run() input tensors must have at least one dimension")
        })?;
        if rows.is_some_and(|rows| rows != first) {
            return Err(Error::invalid(
                "Batching Run() input tensors must have equal 0th-dimension size",
            ));
        }
        rows = Some(first);
    }
    Ok(rows.unwrap_or(0) as usize)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queues = self.lock();
        loop {
            match queues.take() {
                Ok((job, batch)) => {
                    drop(queues);
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
            self.metrics.batch_waited(now - task.since);
        }
        let is_expired = |task: &Task| task.deadline.is_some_and(|deadline| deadline <= now);
        // Their clients have stopped waiting.
        let (expired, tasks): (Vec<_>, Vec<_>) = batch.tasks.into_iter().partition(is_expired);
        for task in expired {
            let message = "Run() timeout exceeded while waiting in batching queue";
            let _ = task.reply.send(Err(Error::new(Code::DeadlineExceeded, message)));
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
        self.metrics.batch(rows, padded);
        let merged: Vec<Tensor> = (0..job.names.feeds.len())
            .map(|i| {
                let parts: Vec<&Tensor> = tasks.iter().map(|task| &task.inputs[i]).collect();
                merge(&job.names.feeds[i], &parts, padded - rows, job.batching.pads)
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

impl Queues {
    /// A batch that is ready to run, or when to look again.
    fn take(&mut self) -> std::result::Result<(Arc<Job>, Batch), Option<Instant>> {
        let now = Instant::now();
        let mut look_again: Option<Instant> = None;
        let n = self.all.len();
        for i in 0..n {
            let place = (self.next + i) % n;
            let queue = &mut self.all[place];
            let Some(first) = queue.batches.front() else { continue };
            let due = first.opened + queue.job.batching.timeout;
            let is_ready = queue.batches.len() > 1
                || first.rows >= queue.job.batching.max_batch_size
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

/// The rows of all parts, one after the other, and then `more` copies of the last part's first row.
fn merge(name: &str, parts: &[&Tensor], more: usize, pads: bool) -> Result<Tensor> {
    let first = parts[0].dims();
    if parts.iter().any(|part| part.dtype() != parts[0].dtype()) {
        return Err(Error::invalid(format!(
            "Tensors with name '{name}' from different tasks have different types"
        )));
    }
    if parts.iter().all(|part| part.dims()[1..] == first[1..]) {
        return tensor::concat(parts, more);
    }
    if !pads {
        return Err(Error::precondition(format!(
            "Tensors with name '{name}' from different tasks have different shapes and padding is turned \
             off. Set pad_variable_length_inputs to true, or ensure that all tensors with the same name \
             have equal dimensions starting with the first dim."
        )));
    }
    let rank = first.len();
    if parts.iter().any(|part| part.dims().len() != rank) {
        return Err(Error::precondition(format!(
            "Tensors with name '{name}' from different tasks have different ranks, which padding can't change"
        )));
    }
    let largest: Vec<i64> = (1..rank)
        .map(|i| parts.iter().map(|part| part.dims()[i]).max().unwrap_or_default())
        .collect();
    let padded: Vec<Tensor> = parts
        .iter()
        .map(|part| {
            let mut dims = part.dims();
            dims[1..].copy_from_slice(&largest);
            tensor::padded(part, &dims)
        })
        .collect::<Result<_>>()?;
    tensor::concat(&padded.iter().collect::<Vec<_>>(), more)
}

/// The rows of each request.
fn split(output: &Tensor, sizes: &[usize], rows: usize) -> Result<Vec<Tensor>> {
    match output.dims().first() {
        None => Err(Error::precondition("Batched output tensor has 0 dimensions")),
        Some(&first) if first != rows as i64 => Err(Error::precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of \
             the input tensors",
        )),
        Some(_) => {
            let mut begin = 0;
            sizes
                .iter()
                .map(|&size| {
                    let part = tensor::rows(output, begin, size);
                    begin += size;
                    part
                })
                .collect()
        }
    }
}

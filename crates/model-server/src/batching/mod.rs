//! Computes requests that arrive together in one run, as TensorFlow Serving defines it: concatenates the rows of
//! all, runs them once, and splits the outputs again. One set of threads serves all models; each version and
//! set of names has a queue.

mod parameters;
mod rows;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Request, Result, SessionGroup};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::deadline::run_options;
use crate::metrics::{Metrics, OfVersion};
use crate::tensor;
pub use parameters::Batching;
use rows::{are_mergeable, joined, merge, split};
pub use rows::{in_size, rows};

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
    counts: Arc<OfVersion>,
    group: Weak<SessionGroup>,
}

struct Batch {
    tasks: Vec<Task>,
    rows: usize,
    opened: Instant,
}

/// A request that waits in a batch, or a part of one.
struct Task {
    /// The whole request's, in the order of the queue's names.
    inputs: Arc<Vec<Tensor>>,
    /// Which of its rows.
    begin: usize,
    rows: usize,
    since: Instant,
    deadline: Option<Instant>,
    /// Closed once nobody waits for it any more.
    reply: oneshot::Sender<Outputs>,
}

/// What a task is answered.
type Outputs = Result<Vec<Tensor>>;

impl Batch {
    /// Forgets tasks that nobody waits for. Says how many there were.
    fn forget_gone(&mut self) -> usize {
        let before = self.tasks.len();
        self.tasks.retain(|task| !task.reply.is_closed());
        self.rows = self.tasks.iter().map(|task| task.rows).sum();
        before - self.tasks.len()
    }
}

impl Task {
    /// What is its own of an input, where that is not all of it.
    fn part(&self, input: usize) -> Result<Option<Tensor>> {
        let whole = &self.inputs[input];
        let is_part = whole.dims()[0] != self.rows as i64;
        is_part.then(|| tensor::rows(whole, self.begin, self.rows)).transpose()
    }
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
    pub fn batcher(
        &self,
        group: Arc<SessionGroup>,
        batching: Batching,
        counts: Arc<OfVersion>,
    ) -> Batcher {
        let mut queues = self.shared.lock();
        queues.next_batcher += 1;
        let number = queues.next_batcher;
        drop(queues);
        let (batching, shared) = (Arc::new(batching), self.shared.clone());
        Batcher { number, group, batching, counts, shared }
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
    counts: Arc<OfVersion>,
    shared: Arc<Shared>,
}

impl Batcher {
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
        let batches = &mut queues.of(self, names).batches;
        // A batch that is to be full is to be full of requests that somebody waits for.
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

fn expired() -> Error {
    Error::new(Code::DeadlineExceeded, "Run() timeout exceeded while waiting in batching queue")
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

impl Drop for Batcher {
    fn drop(&mut self) {
        let mut queues = self.shared.lock();
        let is_own = |queue: &mut Queue| queue.batcher == self.number;
        let own: Vec<_> = queues.all.extract_if(.., is_own).collect();
        drop(queues);
        // Nobody waits for them any more, because each request that waits holds the batcher.
        let tasks = own.iter().flat_map(|queue| &queue.batches).map(|batch| batch.tasks.len());
        self.counts.batch_waiting.sub(tasks.sum::<usize>() as i64);
        // Nor for what is running. It ends before the group does, which no batch is to free.
        while Arc::strong_count(&self.group) > 1 {
            thread::sleep(Duration::from_millis(5));
        }
    }
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

/// More queues than this are not kept for requests to come: clients may ask for any set of outputs.
const MOST_IDLE: usize = 64;

impl Queues {
    /// The queue of a version and names.
    fn of(&mut self, batcher: &Batcher, names: Names) -> &mut Queue {
        let is_own = |queue: &Queue| queue.batcher == batcher.number && queue.job.names == names;
        let place = self.all.iter().position(is_own).unwrap_or_else(|| {
            if self.all.len() >= MOST_IDLE {
                self.all.retain(|queue| !queue.batches.is_empty());
            }
            let (batching, counts) = (batcher.batching.clone(), batcher.counts.clone());
            let job = Job { names, batching, counts, group: Arc::downgrade(&batcher.group) };
            let (job, batches) = (Arc::new(job), VecDeque::new());
            self.all.push(Queue { batcher: batcher.number, job, batches });
            self.all.len() - 1
        });
        &mut self.all[place]
    }

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use session_group::Options;
    use session_group::tensorflow::SessionOptions;
    use tokio::runtime::Builder;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::proto::serving::BatchingParameters;

    /// Of half_plus, y = x / 2 + 2, with one thread.
    fn batcher(max_batch: i64) -> (Scheduler, Batcher) {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/build/half_plus");
        let mut options = Options::new();
        options.session_num(1);
        let (model, tags) = (model.to_str().unwrap(), ["serve"]);
        let group =
            SessionGroup::load(&SessionOptions::new(), None, model, &tags, &options, None).unwrap();
        let metrics = Arc::new(Metrics::default());
        let counts = metrics.of_version("half", 1);
        let batching = Batching::new(&BatchingParameters {
            max_batch_size: Some(max_batch),
            batch_timeout_micros: Some(i64::from(i32::MAX)),
            ..BatchingParameters::default()
        });
        let scheduler = Scheduler::new(1, metrics).unwrap();
        let batcher = scheduler.batcher(Arc::new(group), batching.unwrap(), counts);
        (scheduler, batcher)
    }

    async fn ask(batcher: &Batcher, xs: &[f32], deadline: Option<Instant>) -> Result<Vec<f32>> {
        let x = Tensor::from_slice(&[xs.len() as i64], xs)?;
        let outputs = batcher.run(vec![("x:0", x)], xs.len(), &["y:0"], deadline).await?;
        outputs[0].to_vec()
    }

    /// The value of a metric without labels.
    fn metric(scheduler: &Scheduler, name: &str) -> String {
        let text = scheduler.shared.metrics.text();
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.map(str::to_string).collect()
    }

    const ROWS: &str = ":tensorflow:serving:batching_session:input_batch_size_sum";
    const RUNS: &str = ":tensorflow:serving:batching_session:wrapped_run_count";

    #[test]
    fn requests_wait_without_a_thread() {
        let (scheduler, batcher) = batcher(100);
        let batcher = Arc::new(batcher);
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut all = JoinSet::new();
            for number in 0..100 {
                let batcher = batcher.clone();
                all.spawn(async move {
                    let answer = ask(&batcher, &[number as f32], None).await.unwrap();
                    assert_eq!(answer, [number as f32 / 2.0 + 2.0]);
                });
            }
            all.join_all().await;
        });
        assert_eq!(
            (metric(&scheduler, RUNS), metric(&scheduler, ROWS)),
            ("1".into(), "100".into())
        );
    }

    #[test]
    fn what_nobody_waits_for_is_not_run() {
        let (scheduler, batcher) = batcher(4);
        let waiting = || batcher.counts.batch_waiting.get();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let soon = Instant::now() + Duration::from_millis(50);
            let late = ask(&batcher, &[0.0], Some(soon)).await.unwrap_err();
            assert_eq!(late.code, Code::DeadlineExceeded);
            let gone = timeout(Duration::ZERO, ask(&batcher, &[0.0, 0.0], None));
            assert!(gone.await.is_err());
            assert_eq!(waiting(), 2);
            // They leave their room to others, and the batch runs when it is full of these.
            let (one, other) =
                tokio::join!(ask(&batcher, &[2.0, 4.0], None), ask(&batcher, &[6.0, 8.0], None));
            assert_eq!((one.unwrap(), other.unwrap()), (vec![3.0, 4.0], vec![5.0, 6.0]));
            assert_eq!((waiting(), metric(&scheduler, ROWS)), (0, "4".into()));
            let gone = timeout(Duration::ZERO, ask(&batcher, &[0.0], None));
            assert!(gone.await.is_err());
        });
        // Nor does a version stay for it.
        let counts = batcher.counts.clone();
        drop(batcher);
        assert_eq!(counts.batch_waiting.get(), 0);
        assert!(scheduler.shared.lock().all.is_empty());
    }

    #[test]
    fn no_number_of_output_sets_leaves_queues_behind() {
        let (scheduler, batcher) = batcher(1000);
        let names = |number: usize| Names {
            feeds: vec!["x:0".to_string()],
            fetches: vec![format!("y:{number}")],
        };
        let mut queues = scheduler.shared.lock();
        let now = Instant::now();
        let waits = Batch { tasks: Vec::new(), rows: 1, opened: now };
        queues.of(&batcher, names(0)).batches.push_back(waits);
        for number in 1..1000 {
            queues.of(&batcher, names(number));
            assert!(queues.all.len() <= MOST_IDLE + 1, "{}", queues.all.len());
        }
        // What waits is still there.
        assert_eq!(queues.of(&batcher, names(0)).batches.pop_front().unwrap().rows, 1);
    }
}

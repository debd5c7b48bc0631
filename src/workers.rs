//! Threads of a session that take whole requests from a bounded queue.
//!
//! A request lives on the stack of the thread that makes it, which waits until a worker has run it.
//! What the two share is a [`Ticket`], whose state says whose the request is:
//!
//! ```text
//! QUEUED --worker takes it--> RUNNING --worker is through--> DONE
//!    \--deadline of the caller passes--> EXPIRED: the worker that finds the ticket drops it
//! ```

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};

use crate::affinity;
use crate::cpuset::CpuSet;
use crate::error::{Code, Error, Result};

/// How many requests may wait for a session's workers, and what happens to one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// How many may wait.
    pub capacity: usize,
    /// Whether one more waits for room; else it fails at once with `RESOURCE_EXHAUSTED`.
    pub wait: bool,
}

/// The worker threads of one session.
pub(crate) struct Workers {
    queue: Queue,
    /// Taken on drop, which ends the threads once the queue is empty.
    sender: Option<Sender<Arc<Ticket>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` of them, pinned to `cpus`, if any.
    pub fn new(name: &str, threads: usize, cpus: Option<&CpuSet>, queue: Queue) -> Result<Self> {
        let (sender, receiver) = bounded(queue.capacity);
        let mut workers = Self { queue, sender: Some(sender), threads: Vec::new() };
        for _ in 0..threads {
            let receiver: Receiver<Arc<Ticket>> = receiver.clone();
            let cpus = cpus.cloned();
            let (pinned, result) = bounded(1);
            let thread = thread::Builder::new()
                .name(name.to_string())
                .spawn(move || {
                    let _ = pinned.send(cpus.as_ref().map_or(Ok(()), affinity::pin));
                    receiver.iter().for_each(|ticket| ticket.run());
                })
                .map_err(|error| affinity::failed("start a worker thread", &error))?;
            workers.threads.push(thread);
            result.recv().map_err(|_| {
                Error::new(Code::Internal, "a worker thread ended before it was ready")
            })??;
        }
        Ok(workers)
    }

    /// Runs `f` on a worker and waits for its result. Where the deadline passes before a worker
    /// takes it, `f` is not run.
    pub fn run<R: Send>(
        &self,
        deadline: Option<Instant>,
        f: impl FnOnce() -> Result<R> + Send,
    ) -> Result<R> {
        let request = Request { f: UnsafeCell::new(Some(f)), result: UnsafeCell::new(None) };
        let ticket = Arc::new(Ticket::new(&request));
        self.send(ticket.clone(), deadline)?;
        if !ticket.wait(deadline) {
            return Err(deadline_exceeded());
        }
        request.result.into_inner().unwrap_or_else(|| {
            Err(Error::new(Code::Internal, "a worker thread finished without a result"))
        })
    }

    fn send(&self, ticket: Arc<Ticket>, deadline: Option<Instant>) -> Result<()> {
        let sender = self.sender.as_ref().expect("there until dropped");
        let full = || {
            Error::new(
                Code::ResourceExhausted,
                format!(
                    "the session's queue is full with {} requests: send fewer at a time, add \
                     sessions or worker threads, or let requests wait for room",
                    self.queue.capacity
                ),
            )
        };
        match (self.queue.wait, deadline) {
            (false, _) => sender.try_send(ticket).map_err(|error| match error {
                TrySendError::Full(_) => full(),
                TrySendError::Disconnected(_) => ended(),
            }),
            (true, None) => sender.send(ticket).map_err(|_| ended()),
            (true, Some(at)) => sender.send_deadline(ticket, at).map_err(|error| match error {
                SendTimeoutError::Timeout(_) => deadline_exceeded(),
                SendTimeoutError::Disconnected(_) => ended(),
            }),
        }
    }
}

fn ended() -> Error {
    Error::new(Code::Internal, "the session's worker threads have ended")
}

/// What a request gets whose time has passed before it could run.
pub(crate) fn deadline_exceeded() -> Error {
    Error::new(
        Code::DeadlineExceeded,
        "the request's timeout passed while it waited for a worker thread; it was not run",
    )
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            // A worker catches the panics of what it runs, so joining can't fail.
            let _ = thread.join();
        }
    }
}

/// What a worker runs, on the stack of the thread that waits for it.
struct Request<F, R> {
    f: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<Result<R>>>,
}

impl<F: FnOnce() -> Result<R>, R> Request<F, R> {
    /// # Safety
    ///
    /// `request` must point to a live request of this type that nobody else uses meanwhile.
    unsafe fn run(request: *const ()) {
        // SAFETY: the caller vouches for it.
        let (f, result) = unsafe {
            let request = &*request.cast::<Self>();
            (&mut *request.f.get(), &mut *request.result.get())
        };
        if let Some(f) = f.take() {
            *result = Some(catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| {
                Err(Error::new(Code::Internal, "a request panicked on a worker thread"))
            }));
        }
    }
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const EXPIRED: u8 = 3;

struct Ticket {
    state: AtomicU8,
    waiting: Thread,
    request: *const (),
    run: unsafe fn(*const ()),
}

// SAFETY: what `request` points to is sent to the worker and its result is sent back, both being
// Send (see Workers::run); who may use it when is settled by `state`.
unsafe impl Send for Ticket {}
// SAFETY: as above.
unsafe impl Sync for Ticket {}

impl Ticket {
    /// The calling thread is the one that will wait.
    fn new<F: FnOnce() -> Result<R> + Send, R: Send>(request: &Request<F, R>) -> Self {
        Self {
            state: AtomicU8::new(QUEUED),
            waiting: thread::current(),
            request: std::ptr::from_ref(request).cast(),
            run: Request::<F, R>::run,
        }
    }

    /// Moves from QUEUED to `state`; false where somebody else was faster.
    fn claim(&self, state: u8) -> bool {
        self.state.compare_exchange(QUEUED, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn run(&self) {
        if !self.claim(RUNNING) {
            return;
        }
        // SAFETY: the state is RUNNING, so `wait` has not returned and the request is alive, and
        // its thread does not touch it before DONE.
        unsafe { (self.run)(self.request) };
        self.state.store(DONE, Ordering::Release);
        self.waiting.unpark();
    }

    /// Waits until the request has been run; false where the deadline passed before it began.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.state.load(Ordering::Acquire) == DONE {
                return true;
            }
            match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                Some(_) if self.claim(EXPIRED) => return false,
                // A worker has it: TensorFlow itself watches the time that is left.
                Some(_) => thread::park(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    fn workers(threads: usize, capacity: usize, wait: bool) -> Workers {
        Workers::new("test", threads, None, Queue { capacity, wait }).unwrap()
    }

    #[test]
    fn every_request_is_run_once_and_answered_with_its_own_result() {
        let workers = workers(3, 4, true);
        let runs = AtomicUsize::new(0);
        thread::scope(|scope| {
            for client in 0..16 {
                let (workers, runs) = (&workers, &runs);
                scope.spawn(move || {
                    for i in 0..500 {
                        let result = workers.run(None, || {
                            runs.fetch_add(1, Ordering::Relaxed);
                            Ok(client * 1000 + i)
                        });
                        assert_eq!(result, Ok(client * 1000 + i));
                    }
                });
            }
        });
        assert_eq!(runs.load(Ordering::Relaxed), 16 * 500);
    }

    /// Keeps the only worker of `workers` busy while `f` runs.
    fn while_busy(workers: &Workers, f: impl FnOnce()) {
        let (begun, end) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                workers.run(None, || {
                    begun.wait();
                    end.wait();
                    Ok(())
                })
            });
            begun.wait();
            f();
            end.wait();
        });
    }

    #[test]
    fn an_expired_request_is_not_run() {
        let workers = workers(1, 4, false);
        let ran = AtomicUsize::new(0);
        while_busy(&workers, || {
            let soon = Instant::now() + Duration::from_millis(10);
            let result = workers.run(Some(soon), || {
                ran.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            assert_eq!(result.unwrap_err().code, Code::DeadlineExceeded);
        });
        // The worker has passed the expired ticket once it answers a later request.
        workers.run(None, || Ok(())).unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_queue_refuses_or_waits() {
        for wait in [false, true] {
            let workers = workers(1, 1, wait);
            while_busy(&workers, || {
                thread::scope(|scope| {
                    // One expires in the queue, so that it stays full.
                    let at = Instant::now() + Duration::from_millis(100);
                    let queued = scope.spawn({
                        let workers = &workers;
                        move || workers.run(Some(at), || Ok(()))
                    });
                    while !workers.sender.as_ref().unwrap().is_full() {
                        thread::yield_now();
                    }
                    let error = workers.run(Some(at), || Ok(())).unwrap_err();
                    let code = if wait { Code::DeadlineExceeded } else { Code::ResourceExhausted };
                    assert_eq!(error.code, code, "{error}");
                    assert!(queued.join().unwrap().is_err());
                });
            });
        }
    }

    #[test]
    fn a_panic_is_an_answer_and_the_worker_goes_on() {
        let workers = workers(1, 1, true);
        let error = workers.run::<()>(None, || panic!("on purpose")).unwrap_err();
        assert_eq!(error.code, Code::Internal);
        assert_eq!(workers.run(None, || Ok(7)), Ok(7));
    }
}

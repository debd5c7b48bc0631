//! Threads of a session that take whole requests from a bounded queue.

use std::sync::Arc;
use std::time::Instant;

use crate::cpus::affinity;
use crate::cpus::cpuset::CpuSet;
use crate::error::{Code, Error, Result};
use crate::options::queue::Queue;
use crate::sessions::ticket::{Request, Ticket};
use crate::sync::channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};
use crate::sync::{Builder, JoinHandle};

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The queue had no room; the request was not run.
    Full(Error),
    /// Anything else, the request's own failure included.
    Other(Error),
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
            let thread = Builder::new()
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
    ) -> std::result::Result<R, Refusal> {
        let request = Request::new(f);
        // SAFETY: the request stays where it is until this function returns, and that is after
        // `wait`, or without any worker having seen the ticket.
        let ticket = Arc::new(unsafe { Ticket::new(&request) });
        self.send(ticket.clone(), deadline)?;
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if !ticket.wait(left) {
            return Err(Refusal::Other(deadline_exceeded()));
        }
        match request.into_result() {
            Some(Ok(result)) => result.map_err(Refusal::Other),
            Some(Err(panic)) => {
                Err(Refusal::Other(Error::panicked("a worker thread", panic.as_ref())))
            }
            None => Err(internal("a worker thread finished without a result")),
        }
    }

    fn send(
        &self,
        ticket: Arc<Ticket>,
        deadline: Option<Instant>,
    ) -> std::result::Result<(), Refusal> {
        let sender = self.sender.as_ref().expect("there until dropped");
        let ended = || internal("the session's worker threads have ended");
        match (self.queue.wait, deadline) {
            (false, _) => sender.try_send(ticket).map_err(|error| match error {
                TrySendError::Full(_) => Refusal::Full(self.full()),
                TrySendError::Disconnected(_) => ended(),
            }),
            (true, None) => sender.send(ticket).map_err(|_| ended()),
            (true, Some(at)) => sender.send_deadline(ticket, at).map_err(|error| match error {
                SendTimeoutError::Timeout(_) => Refusal::Other(deadline_exceeded()),
                SendTimeoutError::Disconnected(_) => ended(),
            }),
        }
    }

    fn full(&self) -> Error {
        Error::new(
            Code::ResourceExhausted,
            format!(
                "the session's queue is full with {} requests: send fewer at a time, add sessions \
                 or worker threads, or let requests wait for room",
                self.queue.capacity
            ),
        )
    }
}

fn internal(message: &str) -> Refusal {
    Refusal::Other(Error::new(Code::Internal, message))
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn workers(threads: usize, capacity: usize, wait: bool) -> Workers {
        Workers::new("test", threads, None, Queue { capacity, wait }).unwrap()
    }

    fn code<R: std::fmt::Debug>(result: std::result::Result<R, Refusal>) -> Code {
        let (Refusal::Full(error) | Refusal::Other(error)) = result.unwrap_err();
        error.code
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
                        assert_eq!(result.unwrap(), client * 1000 + i);
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
            assert_eq!(code(result), Code::DeadlineExceeded);
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
                    let expected =
                        if wait { Code::DeadlineExceeded } else { Code::ResourceExhausted };
                    assert_eq!(code(workers.run(Some(at), || Ok(()))), expected);
                    assert!(queued.join().unwrap().is_err());
                });
            });
        }
    }

    #[test]
    fn a_panic_is_an_answer_and_the_worker_goes_on() {
        let workers = workers(1, 1, true);
        let Refusal::Other(error) = workers.run::<()>(None, || panic!("on purpose")).unwrap_err()
        else {
            panic!("the queue had room");
        };
        assert_eq!(error.code, Code::Internal);
        assert!(error.message.contains("on purpose"), "{error}");
        assert_eq!(workers.run(None, || Ok(7)).unwrap(), 7);
    }
}

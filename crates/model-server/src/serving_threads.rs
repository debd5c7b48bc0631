//! Threads that serve connections: a connection stays on one, and threads share nothing that each request would
//! write. One for each CPU.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::metrics::count_as_serving_thread;

/// All of them. They end when it is dropped.
pub struct ServingThreads(Vec<ServingThread>);

struct ServingThread {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    ends: Option<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
}

/// A connection that a thread has, until this is dropped.
pub struct Counted(Arc<AtomicUsize>);

/// When all end: one that still computes is left behind.
const PATIENCE: Duration = Duration::from_secs(1);

impl ServingThreads {
    pub fn start(threads: usize) -> io::Result<Self> {
        (0..threads.max(1)).map(ServingThread::start).collect::<io::Result<_>>().map(Self)
    }

    /// The thread with the fewest connections, for one more.
    pub fn least(&self) -> (&Handle, Counted) {
        let least = self.0.iter().min_by_key(|thread| thread.connections.load(Relaxed));
        let least = least.expect("there is at least one");
        least.connections.fetch_add(1, Relaxed);
        (&least.runtime, Counted(least.connections.clone()))
    }
}

impl ServingThread {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ends, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new().name("serve".into()).spawn(move || {
            count_as_serving_thread(number);
            // Whether it was told to end, or its sender is gone.
            let _ = runtime.block_on(ended);
        })?;
        let connections = Arc::default();
        Ok(Self { runtime: handle, connections, ends: Some(ends), thread })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Drop for ServingThreads {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|thread| drop(thread.ends.take()));
        let until = Instant::now() + PATIENCE;
        while self.0.iter().any(|thread| !thread.thread.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_thread_with_the_fewest() {
        let threads = ServingThreads::start(3).unwrap();
        let mut all: Vec<_> = (0..6).map(|_| threads.least().1).collect();
        let counts = || threads.0.iter().map(|t| t.connections.load(Relaxed)).collect::<Vec<_>>();
        assert_eq!(counts(), [2, 2, 2]);
        drop(all.remove(1));
        drop(threads.least().0.spawn(async {}));
        assert_eq!(counts(), [2, 1, 2]);
    }

    #[test]
    fn they_compute_on_threads_of_their_own() {
        let threads = ServingThreads::start(2).unwrap();
        let number =
            || threads.0.iter().map(|one| one.runtime.spawn(async { thread::current().id() }));
        let wait = Builder::new_current_thread().build().unwrap();
        let ids: Vec<_> = number().map(|task| wait.block_on(task).unwrap()).collect();
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids, number().map(|task| wait.block_on(task).unwrap()).collect::<Vec<_>>());
    }
}

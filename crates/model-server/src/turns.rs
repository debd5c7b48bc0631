//! A request that computes in turns: it has a thread while it computes, and none while it waits for its batch.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use crate::stopwatch::cpu_time;

/// What is left to compute of a request. It may move from thread to thread between its turns.
pub struct Turns<W> {
    work: Pin<Box<W>>,
    ready: Arc<Ready>,
    /// How much of a CPU all turns took so far.
    pub took: Duration,
}

/// Says that what a request waits for is there.
#[derive(Default)]
struct Ready(Notify);

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

impl<W: Future> Turns<W> {
    pub fn new(work: W) -> Self {
        Self { work: Box::pin(work), ready: Arc::default(), took: Duration::ZERO }
    }

    /// Computes on the calling thread until the work is done, or waits for something.
    pub fn turn(&mut self) -> Poll<W::Output> {
        let begun = cpu_time();
        let waker = Waker::from(self.ready.clone());
        let polled = self.work.as_mut().poll(&mut Context::from_waker(&waker));
        self.took += cpu_time().saturating_sub(begun);
        polled
    }

    /// Waits until another turn gets further.
    pub async fn wait(&self) {
        self.ready.0.notified().await;
    }
}

/// The output of work that never waits, such as that of a version without batches.
pub fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the work waits for something"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_request_has_no_thread_while_it_waits() {
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (gives, given) = oneshot::channel();
        runtime.block_on(async {
            let mut turns = Turns::new(async { given.await.unwrap() + 1 });
            // A turn on another thread, which the next piece of work gets at once.
            let turn = move || (turns.turn(), turns);
            let (polled, mut turns) = tokio::task::spawn_blocking(turn).await.unwrap();
            assert_eq!(polled, Poll::Pending);
            tokio::task::spawn_blocking(move || gives.send(1)).await.unwrap().unwrap();
            turns.wait().await;
            assert_eq!(turns.turn(), Poll::Ready(2));
        });
    }

    #[test]
    fn what_does_not_wait_is_there_at_once() {
        assert_eq!(at_once(async { 1 }), 1);
    }
}

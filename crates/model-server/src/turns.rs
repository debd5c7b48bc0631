//! A request that computes in turns: it has a thread while it computes, and none while it waits for its batch.

use std::cell::Cell;
use std::future::poll_fn;
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

/// How far a turn has got.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<T> {
    Done(T),
    /// For its batch.
    Waits,
    /// That it may have for long.
    NeedsThread,
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

/// Where a turn is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A thread that does nothing else meanwhile.
    Own,
    /// A thread that serves connections.
    Shared,
    /// Such a thread, which the work has to leave.
    Left,
}

thread_local!(static PLACE: Cell<Place> = const { Cell::new(Place::Own) });

impl<W: Future> Turns<W> {
    pub fn new(work: W) -> Self {
        Self { work: Box::pin(work), ready: Arc::default(), took: Duration::ZERO }
    }

    /// Computes on the calling thread until the work is done, or waits for something.
    pub fn turn(&mut self) -> Turn<W::Output> {
        let begun = cpu_time();
        let waker = Waker::from(self.ready.clone());
        let polled = self.work.as_mut().poll(&mut Context::from_waker(&waker));
        self.took += cpu_time().saturating_sub(begun);
        match polled {
            Poll::Ready(output) => Turn::Done(output),
            Poll::Pending => Turn::Waits,
        }
    }

    /// The same on a thread that serves connections. What may take long is left for another thread.
    pub fn turn_here(&mut self) -> Turn<W::Output> {
        PLACE.set(Place::Shared);
        let turn = self.turn();
        match PLACE.replace(Place::Own) {
            Place::Left => Turn::NeedsThread,
            _ => turn,
        }
    }

    /// Waits until another turn gets further.
    pub async fn wait(&self) {
        self.ready.0.notified().await;
    }
}

/// What comes next may take long.
pub async fn on_own_thread() {
    poll_fn(|_| match PLACE.get() {
        Place::Own => Poll::Ready(()),
        Place::Shared | Place::Left => {
            PLACE.set(Place::Left);
            Poll::Pending
        }
    })
    .await;
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
    use tokio::task::spawn_blocking;

    use super::*;

    #[test]
    fn a_request_has_no_thread_while_it_waits() {
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (gives, given) = oneshot::channel();
        runtime.block_on(async {
            let mut turns = Turns::new(async { given.await.unwrap() + 1 });
            let turn = move || (turns.turn(), turns);
            let (turn, mut turns) = spawn_blocking(turn).await.unwrap();
            assert_eq!(turn, Turn::Waits);
            // There is only one thread.
            spawn_blocking(move || gives.send(1)).await.unwrap().unwrap();
            turns.wait().await;
            assert_eq!(turns.turn(), Turn::Done(2));
        });
    }

    #[test]
    fn what_may_take_long_leaves_the_thread_of_its_connection() {
        let work = || async {
            on_own_thread().await;
            1
        };
        let mut turns = Turns::new(work());
        assert_eq!(turns.turn_here(), Turn::NeedsThread);
        assert_eq!(turns.turn_here(), Turn::NeedsThread);
        assert_eq!(turns.turn(), Turn::Done(1));
        assert_eq!(at_once(work()), 1);
    }
}

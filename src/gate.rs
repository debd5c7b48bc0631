//! A value that many threads use until one of them closes it.
//!
//! Users enter by one of several lanes, one for each session, so that users of different sessions
//! write different cache lines. Closing turns newcomers away, waits for those inside, and takes
//! the value out.
//!
//! Why no user is missed: one who enters first counts itself and then reads `closed`; who closes
//! first writes `closed` and then reads the counts. All four are sequentially consistent, so at
//! least one of the two sees the other.

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

pub(crate) struct Gate<T> {
    lanes: Box<[Lane]>,
    closed: AtomicBool,
    /// Taken by the one who closes, once nobody is inside.
    value: UnsafeCell<Option<T>>,
    /// Guards the wait for the last user; also lets only one at a time close.
    drained: Mutex<()>,
    left: Condvar,
}

/// Aligned to two cache lines, as processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Lane {
    inside: AtomicU64,
}

// SAFETY: the value is shared between the threads that enter (hence Sync) and moved to the one that
// closes (hence Send); see `Entered` and `close` for why these two don't overlap.
unsafe impl<T: Send + Sync> Sync for Gate<T> {}

impl<T> Gate<T> {
    pub fn new(value: T, lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            closed: AtomicBool::new(false),
            value: UnsafeCell::new(Some(value)),
            drained: Mutex::new(()),
            left: Condvar::new(),
        }
    }

    /// Enters by a lane; `None` once closing has begun.
    pub fn enter(&self, lane: usize) -> Option<Entered<'_, T>> {
        let entered = Entered { gate: self, lane: &self.lanes[lane] };
        entered.lane.inside.fetch_add(1, SeqCst);
        // Dropping `entered` counts the user out again.
        (!self.closed.load(SeqCst)).then_some(entered)
    }

    /// How many are inside by a lane.
    pub fn inside(&self, lane: usize) -> u64 {
        self.lanes[lane].inside.load(SeqCst)
    }

    /// Turns newcomers away, waits until nobody is inside, and gives the value to the first who
    /// closes.
    pub fn close(&self) -> Option<T> {
        self.closed.store(true, SeqCst);
        let mut guard = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        while self.lanes.iter().any(|lane| lane.inside.load(SeqCst) > 0) {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        // SAFETY: nobody is inside, nobody enters any more, and the lock keeps others who close
        // out, so this is the only access to the value.
        unsafe { (*self.value.get()).take() }
    }
}

/// A user inside the gate; the value stays until it is dropped.
pub(crate) struct Entered<'a, T> {
    gate: &'a Gate<T>,
    lane: &'a Lane,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: only `close` changes the value, and it does so only while nobody is inside.
        // Whoever holds an `Entered` was counted before `closed` was seen false, so it is inside.
        unsafe { (*self.gate.value.get()).as_ref() }.expect("the value is there until closed")
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        let last = self.lane.inside.fetch_sub(1, SeqCst) == 1;
        if last && self.gate.closed.load(SeqCst) {
            // The lock makes sure that the one who closes either sees the count that was just
            // written or is already waiting.
            drop(self.gate.drained.lock().unwrap_or_else(PoisonError::into_inner));
            self.gate.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn closing_takes_the_value_once() {
        let gate = Gate::new(7, 2);
        assert_eq!(*gate.enter(1).unwrap(), 7);
        assert_eq!(gate.inside(1), 0);
        assert_eq!(gate.close(), Some(7));
        assert_eq!(gate.close(), None);
        assert!(gate.enter(0).is_none());
        assert_eq!(gate.inside(0), 0);
    }

    #[test]
    fn closing_waits_for_those_inside() {
        let gate = Gate::new(Mutex::new(0), 2);
        let inside = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let entered = gate.enter(1).unwrap();
                inside.wait();
                thread::sleep(Duration::from_millis(20));
                *entered.lock().unwrap() = 42;
            });
            inside.wait();
            assert_eq!(gate.close().unwrap().into_inner().unwrap(), 42);
        });
    }

    #[test]
    fn many_users_and_many_who_close() {
        for _ in 0..200 {
            let gate = Gate::new(Box::new(7), 3);
            let takers: usize = thread::scope(|scope| {
                for i in 0..6 {
                    let gate = &gate;
                    scope.spawn(move || {
                        while let Some(entered) = gate.enter(i % 3) {
                            assert_eq!(**entered, 7);
                        }
                    });
                }
                let closers: Vec<_> =
                    (0..3).map(|_| scope.spawn(|| gate.close().is_some())).collect();
                closers.into_iter().map(|closer| usize::from(closer.join().unwrap())).sum()
            });
            assert_eq!(takers, 1);
        }
    }
}

//! A value that many threads use until one of them closes it.
//!
//! Users enter by one of several lanes, one for each session, so that users of different sessions
//! write different cache lines. Closing marks each lane, waits until nobody is inside any of them,
//! and takes the value out. Where that takes too long, the value stays for those who are inside, and
//! closing can be tried again.
//!
//! Entering, leaving and marking are single read-modify-write operations on the lane, so they happen
//! in some order: who comes after the mark sees it and turns back; who came before is counted.

use std::ops::Deref;
use std::time::Duration;

use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, UnsafeCell, wait_timeout};

pub(crate) struct Gate<T> {
    lanes: Box<[Lane]>,
    /// Taken by the one who closes, once nobody is inside.
    value: UnsafeCell<Option<T>>,
    /// Guards the wait for the last user, and lets only one at a time take the value.
    drained: Mutex<()>,
    left: Condvar,
}

/// Aligned to two cache lines, as processors fetch them in pairs.
#[repr(align(128))]
struct Lane {
    /// How many are inside, and the mark.
    inside: AtomicU64,
}

/// The mark of a lane that is closed.
const CLOSED: u64 = 1 << 63;

// SAFETY: the value is shared between the threads that enter (hence Sync) and moved to the one that
// closes (hence Send); see `Entered` and `close` for why these two don't overlap.
unsafe impl<T: Send + Sync> Sync for Gate<T> {}

impl<T> Gate<T> {
    pub fn new(value: T, lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Lane { inside: AtomicU64::new(0) }).collect(),
            value: UnsafeCell::new(Some(value)),
            drained: Mutex::new(()),
            left: Condvar::new(),
        }
    }

    /// Enters by a lane; `None` once it is closed.
    pub fn enter(&self, lane: usize) -> Option<Entered<'_, T>> {
        let lane = &self.lanes[lane];
        // Who comes after closing must not keep the one who closes waiting by counting itself.
        if lane.inside.load(Ordering::Relaxed) & CLOSED != 0 {
            return None;
        }
        let before = lane.inside.fetch_add(1, Ordering::Acquire);
        // Dropping `entered` counts the user out again.
        let entered = Entered { gate: self, lane };
        (before & CLOSED == 0).then_some(entered)
    }

    /// How many are inside by a lane.
    pub fn inside(&self, lane: usize) -> u64 {
        self.lanes[lane].inside.load(Ordering::Relaxed) & !CLOSED
    }

    /// How many are inside by any lane.
    pub fn all_inside(&self) -> u64 {
        (0..self.lanes.len()).map(|lane| self.inside(lane)).sum()
    }

    /// Whether closing has begun.
    pub fn is_closed(&self) -> bool {
        self.lanes.iter().any(|lane| lane.inside.load(Ordering::Relaxed) & CLOSED != 0)
    }

    /// Turns newcomers away, waits until nobody is inside, and gives the value to the first who
    /// closes. `left` says how much time there is yet, `None` for no end.
    pub fn close(
        &self,
        left: impl Fn() -> Option<Duration>,
    ) -> std::result::Result<Option<T>, StillInside> {
        for lane in &self.lanes {
            lane.inside.fetch_or(CLOSED, Ordering::AcqRel);
        }
        let mut guard = self.drained.lock().expect("nothing panics under this lock");
        while self.lanes.iter().any(|lane| lane.inside.load(Ordering::Acquire) != CLOSED) {
            guard = match left() {
                None => self.left.wait(guard).expect("nothing panics under this lock"),
                Some(left) if !left.is_zero() => {
                    wait_timeout(&self.left, &self.drained, guard, left)
                }
                Some(_) => return Err(StillInside),
            };
        }
        // SAFETY: nobody is inside, who enters turns back without touching the value, and the lock
        // keeps others who close out, so this is the only access to it.
        Ok(self.value.with_mut(|value| unsafe { (*value).take() }))
    }

    /// Enters a closed gate, to hurry those who are inside; `None` once the value was taken out.
    pub fn enter_closed(&self) -> Option<Entered<'_, T>> {
        let _guard = self.drained.lock().expect("nothing panics under this lock");
        // SAFETY: the value is taken out under the lock only, so nobody changes it now.
        let is_there = self.value.with(|value| unsafe { (*value).is_some() });
        is_there.then(|| {
            let lane = self.lanes.last().expect("there is at least one");
            lane.inside.fetch_add(1, Ordering::Acquire);
            Entered { gate: self, lane }
        })
    }
}

/// Why a gate that is closed still has its value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StillInside;

/// A user inside the gate; the value stays until it is dropped.
pub(crate) struct Entered<'a, T> {
    gate: &'a Gate<T>,
    lane: &'a Lane,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: only `close` changes the value, and it does so only while nobody is inside. Who
        // holds an `Entered` that `enter` gave out was counted before the lane was closed; one that
        // `enter_closed` gave out, before the value was taken.
        let value = self.gate.value.with(|value| unsafe { (*value).as_ref() });
        value.expect("the value is there until closed")
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        let before = self.lane.inside.fetch_sub(1, Ordering::Release);
        if before == CLOSED | 1 {
            // The lock makes sure that the one who closes either sees the count that was just
            // written or is already waiting.
            drop(self.gate.drained.lock());
            self.gate.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn closing_takes_the_value_once() {
        let gate = Gate::new(7, 2);
        assert_eq!(*gate.enter(1).unwrap(), 7);
        assert_eq!(gate.inside(1), 0);
        assert_eq!(gate.close(|| None), Ok(Some(7)));
        assert_eq!(gate.close(|| None), Ok(None));
        assert!(gate.enter(0).is_none() && gate.enter_closed().is_none());
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
            let value = gate.close(|| None).unwrap().unwrap();
            assert_eq!(value.into_inner().unwrap(), 42);
        });
    }

    #[test]
    fn closing_gives_up_and_leaves_the_value_to_those_inside() {
        let gate = Gate::new(7, 2);
        let entered = gate.enter(1).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        let left = || Some(soon.saturating_duration_since(Instant::now()));
        assert_eq!(gate.close(left), Err(StillInside));
        assert!(gate.enter(0).is_none());
        let hurrying = gate.enter_closed().unwrap();
        assert_eq!((*entered, *hurrying), (7, 7));
        drop(entered);
        assert_eq!(gate.close(left), Err(StillInside), "one who hurries others is inside, too");
        drop(hurrying);
        assert_eq!(gate.close(left), Ok(Some(7)));
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
                let closers: Vec<_> = (0..3)
                    .map(|_| scope.spawn(|| gate.close(|| None).unwrap().is_some()))
                    .collect();
                closers.into_iter().map(|closer| usize::from(closer.join().unwrap())).sum()
            });
            assert_eq!(takers, 1);
        }
    }
}

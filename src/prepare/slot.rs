//! A place for a value that many threads use, and that is taken out once nobody uses it.
//!
//! Users enter by one of several lanes, as through a [`Gate`](crate::sessions::gate::Gate), but each thread by
//! that of its stripe. Who wants to take the value out never waits: it marks all lanes, and takes the marks
//! back where it finds somebody inside.
//! A new value may follow, under a new number.

use std::ops::Deref;

use crate::sync::{AtomicU8, AtomicU64, Ordering, UnsafeCell};

pub(crate) struct Slot<T> {
    lanes: Box<[Lane]>,
    /// Changed while all lanes are marked and nobody is inside.
    value: UnsafeCell<Option<T>>,
    /// Of the value; changed as above.
    number: AtomicU64,
}

/// Aligned to two cache lines, as processors fetch them in pairs.
#[repr(align(128))]
struct Lane {
    /// How many are inside, and the mark.
    inside: AtomicU64,
    /// Whether somebody was, since [`Slot::was_used`] was last asked.
    used: AtomicU8,
}

/// The mark of a lane by which nobody may enter.
const CLOSED: u64 = 1 << 63;

// SAFETY: the value is shared between the threads that enter (hence Sync), and moved in and out by those
// that put and take it (hence Send); see `Inside`, `put` and `try_take` for why these don't overlap.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// Without a value.
    pub fn new(lanes: usize) -> Self {
        let lane = || Lane { inside: AtomicU64::new(CLOSED), used: AtomicU8::new(0) };
        Self {
            lanes: (0..lanes).map(|_| lane()).collect(),
            value: UnsafeCell::new(None),
            number: AtomicU64::new(0),
        }
    }

    /// Enters by a lane; `None` where there is no value.
    pub fn enter(&self, lane: usize) -> Option<Inside<'_, T>> {
        let lane = &self.lanes[lane];
        let before = lane.inside.fetch_add(1, Ordering::Acquire);
        // Dropping `inside` counts the user out again.
        let inside = Inside { slot: self, lane };
        if before & CLOSED != 0 {
            return None;
        }
        if lane.used.load(Ordering::Relaxed) == 0 {
            lane.used.store(1, Ordering::Relaxed);
        }
        Some(inside)
    }

    /// Whether somebody has entered since this was last asked.
    pub fn was_used(&self) -> bool {
        self.lanes.iter().fold(false, |used, lane| {
            let was = lane.used.load(Ordering::Relaxed) != 0;
            lane.used.store(0, Ordering::Relaxed);
            used | was
        })
    }

    /// Takes the value out, unless somebody uses it. For one thread at a time, which holds the lock
    /// under which values are [`put`](Self::put).
    pub fn try_take(&self) -> Option<T> {
        for (i, lane) in self.lanes.iter().enumerate() {
            if lane.inside.fetch_or(CLOSED, Ordering::AcqRel) == 0 {
                continue;
            }
            // Somebody is inside, or there is no value.
            for marked in &self.lanes[..=i] {
                marked.inside.fetch_and(!CLOSED, Ordering::AcqRel);
            }
            return None;
        }
        // SAFETY: all lanes are marked, and nobody was inside when they were; who enters since turns
        // back without touching the value. The caller keeps others out who put or take.
        self.value.with_mut(|value| unsafe { (*value).take() })
    }

    /// Puts a value in, where there is none. For one thread at a time, as above.
    pub fn put(&self, value: T) -> u64 {
        // SAFETY: all lanes are marked, so nobody is inside; the caller keeps others out.
        self.value.with_mut(|slot| unsafe { *slot = Some(value) });
        let number = self.number.load(Ordering::Relaxed) + 1;
        self.number.store(number, Ordering::Relaxed);
        for lane in &self.lanes {
            lane.inside.fetch_and(!CLOSED, Ordering::AcqRel);
        }
        number
    }
}

/// A user of a slot; the value stays until it is dropped.
pub(crate) struct Inside<'a, T> {
    slot: &'a Slot<T>,
    lane: &'a Lane,
}

impl<T> Inside<'_, T> {
    /// Which of the values that the slot has had it is.
    pub fn number(&self) -> u64 {
        self.slot.number.load(Ordering::Relaxed)
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: only `try_take` and `put` change the value, and they do so while nobody is inside.
        // Who holds an `Inside` that `enter` gave out found the lane without a mark.
        let value = self.slot.value.with(|value| unsafe { (*value).as_ref() });
        value.expect("a lane without a mark has a value")
    }
}

impl<T> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        self.lane.inside.fetch_sub(1, Ordering::Release);
    }
}

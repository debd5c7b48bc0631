//! The primitives under [`gate`](crate::sessions::gate), [`ticket`](crate::sessions::ticket), [`workers`](crate::sessions::workers),
//! [`slot`](crate::prepare::slot) and [`cache`](crate::prepare::cache), so that `tests/interleavings.rs` can put loom's in
//! their place and try every order in which threads can run.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
pub(crate) use std::thread::{Builder, JoinHandle, Thread, current, park, park_timeout};
use std::time::Duration;

pub(crate) use crossbeam_channel as channel;

/// Waits until woken or until so much time has passed.
pub(crate) fn wait_timeout<'a, T>(
    woken: &Condvar,
    _: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    left: Duration,
) -> MutexGuard<'a, T> {
    woken.wait_timeout(guard, left).expect("nothing panics under this lock").0
}

/// `std`'s, with loom's interface.
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

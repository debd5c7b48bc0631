//! The primitives under [`gate`](crate::gate) and [`ticket`](crate::ticket), so that `loom/` can put
//! its own in their place and try every order in which threads can run.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
pub(crate) use std::sync::{Condvar, Mutex};
pub(crate) use std::thread::{Thread, current, park, park_timeout};

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

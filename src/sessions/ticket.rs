//! How a request gets from the thread that makes it to a worker and back.
//!
//! The request lives on the stack of the thread that makes it, which waits until a worker has run
//! it. A [`Ticket`] goes through the queue in its place; its state says whose the request is:
//!
//! ```text
//! QUEUED --a worker takes it--> RUNNING --it is through--> DONE: the maker has its result
//!    \\--the maker's time passes--> EXPIRED: the worker that finds the ticket leaves it alone
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::sync::{AtomicU8, Ordering, Thread, UnsafeCell, current, park, park_timeout};

/// Something to run, and what comes of it: a value, or the payload of a panic.
pub(crate) struct Request<F, R> {
    f: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<std::thread::Result<R>>>,
}

impl<F: FnOnce() -> R, R> Request<F, R> {
    pub fn new(f: F) -> Self {
        Self { f: UnsafeCell::new(Some(f)), result: UnsafeCell::new(None) }
    }

    /// What came of it; `None` where it was not run.
    pub fn into_result(self) -> Option<std::thread::Result<R>> {
        // SAFETY: the request is owned, so nobody else has access.
        self.result.with_mut(|result| unsafe { (*result).take() })
    }

    /// # Safety
    ///
    /// `request` must point to a live request of this type that nobody else uses meanwhile.
    unsafe fn run(request: *const ()) {
        // SAFETY: the caller vouches for it.
        let request = unsafe { &*request.cast::<Self>() };
        // SAFETY: nobody else uses the request meanwhile.
        if let Some(f) = request.f.with_mut(|f| unsafe { (*f).take() }) {
            let result = catch_unwind(AssertUnwindSafe(f));
            // SAFETY: as above.
            request.result.with_mut(|slot| unsafe { *slot = Some(result) });
        }
    }
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const EXPIRED: u8 = 3;

/// What goes through the queue.
pub(crate) struct Ticket {
    state: AtomicU8,
    maker: Thread,
    request: *const (),
    run: unsafe fn(*const ()),
}

// SAFETY: what `request` points to is sent to the worker and its result is sent back, both being
// Send (see `new`); who may use it when is settled by `state`.
unsafe impl Send for Ticket {}
// SAFETY: as above.
unsafe impl Sync for Ticket {}

impl Ticket {
    /// A ticket of the calling thread, which is the one to wait.
    ///
    /// # Safety
    ///
    /// Once a worker can see the ticket, the request must stay where it is until `wait` has
    /// returned.
    pub unsafe fn new<F: FnOnce() -> R + Send, R: Send>(request: &Request<F, R>) -> Self {
        Self {
            state: AtomicU8::new(QUEUED),
            maker: current(),
            request: std::ptr::from_ref(request).cast(),
            run: Request::<F, R>::run,
        }
    }

    /// Runs the request, unless its time has passed. For the worker that took the ticket.
    pub fn run(&self) {
        if !self.claim(RUNNING) {
            return;
        }
        // SAFETY: the state is RUNNING, so `wait` has not returned and the request is alive, and
        // its maker does not touch it before DONE.
        unsafe { (self.run)(self.request) };
        self.state.store(DONE, Ordering::Release);
        self.maker.unpark();
    }

    /// Waits until the request has been run; false where its time passed before that began. `left`
    /// tells how much time there is, `None` for no end. Once a worker runs the request, it is waited
    /// for: TensorFlow itself watches the time that is left.
    pub fn wait(&self, left: impl Fn() -> Option<Duration>) -> bool {
        loop {
            if self.state.load(Ordering::Acquire) == DONE {
                return true;
            }
            match left() {
                None => park(),
                Some(left) if !left.is_zero() => park_timeout(left),
                Some(_) if self.claim(EXPIRED) => return false,
                Some(_) => park(),
            }
        }
    }

    /// Moves from QUEUED to another state; false where somebody else was faster.
    fn claim(&self, state: u8) -> bool {
        self.state.compare_exchange(QUEUED, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

//! The protocols of closing (src/sessions/gate.rs), of a request's way to a worker and back (src/sessions/ticket.rs,
//! src/sessions/workers.rs) and of what is prepared for all (src/prepare/cache.rs, src/prepare/slot.rs) under loom,
//! which runs them in every order that their threads can take (and, of weak memory, in every one that the orderings allow).
//!
//! The files are compiled here a second time, over loom's primitives. Not a usual test program
//! (`harness = false`), since loom's primitives can't run the files' own tests.
#![allow(dead_code, unused_imports)] // Of the files, what their own tests use.

#[path = "../src/error.rs"]
mod error;
#[path = "../src/options"]
mod options {
    pub mod queue;
}
#[path = "../src/prepare"]
mod prepare {
    pub mod cache;
    pub mod signature;
    pub mod slot;
}
#[path = "../src/sessions"]
mod sessions {
    pub mod gate;
    pub mod ticket;
    pub mod workers;
}

/// Of src/tensorflow/program.rs what src/prepare/signature.rs uses.
mod tensorflow {
    pub mod program {
        #[derive(Debug, Default, PartialEq, Eq)]
        pub struct Order {
            pub feeds: Option<Box<[u32]>>,
            pub fetches: Option<Box<[u32]>>,
        }
    }
}

pub use error::Code;

/// Of src/cpus what src/sessions/workers.rs uses; loom's threads have no CPUs.
mod cpus {
    pub mod affinity {
        pub(crate) use crate::cpus::cpuset::pin;
        use crate::error::{Code, Error};

        pub(crate) fn failed(what: &str, error: &std::io::Error) -> Error {
            Error::new(Code::Internal, format!("can't {what}: {error}"))
        }
    }

    pub mod cpuset {
        #[derive(Clone)]
        pub struct CpuSet;

        pub(crate) fn pin(_: &CpuSet) -> crate::error::Result<()> {
            Ok(())
        }
    }
}

/// As src/sync.rs, with loom's.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicBool;
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread::{Builder, JoinHandle, Thread, current, park};

    /// What `std` promises of its own: who sees the value sees all that it is made of.
    pub(crate) struct OnceLock<T> {
        is_set: AtomicBool,
        value: UnsafeCell<Option<T>>,
    }

    // SAFETY: the value is written by one thread, under a lock of the user's, before others can see it.
    unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

    impl<T> OnceLock<T> {
        pub fn new() -> Self {
            Self { is_set: AtomicBool::new(false), value: UnsafeCell::new(None) }
        }

        pub fn get(&self) -> Option<&T> {
            if !self.is_set.load(Ordering::Acquire) {
                return None;
            }
            // SAFETY: set, and so not written any more; loom fails the model where it is.
            self.value.with(|value| unsafe { (*value).as_ref() })
        }

        pub fn set(&self, value: T) -> Result<(), T> {
            if self.is_set.load(Ordering::Acquire) {
                return Err(value);
            }
            // SAFETY: as above.
            self.value.with_mut(|slot| unsafe { *slot = Some(value) });
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }
    }

    /// Of crossbeam-channel what src/sessions/workers.rs uses, and what that promises: a queue of bounded length
    /// that many may write to and read from, whose readers end when no writer is left.
    pub(crate) mod channel {
        use std::collections::VecDeque;

        pub(crate) use crossbeam_channel::{RecvError, SendError, SendTimeoutError, TrySendError};
        use loom::sync::{Arc, Condvar, Mutex};

        struct Shared<T> {
            state: Mutex<State<T>>,
            changed: Condvar,
        }

        struct State<T> {
            queue: VecDeque<T>,
            capacity: usize,
            is_open: bool,
        }

        pub(crate) struct Sender<T>(Arc<Shared<T>>);
        pub(crate) struct Receiver<T>(Arc<Shared<T>>);

        pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
            let state = State { queue: VecDeque::new(), capacity, is_open: true };
            let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
            (Sender(shared.clone()), Receiver(shared))
        }

        impl<T> Sender<T> {
            pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
                let mut state = self.0.state.lock().unwrap();
                if state.queue.len() == state.capacity {
                    return Err(TrySendError::Full(value));
                }
                state.queue.push_back(value);
                self.0.changed.notify_all();
                Ok(())
            }

            pub fn send(&self, value: T) -> Result<(), SendError<T>> {
                let mut state = self.0.state.lock().unwrap();
                while state.queue.len() == state.capacity {
                    state = self.0.changed.wait(state).unwrap();
                }
                state.queue.push_back(value);
                self.0.changed.notify_all();
                Ok(())
            }

            /// The deadline passes at once, or there is room.
            pub fn send_deadline(
                &self,
                value: T,
                _: std::time::Instant,
            ) -> Result<(), SendTimeoutError<T>> {
                self.try_send(value).map_err(|error| SendTimeoutError::Timeout(error.into_inner()))
            }

            pub fn is_full(&self) -> bool {
                let state = self.0.state.lock().unwrap();
                state.queue.len() == state.capacity
            }
        }

        impl<T> Drop for Sender<T> {
            fn drop(&mut self) {
                self.0.state.lock().unwrap().is_open = false;
                self.0.changed.notify_all();
            }
        }

        impl<T> Clone for Receiver<T> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<T> Receiver<T> {
            pub fn recv(&self) -> Result<T, RecvError> {
                let mut state = self.0.state.lock().unwrap();
                loop {
                    if let Some(value) = state.queue.pop_front() {
                        self.0.changed.notify_all();
                        return Ok(value);
                    }
                    if !state.is_open {
                        return Err(RecvError);
                    }
                    state = self.0.changed.wait(state).unwrap();
                }
            }

            pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
                std::iter::from_fn(|| self.recv().ok())
            }
        }
    }

    /// Loom has no time: the thread goes on at any moment, having been woken or not.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        loom::thread::yield_now();
    }

    /// The same: goes on at any moment.
    pub(crate) fn wait_timeout<'a, T>(
        _: &Condvar,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        _: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        drop(guard);
        loom::thread::yield_now();
        mutex.lock().unwrap()
    }
}

use std::cell::Cell;
use std::time::Duration;

use error::Result;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use options::queue::Queue;
use prepare::cache::Cache;
use prepare::signature::{Names, Signature};
use prepare::slot::Slot;
use sessions::gate::{Gate, StillInside};
use sessions::ticket::{Request, Ticket};
use sessions::workers::{Refusal, Workers};

/// With three threads, orders with more than three preemptions are left out: there are too many.
const PREEMPTIONS: Option<usize> = Some(3);

/// A name, what to run in every order, and how many preemptions of threads to try.
struct Model(&'static str, fn(), Option<usize>);

fn main() {
    let models = [
        Model(
            "users_of_two_lanes_and_one_who_closes",
            users_of_two_lanes_and_one_who_closes,
            PREEMPTIONS,
        ),
        Model("two_who_close", two_who_close, PREEMPTIONS),
        Model("a_user_who_enters_twice", a_user_who_enters_twice, None),
        Model("one_who_gives_up_and_tries_again", one_who_gives_up, None),
        Model("one_who_hurries_users_while_another_closes", one_who_hurries, PREEMPTIONS),
        Model("a_request_comes_back_with_its_result", a_request_comes_back_with_its_result, None),
        Model("an_expired_request_is_never_run", an_expired_request_is_never_run, None),
        Model("workers_run_each_request_once", workers_run_each_request_once, Some(2)),
        Model("a_full_queue_refuses_what_it_does_not_run", a_full_queue_refuses, Some(2)),
        Model("what_is_taken_out_is_not_in_use", what_is_taken_out_is_not_in_use, PREEMPTIONS),
        Model("a_value_that_follows_has_another_number", a_value_that_follows, PREEMPTIONS),
        Model("two_names_that_share_one_place", two_names_that_share_one_place, Some(2)),
    ];
    let count = models.len();
    println!("\nrunning {count} models");
    for Model(name, model, preemptions) in models {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        builder.check(model);
        println!("model {name} ... ok");
    }
    println!("\n{count} passed, 0 failed");
}

/// A cache with room for one entry: whoever finds one has that of its own names, and nobody's goes while it is in use.
fn two_names_that_share_one_place() {
    let cache = Arc::new(Cache::with_room(2, 1, 1, 1));
    let ask = |cache: &Cache<(usize, Value)>, lane: usize| {
        let names = Names::of(&Signature {
            feeds: smallvec::smallvec![["x", "y"][lane]],
            fetches: &[],
            targets: &[],
        });
        // None while the other one is in use.
        if let Some(found) = cache.find_or_add(&names, lane, || (lane, Value::new())) {
            assert_eq!(found.value.0, lane);
            found.value.1.read();
            // None, too, where the other one is just finding out that it is in use.
            if let Some(again) = cache.at(found.place, found.value.number(), lane) {
                assert_eq!(again.0, lane);
                again.1.read();
            }
        }
    };
    let other = cache.clone();
    let other = thread::spawn(move || ask(&other, 1));
    ask(&cache, 0);
    other.join().unwrap();
    ask(&cache, 1);
}

/// What is in the gate: loom fails the model where it is read while, or after, it is taken out.
struct Value(loom::cell::UnsafeCell<u32>);

// SAFETY: read by users, written by the one who took it out of the gate; loom checks just that.
unsafe impl Send for Value {}
// SAFETY: as above.
unsafe impl Sync for Value {}

impl Value {
    fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(7))
    }

    fn read(&self) {
        // SAFETY: loom fails the model where somebody writes at the same time.
        self.0.with(|value| assert_eq!(unsafe { *value }, 7));
    }

    fn destroy(self) {
        // SAFETY: as above.
        self.0.with_mut(|value| unsafe { *value = 0 });
    }
}

fn enter(gate: &Gate<Value>, lane: usize) {
    if let Some(value) = gate.enter(lane) {
        value.read();
    }
}

fn close(gate: &Gate<Value>) -> usize {
    let taken = gate.close(|| None).unwrap();
    assert!(gate.enter(0).is_none(), "nobody enters after closing");
    taken.map_or(0, |value| {
        value.destroy();
        1
    })
}

fn users_of_two_lanes_and_one_who_closes() {
    let gate = Arc::new(Gate::new(Value::new(), 2));
    let users = [0, 1].map(|lane| {
        let gate = gate.clone();
        thread::spawn(move || enter(&gate, lane))
    });
    assert_eq!(close(&gate), 1);
    users.into_iter().for_each(|user| user.join().unwrap());
}

fn two_who_close() {
    let gate = Arc::new(Gate::new(Value::new(), 1));
    let (user, other) = (gate.clone(), gate.clone());
    let user = thread::spawn(move || enter(&user, 0));
    let other = thread::spawn(move || close(&other));
    assert_eq!(close(&gate) + other.join().unwrap(), 1, "one of them gets the value");
    user.join().unwrap();
}

fn a_user_who_enters_twice() {
    let gate = Arc::new(Gate::new(Value::new(), 1));
    let user = gate.clone();
    let user = thread::spawn(move || {
        enter(&user, 0);
        enter(&user, 0);
    });
    assert_eq!(close(&gate), 1);
    user.join().unwrap();
}

/// Who closes gives up, looks at the value that the user may still hold, and waits again.
fn one_who_gives_up() {
    let gate = Arc::new(Gate::new(Value::new(), 1));
    let user = gate.clone();
    let user = thread::spawn(move || enter(&user, 0));
    match gate.close(soon()) {
        Ok(value) => value.expect("nobody else takes it").destroy(),
        Err(StillInside) => {
            assert!(gate.enter(0).is_none(), "nobody enters after closing");
            gate.enter_closed().expect("nobody has taken it").read();
            assert_eq!(close(&gate), 1);
        }
    }
    user.join().unwrap();
}

/// While one looks at the value, another who closes must not take it.
fn one_who_hurries() {
    let gate = Arc::new(Gate::new(Value::new(), 1));
    let (user, other) = (gate.clone(), gate.clone());
    let user = thread::spawn(move || enter(&user, 0));
    let other = thread::spawn(move || close(&other));
    let taken = match gate.close(|| Some(Duration::ZERO)) {
        Ok(value) => value.map_or(0, |value| {
            value.destroy();
            1
        }),
        Err(StillInside) => {
            if let Some(value) = gate.enter_closed() {
                value.read();
            }
            close(&gate)
        }
    };
    assert_eq!(taken + other.join().unwrap(), 1, "one of them gets the value");
    user.join().unwrap();
}

/// There is some time left when first asked, and none after.
fn soon() -> impl Fn() -> Option<Duration> {
    let asked = Cell::new(false);
    move || Some(Duration::from_secs(u64::from(!asked.replace(true))))
}

fn a_request_comes_back_with_its_result() {
    let request = Request::new(|| 7);
    // SAFETY: the request stays here until `wait` has returned.
    let ticket = Arc::new(unsafe { Ticket::new(&request) });
    let worker = ticket.clone();
    let worker = thread::spawn(move || worker.run());
    assert!(ticket.wait(|| None));
    assert_eq!(request.into_result().unwrap().unwrap(), 7);
    worker.join().unwrap();
}

fn an_expired_request_is_never_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let request = Request::new(move || counted.fetch_add(1, Ordering::Relaxed));
    // SAFETY: the request stays here until `wait` has returned.
    let ticket = Arc::new(unsafe { Ticket::new(&request) });
    let worker = ticket.clone();
    let worker = thread::spawn(move || worker.run());
    let done = ticket.wait(soon());
    // The request may be gone now: a worker that still ran it would be an error that loom sees.
    assert_eq!(request.into_result().is_some(), done);
    worker.join().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), usize::from(done));
}

/// Two clients of one worker, whose queue has room for one.
fn workers_run_each_request_once() {
    let queue = Queue { capacity: 1, wait: true };
    let workers = Arc::new(Workers::new("loom", 1, None, queue).unwrap());
    let runs = Arc::new(AtomicUsize::new(0));
    let ask = |workers: &Workers, runs: &AtomicUsize, number: usize| {
        let result = workers.run(None, || {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(number)
        });
        assert_eq!(result.unwrap(), number, "each gets its own answer");
    };
    let other = {
        let (workers, runs) = (workers.clone(), runs.clone());
        thread::spawn(move || ask(&workers, &runs, 1))
    };
    ask(&workers, &runs, 2);
    other.join().unwrap();
    // The worker ends with them.
    drop(workers);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

/// The same where nobody waits for room.
fn a_full_queue_refuses() {
    let queue = Queue { capacity: 1, wait: false };
    let workers = Arc::new(Workers::new("loom", 1, None, queue).unwrap());
    let (runs, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let ask = |workers: &Workers, runs: &AtomicUsize, answers: &AtomicUsize| match workers
        .run(None, || Ok(runs.fetch_add(1, Ordering::Relaxed)))
    {
        Ok(_) => drop(answers.fetch_add(1, Ordering::Relaxed)),
        Err(Refusal::Full(_)) => {}
        Err(Refusal::Other(error)) => panic!("{error}"),
    };
    let other = {
        let (workers, runs, answers) = (workers.clone(), runs.clone(), answers.clone());
        thread::spawn(move || ask(&workers, &runs, &answers))
    };
    ask(&workers, &runs, &answers);
    other.join().unwrap();
    drop(workers);
    let runs = runs.load(Ordering::Relaxed);
    assert!((1..=2).contains(&runs));
    assert_eq!(runs, answers.load(Ordering::Relaxed));
}

/// Users by two lanes, and one who takes the value out if it can.
fn what_is_taken_out_is_not_in_use() {
    let slot = Arc::new(Slot::new(2));
    slot.put(Value::new());
    let users = [0, 1].map(|lane| {
        let slot = slot.clone();
        thread::spawn(move || {
            if let Some(value) = slot.enter(lane) {
                value.read();
            }
        })
    });
    match slot.try_take() {
        Some(value) => {
            assert!(slot.enter(0).is_none(), "nobody enters where there is no value");
            value.destroy();
        }
        None => assert!(slot.enter(0).is_some(), "what was not taken out is there"),
    }
    users.into_iter().for_each(|user| user.join().unwrap());
    // Then nobody is inside.
    if let Some(value) = slot.enter(1) {
        drop(value);
        slot.try_take().expect("it was not taken out before").destroy();
    }
}

/// A user who remembers an entry by its number does not take another one for it.
fn a_value_that_follows() {
    let slot = Arc::new(Slot::new(2));
    let first = slot.put((1, Value::new()));
    let user = {
        let slot = slot.clone();
        thread::spawn(move || {
            if let Some(inside) = slot.enter(1) {
                let which = if inside.number() == first { 1 } else { 2 };
                assert_eq!(inside.0, which);
                inside.1.read();
            }
        })
    };
    if let Some((_, value)) = slot.try_take() {
        value.destroy();
        assert_ne!(slot.put((2, Value::new())), first);
    }
    user.join().unwrap();
}

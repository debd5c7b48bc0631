//! The protocols of src/gate.rs and src/ticket.rs under loom, which runs them in every order that
//! their threads can take (and, of weak memory, in every one that the orderings allow).
//!
//! The two files are compiled here a second time, over loom's primitives. Not a usual test program
//! (`harness = false`), since loom's primitives can't run the files' own tests.
#![allow(dead_code, unused_imports)] // Of the files, what their own tests use.

#[path = "../src/gate.rs"]
mod gate;
#[path = "../src/ticket.rs"]
mod ticket;

/// As src/sync.rs, with loom's.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Condvar, Mutex};
    pub(crate) use loom::thread::{Thread, current, park};

    /// Loom has no time: the thread goes on at any moment, having been woken or not.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        loom::thread::yield_now();
    }
}

use std::cell::Cell;
use std::time::Duration;

use gate::Gate;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use ticket::{Request, Ticket};

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
        Model("a_request_comes_back_with_its_result", a_request_comes_back_with_its_result, None),
        Model("an_expired_request_is_never_run", an_expired_request_is_never_run, None),
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
    let taken = gate.close();
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
    // There is some time left when first asked, and none after.
    let asked = Cell::new(false);
    let left = || Duration::from_secs(u64::from(!asked.replace(true)));
    let done = ticket.wait(|| Some(left()));
    // The request may be gone now: a worker that still ran it would be an error that loom sees.
    assert_eq!(request.into_result().is_some(), done);
    worker.join().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), usize::from(done));
}

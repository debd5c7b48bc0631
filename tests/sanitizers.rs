//! What a sanitizer must find: `scripts/sanitize.sh` runs each of these first, and fails unless it is
//! reported, so that a job which checks nothing can't pass.

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::Barrier;

/// For AddressSanitizer.
#[test]
#[ignore = "wrong on purpose"]
fn a_read_beyond_the_end() {
    let bytes = black_box(vec![1u8; 16]);
    // SAFETY: none, on purpose.
    black_box(unsafe { *bytes.as_ptr().add(black_box(16)) });
}

/// For LeakSanitizer.
#[test]
#[ignore = "wrong on purpose"]
fn a_leak() {
    // Overwritten, lest it is still in a register when leaks are looked for.
    let mut leaked = Box::into_raw(Box::new([black_box(7u8); 1000]));
    black_box(&leaked);
    leaked = std::ptr::null_mut();
    black_box(leaked);
}

struct Racy(UnsafeCell<u64>);

// SAFETY: none, on purpose.
unsafe impl Sync for Racy {}

impl Racy {
    fn add(&self, begin: &Barrier) {
        begin.wait();
        for _ in 0..100_000 {
            // SAFETY: none, on purpose.
            unsafe { *self.0.get() += black_box(1) };
        }
    }
}

/// For ThreadSanitizer.
#[test]
#[ignore = "wrong on purpose"]
fn a_race() {
    let racy = Racy(UnsafeCell::new(0));
    let begin = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| racy.add(&begin));
        scope.spawn(|| racy.add(&begin));
    });
    black_box(racy.0.into_inner());
}

//! Stripes of threads. What many threads write often has a place for each stripe, so that threads of
//! different stripes write to different cache lines.
//!
//! A thread has one stripe for as long as it lives. Threads share a stripe only where there are more
//! threads than stripes.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use once_cell::sync::Lazy;

/// How many there are: enough for a thread on each CPU of the machine, and as many that wait.
pub(crate) fn count() -> usize {
    static COUNT: Lazy<usize> = Lazy::new(|| {
        // SAFETY: no precondition.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        (2 * usize::try_from(cpus).unwrap_or(1)).next_power_of_two().clamp(32, 512)
    });
    *COUNT
}

/// That of the calling thread, less than [`count`].
pub(crate) fn current() -> usize {
    const NONE: usize = usize::MAX;
    // Without a destructor, so that looking at it takes few instructions.
    thread_local!(static STRIPE: Cell<usize> = const { Cell::new(NONE) });
    thread_local!(static NUMBER: Number = Number::take());
    STRIPE.with(|stripe| {
        if stripe.get() == NONE {
            // A thread that ends may still call from a destructor, when the number is gone.
            stripe.set(NUMBER.try_with(|number| number.0 % count()).unwrap_or(0));
        }
        stripe.get()
    })
}

/// The numbers of threads that have ended, which the next threads get, so that numbers stay low.
static FREE: Mutex<Numbers> = Mutex::new(Numbers { given: 0, back: BinaryHeap::new() });

struct Numbers {
    /// From here on, numbers were never given.
    given: usize,
    back: BinaryHeap<Reverse<usize>>,
}

/// The number of a thread, until it ends.
struct Number(usize);

impl Number {
    fn take() -> Self {
        let mut numbers = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match numbers.back.pop() {
            Some(Reverse(number)) => number,
            None => {
                numbers.given += 1;
                numbers.given - 1
            }
        };
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).back.push(Reverse(self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn threads_that_live_at_a_time_have_different_stripes() {
        let all_live = Barrier::new(8);
        let of_thread = || {
            let stripe = current();
            all_live.wait();
            assert_eq!(current(), stripe);
            stripe
        };
        for _ in 0..100 {
            let stripes: HashSet<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(of_thread)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            // Other tests have threads, too, but not as many as there are stripes.
            assert!(stripes.len() == 8 && stripes.iter().all(|&stripe| stripe < count()));
        }
        let given = FREE.lock().unwrap().given;
        assert!(given < 800, "{given} numbers for a few threads at a time");
    }
}

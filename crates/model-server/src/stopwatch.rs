//! What the time of a thread was spent on: its own work, or that of another thread that had its CPU.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Measures a piece of work on the calling thread.
pub struct Stopwatch {
    begun: Instant,
    /// `None` as long as nothing has taken long: asking for it takes longer than the time does.
    used: Option<Used>,
}

/// What a thread has used since it began.
struct Used {
    cpu: Duration,
    /// How often it has waited for something.
    waits: i64,
}

/// How many pieces of work are looked at more closely after one that took long.
const LOOK_AT: u32 = 4096;
/// How many times the limit is far too long: not what a busy machine makes of a short request. It has to be looked at
/// closely to be believed.
pub const FAR: u32 = 4;

thread_local!(static LOOKS: Cell<u32> = const { Cell::new(0) });

impl Stopwatch {
    pub fn start() -> Self {
        let looks = LOOKS.get();
        LOOKS.set(looks.saturating_sub(1));
        Self { used: (looks > 0).then(Used::so_far), begun: Instant::now() }
    }

    /// How long the work took, of which more than `long` is long. `None` where another thread had the CPU for most of
    /// that time, or may have had it.
    pub fn stop(self, long: Duration) -> Option<Duration> {
        let took = self.begun.elapsed();
        if took > long {
            LOOKS.set(LOOK_AT);
        }
        let is_own = match self.used {
            _ if took <= long => true,
            None => took <= FAR * long,
            Some(before) => {
                let now = Used::so_far();
                now.waits > before.waits || 2 * now.cpu.saturating_sub(before.cpu) >= took
            }
        };
        is_own.then_some(took)
    }
}

impl Used {
    fn so_far() -> Self {
        // SAFETY: zeros are valid usage, which the call fills.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
            usage
        };
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
        };
        Self { cpu: time(usage.ru_utime) + time(usage.ru_stime), waits: usage.ru_nvcsw }
    }
}

/// What the calling thread has computed so far.
pub fn cpu_time() -> Duration {
    Used::so_far().cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(1);

    fn works(time: Duration) {
        let begun = cpu_time();
        while cpu_time() - begun < time {}
    }

    #[test]
    fn cpu_time_is_that_of_the_thread() {
        let begun = cpu_time();
        std::thread::sleep(Duration::from_millis(50));
        assert!(cpu_time() - begun < Duration::from_millis(40));
    }

    #[test]
    fn what_takes_far_too_long_is_believed_the_second_time() {
        let long = 10 * LONG;
        let works = || {
            let watch = Stopwatch::start();
            works(long);
            watch.stop(LONG)
        };
        let waits = || {
            let watch = Stopwatch::start();
            std::thread::sleep(long);
            watch.stop(LONG)
        };
        assert_eq!(works(), None);
        assert!(waits().unwrap() >= long);
        // As long as the CPU is not another's, which the test can't have.
        assert!((0..100).any(|_| works().is_some_and(|took| took >= long)));
        LOOKS.set(0);
        assert_eq!(waits(), None);
    }

    #[test]
    fn the_time_of_others_does_not_count() {
        LOOKS.set(LOOK_AT);
        let watch = Stopwatch::start();
        // As if the thread had not run meanwhile.
        let begun = Instant::now() - Duration::from_secs(1);
        assert_eq!(Stopwatch { begun, ..watch }.stop(LONG), None);
        assert!(Stopwatch::start().stop(Duration::MAX).is_some());
    }
}

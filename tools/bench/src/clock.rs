//! A clock that all processes of the machine share.

use std::thread;
use std::time::Duration;

/// The time since the machine started.
pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Sleeps until then, not at all where it has passed.
pub fn sleep_until(then: Duration) {
    while let Some(left) = then.checked_sub(now()).filter(|left| !left.is_zero()) {
        thread::sleep(left);
    }
}

/// Makes sleeps of the calling thread end when asked for, not up to 50 µs later as Linux may.
pub fn sleep_precisely() {
    // SAFETY: this changes no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

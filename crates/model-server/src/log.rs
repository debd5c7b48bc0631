//! The log. As JSON it has all that the process writes to stderr, so TensorFlow's lines as well: stderr becomes a pipe,
//! and what comes through it becomes events like others.

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use regex::Regex;
use tracing::{Level, event};

const STDERR: RawFd = 2;
const NONE: RawFd = -1;
/// Where stderr was, and the end of the pipe that can be read, while it is a pipe.
static STDERR_BEFORE: AtomicI32 = AtomicI32::new(NONE);
static PIPE: AtomicI32 = AtomicI32::new(NONE);
/// What reads the pipe.
static RELAY: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

/// Holds back what TensorFlow writes while it is loaded, if the command line may want it as JSON, or not at all.
/// [`start`] or [`discard`] says what becomes of it.
///
/// # Safety
///
/// `argv` must have `argc` strings.
pub unsafe extern "C" fn hold(argc: c_int, argv: *const *const c_char, _: *const *const c_char) {
    const FLAGS: [&[u8]; 4] = [b"--help", b"-h", b"--version", b"--log_json"];
    let wants = (1..argc as usize).any(|i| {
        // SAFETY: the caller gives as many.
        let argument = unsafe { CStr::from_ptr(*argv.add(i)) }.to_bytes();
        FLAGS.iter().any(|flag| argument.starts_with(flag))
    });
    if !wants {
        return;
    }
    let mut ends = [NONE; 2];
    // SAFETY: there is room for two ends, and the descriptors are open.
    unsafe {
        let before = libc::fcntl(STDERR, libc::F_DUPFD_CLOEXEC, STDERR + 1);
        if before < 0 || libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return;
        }
        libc::dup2(ends[1], STDERR);
        libc::close(ends[1]);
        PIPE.store(ends[0], Relaxed);
        STDERR_BEFORE.store(before, Relaxed);
    }
}

/// Forgets what was held back.
pub fn discard() {
    drop(release());
}

/// Starts to log. What was held back comes first.
pub fn start(is_json: bool) {
    // h2 warns of the pongs that connections hold back.
    const FILTER: &str = "info,h2::proto::ping_pong=error";
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    let before = STDERR_BEFORE.load(Relaxed);
    if is_json && before != NONE {
        // SAFETY: it is open, and stays so as long as there is a log.
        let stderr = Arc::new(unsafe { File::from_raw_fd(before) });
        log.json().flatten_event(true).with_writer(stderr).init();
        relay(before);
        return;
    }
    if let Some(held) = release() {
        let _ = io::copy(&mut File::from(held), &mut io::stderr());
    }
    let log = log.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    match is_json {
        true => log.json().flatten_event(true).init(),
        false => log.init(),
    }
}

/// Makes stderr what it was. What was written to it until then, and not read, can be read from the result.
fn release() -> Option<OwnedFd> {
    let before = STDERR_BEFORE.swap(NONE, Relaxed);
    if before == NONE {
        return None;
    }
    restore(before);
    // SAFETY: both are open, and owned by nobody else.
    unsafe {
        libc::close(before);
        Some(OwnedFd::from_raw_fd(PIPE.swap(NONE, Relaxed)))
    }
}

/// Ends logging by way of the pipe, once all that is in it is logged.
pub fn finish() {
    let relay = RELAY.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(relay) = relay else { return };
    restore(STDERR_BEFORE.load(Relaxed));
    let _ = relay.join();
}

/// Closes the end of the pipe that is written to.
fn restore(before: RawFd) {
    // SAFETY: both are open.
    unsafe { libc::dup2(before, STDERR) };
}

fn relay(before: RawFd) {
    // SAFETY: it is open, and owned by nobody else.
    let pipe = unsafe { OwnedFd::from_raw_fd(PIPE.load(Relaxed)) };
    let started = thread::Builder::new().name("log".into()).spawn(move || {
        let mut lines = BufReader::new(File::from(pipe));
        let mut line = Vec::new();
        while lines.by_ref().take(MOST_OF_LINE).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            log_line(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    });
    match started {
        Ok(relay) => {
            *RELAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(relay);
            let wait = wait_for_relay as extern "C" fn(c_int);
            // SAFETY: it does only what a handler of signals may.
            unsafe { libc::signal(libc::SIGABRT, wait as libc::sighandler_t) };
        }
        // Without one to read, the pipe would fill.
        Err(_) => restore(before),
    }
}

/// A longer line becomes several.
const MOST_OF_LINE: u64 = 64 << 10;

/// Before an abort, whose reason is on its way: lets it be logged, for a while.
extern "C" fn wait_for_relay(signal: c_int) {
    const LOOKS: u32 = 100;
    let look = Duration::from_millis(10);
    let pause = libc::timespec { tv_sec: 0, tv_nsec: look.subsec_nanos().into() };
    for _ in 0..LOOKS {
        let mut left: c_int = 0;
        // SAFETY: there is room for the number; all of these may be called here.
        unsafe {
            let is_known = libc::ioctl(PIPE.load(Relaxed), libc::FIONREAD, &mut left) == 0;
            // Also after what was read last was taken: it is to be written.
            libc::nanosleep(&pause, std::ptr::null_mut());
            if !is_known || left == 0 {
                break;
            }
        }
    }
    // SAFETY: as above. Then it ends as without a handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Logs a line that was written to stderr.
fn log_line(line: &str) {
    if line.is_empty() {
        return;
    }
    let Some(parts) = parts(line) else {
        return event!(target: "stderr", Level::WARN, "{line}");
    };
    let (place, message) = (parts.place, parts.message);
    match parts.level {
        "I" => event!(target: "tensorflow", Level::INFO, place, "{message}"),
        "W" => event!(target: "tensorflow", Level::WARN, place, "{message}"),
        _ => event!(target: "tensorflow", Level::ERROR, place, "{message}"),
    }
}

/// A line of TensorFlow's log.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    level: &'a str,
    /// File and line.
    place: &'a str,
    message: &'a str,
}

/// Of TensorFlow's own form, "date time: I file:line] message", or of Abseil's, "I0000 00:00:00.0 thread file:line] message".
fn parts(line: &str) -> Option<Parts<'_>> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:\S+ \S+: ([IWEF])|([IWEF])\d{4} \S+ +\d+) (\S+:\d+)\] ?(.*)$")
            .expect("a valid expression")
    });
    let found = FORM.captures(line)?;
    let text = |i| found.get(i).map(|part| part.as_str());
    let level = text(1).or(text(2))?;
    Some(Parts { level, place: text(3)?, message: text(4)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_forms_are_taken_apart() {
        let parts = |line| {
            let Parts { level, place, message } = super::parts(line)?;
            Some((level, place, message))
        };
        assert_eq!(
            parts("2026-11-27 22:52:07.123456: I tensorflow/core/util/port.cc:153] oneDNN: on."),
            Some(("I", "tensorflow/core/util/port.cc:153", "oneDNN: on."))
        );
        assert_eq!(
            parts("E0000 00:00:1732748.123 4242 cuda_dnn.cc:8310] Unable: x] y"),
            Some(("E", "cuda_dnn.cc:8310", "Unable: x] y"))
        );
        for other in ["WARNING: All log messages before absl::InitializeLog()", "x: I y", ""] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}

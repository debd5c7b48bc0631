//! Which session a request goes to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::options::named;

/// A policy as it is asked for.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Policy {
    /// [`Thread`](Self::Thread) where requests run on the calling thread, so that threads write to no memory
    /// of others; else, and on GPUs, [`LeastLoaded`](Self::LeastLoaded).
    #[default]
    Auto,
    /// One session after the other.
    RoundRobin,
    /// A calling thread stays with one session.
    Thread,
    /// The session with the fewest requests in flight; among more than eight sessions, the better
    /// of two random ones.
    LeastLoaded,
    /// The session whose cpuset holds the CPU that the caller runs on; round robin where none does.
    CpuLocal,
    /// The caller's own.
    Custom(Arc<dyn Choose>),
}

/// A policy of the user's own.
pub trait Choose: Send + Sync {
    /// The number of the session to run on, from 0. Called by the thread that runs the request, by
    /// many threads at a time. An error, or a number that is out of range, fails the request. What it
    /// runs on the group itself must name a session.
    fn choose(&self, load: &Load<'_>) -> Result<i32>;
}

/// What the sessions of a group are doing now. All slices have one number for each session.
#[non_exhaustive]
pub struct Load<'a> {
    /// Requests that have been given to the session and have not been answered.
    pub in_flight: &'a [i64],
    /// Those of them that wait for a worker thread.
    pub queued: &'a [i64],
}

/// The names of the policies that have one.
pub(crate) const NAMED: [(&str, Policy); 5] = [
    ("auto", Policy::Auto),
    ("round_robin", Policy::RoundRobin),
    ("thread", Policy::Thread),
    ("least_loaded", Policy::LeastLoaded),
    ("cpu_local", Policy::CpuLocal),
];

impl Policy {
    /// The policy's name, `custom` for one of the user's own.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::RoundRobin => "round_robin",
            Self::Thread => "thread",
            Self::LeastLoaded => "least_loaded",
            Self::CpuLocal => "cpu_local",
            Self::Custom(_) => "custom",
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named::find(&NAMED, "there is no policy", name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_a_wrong_one_lists_them() {
        for (name, _) in NAMED {
            assert_eq!(name.parse::<Policy>().unwrap().name(), name);
        }
        let error = "random".parse::<Policy>().unwrap_err();
        assert!(error.message.contains("\"random\"") && error.message.contains("cpu_local"));
    }
}

//! On which threads a request's graph runs.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::options::named;

/// A way to execute as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Execution {
    /// [`Worker`](Self::Worker) where sessions have CPUs of their own, unless the policy is
    /// `cpu_local`; [`Caller`](Self::Caller) otherwise.
    #[default]
    Auto,
    /// The graph runs on the thread that calls, which spares any hand-off.
    Caller,
    /// A worker thread of the session takes the whole request: one hand-off a request.
    Worker,
    /// The operations are spread over the session's inter-op pool, as TensorFlow does by itself.
    Pool,
}

const NAMED: [(&str, Execution); 4] = [
    ("auto", Execution::Auto),
    ("caller", Execution::Caller),
    ("worker", Execution::Worker),
    ("pool", Execution::Pool),
];

impl FromStr for Execution {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named::find(&NAMED, "there is no execution", name)
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = NAMED[*self as usize];
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_a_wrong_one_lists_them() {
        for (name, execution) in NAMED {
            assert_eq!(name.parse::<Execution>().unwrap(), execution);
            assert_eq!(execution.to_string(), name);
        }
        let error = "inline".parse::<Execution>().unwrap_err();
        assert!(error.message.contains("\"inline\"") && error.message.contains("worker"));
    }
}

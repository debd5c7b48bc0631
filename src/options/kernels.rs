//! Which kernels programs take where TensorFlow has several for an operation.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::options::named;

/// Which kernels programs take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernels {
    /// For each operation and number of rows, the faster one of oneDNN's and TensorFlow's own, as
    /// measured by the first requests. An answer has the bits of stock TensorFlow with oneDNN on or
    /// with it off, operation by operation.
    #[default]
    Auto,
    /// Those that a session of the same process takes, so that answers have its bits.
    Stock,
}

const NAMED: [(&str, Kernels); 2] = [("auto", Kernels::Auto), ("stock", Kernels::Stock)];

impl FromStr for Kernels {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named::find(&NAMED, "there are no kernels", name)
    }
}

impl fmt::Display for Kernels {
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
        for (name, kernels) in NAMED {
            assert_eq!(name.parse::<Kernels>().unwrap(), kernels);
            assert_eq!(kernels.to_string(), name);
        }
        let error = "onednn".parse::<Kernels>().unwrap_err();
        assert!(error.message.contains("\"onednn\"") && error.message.contains("auto, stock"));
    }
}

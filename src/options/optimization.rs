//! What makes requests cheaper than in TensorFlow's own sessions. No optimisation changes an answer;
//! each can be switched off, to find out.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::options::named;

/// An optimisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Optimization {
    /// Requests run as programs: optimised once for all sessions, node by node on one thread,
    /// without TensorFlow's session in between. Graphs that don't allow it run on TensorFlow's own
    /// executor in any case.
    SerialExecutor,
    /// Programs read variables that nobody has written since the last request without looking them
    /// up, locking them, or counting references to what all sessions share. Needs the serial
    /// executor.
    ResolvedReads,
    /// Programs gather the rows of all embeddings in one go and, where these are concatenated, to
    /// where they are needed. Needs the serial executor.
    FusedLookups,
    /// Small tensors live in memory from lists of the calling thread's own (mimalloc's) instead of
    /// the C library's; large ones get what the last request freed, the largest in huge pages where the
    /// system gives them.
    FastMemory,
    /// Large constants of a graph live once in the group, as variables do, instead of in each
    /// session's graphs and kernels.
    SharedConstants,
    /// TensorFlow 1's reference variables (`VariableV2`) that a graph only assigns are kept as resource
    /// variables, which programs can read.
    ResourceVariables,
    /// Checkpoints are read by a thread for each CPU that the process may use, instead of by the one
    /// that runs the restore operation. What these can't read, TensorFlow's own kernel does.
    ParallelRestore,
    /// Variables and constants of 1 MiB and more are spread over the NUMA nodes of the sessions, page by page, instead
    /// of lying where the thread ran that filled them. Needs fast memory.
    InterleavedTables,
}

const NAMED: [(&str, Optimization); 8] = [
    ("serial_executor", Optimization::SerialExecutor),
    ("resolved_reads", Optimization::ResolvedReads),
    ("fused_lookups", Optimization::FusedLookups),
    ("fast_memory", Optimization::FastMemory),
    ("shared_constants", Optimization::SharedConstants),
    ("resource_variables", Optimization::ResourceVariables),
    ("parallel_restore", Optimization::ParallelRestore),
    ("interleaved_tables", Optimization::InterleavedTables),
];

impl FromStr for Optimization {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named::find(&NAMED, "there is no optimisation", name)
    }
}

impl fmt::Display for Optimization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = NAMED[*self as usize];
        f.write_str(name)
    }
}

impl Optimization {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMED.into_iter().map(|(_, optimization)| optimization)
    }
}

/// A set of optimisations; all of them by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Optimizations {
    /// By their numbers.
    disabled: u32,
}

impl Optimizations {
    pub fn set(&mut self, optimization: Optimization, enabled: bool) {
        let bit = 1 << optimization as u32;
        self.disabled = if enabled { self.disabled & !bit } else { self.disabled | bit };
    }

    pub fn has(self, optimization: Optimization) -> bool {
        self.disabled & (1 << optimization as u32) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_a_wrong_one_lists_them() {
        for (name, optimization) in NAMED {
            assert_eq!(name.parse::<Optimization>().unwrap(), optimization);
            assert_eq!(optimization.to_string(), name);
        }
        let error = "fast".parse::<Optimization>().unwrap_err();
        assert!(error.message.contains("\"fast\"") && error.message.contains("resolved_reads"));
    }

    #[test]
    fn each_is_switched_by_itself() {
        let mut set = Optimizations::default();
        assert!(Optimization::all().all(|optimization| set.has(optimization)));
        for off in Optimization::all() {
            set.set(off, false);
            assert!(Optimization::all().all(|other| set.has(other) == (other != off)));
            set.set(off, true);
        }
        assert_eq!(set, Optimizations::default());
    }
}

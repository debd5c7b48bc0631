//! Which CPUs the sessions get, and who says so.

use crate::cpus::cpuset::{CpuSet, Cpusets};
use crate::cpus::placement::assign;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::environment::{AFFINITY_VARIABLE, CPUSET_VARIABLE, Environment, is_on};
use crate::plan::machine::Machine;

/// Where the sessions' CPUs come from.
pub(super) enum CpuSource {
    Option(Cpusets),
    Variable(Cpusets),
    AffinityOption,
    AffinityVariable,
    None,
}

impl CpuSource {
    /// What the program sets wins over what the environment says; a cpuset says more than affinity.
    pub fn choose(options: &Options, environment: &Environment) -> Result<Self> {
        match (&options.cpusets, options.affinity) {
            (Some(_), Some(true)) => {
                return Err(Error::invalid(
                    "both a cpuset and thread pool affinity are set: a cpuset says which CPUs, \
                     affinity finds them by itself; set one of them",
                ));
            }
            (Some(sets), _) => return Ok(Self::Option(sets.clone())),
            (None, Some(true)) => return Ok(Self::AffinityOption),
            (None, _) => {}
        }
        if let Some(text) = &environment.cpuset {
            return text.parse().map(Self::Variable).map_err(|error: Error| {
                Error::new(error.code, format!("{CPUSET_VARIABLE}: {}", error.message))
            });
        }
        let variable = match options.affinity {
            Some(_) => None,
            None => environment.affinity.as_deref(),
        };
        Ok(match is_on(AFFINITY_VARIABLE, variable)? {
            true => Self::AffinityVariable,
            false => Self::None,
        })
    }

    /// How many sessions it is for, where it says so.
    pub fn entries(&self) -> Option<usize> {
        match self {
            Self::Option(sets) | Self::Variable(sets) => Some(sets.entries().len()),
            _ => None,
        }
    }

    pub fn cpusets(&self, session_num: usize, machine: &Machine) -> Result<Option<Vec<CpuSet>>> {
        match self {
            Self::Option(sets) | Self::Variable(sets) => {
                check_cpusets(sets, session_num, &machine.allowed)?;
                Ok(Some(sets.entries().to_vec()))
            }
            Self::AffinityOption | Self::AffinityVariable => {
                let topology = machine.topology.as_ref().map_err(Error::clone)?;
                assign(topology, session_num).map(Some)
            }
            Self::None => Ok(None),
        }
    }

    pub fn why(&self) -> &'static str {
        match self {
            Self::Option(_) => "the cpuset that the program set",
            Self::Variable(_) => "SESSION_GROUP_CPUSET",
            Self::AffinityOption => "thread pool affinity, set by the program",
            Self::AffinityVariable => "SET_SESSION_THREAD_POOL_AFFINITY",
            Self::None => "neither a cpuset nor thread pool affinity is set",
        }
    }
}

fn check_cpusets(sets: &Cpusets, session_num: usize, allowed: &CpuSet) -> Result<()> {
    if sets.entries().len() != session_num {
        return Err(Error::invalid(format!(
            "cpuset \"{sets}\" has {} entries, but the group has {session_num} sessions: give one entry \
             for each session",
            sets.entries().len()
        )));
    }
    for (i, entry) in sets.entries().iter().enumerate() {
        if let Some(cpu) = entry.cpus().iter().find(|&&cpu| !allowed.contains(cpu)) {
            return Err(Error::invalid(format!(
                "cpuset \"{sets}\", entry {i} (\"{entry}\"): this process may not use CPU \
                 {cpu}, only {allowed}"
            )));
        }
    }
    Ok(())
}

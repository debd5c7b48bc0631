//! The sessions of a model, as a program's settings describe them.

use session_group::execution::Execution;
use session_group::kernels::Kernels;
use session_group::policy::Policy;
use session_group::{Options, Result};

use crate::tensorflow::ConfigProto;

/// A session group's settings. What is `None` or empty is left to the group's defaults.
#[derive(Clone, Debug, Default)]
pub struct GroupSettings {
    /// How many sessions.
    pub session_num: Option<usize>,
    /// The CPUs of each session, such as `0-3;4-7`.
    pub cpuset: Option<String>,
    /// Which session a request goes to.
    pub policy: Option<Policy>,
    /// On which threads graphs run.
    pub execution: Option<Execution>,
    /// Which kernels programs use.
    pub kernels: Option<Kernels>,
    /// Whether each session has a stream of its own on its GPU.
    pub multi_stream: bool,
    /// The GPUs of the sessions.
    pub gpu_ids: Vec<usize>,
}

impl GroupSettings {
    /// The settings as a group takes them.
    pub fn options(&self) -> Result<Options> {
        let mut options = Options::new();
        if let Some(session_num) = self.session_num {
            options.session_num(session_num);
        }
        if let Some(cpuset) = &self.cpuset {
            options.cpuset(cpuset)?;
        }
        if let Some(policy) = &self.policy {
            options.policy(policy.clone());
        }
        if let Some(execution) = self.execution {
            options.execution(execution);
        }
        if let Some(kernels) = self.kernels {
            options.kernels(kernels);
        }
        options.multi_stream(self.multi_stream);
        if !self.gpu_ids.is_empty() {
            options.gpu_ids(&self.gpu_ids)?;
        }
        Ok(options)
    }
}

/// Reads numbers of GPUs, as `0,1`; an empty list names none.
pub fn gpu_ids(list: &str) -> std::result::Result<Vec<usize>, std::num::ParseIntError> {
    match list {
        "" => Ok(Vec::new()),
        list => list.split(',').map(|id| id.trim().parse()).collect(),
    }
}

/// The configuration of each session: pools of its own with so many threads, where 0 leaves the number to
/// TensorFlow, and the CPU for operations that a GPU lacks.
pub fn session_config(intra_op_threads: i32, inter_op_threads: i32) -> ConfigProto {
    ConfigProto {
        intra_op_parallelism_threads: intra_op_threads,
        inter_op_parallelism_threads: inter_op_threads,
        use_per_session_threads: true,
        allow_soft_placement: true,
        ..ConfigProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_reach_the_options_and_mistakes_are_named() {
        let of = |settings: GroupSettings| settings.options().map(|options| format!("{options:?}"));
        assert_eq!(of(GroupSettings::default()).unwrap(), format!("{:?}", Options::new()));
        let all = of(GroupSettings {
            session_num: Some(3),
            policy: Some(Policy::Thread),
            execution: Some(Execution::Caller),
            kernels: Some(Kernels::Stock),
            multi_stream: true,
            gpu_ids: vec![1, 2],
            cpuset: Some("0;1;2".to_string()),
        })
        .unwrap();
        for part in ["Some(3)", "thread", "Caller", "Stock", "multi_stream: true", "[1, 2]"] {
            assert!(all.contains(part), "{part} in {all}");
        }
        let wrong = GroupSettings { cpuset: Some("3-1".to_string()), ..GroupSettings::default() };
        assert!(of(wrong).is_err());
    }

    #[test]
    fn gpus_are_numbers_with_commas_between() {
        assert_eq!(gpu_ids(""), Ok(vec![]));
        assert_eq!(gpu_ids("0, 1"), Ok(vec![0, 1]));
        assert!(gpu_ids("0;1").is_err() && gpu_ids("0,").is_err());
    }
}

//! Session targets: how a group is asked for where only a string can be given.
//!
//! ```text
//! session_group                              as many sessions as the cpuset has entries
//! session_group:4                            4 sessions
//! session_group://4?policy=least_loaded&cpuset=0-1;2-3;4-5;6-7
//! ```
//!
//! Keys are the names of [`Options`]' setters, and of optimisations; `KEYS` lists them.

use std::collections::HashSet;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::optimization::Optimization;
use crate::options::queue::QUEUE_CAPACITY;

/// What targets begin with.
const SCHEME: &str = "session_group";

const KEYS: &str = "policy, execution, kernels, cpuset, affinity, worker_threads, queue, wait_when_full, \
                    drain_timeout_ms, multi_stream, gpu_ids";

/// The options that a target asks for.
pub fn parse(target: &str) -> Result<Options> {
    parse_rest(target).map_err(|message| {
        Error::invalid(format!(
            "session target {target:?}: {message}. It is session_group:N or \
             session_group://N?key=value&key=value"
        ))
    })
}

fn parse_rest(target: &str) -> std::result::Result<Options, String> {
    let rest = target.strip_prefix(SCHEME).unwrap_or(target);
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (number, query) = match rest.split_once('?') {
        Some((number, query)) => (number, Some(query)),
        None => (rest, None),
    };
    let mut options = Options::new();
    // As closing TensorFlow's own session.
    options.drain_timeout_ms = Some(0);
    if !number.is_empty() {
        let session_num =
            number.parse().map_err(|_| format!("{number:?} is not a number of sessions"))?;
        options.session_num = Some(session_num);
    }
    let mut seen = HashSet::new();
    let mut queue = (None, false);
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("{pair:?} is not key=value"))?;
        if !seen.insert(key) {
            return Err(format!("{key:?} is given twice"));
        }
        // Messages of the options quote the value; the key may be what is wrong, though.
        let in_pair = |error: Error| format!("{pair:?}: {}", error.message);
        match key {
            "policy" => {
                options.policy(value.parse().map_err(in_pair)?);
            }
            "execution" => {
                options.execution(value.parse().map_err(in_pair)?);
            }
            "kernels" => {
                options.kernels(value.parse().map_err(in_pair)?);
            }
            "cpuset" => {
                options.cpuset(value).map_err(in_pair)?;
            }
            "affinity" => {
                options.affinity(boolean(pair, value)?);
            }
            "worker_threads" => {
                options.worker_threads = Some(integer(pair, value)?);
            }
            "drain_timeout_ms" => {
                options.drain_timeout_ms = Some(integer(pair, value)?);
            }
            "multi_stream" => {
                options.multi_stream(boolean(pair, value)?);
            }
            "gpu_ids" => {
                let ids = value.split(',').map(|id| integer(pair, id));
                let ids = ids.collect::<std::result::Result<Vec<_>, _>>()?;
                options.take_gpu_ids(ids).map_err(in_pair)?;
            }
            "queue" => queue.0 = Some(integer(pair, value)?),
            "wait_when_full" => queue.1 = boolean(pair, value)?,
            _ => {
                let optimization: Optimization = key.parse().map_err(|_| {
                    let names: Vec<_> = Optimization::all().map(|o| o.to_string()).collect();
                    format!("there is no key {key:?}: it is one of {KEYS}, {}", names.join(", "))
                })?;
                options.optimization(optimization, boolean(pair, value)?);
            }
        }
    }
    if queue != (None, false) {
        options.queue = Some((queue.0.unwrap_or(QUEUE_CAPACITY), queue.1));
    }
    Ok(options)
}

fn integer<N: FromStr>(pair: &str, value: &str) -> std::result::Result<N, String> {
    value.parse().map_err(|_| format!("{pair:?}: {value:?} is not a whole number"))
}

fn boolean(pair: &str, value: &str) -> std::result::Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{pair:?}: {value:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::execution::Execution;

    #[test]
    fn a_number_alone() {
        for target in
            ["session_group:4", "session_group://4", "session_group://4?policy=round_robin"]
        {
            assert_eq!(parse(target).unwrap().session_num, Some(4), "{target}");
        }
        for target in ["session_group", "session_group:", "session_group://?policy=thread"] {
            assert_eq!(parse(target).unwrap().session_num, None, "{target}");
        }
    }

    #[test]
    fn every_key() {
        let options = parse(
            "session_group://2?policy=least_loaded&execution=worker&cpuset=0-1;2-3&affinity=false\
             &worker_threads=3&queue=7&wait_when_full=true&fused_lookups=0&fast_memory=1\
             &drain_timeout_ms=5000&multi_stream=true&gpu_ids=1,0",
        )
        .unwrap();
        assert_eq!(options.session_num, Some(2));
        assert_eq!(options.policy.name(), "least_loaded");
        assert_eq!(options.execution, Execution::Worker);
        assert_eq!(options.cpusets, Some("0-1;2-3".parse().unwrap()));
        assert_eq!(options.affinity, Some(false));
        assert_eq!(options.worker_threads, Some(3));
        assert_eq!(options.queue, Some((7, true)));
        assert_eq!(options.drain_timeout_ms, Some(5000));
        assert_eq!(parse("session_group:1").unwrap().drain_timeout_ms, Some(0));
        assert!(options.multi_stream);
        assert_eq!(options.gpu_ids, [1, 0]);
        assert!(!options.optimizations.has(Optimization::FusedLookups));
        assert!(options.optimizations.has(Optimization::FastMemory));
        for name in KEYS.split(", ") {
            let message = parse(&format!("session_group:1?{name}=?")).unwrap_err().message;
            assert!(!message.contains("no key"), "{message}");
        }
    }

    #[test]
    fn mistakes_are_quoted() {
        for (target, quoted) in [
            ("session_group:four", "\"four\""),
            ("session_group:4x", "\"4x\""),
            ("session_group:99999999999", "\"99999999999\""),
            ("session_group://4?policy=best", "\"policy=best\""),
            ("session_group://4?execution=", "\"execution=\""),
            ("session_group://4?cpuset=0;x", "\"x\""),
            ("session_group://4?polcy=thread", "\"polcy\""),
            ("session_group://4?policy", "\"policy\""),
            ("session_group://4?", "\"\""),
            ("session_group://4?queue=many", "\"many\""),
            ("session_group://4?drain_timeout_ms=1s", "\"1s\""),
            ("session_group://4?affinity=yes", "\"yes\""),
            ("session_group://4?gpu_ids=0,,1", "\"\""),
            ("session_group://4?gpu_ids=0,0", "0 twice"),
            ("session_group://4?gpu_ids=-1", "has -1"),
            ("session_group://4?fast_memory=on", "\"on\""),
            ("session_group://4?policy=thread&policy=thread", "twice"),
        ] {
            let message = parse(target).unwrap_err().message;
            assert!(message.contains(quoted) && message.contains(target), "{target}: {message}");
        }
    }
}

//! What no group can be made with.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::tensorflow::session_options::Config;

/// TensorFlow ends the process where the system refuses it a thread, so numbers that are out of any
/// proportion must not get that far.
pub(super) const MAX_POOL_THREADS: i32 = 1024;

/// What of a ConfigProto a group can't have.
pub(super) fn check(config: &Config) -> Result<()> {
    if config.has_target {
        return Err(Error::invalid(
            "SessionOptions.target is set, but a session group runs in this process: leave the \
             target empty",
        ));
    }
    for (name, threads, least, negative) in [
        // TensorFlow ends the process for a negative number.
        ("intra_op_parallelism_threads", config.intra_op_threads, 0, ""),
        (
            "inter_op_parallelism_threads",
            config.inter_op_threads,
            i32::MIN,
            ", or a negative number to run graphs on the calling thread",
        ),
    ] {
        if !(least..=MAX_POOL_THREADS).contains(&threads) {
            return Err(Error::invalid(format!(
                "{name} is {threads}: give the number of threads of each session, up to \
                 {MAX_POOL_THREADS}, or 0 for one for each of its CPUs{negative}"
            )));
        }
    }
    if config.pools.is_some_and(|pools| pools.has_negative) {
        return Err(Error::invalid(
            "session_inter_op_thread_pool has a pool with a negative num_threads: give the number of \
             its threads, or 0 for as many as inter_op_parallelism_threads says",
        ));
    }
    if config.has_named_pool {
        return Err(Error::invalid(
            "session_inter_op_thread_pool has a global_name, but each session of a group has pools \
             of its own: leave the name out",
        ));
    }
    Ok(())
}

/// How long closing lets requests finish.
pub(super) fn drain(ms: i64) -> Result<Duration> {
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| {
        Error::invalid(format!(
            "the drain timeout is {ms} ms: give 0 to cancel requests at once on closing, or more"
        ))
    })
}

pub(super) fn in_range(name: &str, n: i32, most: usize) -> Result<usize> {
    usize::try_from(n)
        .ok()
        .filter(|n| (1..=most).contains(n))
        .ok_or_else(|| Error::invalid(format!("{name} is {n}: it must be 1 to {most}")))
}

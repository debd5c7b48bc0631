//! What a group is and what it has done.

use std::time::Duration;

use tensorflow_sys as tf;

use super::check::{guard, null, reference};
use super::run::empty_buffer;
use crate::error::{Error, Result};
use crate::gpu::Stream;
use crate::memory::memory_stats;
use crate::observe::registry;
use crate::request::stats::{Snapshot, Way};
use crate::tensorflow::Buffer;
use crate::{Code, SessionGroup};

/// What a session has done since it was made. Counters only grow, and wrap at 2^64.
#[repr(C)]
pub struct SessionGroupStats {
    /// The caller sets this to sizeof(SessionGroupStats), because its header may be older or newer than
    /// the library; the library sets it to the number of bytes that it has filled.
    pub struct_size: usize,
    /// Requests answered, successfully or not.
    pub runs: u64,
    /// The same requests by the number of the answer's TF_Code; TF_OK is number 0.
    pub answers: [u64; 17],
    /// Requests refused because the session's queue was full; also counted above.
    pub rejected: u64,
    /// Requests given to the session and not answered yet.
    pub in_flight: u64,
    /// Those requests in flight that wait for one of the session's worker threads.
    pub queued: u64,
    /// Nanoseconds that threads have spent running requests on the session, summed over all threads.
    pub busy_ns: u64,
    /// Nanoseconds from call to answer, including time in a queue: the sum, and quantiles that are
    /// accurate to 1/64 of their value.
    pub latency_sum_ns: u64,
    pub latency_p50_ns: u64,
    pub latency_p90_ns: u64,
    pub latency_p99_ns: u64,
    pub latency_p999_ns: u64,
    pub latency_max_ns: u64,
    /// In a multi-stream group: TensorFlow's numbers of the session's GPU and of its virtual device;
    /// the number of the session's stream on that GPU, from 0; and 1 if the session is the GPU's
    /// leader, on which variables are restored and initialised, else 0. In other groups: -1 for all
    /// four.
    pub gpu: i32,
    pub virtual_device: i32,
    pub stream_group: i32,
    pub leader: i32,
    /// Requests that ran as programs. The eight way_ fields together count each answered request once,
    /// so their sum is `runs`. If several reasons apply, the first one that a request meets counts;
    /// docs/performance.md gives the order.
    pub way_program: u64,
    /// Requests that ran on TensorFlow's session because they have no program; SessionGroup_Explain()
    /// says why. The next five fields also count requests that ran on TensorFlow's session, for other
    /// reasons.
    pub way_no_program: u64,
    /// Because of their RunOptions, such as a trace, or because the ConfigProto wants their RunMetadata
    /// filled.
    pub way_run_options: u64,
    /// Because they have a timeout and an operation that may wait for something.
    pub way_may_wait: u64,
    /// Because too many other sets of names were in use at that moment.
    pub way_no_room: u64,
    /// Because the group runs no programs: its execution is "pool", or "serial_executor" is off.
    pub way_disabled: u64,
    /// Because they came through tensorflow::Session and need what only TensorFlow's own session can
    /// do, such as partial runs or the caller's thread pools.
    pub way_visit: u64,
    /// Requests that did not run: a name was unknown, the queue was full, or the timeout passed before
    /// they began.
    pub way_not_run: u64,
    /// Requests that ran by their names on the session's inter-op pool rather than on one thread.
    pub on_pool: u64,
    /// Requests that ran as programs and had to read a variable in TensorFlow's way, because it had no
    /// value yet or could not be kept.
    pub unresolved: u64,
    /// Requests that ran as programs and gathered rows one table after the other, because an index was
    /// out of range or a shape was not foreseen.
    pub unfused: u64,
}

/// Fills `stats` with what session `session_id` has done. The caller sets struct_size first. Works
/// after SessionGroup_Close(), too. The fields are read one after the other while requests go on, so
/// they may not agree with each other exactly.
///
/// Errors: TF_OUT_OF_RANGE if the group has no such session; TF_INVALID_ARGUMENT if struct_size is
/// smaller than in any version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_GetStats(
    group: *const SessionGroup,
    session_id: i32,
    stats: *mut SessionGroupStats,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let group = reference(group, "group")?;
            fill_struct(stats, FIRST_VERSION, "SessionGroupStats", |size| {
                fill(&session(group, session_id)?, size)
            })
        });
    }
}

/// Fills a struct whose first field is its size. The caller has set it, because the caller's struct may
/// be shorter or longer than ours.
///
/// # Safety
///
/// `stats` must be NULL or point to as many bytes as its first field says, and at least to that field.
unsafe fn fill_struct<T>(
    stats: *mut T,
    first_version: usize,
    name: &str,
    make: impl FnOnce(usize) -> Result<T>,
) -> Result<()> {
    if stats.is_null() {
        return Err(null("stats"));
    }
    // No reference to the caller's struct may exist, because the struct may be shorter than ours.
    // SAFETY: the caller vouches for the first field.
    let size = unsafe { stats.cast::<usize>().read() };
    if size < first_version {
        return Err(Error::invalid(format!(
            "stats->struct_size is {size}: set it to sizeof({name})"
        )));
    }
    let size = size.min(size_of::<T>());
    let filled = make(size)?;
    // SAFETY: both have that many bytes.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const filled).cast::<u8>(), stats.cast(), size);
    }
    Ok(())
}

/// The size of the struct in version 0.1, which is the least that a caller can have.
const FIRST_VERSION: usize = 8 * 29;
const _: () = assert!(size_of::<SessionGroupStats>() == FIRST_VERSION + 4 * 4 + 11 * 8);

fn fill(snapshot: &Snapshot, size: usize) -> Result<SessionGroupStats> {
    let stream = |number: fn(&Stream) -> i32| snapshot.stream.as_ref().map_or(-1, number);
    let latency = |quantile| snapshot.latency_quantile(quantile).map(nanoseconds);
    Ok(SessionGroupStats {
        struct_size: size,
        runs: snapshot.runs(),
        answers: snapshot.answers,
        rejected: snapshot.rejected,
        in_flight: snapshot.in_flight,
        queued: snapshot.queued,
        busy_ns: nanoseconds(snapshot.busy),
        latency_sum_ns: nanoseconds(snapshot.latency),
        latency_p50_ns: latency(0.5)?,
        latency_p90_ns: latency(0.9)?,
        latency_p99_ns: latency(0.99)?,
        latency_p999_ns: latency(0.999)?,
        latency_max_ns: latency(1.0)?,
        gpu: stream(|stream| stream.gpu),
        virtual_device: stream(|stream| stream.virtual_device),
        stream_group: stream(|stream| stream.stream_group),
        leader: stream(|stream| i32::from(stream.leader)),
        way_program: snapshot.ran(Way::Program),
        way_no_program: snapshot.ran(Way::NoProgram),
        way_run_options: snapshot.ran(Way::Options),
        way_may_wait: snapshot.ran(Way::MayWait),
        way_no_room: snapshot.ran(Way::NoRoom),
        way_disabled: snapshot.ran(Way::Disabled),
        way_visit: snapshot.ran(Way::Visit),
        way_not_run: snapshot.ran(Way::NotRun),
        on_pool: snapshot.on_pool,
        unresolved: snapshot.unresolved,
        unfused: snapshot.unfused,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The memory of tensors of 1 MiB and more, of all groups together. When a request frees it, the
/// process keeps it for the next request.
#[repr(C)]
pub struct SessionGroupMemoryStats {
    /// The caller sets this to sizeof(SessionGroupMemoryStats), because its header may be older or
    /// newer than the library; the library sets it to the number of bytes that it has filled.
    pub struct_size: usize,
    /// Bytes in use by such tensors, including variables and constants.
    pub in_use_bytes: u64,
    /// Bytes that are free and kept for the next request.
    pub kept_bytes: u64,
    /// The limit on kept_bytes: SESSION_GROUP_KEPT_BYTES or its default; 0 while no group is open.
    pub kept_limit_bytes: u64,
    /// Tensors that got kept memory. This counter and the next one only grow.
    pub hits: u64,
    /// Tensors that got memory from the system, which costs a page fault for each page.
    pub misses: u64,
}

/// The size of the struct in version 0.1.
const FIRST_MEMORY_VERSION: usize = 8 * 6;
const _: () = assert!(size_of::<SessionGroupMemoryStats>() == FIRST_MEMORY_VERSION);

/// Fills `stats`. The caller sets struct_size first.
///
/// Errors: TF_INVALID_ARGUMENT if struct_size is smaller than in any version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_GetMemoryStats(
    stats: *mut SessionGroupMemoryStats,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            fill_struct(stats, FIRST_MEMORY_VERSION, "SessionGroupMemoryStats", |size| {
                let now = memory_stats();
                Ok(SessionGroupMemoryStats {
                    struct_size: size,
                    in_use_bytes: now.in_use_bytes,
                    kept_bytes: now.kept_bytes,
                    kept_limit_bytes: now.kept_limit_bytes,
                    hits: now.hits,
                    misses: now.misses,
                })
            })
        });
    }
}

/// Returns the latency, in nanoseconds, that a share `quantile` (0 to 1) of a session's requests did
/// not exceed, accurate to 1/64 of its value; 0 before the first answer, and on failure.
///
/// Errors: TF_OUT_OF_RANGE if the group has no such session; TF_INVALID_ARGUMENT for a quantile outside
/// 0 to 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_LatencyQuantile(
    group: *const SessionGroup,
    session_id: i32,
    quantile: f64,
    status: *mut tf::TF_Status,
) -> u64 {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, 0, || {
            let snapshot = session(reference(group, "group")?, session_id)?;
            snapshot.latency_quantile(quantile).map(nanoseconds)
        })
    }
}

fn session(group: &SessionGroup, session_id: i32) -> Result<Snapshot> {
    let stats = usize::try_from(session_id).ok().and_then(|session| group.stats(session));
    stats.ok_or_else(|| {
        let n = group.session_num();
        let message = format!("there is no session {session_id}: the group has {n}, from 0");
        Error::new(Code::OutOfRange, message)
    })
}

/// Fills `text`, which must be empty, with metrics in Prometheus' text exposition format 0.0.4. The
/// text is not zero-terminated. Works after SessionGroup_Close(), too.
///
/// For each session, with the labels "group" (the group's number in this process) and "session":
///
/// - session_group_requests_total, by "code";
/// - session_group_requests_by_way_total, by "way": "program", "no_program" and so on, as in
///   SessionGroupStats;
/// - session_group_rejected_total, _on_pool_total, _unresolved_total, _unfused_total, _in_flight,
///   _queued and _busy_seconds_total;
/// - session_group_request_duration_seconds, a histogram;
/// - in a multi-stream group, session_group_stream_info, which is 1, with the further labels "gpu",
///   "virtual_device", "stream_group" and "leader".
///
/// For the process, as in SessionGroup_GetMemoryStats(): session_group_large_tensors_in_use_bytes,
/// _kept_bytes, _kept_limit_bytes, _hits_total and _misses_total; and _moved_total, the tensors that
/// got kept memory which another CPU had last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_MetricsText(
    group: *const SessionGroup,
    text: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let group = reference(group, "group")?;
            fill_buffer(text, "text", || group.metrics_text())
        });
    }
}

/// Fills `json`, which must be empty, with a JSON object that describes the group and gives the
/// reasons:
///
/// - "group": its number in this process, as in the names of its threads;
/// - "tensorflow": the version that the library was built for;
/// - "closed": true or false;
/// - "execution": "caller", "worker" or "pool", which is also what "auto" resolved to;
/// - "kernels": "auto" or "stock", as for SessionGroupOptions_SetKernels();
/// - "policy": its name, which is also what "auto" resolved to; "custom" for a function of the program's
///   own;
/// - "allowed_cpus": the CPUs that the process might use when the group was made, such as "0-7";
/// - "cpu_quota": how many CPUs' time the control groups of the process allow it, such as 2.5, or null if
///   they have no quota;
/// - "table_nodes": the numbers of the NUMA nodes over which tables are spread, as "interleaved_tables" of
///   SessionGroupOptions_SetOptimization() does; none if it is off;
/// - "optimizations": an array of the names of those that are on, as for
///   SessionGroupOptions_SetOptimization();
/// - "queue": an object with "capacity" and "wait_when_full";
/// - "kept_bytes": the most memory of large tensors, in bytes, that the process keeps for the next
///   request;
/// - "drain_timeout_ms": how long closing lets requests finish;
/// - "why": an object with the reasons, in words, for "cpus", "threads", "execution", "policy" and
///   "tables", that is, for "table_nodes";
/// - "multi_stream": null, or an object with "gpu_ids", an array, and "mps": null, or an object with
///   "contexts_per_gpu", which is 1, and "contexts_asked_for", CONTEXTS_COUNT_PER_GPU or null;
/// - "sessions": an array of objects with "session", its number; "cpus", such as "0-3", or null if it
///   is not pinned; "numa_nodes", the numbers of their nodes; "intra_op_threads"; "inter_op_threads";
///   "worker_threads"; and, in a multi-stream group, "gpu", "virtual_device" and "stream_group", as in
///   SessionGroupStats, and "leader", true or false.
///
/// The text is not zero-terminated. Newer versions may add fields. Works after SessionGroup_Close(),
/// too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_Describe(
    group: *const SessionGroup,
    json: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let group = reference(group, "group")?;
            fill_buffer(json, "json", || group.describe())
        });
    }
}

/// Fills `json`, which must be empty, with a JSON object that says what the group has prepared for
/// requests, how it runs them, and why:
///
/// - "group", "closed": as for SessionGroup_Describe();
/// - "programs": whether the group runs programs; "why_not": null, or why it runs none, in words;
/// - "signatures": an array of objects, one for each set of feeds, fetches and targets that a request
///   or a callable has used and that the group still remembers. It remembers the last several hundred.
///   Empty after SessionGroup_Close(). In each object:
///   - "feeds", "fetches", "targets": arrays of names, sorted;
///   - "runs_as": "program", or "names" if TensorFlow's session runs it by its names;
///   - "why": null, or why it does not run as a program, in words, with the name of the node that
///     prevents it; "advice": null, or what to change in the model, in words;
///   - "writes": whether a run may change a variable or a table;
///   - "compile_ms": how many milliseconds its preparation took;
///   - for a program that a session has made ready, otherwise null: "steps", how many steps a run has,
///     with the bodies of loops counted once; "loops", how many there are; "may_wait", whether an
///     operation may wait for something, which makes requests with a timeout run by their names;
///     "resolved_variables" and "resolved_tables", how many variables and lookup tables are read
///     without TensorFlow's locks; "fused_lookups", how many lookups are done together;
///     "constant_bytes", the bytes of constants that all sessions share;
///   - "kernels": an array of objects, one for each operation that has both a oneDNN kernel and one of
///     TensorFlow's own, and each size that was measured: "node", the operation's name (if TensorFlow
///     has fused several, the last one's); "rows", the least number of rows that the choice holds for,
///     up to twice as many less one; "onednn", whether oneDNN's kernel is used. Empty with the kernels
///     "stock";
/// - "requests": an object with "runs", "on_pool", "unresolved" and "unfused", as in SessionGroupStats,
///   summed over all sessions, and "ways": an object with "program", "no_program" and so on;
/// - "sessions": an array of such objects, each also with "session", its number.
///
/// The text is not zero-terminated. Newer versions may add fields.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_Explain(
    group: *const SessionGroup,
    json: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let group = reference(group, "group")?;
            fill_buffer(json, "json", || group.explain())
        });
    }
}

/// Fills `text` as SessionGroup_MetricsText() does, for all groups of the process that are not closed,
/// including those that a session target has made, for which the program has no handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_AllMetricsText(
    text: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || fill_buffer(text, "text", registry::metrics_text_of_all));
    }
}

/// Fills `json` with a JSON array of what SessionGroup_Describe() gives, for all groups of the process
/// that are not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_DescribeAll(
    json: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || fill_buffer(json, "json", registry::describe_all));
    }
}

/// Fills `json` with a JSON array of what SessionGroup_Explain() gives, for all groups of the process
/// that are not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_ExplainAll(
    json: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || fill_buffer(json, "json", registry::explain_all));
    }
}

/// # Safety
///
/// As for [`empty_buffer`].
unsafe fn fill_buffer(
    buffer: *mut tf::TF_Buffer,
    name: &str,
    text: impl FnOnce() -> String,
) -> Result<()> {
    // SAFETY: the caller vouches for it.
    let buffer = unsafe { empty_buffer(buffer, name) }?.ok_or_else(|| null(name))?;
    Buffer::from_bytes(text().as_bytes()).swap(buffer);
    Ok(())
}

//! `SessionGroupOptions`: how to make a group.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use tensorflow_sys as tf;

use super::check::{array, guard, guard_infallible, mutable, null, string};
use crate::Options;
use crate::error::Result;
use crate::options::policy::{Choose, Load, Policy};
use crate::tensorflow::policy_function::{self, PolicyFunction};

/// What the sessions of a group are doing at the moment when a custom policy is called. Valid during
/// that call only.
#[repr(C)]
pub struct SessionGroupLoad {
    /// The size of this struct in the library. Newer versions add fields at the end.
    pub struct_size: usize,
    /// The number of sessions in the group, and of elements in each array below.
    pub session_num: i32,
    /// For each session: requests given to it and not answered yet.
    pub in_flight: *const i64,
    /// For each session: the requests in flight that wait for one of its worker threads.
    pub queued: *const i64,
}

/// A custom policy: returns the number of the session that runs the request, from 0. If it returns any
/// other number, the request fails with TF_INVALID_ARGUMENT; if it throws a C++ exception, with
/// TF_INTERNAL and what(). The threads that run requests call it, many at the same time. It must not
/// close or delete the group. Requests that it makes to the group itself must name a session, with
/// SessionGroup_RunOn(); otherwise they fail with TF_FAILED_PRECONDITION.
pub type SessionGroupPolicyFn =
    Option<unsafe extern "C" fn(context: *mut c_void, load: *const SessionGroupLoad) -> i32>;

/// Makes options with nothing set. The caller deletes them with SessionGroupOptions_Delete(). They may
/// be used for many groups; each group keeps a copy. Don't call setters from two threads at the same
/// time, nor while a group is being made with the options.
#[unsafe(no_mangle)]
pub extern "C" fn NewSessionGroupOptions() -> *mut Options {
    guard_infallible(std::ptr::null_mut(), || Box::into_raw(Box::new(Options::new())))
}

/// Sets how many sessions the group has, 1 to 1024; checked when a group is made. Default: the number
/// of entries in the cpuset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetSessionNum(
    options: *mut Options,
    session_num: i32,
) {
    guard_infallible((), || {
        // SAFETY: the caller follows the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.session_num = Some(session_num);
        }
    });
}

/// Pins all threads of each session to CPUs. A cpuset has one entry for each session, separated by ';'.
/// An entry is a list of items separated by ','; an item is a CPU "N" or a range "A-B". "2-4;5-7" gives
/// three CPUs to each of two sessions. Overrides the environment variable SESSION_GROUP_CPUSET, which
/// takes the same form. Whether the process may use the CPUs is checked when a group is made.
///
/// Errors: TF_INVALID_ARGUMENT for a cpuset that does not follow the grammar; the message names the
/// entry and what is wrong with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetCpuset(
    options: *mut Options,
    cpuset: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.cpuset(string(cpuset, "cpuset")?)?;
            Ok(())
        });
    }
}

/// Gives each session cores of its own, chosen automatically: whole physical cores, from the CPUs that
/// the process may use; as many sessions as possible within a single NUMA node each; core counts that
/// differ by at most one; every core used. True has the effect of SET_SESSION_THREAD_POOL_AFFINITY=1 in
/// the environment; false makes the library ignore that variable. A cpuset chooses the CPUs explicitly
/// instead: making a group with both set is an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetThreadPoolAffinity(
    options: *mut Options,
    affinity: bool,
) {
    guard_infallible((), || {
        // SAFETY: the caller follows the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.affinity(affinity);
        }
    });
}

/// Chooses by name which session a request goes to:
///
/// - "auto" (default): "thread" if the execution is "caller", so that threads write to no memory of
///   others; otherwise, and in a multi-stream group, "least_loaded";
/// - "round_robin": one session after the other;
/// - "thread": a calling thread stays with one session;
/// - "least_loaded": the session with the fewest requests in flight; with more than eight sessions, the
///   better of two random ones;
/// - "cpu_local": the session whose cpuset holds the CPU that the caller runs on, or the next one in
///   turn if none does. Each session needs CPUs of its own, from a cpuset or from thread pool affinity.
///
/// Errors: TF_INVALID_ARGUMENT for any other name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetPolicy(
    options: *mut Options,
    name: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.policy(string(name, "name")?.parse()?);
            Ok(())
        });
    }
}

/// Lets a function of the program choose the session for each request; NULL goes back to "auto".
/// `context` is passed to it and stays the program's. It must stay valid until `release(context)` is
/// called: once, when neither these options nor a group made with them needs it any more. `release` may
/// be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetPolicyFn(
    options: *mut Options,
    choose: SessionGroupPolicyFn,
    context: *mut c_void,
    release: Option<unsafe extern "C" fn(context: *mut c_void)>,
) {
    guard_infallible((), || {
        let custom = CustomPolicy { choose, context, release };
        // SAFETY: the caller follows the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.policy(match choose {
                Some(_) => Policy::Custom(Arc::new(custom)),
                None => Policy::Auto,
            });
        }
    });
}

/// Chooses by name which threads run a request's graph:
///
/// - "caller": the calling thread, without any hand-off;
/// - "worker": one of the session's worker threads, which takes the whole request from the session's
///   queue;
/// - "pool": the session's inter-op thread pool, over which the graph is spread, as TensorFlow does by
///   itself;
/// - "auto" (default): "worker" if sessions have CPUs of their own and the policy is not "cpu_local";
///   otherwise "caller".
///
/// With "caller" and "worker", a request whose RunOptions choose another inter_op_thread_pool than 0
/// runs on that pool, and a request with a timeout runs on the inter-op pool if its graph has
/// operations that may wait, or if it is left to TensorFlow's session; see
/// SessionGroupOptions_SetOptimization().
///
/// Errors: TF_INVALID_ARGUMENT for any other name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetExecution(
    options: *mut Options,
    name: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.execution(string(name, "name")?.parse()?);
            Ok(())
        });
    }
}

/// Chooses by name which kernels programs use if TensorFlow has several for an operation:
///
/// - "auto" (default): the faster of oneDNN's kernel and TensorFlow's own, for each operation and
///   number of rows (the product of all dimensions of the first input except the last). The first
///   request of each size runs both kernels several times to measure them; where they take
///   milliseconds, the first few requests share this work. So warm up with each batch size that you
///   serve. The choice is final and holds for all sessions. Operation by operation, each answer has the
///   same bits as stock TensorFlow with oneDNN on or with oneDNN off.
/// - "stock": the kernels that a session in the same process uses, so that answers have the same bits.
///
/// Without oneDNN (TF_ENABLE_ONEDNN_OPTS=0) the two are the same.
///
/// Errors: TF_INVALID_ARGUMENT for any other name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetKernels(
    options: *mut Options,
    name: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.kernels(string(name, "name")?.parse()?);
            Ok(())
        });
    }
}

/// Switches an optimisation on or off, by name. All are on by default. None changes an answer, except
/// as noted for "shared_constants".
///
/// - "serial_executor": with the executions "caller" and "worker", each graph is optimised once for all
///   sessions and runs as a program: node by node on one thread, without TensorFlow's session in
///   between. Graphs with state in their kernels, and requests whose RunOptions
///   set more than a timeout, always run on TensorFlow's session; SessionGroup_Explain() says which and
///   why;
/// - "resolved_reads": requests read variables without looking them up, locking them, or counting
///   references to what all sessions share, until a request writes any variable or table;
/// - "fused_lookups": the rows of all embeddings of a graph are gathered in one pass; if they are
///   concatenated, straight into the result. A lookup in a partitioned embedding is one operation instead
///   of several for each partition;
/// - "fast_memory": small tensors get memory from lists that each thread has to itself; very large ones
///   get huge pages if the system provides them;
/// - "shared_constants": constants of 64 KiB and more are stored once in the group, as variables are.
///   If TensorFlow's session runs a request by its names, it can't fold them into other constants, so
///   results may be rounded differently;
/// - "resource_variables": TensorFlow 1's reference variables (VariableV2) that a graph only assigns are kept
///   as resource variables, which programs can read, under all their old names. Those that it updates in
///   another way, as optimisers do, stay as they are;
/// - "parallel_restore": one thread for each CPU that the process may use reads checkpoints, straight
///   into the memory of the variables. Damaged files, and anything else that these threads can't read,
///   are left to TensorFlow's own kernel;
/// - "interleaved_tables": variables that are loaded, and constants, of 1 MiB and more lie page by page on all NUMA
///   nodes of the sessions' CPUs in turn, instead of where the thread ran that filled them. Needs "fast_memory".
///
/// Errors: TF_INVALID_ARGUMENT for any other name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetOptimization(
    options: *mut Options,
    name: *const c_char,
    enabled: bool,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let optimization = string(name, "name")?.parse()?;
            mutable(options, "options")?.optimization(optimization, enabled);
            Ok(())
        });
    }
}

/// For the execution "worker": sets how many worker threads each session has, 1 to 1024; checked when a
/// group is made. Default: one for each CPU of the session, or for each CPU in its share if it has none
/// of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetWorkerThreads(
    options: *mut Options,
    worker_threads: i32,
) {
    guard_infallible((), || {
        // SAFETY: the caller follows the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.worker_threads = Some(worker_threads);
        }
    });
}

/// For the execution "worker": sets how many requests may wait for a session's worker threads (1 to
/// 65536, checked when a group is made; default: 1024), and what happens to a request that finds the
/// queue full. If `wait_when_full` is true, it waits for room, at most for its timeout. If false, the
/// default, it fails at once with TF_RESOURCE_EXHAUSTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetQueue(
    options: *mut Options,
    capacity: i32,
    wait_when_full: bool,
) {
    guard_infallible((), || {
        // SAFETY: the caller follows the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.queue = Some((capacity, wait_when_full));
        }
    });
}

/// Sets how long, in milliseconds, SessionGroup_Close() lets running requests finish before it cancels
/// them: 0 or more, where 0 cancels at once; checked when a group is made. Default: 30000, but 0 for a
/// group made by a session target, because closing TensorFlow's own session cancels at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetDrainTimeout(
    options: *mut Options,
    milliseconds: i64,
) {
    guard_infallible((), || {
        // SAFETY: the caller follows the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.drain_timeout_ms = Some(milliseconds);
        }
    });
}

/// Gives each session a compute stream of its own on a GPU, in addition to a CPU; default: false. All
/// sessions on a GPU share one copy of its variables. Each session sees one GPU, as "GPU:0".
///
/// SessionGroupOptions_SetSessionNum() then sets the number of sessions on each GPU, 1 or more, and the
/// group has that many times the number of GPUs. Sessions are assigned to the GPUs in turn: with two
/// GPUs, sessions 0, 2 and 4 are on the first one. The first session on each GPU is its leader.
///
/// LoadSessionGroupFromSavedModel() restores and initialises on each leader. A request that may write
/// variables of a GPU runs on all leaders, one after the other, or on the session that it names. No
/// other request of the group runs meanwhile.
///
/// TensorFlow fixes the number of streams of its GPUs when it first creates them: groups made later in
/// the process use the same streams. With ENABLE_MPS=1 in the environment, making a group fails if
/// CUDA's MPS control daemon can't be reached, and CONTEXTS_COUNT_PER_GPU (default: 4) is the number of
/// sessions on each GPU if neither SessionGroupOptions_SetSessionNum() nor a cpuset sets it.
///
/// Errors, when a group is made: TF_FAILED_PRECONDITION if TensorFlow has no GPU support or finds no
/// GPU, if the process's GPUs were set up for fewer streams, or if there is no MPS daemon;
/// TF_INVALID_ARGUMENT if the ConfigProto's gpu_options or the environment contradict these options;
/// and TensorFlow's own errors if it can't make that many virtual devices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetMultiStream(
    options: *mut Options,
    multi_stream: bool,
) {
    guard_infallible((), || {
        // SAFETY: the caller follows the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.multi_stream(multi_stream);
        }
    });
}

/// For SessionGroupOptions_SetMultiStream(): chooses the GPUs, by TensorFlow's numbers. These count,
/// from 0, the GPUs that CUDA_VISIBLE_DEVICES and gpu_options.visible_device_list leave visible.
/// Default, and with an empty list: all of them. Whether the GPUs exist is checked when a group is
/// made.
///
/// Errors: TF_INVALID_ARGUMENT for a negative number, or a number that occurs twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetGpuIds(
    options: *mut Options,
    gpu_ids: *const i32,
    ngpu_ids: i32,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?
                .take_gpu_ids(array(gpu_ids, ngpu_ids, "gpu_ids")?.to_vec())?;
            Ok(())
        });
    }
}

/// Deletes the options; NULL is allowed. Groups made with them are not affected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_Delete(options: *mut Options) {
    guard_infallible((), || {
        if let Some(options) = NonNull::new(options) {
            // SAFETY: made by Box::into_raw in NewSessionGroupOptions, and given back once.
            drop(unsafe { Box::from_raw(options.as_ptr()) });
        }
    });
}

/// A C function with its context.
struct CustomPolicy {
    choose: SessionGroupPolicyFn,
    context: *mut c_void,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the caller that sets the policy vouches that its functions may be called from any thread.
unsafe impl Send for CustomPolicy {}
// SAFETY: as above.
unsafe impl Sync for CustomPolicy {}

impl Choose for CustomPolicy {
    fn choose(&self, load: &Load<'_>) -> Result<i32> {
        let c_load = SessionGroupLoad {
            struct_size: size_of::<SessionGroupLoad>(),
            session_num: load.in_flight.len() as i32,
            in_flight: load.in_flight.as_ptr(),
            queued: load.queued.as_ptr(),
        };
        // SAFETY: the caller that set the policy vouches for the function; the load outlives the call.
        unsafe {
            // A pointer to an ABI struct is passed like any other pointer.
            let choose =
                std::mem::transmute::<SessionGroupPolicyFn, Option<PolicyFunction>>(self.choose);
            let choose = choose.ok_or_else(|| null("the policy function"))?;
            policy_function::choose(choose, self.context, (&raw const c_load).cast())
        }
    }
}

impl Drop for CustomPolicy {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: as above; this runs once, after the last use.
            unsafe { release(self.context) };
        }
    }
}

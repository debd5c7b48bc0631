//! `SessionGroupOptions`: what a group shall be.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use tensorflow_sys as tf;

use super::check::{array, guard, guard_infallible, mutable, null, string};
use crate::Options;
use crate::error::Result;
use crate::options::policy::{Choose, Load, Policy};
use crate::tensorflow::policy_function::{self, PolicyFunction};

/// What the sessions of a group are doing when a policy of the program's own is asked. Valid during
/// that call only.
#[repr(C)]
pub struct SessionGroupLoad {
    /// The size of this struct in the library. Newer versions add fields at the end.
    pub struct_size: usize,
    /// How many sessions the group has, and each of the arrays below has elements.
    pub session_num: i32,
    /// Requests given to each session and not answered yet.
    pub in_flight: *const i64,
    /// Those of them that wait for one of the session's worker threads.
    pub queued: *const i64,
}

/// A policy of the program's own: returns the number of the session that is to run the request,
/// from 0. Any other number fails the request with TF_INVALID_ARGUMENT, an exception of C++ with
/// TF_INTERNAL and what(). It is called by the threads that run requests, by many at a time. It must not
/// close or delete the group; requests of its own to the group must name a session, with
/// SessionGroup_RunOn(), or fail with TF_FAILED_PRECONDITION.
pub type SessionGroupPolicyFn =
    Option<unsafe extern "C" fn(context: *mut c_void, load: *const SessionGroupLoad) -> i32>;

/// Makes options with nothing set. The caller deletes them with SessionGroupOptions_Delete(). They
/// may be used for many groups; a group keeps a copy. Setters must not be called by two threads at a
/// time, nor while a group is made.
#[unsafe(no_mangle)]
pub extern "C" fn NewSessionGroupOptions() -> *mut Options {
    guard_infallible(std::ptr::null_mut(), || Box::into_raw(Box::new(Options::new())))
}

/// How many sessions the group shall have, 1 to 1024; checked when a group is made. Default: as many
/// as there are entries in the cpuset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetSessionNum(
    options: *mut Options,
    session_num: i32,
) {
    guard_infallible((), || {
        // SAFETY: the caller keeps the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.set_session_num(session_num);
        }
    });
}

/// Pins all threads of each session to CPUs: entries separated by ';', one for each session; items
/// by ','; an item is a CPU "N" or a range "A-B". "2-4;5-7" gives three CPUs to each of two sessions.
/// Wins over the environment variable SESSION_GROUP_CPUSET, which takes the same form. Whether the
/// process may use the CPUs is checked when a group is made.
///
/// Errors: TF_INVALID_ARGUMENT for a cpuset that does not follow the grammar; the message names the
/// entry and what is wrong with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetCpuset(
    options: *mut Options,
    cpuset: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.set_cpuset(string(cpuset, "cpuset")?)?;
            Ok(())
        });
    }
}

/// Gives each session cores of its own, found by themselves: whole physical cores, among the CPUs
/// that the process may use; as many sessions as possible on one NUMA node each; numbers of cores
/// that differ by at most one; every core used. True does what SET_SESSION_THREAD_POOL_AFFINITY=1 does
/// in the environment; false makes that variable ignored. A cpuset says which CPUs instead: setting
/// both is an error when a group is made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetThreadPoolAffinity(
    options: *mut Options,
    affinity: bool,
) {
    guard_infallible((), || {
        // SAFETY: the caller keeps the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.set_affinity(affinity);
        }
    });
}

/// Chooses by name which session a request goes to:
///
/// - "round_robin" (default): one after the other;
/// - "thread": a calling thread stays with one session;
/// - "least_loaded": the session with the fewest requests in flight, among more than eight sessions
///   the better of two random ones;
/// - "cpu_local": the session whose cpuset holds the CPU that the caller runs on, or the next in
///   turn where none does. Needs CPUs for each session, by a cpuset or by thread pool affinity.
///
/// Errors: TF_INVALID_ARGUMENT for another name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetPolicy(
    options: *mut Options,
    name: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.set_policy(string(name, "name")?.parse()?);
            Ok(())
        });
    }
}

/// Makes a function of the program's own choose the session for each request; NULL goes back to
/// "round_robin". `context` is passed to it and stays the program's until `release(context)` is
/// called: once, when neither these options nor a group made with them needs it any more. `release`
/// may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetPolicyFn(
    options: *mut Options,
    choose: SessionGroupPolicyFn,
    context: *mut c_void,
    release: Option<unsafe extern "C" fn(context: *mut c_void)>,
) {
    guard_infallible((), || {
        let custom = CustomPolicy { choose, context, release };
        // SAFETY: the caller keeps the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.set_policy(match choose {
                Some(_) => Policy::Custom(Arc::new(custom)),
                None => Policy::RoundRobin,
            });
        }
    });
}

/// Chooses by name on which threads a request's graph runs:
///
/// - "caller": on the calling thread, without any hand-off;
/// - "worker": on a thread of the session that takes the whole request from the session's queue;
/// - "pool": spread over the session's inter-op pool, as TensorFlow does by itself;
/// - "auto" (default): "worker" where sessions have CPUs of their own, unless the policy is
///   "cpu_local"; "caller" otherwise.
///
/// With "caller" and "worker", RunOptions that name another inter_op_thread_pool than 0 run on that,
/// and a request with a timeout runs on the inter-op pool where its graph has operations that may
/// wait, or is left to TensorFlow's session; see SessionGroupOptions_SetOptimization().
///
/// Errors: TF_INVALID_ARGUMENT for another name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetExecution(
    options: *mut Options,
    name: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.set_execution(string(name, "name")?.parse()?);
            Ok(())
        });
    }
}

/// Which kernels programs take where TensorFlow has several for an operation, by name:
///
/// - "auto", the default: for each operation and number of rows (all dimensions of the first input but
///   the last, multiplied), the faster one of oneDNN's kernel and TensorFlow's own. The first request
///   of each size runs both, some times, to find out, or the first ones where they take milliseconds:
///   warm up with each batch size that you serve. What is decided stays, for all sessions. Each answer
///   has the bits of stock TensorFlow with oneDNN on or with it off, operation by operation.
/// - "stock": those that a session of the same process takes, so that answers have its bits.
///
/// Without oneDNN (TF_ENABLE_ONEDNN_OPTS=0) both are the same.
///
/// Errors: TF_INVALID_ARGUMENT for another name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetKernels(
    options: *mut Options,
    name: *const c_char,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.set_kernels(string(name, "name")?.parse()?);
            Ok(())
        });
    }
}

/// Switches an optimisation on or off, by name. All are on by default; none changes an answer, but as
/// said below.
///
/// - "serial_executor": with the executions "caller" and "worker", graphs are optimised once for all
///   sessions, and run node by node on one thread without TensorFlow's session in between. Graphs
///   with ref variables or state in their kernels, and requests with other RunOptions than a timeout,
///   are left to TensorFlow's session in any case: SessionGroup_Explain() says which and why;
/// - "resolved_reads": variables are read without looking them up, locking them, or counting
///   references to what all sessions share, until a request writes any variable or table;
/// - "fused_lookups": the rows of all embeddings of a graph are gathered in one go and, where these
///   are concatenated, to where they are needed;
/// - "fast_memory": small tensors live in memory from lists that each thread has to itself,
///   very large ones in huge pages where the system gives them;
/// - "shared_constants": constants of 64 KiB and more live once in the group, as variables do. Where
///   TensorFlow's session runs a request by its names, they can't be folded into others, so that
///   results may be rounded in another way;
/// - "parallel_restore": a thread for each CPU that the process may use reads checkpoints, straight
///   into the memory of the variables. What these threads can't read, and what is damaged, is left to
///   TensorFlow's own kernel.
///
/// Errors: TF_INVALID_ARGUMENT for another name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetOptimization(
    options: *mut Options,
    name: *const c_char,
    enabled: bool,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let optimization = string(name, "name")?.parse()?;
            mutable(options, "options")?.set_optimization(optimization, enabled);
            Ok(())
        });
    }
}

/// For the execution "worker": how many worker threads each session has (1 or more; default: as many
/// as it has CPUs).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetWorkerThreads(
    options: *mut Options,
    worker_threads: i32,
) {
    guard_infallible((), || {
        // SAFETY: the caller keeps the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.set_worker_threads(worker_threads);
        }
    });
}

/// For the execution "worker": how many requests may wait for a session's worker threads (1 or more;
/// default: 1024), and whether one more waits for room, at most for its timeout (true), or fails at
/// once with TF_RESOURCE_EXHAUSTED (false, the default).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetQueue(
    options: *mut Options,
    capacity: i32,
    wait_when_full: bool,
) {
    guard_infallible((), || {
        // SAFETY: the caller keeps the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.set_queue(capacity, wait_when_full);
        }
    });
}

/// How long SessionGroup_Close() lets requests that are running finish, in milliseconds, before it
/// cancels them: 0 or more, 0 cancels at once; checked when a group is made. Default: 30000, and 0 for a
/// group that a session target makes, as closing TensorFlow's own session cancels at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetDrainTimeout(
    options: *mut Options,
    milliseconds: i64,
) {
    guard_infallible((), || {
        // SAFETY: the caller keeps the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.set_drain_timeout_ms(milliseconds);
        }
    });
}

/// Gives each session a compute stream of its own on a GPU, beside a CPU; default: false. All sessions
/// on a GPU share one copy of its variables. Each sees one GPU, as "GPU:0".
///
/// SessionGroupOptions_SetSessionNum() is then the number of sessions on each GPU, from 1. The group has
/// that many times the number of GPUs, which take turns: with two, sessions 0, 2 and 4 are on the first
/// one. The first session on each GPU is its leader.
///
/// LoadSessionGroupFromSavedModel() restores and initialises on each leader. A request that may write
/// variables of a GPU runs on all leaders, one after the other, or on the session that it names. No
/// other request of the group runs meanwhile.
///
/// TensorFlow fixes how many streams its GPUs have when it first makes them: groups that come later in
/// the process use the same ones. With ENABLE_MPS=1 in the environment, it is an error that CUDA's MPS
/// control daemon can't be reached, and CONTEXTS_COUNT_PER_GPU (4, unless it is set) is the number of
/// sessions where nothing else says it.
///
/// Errors, when a group is made: TF_FAILED_PRECONDITION where TensorFlow has no GPU support or finds no
/// GPU, where the process' GPUs were laid out for fewer streams, or where there is no MPS daemon;
/// TF_INVALID_ARGUMENT where the ConfigProto's gpu_options contradict it, or the environment does; and
/// what TensorFlow says where it can't make as many virtual devices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetMultiStream(
    options: *mut Options,
    multi_stream: bool,
) {
    guard_infallible((), || {
        // SAFETY: the caller keeps the rules of the ABI.
        if let Some(options) = unsafe { options.as_mut() } {
            options.set_multi_stream(multi_stream);
        }
    });
}

/// For SessionGroupOptions_SetMultiStream(): the GPUs, by TensorFlow's numbers of them, which count
/// those that CUDA_VISIBLE_DEVICES and gpu_options.visible_device_list leave, from 0. Default, and with
/// none: all of these. Whether there is such a GPU is checked when a group is made.
///
/// Errors: TF_INVALID_ARGUMENT for a negative number, or one that comes twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupOptions_SetGpuIds(
    options: *mut Options,
    gpu_ids: *const i32,
    ngpu_ids: i32,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            mutable(options, "options")?.set_gpu_ids(array(gpu_ids, ngpu_ids, "gpu_ids")?)?;
            Ok(())
        });
    }
}

/// Deletes options; NULL is allowed. Groups made with them are not affected.
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

// SAFETY: whoever sets the policy vouches for its functions being callable from any thread.
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
        // SAFETY: whoever set the policy vouches for the function; the load outlives the call.
        unsafe {
            // A pointer to a struct of the ABI is passed as any pointer is.
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
            // SAFETY: as above; dropped once, after the last use.
            unsafe { release(self.context) };
        }
    }
}

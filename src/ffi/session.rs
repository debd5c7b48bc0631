//! Groups as `tensorflow::Session`s: session targets, and the objects behind them.

use std::ffi::c_void;
use std::ptr::null_mut;

use tensorflow_sys as tf;

use super::check::{caught, guard, guard_infallible, null, reference};
use crate::SessionGroup;
use crate::error::{Error, Result};
use crate::options::target;
use crate::prepare::signature::Signature;
use crate::request::callable::Callable;
use crate::request::run::RequestSpec;
use crate::request::tensors::RequestTensors;
use crate::tensorflow::graph::Graph;
use crate::tensorflow::group_session::{self, CppTensors};
use crate::tensorflow::program::ProgramRun;
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::Session;
use crate::tensorflow::shim::{
    sg_graph, sg_group, sg_group_callable, sg_group_functions, sg_names, sg_run_options, sg_str,
    sg_tensors, sg_visit,
};
use crate::tensorflow::{SessionOptions, version};

/// Registers the session target "session_group" with TensorFlow. From then on NewSession(),
/// TF_NewSession(), TF_LoadSessionFromSavedModel() and everything built on them make a group if
/// SessionOptions.target asks for one:
///
/// ```text
/// session_group                        as many sessions as SESSION_GROUP_CPUSET has entries
/// session_group:4                      4 sessions
/// session_group://4?policy=least_loaded&execution=caller&cpuset=0-1;2-3;4-5;6-7
/// ```
///
/// The keys are policy, execution, kernels, cpuset, affinity (true or false), worker_threads, queue
/// (its capacity), wait_when_full (true or false), drain_timeout_ms, multi_stream (true or false) and
/// gpu_ids (such as "0,1"), which work like the setters of SessionGroupOptions, and the names of
/// optimisations (true or false). Sessions with other targets are not affected.
///
/// Closing such a session cancels its running requests, as with TensorFlow's own, unless
/// drain_timeout_ms lets them finish.
///
/// The shared library calls this when it is loaded. Call it yourself in a program that links
/// libsession_group.a, or that uses nothing else of the library: otherwise the linker leaves the
/// library out. Calling it again does nothing.
///
/// Errors: TF_FAILED_PRECONDITION if the loaded TensorFlow has another minor version than the one that
/// the library was built for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_RegisterTarget(status: *mut tf::TF_Status) {
    // SAFETY: the caller follows the rules of the ABI.
    unsafe { guard(status, (), register) }
}

/// Makes a tensorflow::Session, returned as a pointer that C++ casts to tensorflow::Session*. It stands
/// for session number `session_id` of the group, modulo the number of sessions, or, if `session_id` is
/// negative, for the whole group: each request then goes to the session that the policy chooses. The
/// caller deletes it, before the group. It is as thread-safe as any session. Closing it closes the
/// group if it stands for the whole group; otherwise it closes this object only.
///
/// Errors: returns NULL, with TF_FAILED_PRECONDITION as for SessionGroup_RegisterTarget().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_NewCppSession(
    group: *mut SessionGroup,
    session_id: i32,
    status: *mut tf::TF_Status,
) -> *mut c_void {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe { guard(status, null_mut(), || new_session(group, session_id)) }
}

/// Like SessionGroup_NewCppSession(), for the group behind `session`: a tensorflow::Session* that a
/// session target or this library has made.
///
/// Errors: returns NULL, with TF_INVALID_ARGUMENT if `session` is not a session group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_NewCppPart(
    session: *mut c_void,
    session_id: i32,
    status: *mut tf::TF_Status,
) -> *mut c_void {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe { guard(status, null_mut(), || new_session(group_of(session)?, session_id)) }
}

/// Returns the group behind a tensorflow::Session*, for use with the functions of this header. Don't
/// delete the group through this pointer, and don't use it once the session is deleted: a group that a
/// session target has made is deleted with its session.
///
/// Errors: returns NULL, with TF_INVALID_ARGUMENT if `session` is not a session group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_FromCppSession(
    session: *mut c_void,
    status: *mut tf::TF_Status,
) -> *mut SessionGroup {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe { guard(status, null_mut(), || group_of(session)) }
}

/// # Safety
///
/// `group` must be NULL or live.
unsafe fn new_session(group: *mut SessionGroup, session_id: i32) -> Result<*mut c_void> {
    // SAFETY: the caller vouches for it.
    let sessions = unsafe { reference(group, "group") }?.session_num() as i32;
    register()?;
    let session = if session_id < 0 { -1 } else { session_id % sessions };
    // SAFETY: as above.
    unsafe { group_session::new(group.cast(), session) }
}

/// # Safety
///
/// `session` must be NULL or a live `tensorflow::Session`.
unsafe fn group_of(session: *mut c_void) -> Result<*mut SessionGroup> {
    if session.is_null() {
        return Err(null("session"));
    }
    version::check()?;
    // SAFETY: the caller vouches for it.
    let group: *mut SessionGroup = unsafe { group_session::group_of(session) }.cast();
    if group.is_null() {
        return Err(Error::invalid(
            "session is no session group of this library: make it with the target session_group:N, and \
             load one copy of libsession_group only",
        ));
    }
    Ok(group)
}

/// Runs when the dynamic loader loads the shared library.
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = register_when_loaded;

extern "C" fn register_when_loaded() {
    guard_infallible((), || {
        // Nothing here could report a failure; a caller that makes a group gets it as a status.
        let _ = register();
    });
}

fn register() -> Result<()> {
    // The C++ classes of another version are laid out differently.
    version::check()?;
    group_session::register(&FUNCTIONS)
}

/// The functions that C++ calls. All pointers that it passes are live for the duration of the call;
/// groups and callables come from these functions.
static FUNCTIONS: sg_group_functions = sg_group_functions {
    make,
    session_num,
    add_graph,
    run,
    make_callable,
    run_callable,
    delete_callable,
    run_on_session,
    with_session,
    untrack,
    close,
    remove,
};

/// # Safety
///
/// As for all functions below: the rules stated at [`FUNCTIONS`].
unsafe extern "C" fn make(
    target: sg_str<'_>,
    options: *const tf::TF_SessionOptions,
    status: *mut tf::TF_Status,
) -> *mut sg_group {
    // SAFETY: C++ follows the rules, here and below.
    unsafe {
        guard(status, null_mut(), || {
            let target = String::from_utf8_lossy(target.bytes());
            let group =
                SessionGroup::new(SessionOptions::borrow(&options), &target::parse(&target)?)
                    .map_err(|error| {
                        let message = format!("session target {target:?}: {}", error.message);
                        Error::new(error.code, message)
                    })?;
            Ok(Box::into_raw(Box::new(group)).cast())
        })
    }
}

unsafe extern "C" fn session_num(group: *const sg_group) -> i32 {
    // SAFETY: C++ follows the rules.
    guard_infallible(0, || unsafe { self::group(group) }.session_num() as i32)
}

unsafe extern "C" fn add_graph(
    group: *mut sg_group,
    graph: *mut sg_graph,
    extend: i32,
) -> *mut tf::TF_Status {
    // SAFETY: C++ follows the rules, and hands over ownership of the graph.
    reported(|| unsafe {
        let graph = Graph::from_raw(graph);
        self::group(group).add_graph(graph, extend != 0)
    })
}

unsafe extern "C" fn run(
    group: *mut sg_group,
    session: i32,
    names: *const sg_names<'_>,
    options: *const sg_run_options,
    wants_metadata: i32,
    call: *mut sg_tensors,
) -> *mut tf::TF_Status {
    // SAFETY: C++ follows the rules.
    reported(|| unsafe {
        let [feeds, fetches, targets] = group_session::names(names)?;
        let feeds = feeds.iter().copied().collect();
        let options = group_session::run_options(options);
        let spec = RequestSpec {
            signature: Signature { feeds, fetches: &fetches, targets: &targets },
            options: options.as_deref(),
            session: number(session),
            wants_metadata: wants_metadata != 0,
        };
        self::group(group).run_tensors(&spec, &mut CppTensors::new(call))
    })
}

unsafe extern "C" fn make_callable(
    group: *mut sg_group,
    names: *const sg_names<'_>,
    status: *mut tf::TF_Status,
) -> *mut sg_group_callable {
    // SAFETY: C++ follows the rules, here and below.
    unsafe {
        guard(status, null_mut(), || {
            let [feeds, fetches, targets] = group_session::names(names)?;
            let callable = self::group(group).make_callable(&feeds, &fetches, &targets)?;
            Ok(Box::into_raw(Box::new(callable)).cast())
        })
    }
}

unsafe extern "C" fn run_callable(
    callable: *mut sg_group_callable,
    session: i32,
    wants_metadata: i32,
    call: *mut sg_tensors,
) -> *mut tf::TF_Status {
    // SAFETY: C++ follows the rules.
    reported(|| unsafe {
        let callable: &Callable = &*callable.cast();
        callable.run_tensors(number(session), wants_metadata != 0, &mut CppTensors::new(call))
    })
}

unsafe extern "C" fn delete_callable(callable: *mut sg_group_callable) {
    // SAFETY: made by Box::into_raw, and given back once.
    guard_infallible((), || drop(unsafe { Box::from_raw(callable.cast::<Callable>()) }));
}

unsafe extern "C" fn run_on_session(
    group: *mut sg_group,
    session: i32,
    visit: *mut sg_visit,
) -> *mut tf::TF_Status {
    // SAFETY: C++ follows the rules.
    reported(|| unsafe {
        self::group(group).run_on_session(number(session), |session, number| {
            group_session::visit(visit, session, number)
        })
    })
}

unsafe extern "C" fn with_session(
    group: *mut sg_group,
    session: i32,
    visit: *mut sg_visit,
) -> *mut tf::TF_Status {
    // SAFETY: C++ follows the rules.
    reported(|| unsafe {
        let number = number(session).unwrap_or(0);
        self::group(group)
            .with_session(number, |session| group_session::visit(visit, session, number))
    })
}

unsafe extern "C" fn untrack(group: *mut sg_group) -> *mut tf::TF_Status {
    // SAFETY: C++ follows the rules.
    reported(|| unsafe { self::group(group) }.untrack())
}

unsafe extern "C" fn close(group: *mut sg_group) -> *mut tf::TF_Status {
    // SAFETY: C++ follows the rules.
    reported(|| unsafe { self::group(group) }.close())
}

unsafe extern "C" fn remove(group: *mut sg_group) {
    // SAFETY: made by `make`, and given back once.
    guard_infallible((), || drop(unsafe { Box::from_raw(group.cast::<SessionGroup>()) }));
}

impl RequestTensors for CppTensors {
    fn run_program(&mut self, run: ProgramRun<'_>) -> Result<()> {
        self.run_program(run)
    }

    fn run_session(&mut self, session: &Session, options: &RunOptions) -> Result<()> {
        self.run_session(session, options)
    }

    fn clear_outputs(&mut self) {
        self.clear_outputs();
    }
}

/// # Safety
///
/// `group` must be live.
unsafe fn group<'a>(group: *const sg_group) -> &'a SessionGroup {
    // SAFETY: C++ holds a SessionGroup under this type name.
    unsafe { &*group.cast() }
}

fn number(session: i32) -> Option<usize> {
    usize::try_from(session).ok()
}

/// Calls `body` and returns its outcome as a status that the caller owns; NULL on success.
fn reported(body: impl FnOnce() -> Result<()>) -> *mut tf::TF_Status {
    group_session::to_status(&caught(body))
}

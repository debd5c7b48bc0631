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

/// Makes the session target "session_group" known to TensorFlow: from then on NewSession(),
/// TF_NewSession(), TF_LoadSessionFromSavedModel() and all that is built upon them make a group where
/// SessionOptions.target asks for one:
///
/// ```text
/// session_group                        as many sessions as SESSION_GROUP_CPUSET has entries
/// session_group:4                      4 sessions
/// session_group://4?policy=least_loaded&execution=caller&cpuset=0-1;2-3;4-5;6-7
/// ```
///
/// Keys are policy, execution, kernels, cpuset, affinity (true or false), worker_threads, queue (its
/// capacity), wait_when_full (true or false), drain_timeout_ms, multi_stream (true or false), gpu_ids (as
/// "0,1"), as the setters of SessionGroupOptions, and the names of optimisations (true or false).
/// Sessions with other targets are what they were.
///
/// Closing such a session cancels the requests that are running, as with TensorFlow's own, unless
/// drain_timeout_ms lets them finish.
///
/// The shared library does this by itself when it is loaded. A program calls it that links
/// libsession_group.a, or that uses nothing else of the library, lest the linker leaves it out. Doing it
/// again does nothing.
///
/// Errors: TF_FAILED_PRECONDITION where the loaded TensorFlow is of another minor version than the
/// one the library was built for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_RegisterTarget(status: *mut tf::TF_Status) {
    // SAFETY: the caller keeps the rules of the ABI.
    unsafe { guard(status, (), register) }
}

/// A new tensorflow::Session, as a pointer that C++ casts to that: session number `session_id` of the
/// group, modulo their number, or, where it is negative, all of the group, as which each request goes
/// to the session that the policy chooses. The caller deletes it, before the group. Thread-safe as
/// any session. Closing all of the group closes the group; closing one session of it closes this
/// object alone.
///
/// Errors: returns NULL; TF_FAILED_PRECONDITION as SessionGroup_RegisterTarget().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_NewCppSession(
    group: *mut SessionGroup,
    session_id: i32,
    status: *mut tf::TF_Status,
) -> *mut c_void {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe { guard(status, null_mut(), || new_session(group, session_id)) }
}

/// As SessionGroup_NewCppSession(), of the group that `session` is: a tensorflow::Session* that a
/// session target or this library has made.
///
/// Errors: returns NULL; TF_INVALID_ARGUMENT where `session` is no group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_NewCppPart(
    session: *mut c_void,
    session_id: i32,
    status: *mut tf::TF_Status,
) -> *mut c_void {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
    unsafe { guard(status, null_mut(), || new_session(group_of(session)?, session_id)) }
}

/// The group that a tensorflow::Session* is, for the functions of this header. It stays the
/// session's, and goes with it.
///
/// Errors: returns NULL; TF_INVALID_ARGUMENT where `session` is no group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_FromCppSession(
    session: *mut c_void,
    status: *mut tf::TF_Status,
) -> *mut SessionGroup {
    // SAFETY: the caller keeps the rules of the ABI, here and below.
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

/// What the loader of the shared library calls.
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = register_when_loaded;

extern "C" fn register_when_loaded() {
    guard_infallible((), || {
        // Nobody would hear of a failure; who makes a group gets it as a status.
        let _ = register();
    });
}

fn register() -> Result<()> {
    // The C++ classes of another version are laid out differently.
    version::check()?;
    group_session::register(&FUNCTIONS)
}

/// What C++ calls. All pointers that it passes are live for the call, groups and callables such as
/// these functions have made.
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
/// As of all functions below: what is said of [`FUNCTIONS`].
unsafe extern "C" fn make(
    target: sg_str<'_>,
    options: *const tf::TF_SessionOptions,
    status: *mut tf::TF_Status,
) -> *mut sg_group {
    // SAFETY: C++ keeps the rules, here and below.
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
    // SAFETY: C++ keeps the rules.
    guard_infallible(0, || unsafe { self::group(group) }.session_num() as i32)
}

unsafe extern "C" fn add_graph(
    group: *mut sg_group,
    graph: *mut sg_graph,
    extend: i32,
) -> *mut tf::TF_Status {
    // SAFETY: C++ keeps the rules, and gives the graph away.
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
    // SAFETY: C++ keeps the rules.
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
    // SAFETY: C++ keeps the rules, here and below.
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
    // SAFETY: C++ keeps the rules.
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
    // SAFETY: C++ keeps the rules.
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
    // SAFETY: C++ keeps the rules.
    reported(|| unsafe {
        let number = number(session).unwrap_or(0);
        self::group(group)
            .with_session(number, |session| group_session::visit(visit, session, number))
    })
}

unsafe extern "C" fn untrack(group: *mut sg_group) -> *mut tf::TF_Status {
    // SAFETY: C++ keeps the rules.
    reported(|| unsafe { self::group(group) }.untrack())
}

unsafe extern "C" fn close(group: *mut sg_group) -> *mut tf::TF_Status {
    // SAFETY: C++ keeps the rules.
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
/// `group` must be a live one.
unsafe fn group<'a>(group: *const sg_group) -> &'a SessionGroup {
    // SAFETY: a SessionGroup is what C++ holds under this name.
    unsafe { &*group.cast() }
}

fn number(session: i32) -> Option<usize> {
    usize::try_from(session).ok()
}

/// Calls `body` and gives its outcome as a status of the caller's, NULL on success.
fn reported(body: impl FnOnce() -> Result<()>) -> *mut tf::TF_Status {
    group_session::to_status(&caught(body))
}

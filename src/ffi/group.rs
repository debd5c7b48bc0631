//! `SessionGroup`: its lifetime and its graph.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

use tensorflow_sys as tf;

use super::check::{bytes, guard, guard_infallible, reference};
use crate::error::Result;
use crate::tensorflow::SessionOptions;
use crate::{Options, SessionGroup};

/// Makes a group of `session_num` sessions, 1 to 1024, without a graph. All other options come from the
/// environment, then from the defaults. The caller deletes the group with SessionGroup_Delete().
///
/// `session_options` configures each session, as for TF_NewSession(), and is copied. Its target must be
/// empty. The sizes of the thread pools in its ConfigProto are per session: 0 means one thread for each
/// CPU of the session (if it has no CPUs of its own, for each CPU in its share of those that the
/// process may use); a negative inter_op_parallelism_threads runs graphs on the calling thread, as in
/// TensorFlow.
///
/// Errors: returns NULL, with TF_INVALID_ARGUMENT for options that are wrong, that contradict each
/// other or that the machine can't satisfy; TF_FAILED_PRECONDITION if the loaded TensorFlow has another
/// minor version than the one that the library was built for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn NewSessionGroup(
    session_options: *const tf::TF_SessionOptions,
    session_num: i32,
    status: *mut tf::TF_Status,
) -> *mut SessionGroup {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, null_mut(), || {
            let mut options = Options::new();
            options.session_num = Some(session_num);
            new_group(session_options, &options)
        })
    }
}

/// Like NewSessionGroup(), with all options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn NewSessionGroupWithOptions(
    session_options: *const tf::TF_SessionOptions,
    options: *const Options,
    status: *mut tf::TF_Status,
) -> *mut SessionGroup {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, null_mut(), || new_group(session_options, reference(options, "options")?))
    }
}

/// # Safety
///
/// `session_options` must be NULL or live.
unsafe fn new_group(
    session_options: *const tf::TF_SessionOptions,
    options: &Options,
) -> Result<*mut SessionGroup> {
    // SAFETY: the caller vouches for it, here and below.
    let session_options = unsafe {
        reference(session_options, "session_options")?;
        SessionOptions::borrow(&session_options)
    };
    Ok(Box::into_raw(Box::new(SessionGroup::new(session_options, options)?)))
}

/// Gives all sessions their graph: `graph_def_len` bytes of a serialised GraphDef. To initialise its
/// variables and tables, run their initialisers once: all sessions see the result.
///
/// Errors: TF_ALREADY_EXISTS if the group has a graph; TF_INVALID_ARGUMENT or TF_NOT_FOUND for a graph
/// that TensorFlow refuses, which leaves the group without one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_Create(
    group: *mut SessionGroup,
    graph_def: *const c_void,
    graph_def_len: usize,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let graph_def = bytes(graph_def, graph_def_len, "graph_def")?;
            reference(group, "group")?.create(graph_def)
        });
    }
}

/// Adds the nodes of a serialised GraphDef to the graph of all sessions. Requests may run meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_Extend(
    group: *mut SessionGroup,
    graph_def: *const c_void,
    graph_def_len: usize,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let graph_def = bytes(graph_def, graph_def_len, "graph_def")?;
            reference(group, "group")?.extend(graph_def)
        });
    }
}

/// Returns how many sessions the group has; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_SessionNum(group: *const SessionGroup) -> i32 {
    guard_infallible(0, || {
        // SAFETY: the caller follows the rules of the ABI.
        unsafe { group.as_ref() }.map_or(0, |group| group.session_num() as i32)
    })
}

/// Lists the devices that each session sees, like TF_SessionListDevices(). The caller deletes the list
/// with TF_DeleteDeviceList(). Returns NULL on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_ListDevices(
    group: *mut SessionGroup,
    status: *mut tf::TF_Status,
) -> *mut tf::TF_DeviceList {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe { guard(status, null_mut(), || reference(group, "group")?.device_list()) }
}

/// Closes the group. New requests fail with TF_FAILED_PRECONDITION. Running requests may finish within
/// the time set by SessionGroupOptions_SetDrainTimeout(); those that still run then are cancelled and
/// fail with TF_CANCELLED. Then frees sessions, threads, variables and tables. Closing twice is
/// allowed. Must not be called from a policy function of the group.
///
/// Errors: TF_DEADLINE_EXCEEDED if requests still run five seconds after they were cancelled, because
/// their operations can't be cancelled: the group stays closed and its sessions, threads, variables and
/// tables stay in memory; closing it again once these requests have ended frees them.
/// TF_FAILED_PRECONDITION in a process that was forked after the group was made. TF_INTERNAL if an
/// exception has left a session in an unknown state: that session, the variables and the tables then
/// stay in memory. Other errors are TensorFlow's; the group is closed all the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_Close(group: *mut SessionGroup, status: *mut tf::TF_Status) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || reference(group, "group")?.close());
    }
}

/// Closes the group if it is open, and deletes it; NULL is allowed. Requests that keep running after
/// they were cancelled keep the memory that they use. No other call on the group may be in progress: if
/// threads may still be running requests, call SessionGroup_Close() first, which is safe while they
/// run, and join them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_Delete(group: *mut SessionGroup) {
    guard_infallible((), || {
        if let Some(group) = NonNull::new(group) {
            // SAFETY: made by Box::into_raw, and given back once.
            drop(unsafe { Box::from_raw(group.as_ptr()) });
        }
    });
}

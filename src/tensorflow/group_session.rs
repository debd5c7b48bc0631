//! Groups as C++ sees them: what `cpp/session` calls, and what it is called with.

use std::ffi::c_void;
use std::mem::ManuallyDrop;

use smallvec::SmallVec;
use tensorflow_sys as tf;

use super::program::ProgramRun;
use super::run_options::RunOptions;
use super::session::Session;
use super::shim::{self, sg_str};
use super::status;
use crate::error::{Error, Result};

/// The tensors of a request of C++.
pub(crate) struct CppTensors(*mut shim::sg_tensors);

// SAFETY: they are used by one thread at a time, whichever that is.
unsafe impl Send for CppTensors {}

impl CppTensors {
    /// # Safety
    ///
    /// `call` must be live, and nobody else may use it, as long as this is.
    pub unsafe fn new(call: *mut shim::sg_tensors) -> Self {
        Self(call)
    }

    pub fn run_program(&mut self, run: ProgramRun<'_>) -> Result<()> {
        let raw = run.raw();
        let instance = run.instance.as_ptr();
        // SAFETY: all are live; a status that it gives is ours.
        unsafe { status::take(shim::sg_tensors_run_program(self.0, instance, &raw, run.notes)) }
    }

    pub fn run_session(&mut self, session: &Session, options: &RunOptions) -> Result<()> {
        // SAFETY: all three are live; a status that it gives is ours.
        unsafe {
            status::take(shim::sg_tensors_run_session(self.0, session.as_ptr(), options.as_ptr()))
        }
    }

    pub fn clear_outputs(&mut self) {
        // SAFETY: the call is live.
        unsafe { shim::sg_tensors_clear_outputs(self.0) }
    }
}

/// Calls what C++ wants to do with a session.
///
/// # Safety
///
/// `visit` must be live and used by nobody else.
pub(crate) unsafe fn visit(
    visit: *mut shim::sg_visit,
    session: &Session,
    number: usize,
) -> Result<()> {
    // SAFETY: the session is live, the caller vouches for the rest; a status that it gives is ours.
    unsafe { status::take(shim::sg_visit_session(visit, session.as_ptr(), number as i32)) }
}

/// The names in a request of C++: feeds, fetches and targets.
pub(crate) type Names<'a> = [SmallVec<[&'a str; 32]>; 3];

/// # Safety
///
/// `names` must be live, with all that it points to, as long as `'a`.
pub(crate) unsafe fn names<'a>(names: *const shim::sg_names<'a>) -> Result<Names<'a>> {
    // SAFETY: the caller vouches for it, here and below.
    let names = unsafe { &*names };
    let convert = |strings: *const sg_str<'a>, n: usize| -> Result<SmallVec<[&'a str; 32]>> {
        // SAFETY: as above; an empty vector's pointer may be anything, so it is not looked at.
        let strings = if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(strings, n) } };
        // SAFETY: as above.
        strings.iter().map(|string| name(unsafe { string.bytes() })).collect()
    };
    Ok([
        convert(names.feeds, names.nfeeds)?,
        convert(names.fetches, names.nfetches)?,
        convert(names.targets, names.ntargets)?,
    ])
}

fn name(bytes: &[u8]) -> Result<&str> {
    str::from_utf8(bytes).map_err(|_| {
        Error::invalid(format!("the name {:?} is not valid UTF-8", String::from_utf8_lossy(bytes)))
    })
}

/// Options that C++ owns, if there are any.
///
/// # Safety
///
/// `options` must be NULL, or live as long as the result.
pub(crate) unsafe fn run_options(
    options: *const shim::sg_run_options,
) -> Option<ManuallyDrop<RunOptions>> {
    // SAFETY: the caller vouches for it; it is neither changed nor dropped.
    (!options.is_null())
        .then(|| ManuallyDrop::new(unsafe { RunOptions::from_raw(options.cast_mut()) }))
}

/// Makes TensorFlow know the session target; doing it again does nothing.
pub(crate) fn register(functions: &'static shim::sg_group_functions) -> Result<()> {
    // SAFETY: the functions stay.
    status::call(|status| unsafe { shim::sg_register_target(functions, status) })
}

/// A new `tensorflow::Session`: one session of a group, or all of it.
///
/// # Safety
///
/// The group must outlive the session.
pub(crate) unsafe fn new(group: *mut shim::sg_group, session: i32) -> Result<*mut c_void> {
    // SAFETY: the caller vouches for the group.
    status::call(|status| unsafe { shim::sg_group_session_new(group, session, status) })
}

/// The group of a `tensorflow::Session`; NULL where it has none.
///
/// # Safety
///
/// `session` must be a live `tensorflow::Session`.
pub(crate) unsafe fn group_of(session: *mut c_void) -> *mut shim::sg_group {
    // SAFETY: the caller vouches for it.
    unsafe { shim::sg_group_of_session(session) }
}

/// A status of the caller's, for a function that returns one; NULL on success.
pub(crate) fn to_status(result: &Result<()>) -> *mut tf::TF_Status {
    if result.is_ok() {
        return std::ptr::null_mut();
    }
    // SAFETY: no precondition; the new status is used here alone.
    unsafe {
        let status = tf::TF_NewStatus();
        status::report(status, result);
        status
    }
}

//! `SessionGroupCallable`: requests that look up their names once.

use std::ffi::c_char;
use std::ptr::{NonNull, null_mut};

use smallvec::SmallVec;
use tensorflow_sys as tf;

use super::check::{array, give, guard, guard_infallible, reference, strings, tensors};
use crate::SessionGroup;
use crate::request::callable::Callable;

/// Prepares requests with these feeds, fetches and targets on all sessions of the group; the
/// counterpart of Session::MakeCallable(). Names are as for SessionGroup_Run(). If the graph, the
/// execution and the options allow it (see "serial_executor" of SessionGroupOptions_SetOptimization()),
/// every session has its kernels when this returns, and no request looks up names. Otherwise requests
/// run as with SessionGroup_Run().
///
/// The caller deletes the callable with SessionGroupCallable_Delete(), before or after the group.
/// SessionGroup_Run() with the same names uses the same preparation, which is kept until the group is
/// closed.
///
/// Errors: returns NULL, with the errors of SessionGroup_Run() for names that the graph refuses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_MakeCallable(
    group: *mut SessionGroup,
    feed_names: *const *const c_char,
    nfeeds: i32,
    fetch_names: *const *const c_char,
    nfetches: i32,
    target_names: *const *const c_char,
    ntargets: i32,
    status: *mut tf::TF_Status,
) -> *mut Callable {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, null_mut(), || {
            let group = reference(group, "group")?;
            let feeds = strings(feed_names, nfeeds, "feed_names")?;
            let fetches = strings(fetch_names, nfetches, "fetch_names")?;
            let targets = strings(target_names, ntargets, "target_names")?;
            Ok(Box::into_raw(Box::new(group.make_callable(&feeds, &fetches, &targets)?)))
        })
    }
}

/// Runs the callable on the session that the policy chooses. Any number of threads may call this at the
/// same time. `inputs` are in the order of the feeds; the caller keeps ownership of these tensors.
/// `outputs` has room for one tensor for each fetch. It is written on success only; the caller then
/// owns the tensors and deletes them with TF_DeleteTensor().
///
/// Errors: TF_INVALID_ARGUMENT if the number of tensors is not the number of feeds or of fetches; those
/// of SessionGroup_Run().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupCallable_Run(
    callable: *mut Callable,
    inputs: *const *mut tf::TF_Tensor,
    ninputs: i32,
    outputs: *mut *mut tf::TF_Tensor,
    noutputs: i32,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let callable = reference(callable, "callable")?;
            let inputs = tensors(inputs, ninputs, "inputs")?;
            let room = array(outputs.cast_const(), noutputs, "outputs")?.len();
            let mut results: SmallVec<[_; 8]> = (0..room).map(|_| None).collect();
            callable.run_into(&inputs, &mut results)?;
            give(results, outputs);
            Ok(())
        });
    }
}

/// Deletes the callable; NULL is allowed. None of its runs may be in progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroupCallable_Delete(callable: *mut Callable) {
    guard_infallible((), || {
        if let Some(callable) = NonNull::new(callable) {
            // SAFETY: made by Box::into_raw, and given back once.
            drop(unsafe { Box::from_raw(callable.as_ptr()) });
        }
    });
}

//! Programs: what a set of feeds, fetches and targets computes, optimised once for all sessions.

use std::ffi::CStr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::session::Session;
use super::shim::{self, sg_str};
use super::{Tensor, status};
use crate::error::Result;

/// An optimised graph, with what is known about it.
pub struct Program(*mut shim::sg_program);

// SAFETY: the program is never changed.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// Lets `compiler` optimise what it would run for these feeds, fetches and targets.
    pub fn compile(
        compiler: &Session,
        feeds: &[&str],
        fetches: &[&str],
        targets: &[&str],
    ) -> Result<Self> {
        let [feeds, fetches, targets] = [feeds, fetches, targets]
            .map(|names| names.iter().map(|&name| name.into()).collect::<Vec<sg_str<'_>>>());
        status::call(|status| {
            // SAFETY: every array has the length given with it and outlives the call.
            Self(unsafe {
                shim::sg_program_compile(
                    compiler.as_ptr(),
                    feeds.as_ptr(),
                    feeds.len(),
                    fetches.as_ptr(),
                    fetches.len(),
                    targets.as_ptr(),
                    targets.len(),
                    status,
                )
            })
        })
    }

    /// Why a [`Callable`] can't run it, if so.
    pub fn obstacle(&self) -> Option<&str> {
        // SAFETY: the program is live, and what it gives lives as long.
        let obstacle = unsafe { shim::sg_program_obstacle(self.0) };
        // SAFETY: NULL, or a zero-terminated string.
        (!obstacle.is_null()).then(|| unsafe { CStr::from_ptr(obstacle) }.to_str().unwrap_or("?"))
    }

    /// Whether running it may change a variable or a table.
    pub fn writes(&self) -> bool {
        // SAFETY: the program is live.
        unsafe { shim::sg_program_writes(self.0) != 0 }
    }

    /// Whether that may be one that is not on the CPU.
    pub fn writes_elsewhere(&self) -> bool {
        // SAFETY: the program is live.
        unsafe { shim::sg_program_writes_elsewhere(self.0) != 0 }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once; NULL is allowed.
        unsafe { shim::sg_program_delete(self.0) }
    }
}

/// A program made ready for one session, which runs it node by node on the calling thread.
pub struct Callable {
    ptr: *mut shim::sg_callable,
    /// Dropped after the callable, which points to them.
    _program: Arc<Program>,
    _session: Arc<Session>,
}

// SAFETY: the callable is thread-safe, and this handle to it is never changed.
unsafe impl Send for Callable {}
// SAFETY: as above.
unsafe impl Sync for Callable {}

impl Callable {
    /// Makes kernels of its own for a program that has no obstacle.
    pub fn new(
        session: Arc<Session>,
        program: Arc<Program>,
        resolve_reads: bool,
        fuse_lookups: bool,
    ) -> Result<Self> {
        let ptr = status::call(|status| {
            // SAFETY: session and program are live, and kept so.
            unsafe {
                shim::sg_callable_new(
                    session.as_ptr(),
                    program.0,
                    i32::from(resolve_reads),
                    i32::from(fuse_lookups),
                    status,
                )
            }
        })?;
        Ok(Self { ptr, _program: program, _session: session })
    }

    pub(super) fn as_ptr(&self) -> *mut shim::sg_callable {
        self.ptr
    }

    /// Whether a run may have to wait for something, so that a timeout can't end it.
    pub fn may_wait(&self) -> bool {
        // SAFETY: the callable is live.
        unsafe { shim::sg_callable_may_wait(self.ptr) != 0 }
    }

    /// Runs on the calling thread. `outputs` has room for a tensor for each fetch and gets them all,
    /// or none. A timeout of 0 is none.
    pub fn run<'a>(
        &self,
        inputs: impl Iterator<Item = &'a Tensor>,
        outputs: &mut [Option<Tensor>],
        timeout_ms: i64,
    ) -> Result<()> {
        // The shim writes pointers over what is there.
        outputs.fill_with(|| None);
        let inputs: SmallVec<[_; 32]> = inputs.map(Tensor::as_ptr).collect();
        // SAFETY: both arrays have the length given with them and outlive the call; an
        // Option<Tensor> is a pointer, and the shim only writes to it.
        let failure = unsafe {
            shim::sg_callable_run(
                self.ptr,
                inputs.as_ptr(),
                inputs.len(),
                outputs.as_mut_ptr().cast(),
                outputs.len(),
                timeout_ms,
            )
        };
        // SAFETY: NULL, or a status that is ours.
        unsafe { status::take(failure) }
    }
}

impl Drop for Callable {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once, with no run under way, since a run borrows the callable.
        unsafe { shim::sg_callable_delete(self.ptr) }
    }
}

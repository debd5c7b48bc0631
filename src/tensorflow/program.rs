//! Programs: what a set of feeds, fetches and targets computes, optimised once for all sessions.

use std::ffi::{CStr, c_void};
use std::ptr::null;
use std::sync::Arc;

use smallvec::SmallVec;

use super::devices::Devices;
use super::graph::Graph;
use super::session::Session;
use super::shim::{self, sg_str};
use super::{Tensor, status};
use crate::error::Result;
use crate::stripes;

/// What a program's instance does, in numbers.
pub use super::shim::sg_instance_facts as Facts;
/// What was unusual about a run.
pub use super::shim::sg_run_notes as Notes;

/// An optimised graph, with what is known about it.
pub struct Program {
    ptr: *mut shim::sg_program,
    /// Dropped after the program, whose constants they know.
    _devices: Arc<Devices>,
}

// SAFETY: the program is never changed.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// Lets `compiler` optimise what it would run for these feeds, fetches and targets. Lookups in
    /// partitioned variables are done at once where asked for.
    pub fn compile(
        compiler: &Session,
        graphs: &[Arc<Graph>],
        feeds: &[&str],
        fetches: &[&str],
        targets: &[&str],
        fuse_lookups: bool,
    ) -> Result<Self> {
        let [feeds, fetches, targets] = [feeds, fetches, targets]
            .map(|names| names.iter().map(|&name| name.into()).collect::<Vec<sg_str<'_>>>());
        let graphs: Vec<_> = graphs.iter().map(|graph| graph.as_ptr()).collect();
        let ptr = status::call(|status| {
            // SAFETY: every array has the length given with it and outlives the call.
            unsafe {
                shim::sg_program_compile(
                    compiler.as_ptr(),
                    graphs.as_ptr(),
                    graphs.len(),
                    feeds.as_ptr(),
                    feeds.len(),
                    fetches.as_ptr(),
                    fetches.len(),
                    targets.as_ptr(),
                    targets.len(),
                    i32::from(fuse_lookups),
                    status,
                )
            }
        })?;
        Ok(Self { ptr, _devices: compiler.devices().clone() })
    }

    /// Why a [`ProgramInstance`] can't run it, if so.
    pub fn obstacle(&self) -> Option<&str> {
        // SAFETY: the program is live, and what it gives lives as long.
        let obstacle = unsafe { shim::sg_program_obstacle(self.ptr) };
        // SAFETY: NULL, or a zero-terminated string.
        (!obstacle.is_null()).then(|| unsafe { CStr::from_ptr(obstacle) }.to_str().unwrap_or("?"))
    }

    /// Whether running it may change a variable or a table.
    pub fn writes(&self) -> bool {
        // SAFETY: the program is live.
        unsafe { shim::sg_program_writes(self.ptr) != 0 }
    }

    /// Whether that may be one that is not on the CPU.
    pub fn writes_elsewhere(&self) -> bool {
        // SAFETY: the program is live.
        unsafe { shim::sg_program_writes_elsewhere(self.ptr) != 0 }
    }

    /// Whether TensorFlow's executor would need more of the calling thread's stack with each turn of a
    /// loop.
    pub fn recurses(&self) -> bool {
        // SAFETY: the program is live.
        unsafe { shim::sg_program_recurses(self.ptr) != 0 }
    }
}

/// A kernel that was chosen by measuring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node's name.
    pub node: String,
    /// From this many rows on, up to twice as many.
    pub rows: u64,
    /// Whether it is the kernel that a stock session of this process would not take.
    pub is_other: bool,
}

impl Program {
    /// The kernels that were chosen so far.
    pub fn choices(&self) -> Result<Vec<Choice>> {
        unsafe extern "C" fn add(context: *mut c_void, node: sg_str<'_>, rows: i64, other: i32) {
            // SAFETY: it is the vector below, which nobody else uses during the call.
            let choices = unsafe { &mut *context.cast::<Vec<Choice>>() };
            // SAFETY: the shim gives a string that lives as long as the call.
            let node = String::from_utf8_lossy(unsafe { node.bytes() }).into_owned();
            choices.push(Choice { node, rows: rows as u64, is_other: other != 0 });
        }
        let mut choices = Vec::new();
        let context = std::ptr::from_mut(&mut choices).cast();
        // SAFETY: the program is live, and the context outlives the call.
        status::call(|status| unsafe {
            shim::sg_program_choices(self.ptr, add, context, status);
        })?;
        Ok(choices)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once; NULL is allowed.
        unsafe { shim::sg_program_delete(self.ptr) }
    }
}

/// A program made ready for one session, which runs it node by node on the calling thread.
pub struct ProgramInstance {
    ptr: *mut shim::sg_instance,
    /// Dropped after the instance, which points to them.
    _program: Arc<Program>,
    _session: Arc<Session>,
}

// SAFETY: the instance is thread-safe, and this handle to it is never changed.
unsafe impl Send for ProgramInstance {}
// SAFETY: as above.
unsafe impl Sync for ProgramInstance {}

impl ProgramInstance {
    /// Makes kernels of its own for a program that has no obstacle.
    pub fn new(
        session: Arc<Session>,
        program: Arc<Program>,
        resolve_reads: bool,
        fuse_lookups: bool,
        choose_kernels: bool,
    ) -> Result<Self> {
        let ptr = status::call(|status| {
            // SAFETY: session and program are live, and kept so.
            unsafe {
                shim::sg_instance_new(
                    session.as_ptr(),
                    program.ptr,
                    stripes::count() as u32,
                    i32::from(resolve_reads),
                    i32::from(fuse_lookups),
                    i32::from(choose_kernels),
                    status,
                )
            }
        })?;
        Ok(Self { ptr, _program: program, _session: session })
    }

    pub(super) fn as_ptr(&self) -> *mut shim::sg_instance {
        self.ptr
    }

    /// Whether a run may have to wait for something, so that a timeout can't end it.
    pub fn may_wait(&self) -> bool {
        // SAFETY: the instance is live.
        unsafe { shim::sg_instance_may_wait(self.ptr) != 0 }
    }

    /// What it does.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        // SAFETY: the instance is live.
        unsafe { shim::sg_instance_facts_get(self.ptr, &mut facts) };
        facts
    }
}

/// Where a request's tensors are among those of a program, whose names are sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// For each of the program's feeds, its place in the request; `None` where that is the same.
    pub feeds: Option<Box<[u32]>>,
    /// For each of the request's fetches, its place in the program; `None` as above.
    pub fetches: Option<Box<[u32]>>,
}

/// A run of a program, but for its tensors.
pub(crate) struct ProgramRun<'a> {
    pub instance: &'a ProgramInstance,
    pub order: &'a Order,
    /// 0 for none.
    pub timeout_ms: i64,
    pub notes: &'a mut Notes,
}

impl ProgramRun<'_> {
    /// Runs on the calling thread, with a request's tensors in its own order. `outputs` has room for a
    /// tensor for each of the request's fetches and gets them all, or none.
    pub fn with<'a>(
        self,
        inputs: impl Iterator<Item = &'a Tensor>,
        outputs: &mut [Option<Tensor>],
    ) -> Result<()> {
        // The shim writes pointers over what is there.
        outputs.fill_with(|| None);
        let inputs: SmallVec<[_; 32]> = inputs.map(Tensor::as_ptr).collect();
        let run = self.raw();
        // SAFETY: both arrays have the length given with them and outlive the call, as the order does;
        // an Option<Tensor> is a pointer, and the shim only writes to it.
        let failure = unsafe {
            shim::sg_instance_run(
                self.instance.ptr,
                inputs.as_ptr(),
                inputs.len(),
                &run,
                outputs.as_mut_ptr().cast(),
                outputs.len(),
                self.notes,
            )
        };
        // SAFETY: NULL, or a status that is ours.
        unsafe { status::take(failure) }
    }

    /// As the shim takes it from the calling thread; valid as long as the order.
    pub(super) fn raw(&self) -> shim::sg_run {
        let places =
            |places: &Option<Box<[u32]>>| places.as_ref().map_or(null(), |all| all.as_ptr());
        shim::sg_run {
            feeds: places(&self.order.feeds),
            fetches: places(&self.order.fetches),
            timeout_ms: self.timeout_ms,
            stripe: stripes::current() as u32,
        }
    }
}

impl Drop for ProgramInstance {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once, with no run under way, since a run borrows the instance.
        unsafe { shim::sg_instance_delete(self.ptr) }
    }
}

//! The devices whose resource managers hold what the sessions of a group share.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

// The shim calls it.
use libmimalloc_sys as _;

use super::dtype::DataType;
use super::graph::Graph;
use super::session_options::SessionOptions;
use super::shim;
use super::status;
use crate::cpus::affinity;
use crate::cpus::cpuset::CpuSet;
use crate::error::Result;

/// Where a session of a multi-stream group computes: the index of a GPU, and of a stream on it.
pub(crate) use super::shim::sg_stream_slot as StreamSlot;

/// A resource variable, as a `VarHandleOp` names it.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'a> {
    /// The default one where it is empty.
    pub container: &'a str,
    /// Its `shared_name`.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: DataType,
    /// Its shape.
    pub dims: &'a [i64],
}

/// A set of TensorFlow devices, in shared ownership of the sessions over them.
pub struct Devices(*mut shim::sg_devices);

// SAFETY: TensorFlow's devices and resource managers are thread-safe; the handle is never changed.
unsafe impl Send for Devices {}
// SAFETY: as above.
unsafe impl Sync for Devices {}

impl Devices {
    /// All devices that TensorFlow finds for these options. Sessions take small memory from lists of
    /// the calling thread's own, and large memory in huge pages, if asked to; else from the C library.
    pub fn new(options: &SessionOptions, fast_memory: bool) -> Result<Self> {
        Self::with_streams(options, fast_memory, &[], 0)
    }

    /// The CPU, and so many streams on each of these GPUs; without GPUs, as [`new`](Self::new).
    pub(crate) fn with_streams(
        options: &SessionOptions,
        fast_memory: bool,
        gpu_ids: &[i32],
        streams: i32,
    ) -> Result<Self> {
        status::call(|status| {
            let (fast_memory, ids, n) = (i32::from(fast_memory), gpu_ids.as_ptr(), gpu_ids.len());
            let options = options.as_ptr();
            // SAFETY: the options are live, the array has the length given with it.
            Self(unsafe { shim::sg_devices_new(options, fast_memory, ids, n, streams, status) })
        })
    }

    /// The number of the virtual device that TensorFlow has for a stream_slot.
    pub(crate) fn virtual_device(&self, stream_slot: StreamSlot) -> i32 {
        // SAFETY: the devices are live, and were made with this stream_slot.
        unsafe { shim::sg_devices_virtual_device(self.0, &stream_slot) }
    }

    /// Waits until all streams have done what they were given.
    pub(crate) fn sync(&self) -> Result<()> {
        // SAFETY: the devices are live.
        status::call(|status| unsafe { shim::sg_devices_sync(self.0, status) })
    }

    /// Restores checkpoints with these CPUs, without which TensorFlow's own kernel does. To be called
    /// before there are sessions.
    pub(crate) fn restore_with(&self, cpus: &CpuSet) -> Result<()> {
        let mask = affinity::mask(cpus);
        status::call(|status| {
            // SAFETY: the devices are live, and the mask has the length given with it.
            unsafe {
                shim::sg_devices_restore_with(
                    self.0,
                    cpus.len(),
                    mask.as_ptr(),
                    mask.len(),
                    status,
                );
            }
        })
    }

    /// Spreads large memory that all sessions read over these NUMA nodes, page by page. To be called before
    /// there are sessions.
    pub(crate) fn spread_over(&self, nodes: &[u32]) -> Result<()> {
        status::call(|status| {
            // SAFETY: the devices are live, and no session uses them yet; the array has the length given with it.
            unsafe { shim::sg_devices_spread_over(self.0, nodes.as_ptr(), nodes.len(), status) }
        })
    }

    /// What is allocated until the result is dropped is for all sessions to read.
    pub(crate) fn loading(&self) -> Loading<'_> {
        // SAFETY: the devices are live.
        unsafe { shim::sg_devices_set_loading(self.0, 1) };
        Loading(self)
    }

    /// Why the system did not spread memory, if it has refused to.
    pub(crate) fn spread_error(&self) -> Option<std::io::Error> {
        // SAFETY: the devices are live.
        let code = unsafe { shim::sg_devices_spread_error(self.0) };
        (code != 0).then(|| std::io::Error::from_raw_os_error(code))
    }

    /// How many bytes each thread has read of checkpoints that were restored so.
    pub(crate) fn restored_bytes(&self) -> Vec<u64> {
        // SAFETY: the devices are live; without room, only the number of threads is given.
        let threads = unsafe { shim::sg_devices_restored_bytes(self.0, std::ptr::null_mut(), 0) };
        let mut bytes = vec![0; threads];
        // SAFETY: the devices are live, and there is room for as many numbers as is said.
        unsafe { shim::sg_devices_restored_bytes(self.0, bytes.as_mut_ptr(), threads) };
        bytes
    }

    /// Refuses a graph that sessions over these devices can't run.
    pub(crate) fn check(&self, graph: &Graph) -> Result<()> {
        // SAFETY: both are live.
        status::call(|status| unsafe { shim::sg_graph_check(graph.as_ptr(), self.0, status) })
    }

    /// Frees what sessions share. These may refer to the sessions that made them, so it is done after
    /// closing and before dropping these.
    pub(crate) fn clear(&self) -> Result<()> {
        // SAFETY: the devices are live.
        status::call(|status| unsafe { shim::sg_devices_clear(self.0, status) })
    }

    /// Announces a request that may change variables, until the result is dropped. Those that begin
    /// after that see what it did.
    pub(crate) fn writing(&self) -> Writing<'_> {
        // SAFETY: the devices are live.
        unsafe { shim::sg_devices_begin_write(self.0) };
        Writing(self)
    }

    /// Lets `write` change a variable where it lies; see the shim.
    pub(crate) fn write_variable(
        &self,
        variable: &Variable<'_>,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<bool> {
        struct Context<W> {
            write: Option<W>,
            outcome: std::thread::Result<()>,
        }
        unsafe extern "C" fn call<W: FnOnce(&mut [u8])>(
            context: *mut c_void,
            data: *mut c_void,
            size: usize,
        ) {
            // SAFETY: it is the context below, which nobody else uses during the call.
            let context = unsafe { &mut *context.cast::<Context<W>>() };
            // SAFETY: the variable has this many bytes, at least one, which nobody else refers to.
            let bytes = unsafe { std::slice::from_raw_parts_mut(data.cast::<u8>(), size) };
            if let Some(write) = context.write.take() {
                // No panic may pass through C++.
                context.outcome = catch_unwind(AssertUnwindSafe(|| write(bytes)));
            }
        }
        fn of<W: FnOnce(&mut [u8])>(
            _: &Context<W>,
        ) -> unsafe extern "C" fn(*mut c_void, *mut c_void, usize) {
            call::<W>
        }

        let mut context = Context { write: Some(write), outcome: Ok(()) };
        let call = of(&context);
        let written = status::call(|status| {
            // SAFETY: devices, names and dimensions are live; the context outlives the call.
            unsafe {
                shim::sg_devices_write_variable(
                    self.0,
                    variable.container.into(),
                    variable.name.into(),
                    variable.dtype.number(),
                    variable.dims.as_ptr(),
                    variable.dims.len(),
                    call,
                    std::ptr::from_mut(&mut context).cast(),
                    status,
                )
            }
        })?;
        match context.outcome {
            Ok(()) => Ok(written != 0),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Tells them that variables may change from now on without being told.
    pub(crate) fn untrack(&self) {
        // SAFETY: the devices are live.
        unsafe { shim::sg_devices_untrack(self.0) }
    }

    pub(super) fn as_ptr(&self) -> *mut shim::sg_devices {
        self.0
    }
}

/// A request that may change variables.
pub(crate) struct Writing<'a>(&'a Devices);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // SAFETY: the devices are live, and know that it has begun.
        unsafe { shim::sg_devices_end_write(self.0.0) }
    }
}

/// A group that is being loaded.
pub(crate) struct Loading<'a>(&'a Devices);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        // SAFETY: the devices are live.
        unsafe { shim::sg_devices_set_loading(self.0.0, 0) }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: owned, and sessions over the devices own them too, so none is left. NULL, where
        // new failed, is allowed.
        unsafe { shim::sg_devices_delete(self.0) }
    }
}

//! The devices whose resource managers hold what the sessions of a group share.

// The shim calls it.
use libmimalloc_sys as _;

use super::graph::Graph;
use super::session_options::SessionOptions;
use super::shim;
use super::status;
use crate::error::Result;

/// Where a session of a multi-stream group computes: the index of a GPU, and of a stream on it.
pub(crate) use super::shim::sg_seat as Seat;

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

    /// The number of the virtual device that TensorFlow has for a seat.
    pub(crate) fn virtual_device(&self, seat: Seat) -> i32 {
        // SAFETY: the devices are live, and were made with this seat.
        unsafe { shim::sg_devices_virtual_device(self.0, &seat) }
    }

    /// Waits until all streams have done what they were given.
    pub(crate) fn sync(&self) -> Result<()> {
        // SAFETY: the devices are live.
        status::call(|status| unsafe { shim::sg_devices_sync(self.0, status) })
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

    /// Frees the variables of a container.
    pub(crate) fn clear_container(&self, container: &str) -> Result<()> {
        status::call(|status| {
            // SAFETY: the devices are live.
            unsafe { shim::sg_devices_clear_container(self.0, container.into(), status) }
        })
    }

    /// Tells sessions that a variable may have changed.
    pub(crate) fn written(&self) {
        // SAFETY: the devices are live.
        unsafe { shim::sg_devices_written(self.0) }
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

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: owned, and sessions over the devices own them too, so none is left. NULL, where
        // new failed, is allowed.
        unsafe { shim::sg_devices_delete(self.0) }
    }
}

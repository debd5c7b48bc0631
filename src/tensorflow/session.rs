//! One session of a group: TensorFlow's direct session over shared devices.

use std::ffi::{CStr, c_char};
use std::mem::ManuallyDrop;
use std::ptr::{NonNull, null};
use std::sync::Arc;

use tensorflow_sys as tf;

use super::devices::{Devices, StreamSlot};
use super::graph::{Graph, SavedModel};
use super::run_options::RunOptions;
use super::session_options::SessionOptions;
use super::shim::{self, sg_str};
use super::{Buffer, Tensor, status};
use crate::error::Result;

/// A session's own intra-op threads.
pub struct IntraOpPool(NonNull<shim::sg_intra_op_pool>);

impl IntraOpPool {
    /// Starts the threads. They inherit name and affinity mask of the calling thread.
    pub fn new(options: &SessionOptions, threads: i32) -> Result<Self> {
        // SAFETY: the options are live.
        let pool = status::call(|status| unsafe {
            shim::sg_intra_op_pool_new(options.as_ptr(), threads, status)
        })?;
        Ok(Self(NonNull::new(pool).expect("a pool, where there was no error")))
    }

    /// Gives the pool away.
    fn into_raw(self) -> *mut shim::sg_intra_op_pool {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for IntraOpPool {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once.
        unsafe { shim::sg_intra_op_pool_delete(self.0.as_ptr()) }
    }
}

/// A device that the sessions of a group see.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// As in `/job:localhost/replica:0/task:0/device:CPU:0`.
    pub name: String,
    /// As in `CPU`.
    pub kind: String,
    /// How much memory it has, in bytes, as TensorFlow counts it.
    pub memory_bytes: i64,
}

/// A session that shares variables and tables with all others over the same devices.
pub struct Session {
    ptr: *mut shim::sg_session,
    /// Dropped after the session, whose kernels use them.
    devices: Arc<Devices>,
}

// SAFETY: TensorFlow's session is thread-safe, and this handle to it is never changed.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

/// What a session shall compute, by names.
#[derive(Clone, Copy)]
pub struct NamedTensors<'a> {
    /// Feeds: a tensor and the name of the graph's tensor that it replaces, as `name:0`.
    pub inputs: &'a [(&'a str, &'a Tensor)],
    /// Fetches: names of tensors.
    pub outputs: &'a [&'a str],
    /// Targets: names of operations to run without fetching anything.
    pub targets: &'a [&'a str],
}

impl Session {
    /// A session that computes on `pool` and on an inter-op pool of its own, whose threads inherit
    /// name and affinity mask of the calling thread. It has a stream_slot where the devices have streams.
    pub(crate) fn new(
        devices: Arc<Devices>,
        options: &SessionOptions,
        stream_slot: Option<StreamSlot>,
        pool: IntraOpPool,
        inter_op_threads: i32,
    ) -> Result<Self> {
        let ptr = status::call(|status| {
            // SAFETY: devices, options and stream_slot are live; the pool is given away.
            unsafe {
                shim::sg_session_new(
                    devices.as_ptr(),
                    options.as_ptr(),
                    stream_slot.as_ref().map_or(null(), std::ptr::from_ref),
                    pool.into_raw(),
                    inter_op_threads,
                    status,
                )
            }
        })?;
        Ok(Self { ptr, devices })
    }

    /// A session to compile programs with, over the same devices.
    pub(crate) fn compiler(
        devices: Arc<Devices>,
        options: &SessionOptions,
        stream_slot: Option<StreamSlot>,
        pool: IntraOpPool,
    ) -> Result<Self> {
        let ptr = status::call(|status| {
            let stream_slot = stream_slot.as_ref().map_or(null(), std::ptr::from_ref);
            let (devices, options) = (devices.as_ptr(), options.as_ptr());
            // SAFETY: devices, options and stream_slot are live; the pool is given away.
            unsafe { shim::sg_compiler_new(devices, options, stream_slot, pool.into_raw(), status) }
        })?;
        Ok(Self { ptr, devices })
    }

    /// Gives the session its graph.
    pub fn create(&self, graph: &Graph) -> Result<()> {
        // SAFETY: session and graph are live.
        status::call(|status| unsafe { shim::sg_session_create(self.ptr, graph.as_ptr(), status) })
    }

    /// Adds nodes to the session's graph.
    pub fn extend(&self, graph: &Graph) -> Result<()> {
        // SAFETY: session and graph are live.
        status::call(|status| unsafe { shim::sg_session_extend(self.ptr, graph.as_ptr(), status) })
    }

    /// Gives the session its graph, or adds to it, with the values of hidden constants that optimisers can
    /// make something of.
    pub(crate) fn add_revealed(&self, graph: &Graph, extend: bool) -> Result<()> {
        status::call(|status| {
            // SAFETY: session and graph are live.
            unsafe {
                shim::sg_session_add_revealed(self.ptr, graph.as_ptr(), i32::from(extend), status);
            }
        })
    }

    pub(super) fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// Restores the model's variables and runs its initialisers.
    pub fn restore(&self, model: &SavedModel, options: &RunOptions) -> Result<()> {
        status::call(|status| {
            // SAFETY: session, model and options are live.
            unsafe {
                shim::sg_session_restore(self.ptr, model.as_ptr(), options.as_ptr(), status);
            }
        })
    }

    /// Runs the graph. `outputs` has room for a tensor for each of the named outputs and gets them
    /// all, or none.
    pub fn run(
        &self,
        options: &RunOptions,
        named: &NamedTensors<'_>,
        outputs: &mut [Option<Tensor>],
        metadata: Option<&mut Buffer>,
    ) -> Result<()> {
        assert_eq!(outputs.len(), named.outputs.len());
        // The shim writes pointers over what is there.
        outputs.fill_with(|| None);
        let input_names: Vec<sg_str<'_>> =
            named.inputs.iter().map(|&(name, _)| name.into()).collect();
        let inputs: Vec<_> = named.inputs.iter().map(|(_, tensor)| tensor.as_ptr()).collect();
        let output_names: Vec<sg_str<'_>> = named.outputs.iter().map(|&name| name.into()).collect();
        let targets: Vec<sg_str<'_>> = named.targets.iter().map(|&name| name.into()).collect();
        status::call(|status| {
            // SAFETY: every array has the length given with it and outlives the call; an
            // Option<Tensor> is a pointer, and the shim only writes to it.
            unsafe {
                shim::sg_session_run(
                    self.ptr,
                    options.as_ptr(),
                    input_names.as_ptr(),
                    inputs.as_ptr(),
                    inputs.len(),
                    output_names.as_ptr(),
                    outputs.as_mut_ptr().cast(),
                    outputs.len(),
                    targets.as_ptr(),
                    targets.len(),
                    metadata.map_or(std::ptr::null_mut(), Buffer::as_mut_ptr),
                    status,
                );
            }
        })
    }

    pub(super) fn as_ptr(&self) -> *mut shim::sg_session {
        self.ptr
    }

    /// Cancels the runs that are under way, as far as their operations can be cancelled, those that begin
    /// later, and what runs in the background. Doing it again does nothing.
    pub fn close(&self) -> Result<()> {
        // SAFETY: the session is live.
        status::call(|status| unsafe { shim::sg_session_close(self.ptr, status) })
    }

    /// Whether an exception has left it in an unknown state. It is then not used again, and stays in
    /// memory for ever.
    pub fn is_broken(&self) -> bool {
        // SAFETY: the session is live.
        unsafe { shim::sg_session_is_broken(self.ptr) != 0 }
    }

    /// What devices the session sees.
    pub fn devices_seen(&self) -> Result<Vec<Device>> {
        let list = self.list_devices()?;
        // SAFETY: the list is live, and the index in range.
        let count = unsafe { tf::TF_DeviceListCount(list) };
        let device = |i| {
            status::call(|status| {
                // SAFETY: as above; the texts live as long as the list.
                let text = |text: *const c_char| unsafe {
                    if text.is_null() {
                        String::new()
                    } else {
                        CStr::from_ptr(text).to_string_lossy().into()
                    }
                };
                // SAFETY: as above.
                unsafe {
                    Device {
                        name: text(tf::TF_DeviceListName(list, i, status)),
                        kind: text(tf::TF_DeviceListType(list, i, status)),
                        memory_bytes: tf::TF_DeviceListMemoryBytes(list, i, status),
                    }
                }
            })
        };
        let devices = (0..count).map(device).collect();
        // SAFETY: the list is owned and deleted once.
        unsafe { tf::TF_DeleteDeviceList(list) };
        devices
    }

    /// The same as TensorFlow's C API has it, for a caller who frees it with `TF_DeleteDeviceList`.
    pub fn list_devices(&self) -> Result<*mut tf::TF_DeviceList> {
        // SAFETY: the session is live.
        status::call(|status| unsafe { shim::sg_session_list_devices(self.ptr, status) })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_broken() {
            // What still runs in it uses them.
            std::mem::forget(self.devices.clone());
        }
        // SAFETY: owned and deleted once, with no run under way, since a run borrows the session.
        unsafe { shim::sg_session_delete(self.ptr) }
    }
}

//! Graphs on their way into sessions: a serialised `GraphDef`, or a SavedModel's.

use std::path::Path;
use std::sync::Arc;

use super::buffer::Buffer;
use super::devices::Devices;
use super::export_dir::advice;
use super::shim::{self, sg_str};
use super::status;
use crate::error::{Code, Error, Result};

/// A parsed `GraphDef` whose tables can be shared by several sessions.
pub struct Graph(*mut shim::sg_graph);

// SAFETY: the graph is owned and never changed.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

impl Graph {
    /// Parses a serialised `GraphDef`.
    pub fn parse(graph_def: &[u8]) -> Result<Self> {
        status::call(|status| {
            // SAFETY: the bytes outlive the call.
            Self(unsafe {
                shim::sg_graph_parse(graph_def.as_ptr().cast(), graph_def.len(), status)
            })
        })
    }

    /// Takes a graph over that C++ has made.
    ///
    /// # Safety
    ///
    /// `graph` must be live and the caller's to give.
    pub(crate) unsafe fn from_raw(graph: *mut shim::sg_graph) -> Self {
        Self(graph)
    }

    /// Makes resource variables of TensorFlow 1's reference variables, where they can be; `earlier` is what
    /// this graph extends.
    pub(crate) fn convert_variables(self, earlier: &[Arc<Self>]) -> Result<Self> {
        let earlier: Vec<_> = earlier.iter().map(|graph| graph.as_ptr()).collect();
        status::call(|status| {
            // SAFETY: the graphs are live, and nobody else has the one that changes.
            unsafe {
                shim::sg_graph_convert_variables(self.0, earlier.as_ptr(), earlier.len(), status);
            }
        })?;
        Ok(self)
    }

    /// Takes the values of large constants out of the nodes, to be there once for all sessions over the
    /// devices, as long as the graph is.
    pub(crate) fn hide_constants(self, devices: &Devices) -> Result<Self> {
        status::call(|status| {
            // SAFETY: graph and devices are live, and nobody else has the graph.
            unsafe { shim::sg_graph_hide_constants(self.0, devices.as_ptr(), status) }
        })?;
        Ok(self)
    }

    /// Whether optimisers could make something of the values of hidden constants.
    pub(crate) fn can_reveal(&self) -> bool {
        // SAFETY: the graph is live.
        unsafe { shim::sg_graph_can_reveal(self.0) != 0 }
    }

    /// How many outputs a node has, `i32::MAX` where that can't be told; `None` where there is no such
    /// node.
    pub(crate) fn outputs(&self, node: &str) -> Option<i32> {
        // SAFETY: the graph is live, and never changes once it is not `hide_constants`' any more.
        let outputs = unsafe { shim::sg_graph_outputs(self.0, node.into()) };
        (outputs >= 0).then_some(outputs)
    }

    pub(super) fn as_ptr(&self) -> *const shim::sg_graph {
        self.0
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once; NULL is allowed.
        unsafe { shim::sg_graph_delete(self.0) }
    }
}

/// One `MetaGraphDef` of a SavedModel.
pub struct SavedModel(*mut shim::sg_saved_model);

impl SavedModel {
    /// Reads the `MetaGraphDef` that has exactly these tags. Where asked for, also gives it
    /// serialised.
    pub fn read(
        export_dir: impl AsRef<Path>,
        tags: &[&str],
        meta_graph_def: Option<&mut Buffer>,
    ) -> Result<Self> {
        let path = export_dir.as_ref();
        let export_dir = path
            .to_str()
            .ok_or_else(|| Error::invalid(format!("the path {} is not UTF-8", path.display())))?;
        let meta_graph_def = meta_graph_def.map_or(std::ptr::null_mut(), Buffer::as_mut_ptr);
        let tags: Vec<sg_str<'_>> = tags.iter().map(|&tag| tag.into()).collect();
        status::call(|status| {
            // SAFETY: all pointers are valid for the call, and the buffer is empty.
            Self(unsafe {
                shim::sg_saved_model_read(
                    export_dir.into(),
                    tags.as_ptr(),
                    tags.len(),
                    meta_graph_def,
                    status,
                )
            })
        })
        .map_err(|error: Error| {
            let advice = if error.code == Code::NotFound { advice(path) } else { None };
            advice.map_or(error, |advice| Error::new(Code::NotFound, advice))
        })
    }

    pub(super) fn as_ptr(&self) -> *const shim::sg_saved_model {
        self.0
    }

    /// Takes the graph out of the model; restoring needs the rest.
    pub fn take_graph(&mut self) -> Graph {
        // SAFETY: the model is live, and gives its graph away.
        Graph(unsafe { shim::sg_saved_model_take_graph(self.0) })
    }
}

impl Drop for SavedModel {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once; NULL is allowed.
        unsafe { shim::sg_saved_model_delete(self.0) }
    }
}

//! Graphs on their way into sessions: a serialised `GraphDef`, or a SavedModel's.

use super::buffer::Buffer;
use super::shim::{self, sg_str};
use super::status;
use crate::error::Result;

/// A parsed `GraphDef` whose tables can be shared by several sessions.
pub struct Graph(*mut shim::sg_graph);

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
    /// Reads the `MetaGraphDef` that has exactly these tags. Also gives it serialised.
    pub fn read(export_dir: &str, tags: &[&str]) -> Result<(Self, Buffer)> {
        let mut meta_graph_def = Buffer::new();
        let tags: Vec<sg_str<'_>> = tags.iter().map(|&tag| tag.into()).collect();
        let model = status::call(|status| {
            // SAFETY: all pointers are valid for the call, and the buffer is empty.
            Self(unsafe {
                shim::sg_saved_model_read(
                    export_dir.into(),
                    tags.as_ptr(),
                    tags.len(),
                    meta_graph_def.as_mut_ptr(),
                    status,
                )
            })
        })?;
        Ok((model, meta_graph_def))
    }

    pub(super) fn as_ptr(&self) -> *const shim::sg_saved_model {
        self.0
    }

    pub(super) fn graph_ptr(&self) -> *const shim::sg_graph {
        // SAFETY: the model is live, and its graph lives as long.
        unsafe { shim::sg_saved_model_graph(self.0) }
    }
}

impl Drop for SavedModel {
    fn drop(&mut self) {
        // SAFETY: owned and deleted once; NULL is allowed.
        unsafe { shim::sg_saved_model_delete(self.0) }
    }
}

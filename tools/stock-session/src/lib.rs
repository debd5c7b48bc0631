//! A session of TensorFlow's own C API, to compare a session group with: for tests, the demo and
//! benchmarks. What goes wrong panics.

use std::ffi::{CStr, CString};
use std::ptr::{NonNull, null, null_mut};

use session_group::tensorflow::{SessionOptions, Tensor};
use tensorflow_sys as tf;

/// A `TF_Session` with its graph.
pub struct StockSession {
    session: *mut tf::TF_Session,
    graph: *mut tf::TF_Graph,
}

// SAFETY: TF_Session and TF_Graph are thread-safe.
unsafe impl Send for StockSession {}
// SAFETY: as above.
unsafe impl Sync for StockSession {}

/// A serialised `RunOptions` with `inter_op_thread_pool` = -1: run on the calling thread.
pub const ON_CALLING_THREAD: [u8; 11] =
    [0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];

/// Feeds and fetches resolved to operations of a session's graph.
pub struct Step {
    inputs: Vec<tf::TF_Output>,
    outputs: Vec<tf::TF_Output>,
}

// SAFETY: the operations belong to the graph, which is thread-safe.
unsafe impl Send for Step {}
// SAFETY: as above.
unsafe impl Sync for Step {}

impl StockSession {
    /// Loads the `serve` graph of a SavedModel. Also gives the serialised `MetaGraphDef`.
    pub fn load(options: &SessionOptions, dir: &str) -> (Self, Vec<u8>) {
        let dir = CString::new(dir).expect("no zero byte");
        let tag = c"serve".as_ptr();
        // SAFETY: all pointers are live; the buffer's bytes are copied before it is deleted.
        unsafe {
            let graph = tf::TF_NewGraph();
            let buffer = tf::TF_NewBuffer();
            let session = ok(|status| {
                tf::TF_LoadSessionFromSavedModel(
                    options.as_ptr(),
                    null(),
                    dir.as_ptr(),
                    &raw const tag,
                    1,
                    graph,
                    buffer,
                    status,
                )
            });
            let meta_graph_def =
                std::slice::from_raw_parts((*buffer).data.cast(), (*buffer).length).to_vec();
            tf::TF_DeleteBuffer(buffer);
            (Self { session, graph }, meta_graph_def)
        }
    }

    /// A session with a serialised `GraphDef`.
    pub fn create(options: &SessionOptions, graph_def: &[u8]) -> Self {
        // SAFETY: all pointers are live.
        unsafe {
            let graph = tf::TF_NewGraph();
            let buffer = tf::TF_NewBufferFromString(graph_def.as_ptr().cast(), graph_def.len());
            let import = tf::TF_NewImportGraphDefOptions();
            ok(|status| tf::TF_GraphImportGraphDef(graph, buffer, import, status));
            tf::TF_DeleteImportGraphDefOptions(import);
            tf::TF_DeleteBuffer(buffer);
            let session = ok(|status| tf::TF_NewSession(graph, options.as_ptr(), status));
            Self { session, graph }
        }
    }

    /// Looks up tensors, named as `name:0`.
    pub fn step(&self, inputs: &[&str], outputs: &[&str]) -> Step {
        let find = |names: &[&str]| names.iter().map(|name| self.output(name)).collect();
        Step { inputs: find(inputs), outputs: find(outputs) }
    }

    fn output(&self, name: &str) -> tf::TF_Output {
        let (operation, index) = name.split_once(':').expect("a name as x:0");
        let operation = CString::new(operation).expect("no zero byte");
        // SAFETY: the graph is live.
        let oper = unsafe { tf::TF_GraphOperationByName(self.graph, operation.as_ptr()) };
        assert!(!oper.is_null(), "the graph has no {name}");
        tf::TF_Output { oper, index: index.parse().expect("a number") }
    }

    /// Runs a step. `run_options` is a serialised `RunOptions`; no bytes are TensorFlow's defaults.
    pub fn run(&self, step: &Step, inputs: &[&Tensor], run_options: &[u8]) -> Vec<Tensor> {
        let values: Vec<_> = inputs.iter().map(|tensor| tensor.as_ptr()).collect();
        let mut results = vec![null_mut(); step.outputs.len()];
        let options = tf::TF_Buffer {
            data: run_options.as_ptr().cast(),
            length: run_options.len(),
            data_deallocator: None,
        };
        ok(|status| {
            // SAFETY: all arrays are as long as said, and everything outlives the call.
            unsafe {
                tf::TF_SessionRun(
                    self.session,
                    &options,
                    step.inputs.as_ptr(),
                    values.as_ptr(),
                    values.len() as i32,
                    step.outputs.as_ptr(),
                    results.as_mut_ptr(),
                    results.len() as i32,
                    null(),
                    0,
                    null_mut(),
                    status,
                )
            }
        });
        let own = |tensor| NonNull::new(tensor).expect("a tensor for each output");
        // SAFETY: the tensors are ours since the run succeeded.
        results.into_iter().map(|tensor| unsafe { Tensor::from_raw(own(tensor)) }).collect()
    }
}

impl Drop for StockSession {
    fn drop(&mut self) {
        // SAFETY: both are owned, and deleted once.
        unsafe {
            ok(|status| tf::TF_CloseSession(self.session, status));
            ok(|status| tf::TF_DeleteSession(self.session, status));
            tf::TF_DeleteGraph(self.graph);
        }
    }
}

fn ok<T>(f: impl FnOnce(*mut tf::TF_Status) -> T) -> T {
    // SAFETY: the status is live until deleted, and its message copied before.
    unsafe {
        let status = tf::TF_NewStatus();
        let value = f(status);
        let message = CStr::from_ptr(tf::TF_Message(status)).to_string_lossy().into_owned();
        assert_eq!(tf::TF_GetCode(status), tf::TF_OK, "{message}");
        tf::TF_DeleteStatus(status);
        value
    }
}

//! The same requests for a session of TensorFlow's own, to tell what it can't bear itself: an input for
//! which stock TensorFlow ends the process is no finding. `run.sh` repeats what has failed in this way.

use std::ffi::CString;
use std::ptr::{null, null_mut};

use session_group::tensorflow::{SessionOptions, Tensor};
use tensorflow_sys as tf;

/// Feeds, fetches and targets.
pub type Step<'a> = (&'a [(&'a str, &'a Tensor)], &'a [&'a str], &'a [&'a str]);

/// Whether this process shall repeat an input so.
pub fn is_asked_for() -> bool {
    std::env::var_os("SESSION_GROUP_FUZZ_STOCK").is_some()
}

/// Creates the graph and runs each step; errors don't matter.
pub fn run_graph_def(options: &SessionOptions, graph_def: &[u8], steps: &[Step<'_>]) {
    let status = Status::new();
    // SAFETY: everything is live during the call that it is passed to, arrays are as long as said.
    unsafe {
        let session = tf::TF_NewDeprecatedSession(options.as_ptr(), status.0);
        tf::TF_ExtendGraph(session, graph_def.as_ptr().cast(), graph_def.len(), status.0);
        for (inputs, outputs, targets) in steps {
            let names = |names: &mut dyn Iterator<Item = &str>| -> Vec<CString> {
                names.map(|name| CString::new(name).expect("no zero byte")).collect()
            };
            let feeds = names(&mut inputs.iter().map(|(name, _)| *name));
            let fetches = names(&mut outputs.iter().copied());
            let targets = names(&mut targets.iter().copied());
            let [mut feeds, mut fetches, mut targets] = [&feeds, &fetches, &targets]
                .map(|names| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>());
            // TF_Run takes the tensors over.
            let mut values: Vec<_> = inputs.iter().map(|(_, tensor)| copy(tensor)).collect();
            let mut fetched = vec![null_mut(); fetches.len()];
            tf::TF_Run(
                session,
                null(),
                feeds.as_mut_ptr(),
                values.as_mut_ptr(),
                values.len() as i32,
                fetches.as_mut_ptr(),
                fetched.as_mut_ptr(),
                fetched.len() as i32,
                targets.as_mut_ptr(),
                targets.len() as i32,
                null_mut(),
                status.0,
            );
            fetched.into_iter().for_each(|tensor| tf::TF_DeleteTensor(tensor));
        }
        tf::TF_CloseDeprecatedSession(session, status.0);
        tf::TF_DeleteDeprecatedSession(session, status.0);
    }
}

/// Loads a SavedModel with the tag `serve` and runs a step of names with an output's number, as `x:0`.
pub fn run_saved_model(options: &SessionOptions, dir: &str, (inputs, outputs, _): Step<'_>) {
    let (status, dir) = (Status::new(), CString::new(dir).expect("no zero byte"));
    let tag = c"serve".as_ptr();
    // SAFETY: as above.
    unsafe {
        let graph = tf::TF_NewGraph();
        let session = tf::TF_LoadSessionFromSavedModel(
            options.as_ptr(),
            null(),
            dir.as_ptr(),
            &raw const tag,
            1,
            graph,
            null_mut(),
            status.0,
        );
        if !session.is_null() {
            let find = |name: &str| {
                let name = CString::new(name.trim_end_matches(":0")).expect("no zero byte");
                tf::TF_Output { oper: tf::TF_GraphOperationByName(graph, name.as_ptr()), index: 0 }
            };
            let feeds: Vec<_> = inputs.iter().map(|(name, _)| find(name)).collect();
            let fetches: Vec<_> = outputs.iter().map(|name| find(name)).collect();
            if feeds.iter().chain(&fetches).all(|output| !output.oper.is_null()) {
                let values: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.as_ptr()).collect();
                let mut fetched = vec![null_mut(); fetches.len()];
                tf::TF_SessionRun(
                    session,
                    null(),
                    feeds.as_ptr(),
                    values.as_ptr(),
                    values.len() as i32,
                    fetches.as_ptr(),
                    fetched.as_mut_ptr(),
                    fetched.len() as i32,
                    null(),
                    0,
                    null_mut(),
                    status.0,
                );
                fetched.into_iter().for_each(|tensor| tf::TF_DeleteTensor(tensor));
            }
            tf::TF_CloseSession(session, status.0);
            tf::TF_DeleteSession(session, status.0);
        }
        tf::TF_DeleteGraph(graph);
    }
}

/// A tensor of the same contents.
fn copy(tensor: &Tensor) -> *mut tf::TF_Tensor {
    let strings = tensor.to_strings().map(|strings| Tensor::from_strings(&tensor.dims(), &strings));
    let copy = strings.unwrap_or_else(|_| match tensor.to_vec::<i32>() {
        Ok(elements) => Tensor::from_slice(&tensor.dims(), &elements),
        Err(_) => Tensor::from_slice(&tensor.dims(), &tensor.to_vec::<f32>().expect("a float")),
    });
    copy.expect("a copy").into_raw()
}

struct Status(*mut tf::TF_Status);

impl Status {
    fn new() -> Self {
        // SAFETY: no precondition.
        Self(unsafe { tf::TF_NewStatus() })
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { tf::TF_DeleteStatus(self.0) };
    }
}

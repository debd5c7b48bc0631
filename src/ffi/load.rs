//! Groups from SavedModels.

use std::ffi::c_char;
use std::ptr::null_mut;

use tensorflow_sys as tf;

use super::check::{guard, reference, string, strings};
use super::run::{empty_buffer, parse_run_options};
use crate::tensorflow::{Buffer, SessionOptions};
use crate::{Options, SessionGroup};

/// Makes a group that serves a SavedModel, ready to run: restores its variables and runs its
/// initialisers once for all sessions. The counterpart of TF_LoadSessionFromSavedModel(). The caller
/// deletes the group with SessionGroup_Delete().
///
/// `session_options` is as for NewSessionGroup(). `run_options`, which may be NULL, is a serialised
/// RunOptions for restoring. `export_dir` is the folder that contains saved_model.pb. `tags` are
/// `ntags` strings, exactly those of the MetaGraphDef to load, usually the single tag "serve".
/// `meta_graph_def` may be NULL; otherwise it must be empty, and receives the serialised MetaGraphDef,
/// whose signatures name the tensors to feed and to fetch.
///
/// Errors: returns NULL, with TF_NOT_FOUND for a folder without a SavedModel or a SavedModel without
/// such a MetaGraphDef; TensorFlow's own errors for files that can't be read; those of
/// NewSessionGroup().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn LoadSessionGroupFromSavedModel(
    session_options: *const tf::TF_SessionOptions,
    run_options: *const tf::TF_Buffer,
    export_dir: *const c_char,
    tags: *const *const c_char,
    ntags: i32,
    options: *const Options,
    meta_graph_def: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) -> *mut SessionGroup {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, null_mut(), || {
            reference(session_options, "session_options")?;
            let run_options = parse_run_options(run_options)?;
            let export_dir = string(export_dir, "export_dir")?;
            let tags = strings(tags, ntags, "tags")?;
            let options = reference(options, "options")?;
            let mut meta_graph_def = empty_buffer(meta_graph_def, "meta_graph_def")?;
            let mut filled = meta_graph_def.as_ref().map(|_| Buffer::new());
            let group = SessionGroup::load(
                SessionOptions::borrow(&session_options),
                run_options.as_ref(),
                export_dir,
                &tags,
                options,
                filled.as_mut(),
            )?;
            if let (Some(filled), Some(out)) = (&mut filled, &mut meta_graph_def) {
                filled.swap(out);
            }
            Ok(Box::into_raw(Box::new(group)))
        })
    }
}

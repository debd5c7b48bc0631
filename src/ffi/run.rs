//! Running requests.

use std::ffi::{CStr, c_char, c_int};
use std::fmt::Display;

use smallvec::SmallVec;
use tensorflow_sys as tf;

use super::check::{array, bytes, give, guard, null, reference, strings, tensors};
use crate::error::{Error, Result};
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::{Buffer, Tensor};
use crate::{Request, SessionGroup};

/// Runs the graph on the session that the policy chooses; the counterpart of Session::Run(). Any number
/// of threads may call this at the same time.
///
/// `run_options`, which may be NULL, is a serialised RunOptions. Feeds are `ninputs` pairs of a name,
/// such as "x:0" or "x", and a tensor; the caller keeps ownership of these tensors. Fetches are
/// `noutputs` names, and `outputs` has room for as many tensors. It is written on success only; the
/// caller then owns the tensors and deletes them with TF_DeleteTensor(). Targets are `ntargets` names
/// of operations to run without fetching anything. `run_metadata` may be NULL; otherwise it must be
/// empty, and receives a serialised RunMetadata.
///
/// Errors: TF_INVALID_ARGUMENT, TF_NOT_FOUND or TF_OUT_OF_RANGE for names, types or shapes that the
/// graph refuses; TF_FAILED_PRECONDITION if the group has no graph or is closed; TF_DEADLINE_EXCEEDED
/// if the request takes longer than RunOptions.timeout_in_ms, including time in a queue;
/// TF_RESOURCE_EXHAUSTED if the queue is full; otherwise what the graph's operations report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_Run(
    group: *mut SessionGroup,
    run_options: *const tf::TF_Buffer,
    input_names: *const *const c_char,
    inputs: *const *mut tf::TF_Tensor,
    ninputs: i32,
    output_names: *const *const c_char,
    outputs: *mut *mut tf::TF_Tensor,
    noutputs: i32,
    target_names: *const *const c_char,
    ntargets: i32,
    run_metadata: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI.
    unsafe {
        SessionGroup_RunOn(
            group,
            -1,
            run_options,
            input_names,
            inputs,
            ninputs,
            output_names,
            outputs,
            noutputs,
            target_names,
            ntargets,
            run_metadata,
            status,
        );
    }
}

/// Like SessionGroup_Run(), on session number `session_id` modulo the number of sessions; if it is
/// negative, on the session that the policy chooses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_RunOn(
    group: *mut SessionGroup,
    session_id: i32,
    run_options: *const tf::TF_Buffer,
    input_names: *const *const c_char,
    inputs: *const *mut tf::TF_Tensor,
    ninputs: i32,
    output_names: *const *const c_char,
    outputs: *mut *mut tf::TF_Tensor,
    noutputs: i32,
    target_names: *const *const c_char,
    ntargets: i32,
    run_metadata: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let group = reference(group, "group")?;
            let input_names = strings(input_names, ninputs, "input_names")?;
            let output_names = strings(output_names, noutputs, "output_names")?;
            let targets = strings(target_names, ntargets, "target_names")?;
            run(
                group,
                run_options,
                (&input_names, inputs),
                (&output_names, outputs),
                &targets,
                usize::try_from(session_id).ok(),
                run_metadata,
            )
        });
    }
}

/// Like SessionGroup_Run(), with the parameters of TF_SessionRun(). The outputs and operations may
/// belong to any TF_Graph, because only their names are used.
///
/// Errors: also TF_OUT_OF_RANGE for a TF_Output with an index that its operation does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_SessionRun(
    group: *mut SessionGroup,
    run_options: *const tf::TF_Buffer,
    inputs: *const tf::TF_Output,
    input_values: *const *mut tf::TF_Tensor,
    ninputs: c_int,
    outputs: *const tf::TF_Output,
    output_values: *mut *mut tf::TF_Tensor,
    noutputs: c_int,
    target_opers: *const *const tf::TF_Operation,
    ntargets: c_int,
    run_metadata: *mut tf::TF_Buffer,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let group = reference(group, "group")?;
            let input_names = tensor_names(inputs, ninputs, "inputs")?;
            let output_names = tensor_names(outputs, noutputs, "outputs")?;
            let targets = array(target_opers, ntargets, "target_opers")?
                .iter()
                .enumerate()
                .map(|(i, &operation)| operation_name(operation, format_args!("target_opers[{i}]")))
                .collect::<Result<Vec<_>>>()?;
            let [input_names, output_names, targets] = [&input_names, &output_names, &targets]
                .map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
            run(
                group,
                run_options,
                (&input_names, input_values),
                (&output_names, output_values),
                &targets,
                None,
                run_metadata,
            )
        });
    }
}

/// Runs a request once on each session, on all of them at the same time, so that no later request pays
/// for what a session does only the first time. Parameters are as for SessionGroup_Run(); the fetched
/// tensors are discarded. Call it for each signature before the group gets its first real request.
///
/// Errors: those of SessionGroup_Run(), from any session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SessionGroup_WarmUp(
    group: *mut SessionGroup,
    input_names: *const *const c_char,
    inputs: *const *mut tf::TF_Tensor,
    ninputs: i32,
    output_names: *const *const c_char,
    noutputs: i32,
    target_names: *const *const c_char,
    ntargets: i32,
    status: *mut tf::TF_Status,
) {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        guard(status, (), || {
            let group = reference(group, "group")?;
            let input_names = strings(input_names, ninputs, "input_names")?;
            let output_names = strings(output_names, noutputs, "output_names")?;
            let targets = strings(target_names, ntargets, "target_names")?;
            group.warm_up(&feeds(&input_names, inputs)?, &output_names, &targets)
        });
    }
}

/// # Safety
///
/// `inputs` must be NULL or point to as many tensors as there are names, each NULL or live as long as
/// `'a`.
unsafe fn feeds<'a>(
    names: &[&'a str],
    inputs: *const *mut tf::TF_Tensor,
) -> Result<SmallVec<[(&'a str, &'a Tensor); 32]>> {
    // SAFETY: the caller vouches for it.
    let tensors = unsafe { tensors(inputs, names.len() as i32, "inputs") }?;
    Ok(std::iter::zip(names.iter().copied(), tensors).collect())
}

/// # Safety
///
/// As for [`SessionGroup_Run`].
unsafe fn run(
    group: &SessionGroup,
    run_options: *const tf::TF_Buffer,
    (input_names, inputs): (&[&str], *const *mut tf::TF_Tensor),
    (output_names, outputs): (&[&str], *mut *mut tf::TF_Tensor),
    targets: &[&str],
    session: Option<usize>,
    run_metadata: *mut tf::TF_Buffer,
) -> Result<()> {
    // SAFETY: the caller follows the rules of the ABI, here and below.
    unsafe {
        let options = parse_run_options(run_options)?;
        let mut metadata_out = empty_buffer(run_metadata, "run_metadata")?;
        let inputs = feeds(input_names, inputs)?;
        if !output_names.is_empty() && outputs.is_null() {
            return Err(null("outputs"));
        }

        let request = Request {
            inputs: &inputs,
            outputs: output_names,
            targets,
            options: options.as_ref(),
            session,
        };
        let mut metadata = metadata_out.as_ref().map(|_| Buffer::new());
        let mut results: SmallVec<[_; 8]> = output_names.iter().map(|_| None).collect();
        group.run_into(&request, &mut results, metadata.as_mut())?;
        give(results, outputs);
        if let (Some(filled), Some(out)) = (&mut metadata, &mut metadata_out) {
            filled.swap(out);
        }
        Ok(())
    }
}

/// Returns `None` if the caller passes no options.
///
/// # Safety
///
/// `buffer` must be NULL or live.
pub(super) unsafe fn parse_run_options(buffer: *const tf::TF_Buffer) -> Result<Option<RunOptions>> {
    // SAFETY: the caller follows the rules of the ABI.
    let Some(buffer) = (unsafe { buffer.as_ref() }) else {
        return Ok(None);
    };
    if buffer.length == 0 {
        return RunOptions::parse(&[]).map(Some);
    }
    // SAFETY: a TF_Buffer's data has as many bytes as its length says.
    RunOptions::parse(unsafe { bytes(buffer.data, buffer.length, "run_options->data") }?).map(Some)
}

/// Checks a buffer that the library fills. Returns `None` if the caller passes NULL.
///
/// # Safety
///
/// `buffer` must be NULL, or be live and not used by another thread for as long as `'a`.
pub(super) unsafe fn empty_buffer<'a>(
    buffer: *mut tf::TF_Buffer,
    name: &str,
) -> Result<Option<&'a mut tf::TF_Buffer>> {
    // SAFETY: the caller follows the rules of the ABI.
    let Some(buffer) = (unsafe { buffer.as_mut() }) else {
        return Ok(None);
    };
    if !buffer.data.is_null() {
        return Err(Error::invalid(format!("{name} is not empty: pass one from TF_NewBuffer()")));
    }
    Ok(Some(buffer))
}

/// # Safety
///
/// `outputs` must be NULL or point to `n` outputs whose operations are NULL or live.
unsafe fn tensor_names(outputs: *const tf::TF_Output, n: c_int, name: &str) -> Result<Vec<String>> {
    // SAFETY: the caller follows the rules of the ABI.
    let outputs = unsafe { array(outputs, n, name) }?;
    let tensor_name = |(i, output): (usize, &tf::TF_Output)| {
        // SAFETY: the caller vouches for the operation.
        let operation = unsafe { operation_name(output.oper, format_args!("{name}[{i}].oper")) }?;
        // SAFETY: the operation is live.
        let has = unsafe { tf::TF_OperationNumOutputs(output.oper) };
        if !(0..has).contains(&output.index) {
            return Err(Error::new(
                crate::Code::OutOfRange,
                format!(
                    "{name}[{i}] is output {} of operation {operation:?}, which has {has}",
                    output.index
                ),
            ));
        }
        Ok(format!("{operation}:{}", output.index))
    };
    outputs.iter().enumerate().map(tensor_name).collect()
}

/// # Safety
///
/// `operation` must be NULL or live.
unsafe fn operation_name(operation: *const tf::TF_Operation, name: impl Display) -> Result<String> {
    if operation.is_null() {
        return Err(null(name));
    }
    // SAFETY: the operation is live; TF_OperationName does not change it.
    let operation_name = unsafe { CStr::from_ptr(tf::TF_OperationName(operation.cast_mut())) };
    Ok(operation_name.to_string_lossy().into_owned())
}

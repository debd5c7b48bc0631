//! The C ABI. cbindgen turns this file into `include/serving_processor.h`.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use std::sync::Once;

use session_group::{Code, Error, Result};
use session_group_serving::text::beginning;
use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::handles;
use crate::model::Model;

/// In bytes. Messages need a limit because TensorFlow quotes its input.
const MOST_OF_A_MESSAGE: usize = 4000;
const OK: c_int = 200;
const FAILED: c_int = 500;

/// Loads a model and makes it ready to serve. Returns when it is ready. If a checkpoint has to
/// appear first, waits for it up to init_timeout_minutes.
///
/// @param model_entry   The folder that a relative warmup_file_name starts from; "" or NULL for the
///                      current folder.
/// @param model_config  JSON, zero-terminated; see above.
/// @param state         Set to 0, or to -1 on failure. May be NULL.
/// @return The model_buf of the other functions. The caller ends it with
///         session_group_processor_destroy(). NULL on failure; the reason is written to the standard
///         error stream.
///
/// @par Thread safety: any thread may call it, also for several models in one process.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn initialize(
    model_entry: *const c_char,
    model_config: *const c_char,
    state: *mut c_int,
) -> *mut c_void {
    let made = caught(|| {
        log_to_stderr();
        // SAFETY: the caller passes NULL or zero-terminated strings.
        let (entry, config) =
            unsafe { (text(model_entry, "model_entry"), text(model_config, "model_config")) };
        let config = config?.ok_or_else(|| Error::invalid("model_config is NULL: pass JSON"))?;
        Model::new(entry?.unwrap_or(""), config)
    });
    let (model, outcome) = match made {
        Ok(model) => (handles::add(model), 0),
        Err(error) => {
            let _ = caught(|| {
                error!("initialize: {}", error.message);
                Ok(())
            });
            (null_mut(), -1)
        }
    };
    // SAFETY: the caller passes NULL or a valid pointer.
    if let Some(state) = unsafe { state.as_mut() } {
        *state = outcome;
    }
    model
}

/// Answers a request on a session of the group.
///
/// @param model_buf    What initialize() returned.
/// @param input_data   A serialised PredictRequest.
/// @param input_size   Its length in bytes. 0 asks for the configured signature, as JSON.
/// @param output_data  Set to a serialised PredictResponse, to JSON, or, on failure, to a message
///                     that says what to change. The caller frees it with free().
/// @param output_size  Set to its length in bytes, without the zero byte that follows.
/// @return 200, or 500 on failure. If output_data or output_size is NULL, nothing is written.
///
/// @par Thread safety: any number of threads may call it at the same time.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn process(
    model_buf: *mut c_void,
    input_data: *const c_void,
    input_size: c_int,
    output_data: *mut *mut c_void,
    output_size: *mut c_int,
) -> c_int {
    // SAFETY: the caller passes what the documentation asks for.
    let Some(outputs) = (unsafe { Slot::new(output_data, output_size) }) else { return FAILED };
    outputs.answer("process", || {
        let held = handles::hold(model_buf)?;
        let model = held.model();
        if input_size == 0 {
            return Output::text(model.signature_json());
        }
        // SAFETY: the caller passes this many bytes.
        model.predict(unsafe { bytes(input_data, input_size) }?, Output::new)
    })
}

/// Answers several requests, spread over all sessions, each as process() does. If one fails, the
/// others are still answered.
///
/// @param model_buf    What initialize() returned.
/// @param input_data   Serialised PredictRequests; the array ends with a NULL pointer.
/// @param input_size   The length in bytes of each. NULL asks for the configured signature, as JSON, in
///                     the first element of output_data.
/// @param output_data  As many pointers as there are requests: each is set to a serialised
///                     PredictResponse or to a message, which begins with "Processor ". The caller
///                     frees each with free().
/// @param output_size  The length of each in bytes.
/// @return 200, or 500 if any request has failed. session_group_processor_batch_process_n() says
///         which.
///
/// @par Thread safety: any number of threads may call it at the same time.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn batch_process(
    model_buf: *mut c_void,
    input_data: *mut *const c_void,
    input_size: *mut c_int,
    output_data: *mut *mut c_void,
    output_size: *mut c_int,
) -> c_int {
    if input_data.is_null() || input_size.is_null() {
        let asks = input_size.is_null();
        // SAFETY: the caller passes NULL or arrays of at least one element.
        let Some(outputs) = (unsafe { Slot::new(output_data, output_size) }) else { return FAILED };
        return outputs.answer("batch_process", || {
            let held = handles::hold(model_buf)?;
            match asks {
                true => Output::text(held.model().signature_json()),
                false => Err(null("input_data")),
            }
        });
    }
    let mut n = 0;
    // SAFETY: the caller ends the array with NULL.
    while n < c_int::MAX && !unsafe { *input_data.add(n as usize) }.is_null() {
        n += 1;
    }
    // SAFETY: the caller passes n elements in each array.
    unsafe { batch(model_buf, n, input_data, input_size, output_data, output_size, null_mut()) }
}

/// Like batch_process(), but takes the number of requests and reports the outcome of each.
///
/// @param model_buf    What initialize() returned.
/// @param n            The number of requests, and of elements in each array.
/// @param input_data   Serialised PredictRequests.
/// @param input_size   The length in bytes of each; 0 asks for the configured signature, as JSON.
/// @param output_data  Set for each request as by process(). The caller frees each with free().
/// @param output_size  The length of each in bytes.
/// @param states       Set to 200 or 500 for each request. May be NULL.
/// @return 200, or 500 if any request has failed. If n is negative, or output_data or output_size is
///         NULL, 500, and nothing is written.
///
/// @par Thread safety: any number of threads may call it at the same time.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn session_group_processor_batch_process_n(
    model_buf: *mut c_void,
    n: c_int,
    input_data: *mut *const c_void,
    input_size: *mut c_int,
    output_data: *mut *mut c_void,
    output_size: *mut c_int,
    states: *mut c_int,
) -> c_int {
    // SAFETY: the caller passes what the documentation asks for.
    unsafe { batch(model_buf, n, input_data, input_size, output_data, output_size, states) }
}

/// Not by way of an exported function, which a program can have one of its own instead of.
///
/// # Safety
///
/// The arrays must be NULL or have `n` elements, which nothing else uses meanwhile; each request must have as
/// many bytes as its size says.
unsafe fn batch(
    model_buf: *mut c_void,
    n: c_int,
    input_data: *mut *const c_void,
    input_size: *mut c_int,
    output_data: *mut *mut c_void,
    output_size: *mut c_int,
    states: *mut c_int,
) -> c_int {
    let Ok(n) = usize::try_from(n) else { return FAILED };
    let held = handles::hold(model_buf);
    if n == 0 {
        return if held.is_ok() { OK } else { FAILED };
    }
    if output_data.is_null() || output_size.is_null() {
        return FAILED;
    }
    // SAFETY: the caller passes arrays of n elements, which nothing else uses meanwhile.
    let (outputs, sizes) = unsafe {
        (
            std::slice::from_raw_parts_mut(output_data, n),
            std::slice::from_raw_parts_mut(output_size, n),
        )
    };
    let mut own_states = Vec::new();
    let states = if states.is_null() {
        own_states.resize(n, FAILED);
        &mut own_states[..]
    } else {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(states, n) }
    };
    let requests: Vec<Result<&[u8]>> = (0..n)
        .map(|i| {
            if input_data.is_null() || input_size.is_null() {
                return Err(null(if input_data.is_null() { "input_data" } else { "input_size" }));
            }
            // SAFETY: the caller passes arrays of n elements, and that many bytes.
            unsafe { bytes(*input_data.add(i), *input_size.add(i)) }
        })
        .collect();
    let all: Vec<_> = requests
        .into_iter()
        .zip(outputs.iter_mut().zip(sizes))
        .zip(states.iter_mut())
        .map(|((request, (data, size)), state)| (request, Slot { data, size }, state))
        .collect();
    let model = held.as_ref().map(handles::ModelGuard::model);
    let one = |(request, slot, state): (Result<&[u8]>, Slot<'_>, &mut c_int)| {
        *state = slot.answer("batch_process", || {
            let (model, request) =
                (*model.as_ref().map_err(|error| Error::clone(error))?, request?);
            match request.is_empty() {
                true => Output::text(model.signature_json()),
                false => model.predict(request, Output::new),
            }
        });
    };
    match &model {
        Ok(model) => model.for_each(all, one),
        Err(_) => all.into_iter().for_each(one),
    }
    if states.iter().all(|&state| state == OK) { OK } else { FAILED }
}

/// Reports what is being served.
///
/// @param model_buf    What initialize() returned.
/// @param output_data  Set to a serialised ServingModelInfo, or, on failure, to a message. The
///                     caller frees it with free().
/// @param output_size  Set to its length in bytes.
/// @return 200, or 500 on failure. If output_data or output_size is NULL, nothing is written.
///
/// @par Thread safety: any number of threads may call it at the same time.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_serving_model_info(
    model_buf: *mut c_void,
    output_data: *mut *mut c_void,
    output_size: *mut c_int,
) -> c_int {
    // SAFETY: the caller passes what the documentation asks for.
    let Some(outputs) = (unsafe { Slot::new(output_data, output_size) }) else { return FAILED };
    outputs.answer("get_serving_model_info", || handles::hold(model_buf)?.model().info(Output::new))
}

/// Ends a model: waits for the requests that it is answering, cancels those that run for longer
/// than drain_timeout_ms, and frees it. A request that can't be cancelled keeps running and frees
/// the model when it ends. Later calls with this model_buf fail.
///
/// @param model_buf  What initialize() returned. NULL, or a model that was destroyed before, does nothing.
///
/// @par Thread safety: any thread may call it, also while requests run.
/// @since 0.1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn session_group_processor_destroy(model_buf: *mut c_void) {
    let _ = caught(|| {
        handles::remove(model_buf);
        Ok(())
    });
}

/// Where an answer goes.
struct Slot<'a> {
    data: &'a mut *mut c_void,
    size: &'a mut c_int,
}

// SAFETY: the references are unique, and nothing reads through them.
unsafe impl Send for Slot<'_> {}

impl<'a> Slot<'a> {
    /// # Safety
    ///
    /// Both must be NULL or valid for as long as `'a`, and nothing else may use them.
    unsafe fn new(data: *mut *mut c_void, size: *mut c_int) -> Option<Self> {
        // SAFETY: the caller vouches for them.
        unsafe { Some(Self { data: data.as_mut()?, size: size.as_mut()? }) }
    }

    /// Hands over the output of `work`, or the reason why it failed.
    fn answer(self, function: &str, work: impl FnOnce() -> Result<Output>) -> c_int {
        let (state, output) = match caught(work) {
            Ok(output) => (OK, Some(output)),
            Err(error) => {
                let what = beginning(&error.message, MOST_OF_A_MESSAGE);
                let message = format!("Processor {function} failed: {what}");
                (FAILED, Output::text(&message).ok())
            }
        };
        (*self.data, *self.size) = output.map_or((null_mut(), 0), Output::give);
        state
    }
}

/// Memory that the C caller frees.
struct Output {
    data: NonNull<u8>,
    size: c_int,
}

// SAFETY: the memory is owned, and any thread may free it.
unsafe impl Send for Output {}

impl Output {
    /// Allocates this many bytes, followed by a zero byte.
    fn new(size: usize) -> Result<Self> {
        let too_large = || {
            let message = format!("an answer of {size} bytes has no place in memory, or in an int");
            Error::new(Code::ResourceExhausted, message)
        };
        let length = c_int::try_from(size).map_err(|_| too_large())?;
        // SAFETY: no precondition.
        let data = unsafe { libc::calloc(size + 1, 1) };
        let data = NonNull::new(data.cast()).ok_or_else(too_large)?;
        Ok(Self { data, size: length })
    }

    fn text(text: &str) -> Result<Self> {
        let mut output = Self::new(text.len())?;
        output.as_mut().copy_from_slice(text.as_bytes());
        Ok(output)
    }

    fn give(self) -> (*mut c_void, c_int) {
        let output = std::mem::ManuallyDrop::new(self);
        (output.data.as_ptr().cast(), output.size)
    }
}

impl AsMut<[u8]> for Output {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory has this many bytes, initialised to zero.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.size as usize) }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: it came from calloc() and was not given away.
        unsafe { libc::free(self.data.as_ptr().cast()) }
    }
}

fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

/// # Safety
///
/// `data` must be NULL or point to `size` bytes that live as long as `'a`.
unsafe fn bytes<'a>(data: *const c_void, size: c_int) -> Result<&'a [u8]> {
    let length = usize::try_from(size)
        .map_err(|_| Error::invalid(format!("input_size is {size}: give the length in bytes")))?;
    match length {
        0 => Ok(&[]),
        _ if data.is_null() => Err(null("input_data")),
        // SAFETY: the caller vouches for it.
        _ => Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) }),
    }
}

/// # Safety
///
/// `text` must be NULL or a zero-terminated string that lives as long as `'a`.
unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller vouches for it.
    let text = unsafe { CStr::from_ptr(text) }.to_str();
    text.map(Some).map_err(|_| Error::invalid(format!("{name} is not UTF-8")))
}

/// Turns a panic into an error.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let message = |panic: &(dyn Any + Send)| {
        let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(Error::new(Code::Internal, format!("panicked: {}", message(panic.as_ref()))))
    })
}

/// Logs what happens to models, filtered by RUST_LOG; "info" and above by default.
fn log_to_stderr() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            // A program that has closed its standard error stream wants no messages, and no panics.
            .log_internal_errors(false)
            .try_init();
    });
}

//! Reads a checkpoint's tensors, with TensorFlow's own reader.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr::NonNull;

use session_group::tensorflow::{Tensor, status};
use session_group::{Error, Result};
use tensorflow_sys::{TF_Status, TF_Tensor};

#[repr(C)]
struct Reader {
    _private: [u8; 0],
}

// As tensorflow/c/c_api_experimental.h declares them.
unsafe extern "C" {
    fn TF_NewCheckpointReader(filename: *const c_char, status: *mut TF_Status) -> *mut Reader;
    fn TF_DeleteCheckpointReader(reader: *mut Reader);
    fn TF_CheckpointReaderHasTensor(reader: *mut Reader, name: *const c_char) -> c_int;
    fn TF_CheckpointReaderSize(reader: *mut Reader) -> c_int;
    fn TF_CheckpointReaderGetVariable(reader: *mut Reader, index: c_int) -> *const c_char;
    fn TF_CheckpointReaderGetTensor(
        reader: *mut Reader,
        name: *const c_char,
        status: *mut TF_Status,
    ) -> *mut TF_Tensor;
}

/// A checkpoint that is open.
pub struct Bundle(NonNull<Reader>);

impl Bundle {
    /// `prefix` is what its files' names begin with, up to `.index`.
    pub fn open(prefix: &Path) -> Result<Self> {
        let name = name(&prefix.to_string_lossy())?;
        let reader = status::call(|status| {
            // SAFETY: the name outlives the call, and the status is live.
            unsafe { TF_NewCheckpointReader(name.as_ptr(), status) }
        })?;
        NonNull::new(reader).map(Self).ok_or_else(|| Error::invalid("no reader"))
    }

    /// The names of all tensors.
    pub fn keys(&self) -> Vec<String> {
        // SAFETY: the reader is live; its names live as long, and there are as many as it says.
        unsafe {
            let key = |index| {
                CStr::from_ptr(TF_CheckpointReaderGetVariable(self.0.as_ptr(), index))
                    .to_string_lossy()
                    .into_owned()
            };
            (0..TF_CheckpointReaderSize(self.0.as_ptr())).map(key).collect()
        }
    }

    /// The whole tensor, read from disk.
    pub fn tensor(&self, key: &str) -> Result<Tensor> {
        let name = name(key)?;
        // SAFETY: the reader is live, and the name outlives the call. A name that is not there is
        // not asked for: the reader would take it for another.
        if unsafe { TF_CheckpointReaderHasTensor(self.0.as_ptr(), name.as_ptr()) } == 0 {
            return Err(Error::invalid(format!("it has no tensor {key}")));
        }
        let tensor = status::call(|status| {
            // SAFETY: as above, and the status is live.
            unsafe { TF_CheckpointReaderGetTensor(self.0.as_ptr(), name.as_ptr(), status) }
        })
        .map_err(|error| Error::new(error.code, format!("{key}: {}", error.message)))?;
        let tensor = NonNull::new(tensor).ok_or_else(|| Error::invalid(format!("no {key}")))?;
        // SAFETY: the tensor is given away.
        Ok(unsafe { Tensor::from_raw(tensor) })
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // SAFETY: owned, and deleted once.
        unsafe { TF_DeleteCheckpointReader(self.0.as_ptr()) }
    }
}

fn name(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("{text:?} has a zero byte")))
}

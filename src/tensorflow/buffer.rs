//! `TF_Buffer`: bytes that TensorFlow fills, mostly serialised protocol buffers.

use tensorflow_sys as tf;

/// An owned `TF_Buffer`.
pub struct Buffer(*mut tf::TF_Buffer);

// SAFETY: the buffer and what it points to are owned, and only a mutable reference changes them.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer.
    pub fn new() -> Self {
        // SAFETY: no precondition.
        Self(unsafe { tf::TF_NewBuffer() })
    }

    /// A copy of these bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        // SAFETY: the bytes outlive the call, which copies them.
        Self(unsafe { tf::TF_NewBufferFromString(bytes.as_ptr().cast(), bytes.len()) })
    }

    /// The bytes, none as long as nothing filled the buffer.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the pointer is a live TF_Buffer, whose data are `length` bytes where not NULL.
        unsafe {
            let buffer = &*self.0;
            if buffer.data.is_null() {
                return &[];
            }
            std::slice::from_raw_parts(buffer.data.cast(), buffer.length)
        }
    }

    /// Exchanges contents, and who frees them, with a buffer of the caller's.
    pub(crate) fn swap(&mut self, other: &mut tf::TF_Buffer) {
        // SAFETY: the pointer is a live TF_Buffer that nobody else uses; both buffers own their
        // data together with the function that frees them.
        std::mem::swap(unsafe { &mut *self.0 }, other);
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut tf::TF_Buffer {
        self.0
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by TF_NewBuffer and deleted once.
        unsafe { tf::TF_DeleteBuffer(self.0) }
    }
}

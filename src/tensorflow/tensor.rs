//! `TF_Tensor`: what is fed and fetched.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use tensorflow_sys as tf;

use super::DataType;
use super::shim;
use crate::error::{Code, Error, Result};

/// An owned `TF_Tensor`. Its contents don't change once it is made.
#[repr(transparent)]
pub struct Tensor(NonNull<tf::TF_Tensor>);

// SAFETY: the tensor is owned, its buffer is counted atomically, and nothing here changes it.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

/// A Rust type that is the element of a numeric TensorFlow type.
///
/// # Safety
///
/// `DTYPE` must be the TensorFlow type whose elements have this type's size and layout, any bit
/// pattern TensorFlow stores being valid.
pub unsafe trait Element: Copy {
    /// The TensorFlow type.
    const DTYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $tensorflow:ident),* $(,)?) => {$(
        // SAFETY: same size and layout; every bit pattern is valid.
        unsafe impl Element for $rust {
            const DTYPE: DataType = DataType::$tensorflow;
        }
    )*};
}

elements! {
    f32 => Float, f64 => Double,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
}

impl Tensor {
    /// A tensor of this shape with these elements, in row-major order.
    pub fn from_slice<T: Element>(dims: &[i64], elements: &[T]) -> Result<Self> {
        let (dtype, element_size) = fixed_size(T::DTYPE)?;
        let tensor = Self::allocate(dtype, dims, elements.len(), element_size)?;
        // SAFETY: the new tensor's buffer has room for exactly these elements and is not shared.
        unsafe {
            let data = tf::TF_TensorData(tensor.as_ptr()).cast::<T>();
            if !elements.is_empty() {
                std::ptr::copy_nonoverlapping(elements.as_ptr(), data, elements.len());
            }
        }
        Ok(tensor)
    }

    /// A tensor of this shape of type `DT_BOOL`.
    pub fn from_bools(dims: &[i64], elements: &[bool]) -> Result<Self> {
        let tensor = Self::allocate(tf::TF_BOOL, dims, elements.len(), 1)?;
        for (i, &element) in elements.iter().enumerate() {
            // SAFETY: the buffer has one byte for each element and is not shared.
            unsafe { tf::TF_TensorData(tensor.as_ptr()).cast::<bool>().add(i).write(element) };
        }
        Ok(tensor)
    }

    /// A tensor of this shape and type, any but strings, resources and variants, with these bytes.
    pub fn from_bytes(dtype: impl Into<DataType>, dims: &[i64], bytes: &[u8]) -> Result<Self> {
        let dtype = dtype.into();
        let (tf_dtype, element_size) = fixed_size(dtype)?;
        check_size(dtype, dims, element_size, bytes.len())?;
        let tensor = Self::allocate(tf_dtype, dims, count(dims)?, element_size)?;
        if !bytes.is_empty() {
            // SAFETY: the new tensor's buffer has room for exactly these bytes and is not shared.
            unsafe {
                let data = tf::TF_TensorData(tensor.as_ptr()).cast::<u8>();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
            }
        }
        Ok(tensor)
    }

    /// A tensor of this shape and type, any but strings, resources and variants. `fill` writes its bytes,
    /// which are zero before.
    pub fn from_fill(
        dtype: impl Into<DataType>,
        dims: &[i64],
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Self> {
        let (dtype, element_size) = fixed_size(dtype.into())?;
        let tensor = Self::allocate(dtype, dims, count(dims)?, element_size)?;
        // SAFETY: the new tensor's buffer has this many bytes and is not shared.
        let bytes = unsafe {
            let size = tf::TF_TensorByteSize(tensor.as_ptr());
            let data = tf::TF_TensorData(tensor.as_ptr()).cast::<u8>();
            if size == 0 {
                &mut []
            } else {
                data.write_bytes(0, size);
                std::slice::from_raw_parts_mut(data, size)
            }
        };
        fill(bytes);
        Ok(tensor)
    }

    /// A tensor of this shape and type, any but strings, resources and variants, with bytes that somebody
    /// else owns: they are used where they are if they are aligned to 64 bytes, else copied.
    pub fn from_owner<O>(dtype: impl Into<DataType>, dims: &[i64], owner: O) -> Result<Self>
    where
        O: AsRef<[u8]> + Send + Sync + 'static,
    {
        /// Owns what a box gave away, which does not move while pointers into it are in use, as a
        /// box does that is passed on.
        struct Owned<O>(NonNull<O>);

        impl<O> Drop for Owned<O> {
            fn drop(&mut self) {
                // SAFETY: a box gave it away, and it is given back once.
                drop(unsafe { Box::from_raw(self.0.as_ptr()) });
            }
        }

        unsafe extern "C" fn release<O>(_: *mut c_void, _: usize, owner: *mut c_void) {
            drop(NonNull::new(owner.cast::<O>()).map(Owned));
        }

        let dtype = dtype.into();
        let (tf_dtype, element_size) = fixed_size(dtype)?;
        let owner = Owned(NonNull::from(Box::leak(Box::new(owner))));
        // SAFETY: the owner is alive, and nobody changes it.
        let bytes = unsafe { owner.0.as_ref() }.as_ref();
        let given = bytes.len();
        if bytes.as_ptr().align_offset(ALIGNMENT) != 0 || given == 0 {
            return Self::from_bytes(dtype, dims, bytes);
        }
        check_size(dtype, dims, element_size, given)?;
        let data = bytes.as_ptr().cast_mut().cast();
        // SAFETY: the owner stays where it is, and keeps the bytes where they are, until `release` drops
        // it. TensorFlow does not write to what is fed while there is another reference to it, and the
        // session group keeps one.
        let tensor = unsafe {
            let owner = ManuallyDrop::new(owner).0.as_ptr().cast();
            let rank = dims.len() as c_int;
            tf::TF_NewTensor(tf_dtype, dims.as_ptr(), rank, data, given, Some(release::<O>), owner)
        };
        NonNull::new(tensor).map(Self).ok_or_else(|| {
            Error::invalid(format!("TensorFlow can't make a tensor of shape {dims:?}"))
        })
    }

    /// A tensor of this shape of type `DT_STRING`.
    pub fn from_strings<S: AsRef<[u8]>>(dims: &[i64], strings: &[S]) -> Result<Self> {
        let tensor =
            Self::allocate(tf::TF_STRING, dims, strings.len(), size_of::<tf::TF_TString>())?;
        // SAFETY: the buffer holds one TF_TString for each string; TensorFlow deallocates them
        // with the tensor.
        unsafe {
            let data = tf::TF_TensorData(tensor.as_ptr()).cast::<tf::TF_TString>();
            for (i, string) in strings.iter().enumerate() {
                let bytes = string.as_ref();
                tf::TF_StringInit(data.add(i));
                tf::TF_StringCopy(data.add(i), bytes.as_ptr().cast(), bytes.len());
            }
        }
        Ok(tensor)
    }

    fn allocate(
        dtype: tf::TF_DataType,
        dims: &[i64],
        elements: usize,
        element_size: usize,
    ) -> Result<Self> {
        let expected = count(dims)?;
        if expected != elements {
            return Err(Error::invalid(format!(
                "a tensor of shape {dims:?} has {expected} elements, but {elements} were given"
            )));
        }
        let no_memory = || {
            let message = format!("there is no memory for a tensor of shape {dims:?}");
            Error::new(Code::ResourceExhausted, message)
        };
        let size = elements.checked_mul(element_size).ok_or_else(no_memory)?;
        // SAFETY: `dims` is valid for the call, and their product has 63 bits.
        let tensor =
            unsafe { tf::TF_AllocateTensor(dtype, dims.as_ptr(), dims.len() as c_int, size) };
        let tensor = NonNull::new(tensor).map(Self).ok_or_else(no_memory)?;
        // SAFETY: the tensor is live.
        if size > 0 && unsafe { tf::TF_TensorData(tensor.as_ptr()) }.is_null() {
            return Err(no_memory());
        }
        Ok(tensor)
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DataType {
        // SAFETY: the tensor is live.
        DataType::from(unsafe { shim::sg_tensor_dtype(self.as_ptr()) })
    }

    /// The shape.
    pub fn dims(&self) -> Vec<i64> {
        // SAFETY: the tensor is live and the index is in range.
        unsafe {
            let rank = tf::TF_NumDims(self.as_ptr());
            (0..rank).map(|i| tf::TF_Dim(self.as_ptr(), i)).collect()
        }
    }

    /// The bytes of a numeric tensor; of a string tensor, those of its internal representation.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the tensor is live, nobody changes it, and its data have this many bytes.
        unsafe {
            let size = tf::TF_TensorByteSize(self.as_ptr());
            let data: *const u8 = tf::TF_TensorData(self.as_ptr()).cast();
            if size == 0 { &[] } else { std::slice::from_raw_parts(data, size) }
        }
    }

    /// The elements, in row-major order.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype() != T::DTYPE {
            return Err(Error::invalid(format!(
                "the tensor has type {}, not {}",
                self.dtype(),
                T::DTYPE
            )));
        }
        let bytes = self.bytes();
        let n = bytes.len() / size_of::<T>();
        let mut elements = Vec::with_capacity(n);
        // SAFETY: the vector has room for the n elements that are copied, and all bit patterns
        // are valid.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                elements.as_mut_ptr() as *mut u8,
                n * size_of::<T>(),
            );
            elements.set_len(n);
        }
        Ok(elements)
    }

    /// The elements of a string tensor, in row-major order.
    pub fn to_strings(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.strings()?.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// As [`to_strings`](Self::to_strings), without a copy.
    pub fn strings(&self) -> Result<Vec<&[u8]>> {
        if self.dtype() != DataType::String {
            return Err(Error::invalid(format!(
                "the tensor has type {}, not string",
                self.dtype()
            )));
        }
        // SAFETY: a live string tensor holds one TF_TString for each element.
        unsafe {
            let data = tf::TF_TensorData(self.as_ptr()).cast::<tf::TF_TString>();
            let n = tf::TF_TensorElementCount(self.as_ptr()).max(0) as usize;
            let bytes = |i| {
                let string = data.add(i);
                let size = tf::TF_StringGetSize(string);
                std::slice::from_raw_parts(tf::TF_StringGetDataPointer(string).cast(), size)
            };
            Ok((0..n).map(bytes).collect())
        }
    }

    /// For TensorFlow's C API. The tensor stays this one's.
    pub fn as_ptr(&self) -> *mut tf::TF_Tensor {
        self.0.as_ptr()
    }

    /// Takes over a tensor.
    ///
    /// # Safety
    ///
    /// The tensor must be live and the caller's to give.
    pub unsafe fn from_raw(tensor: NonNull<tf::TF_Tensor>) -> Self {
        Self(tensor)
    }

    /// Gives the tensor to the caller, who must delete it with `TF_DeleteTensor`.
    pub fn into_raw(self) -> *mut tf::TF_Tensor {
        ManuallyDrop::new(self).as_ptr()
    }

    /// Borrows a tensor that a C caller owns.
    ///
    /// # Safety
    ///
    /// `tensor` must point to a pointer to a live tensor that nobody changes while the reference
    /// is in use.
    pub(crate) unsafe fn borrow(tensor: &NonNull<tf::TF_Tensor>) -> &Self {
        // SAFETY: Tensor is a transparent NonNull; the caller vouches for the tensor, and a shared
        // reference neither changes nor frees it.
        unsafe { &*std::ptr::from_ref(tensor).cast() }
    }
}

/// Of the memory that TensorFlow's kernels work on.
const ALIGNMENT: usize = 64;

/// The most dimensions that a tensor can have: TensorFlow ends the process where there are more.
pub const MOST_DIMS: usize = 254;

/// How many elements there are in a tensor of this shape. As TensorFlow counts, which ends the process
/// where a product on the way has more than 63 bits.
fn count(dims: &[i64]) -> Result<usize> {
    let count = dims.iter().try_fold(1i64, |n, &dim| match dim {
        0.. => n.checked_mul(dim),
        _ => None,
    });
    match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) if dims.len() <= MOST_DIMS => Ok(count),
        _ => Err(Error::invalid(format!(
            "{:?}{} is not the shape of a tensor",
            &dims[..dims.len().min(8)],
            if dims.len() > 8 { " and so on" } else { "" }
        ))),
    }
}

/// Whether a tensor of this shape has so many bytes.
fn check_size(dtype: DataType, dims: &[i64], element_size: usize, given: usize) -> Result<()> {
    if count(dims)?.checked_mul(element_size) == Some(given) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a tensor of shape {dims:?} and type {dtype} does not have {given} bytes"
    )))
}

/// A type as the C API has it, and the size of its elements.
fn fixed_size(dtype: DataType) -> Result<(tf::TF_DataType, usize)> {
    dtype.with_fixed_size().ok_or_else(|| {
        Error::invalid(format!("type {dtype} is not one whose elements all have the same size"))
    })
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: the tensor is owned and deleted once.
        unsafe { tf::TF_DeleteTensor(self.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_shape_come_back() {
        let tensor = Tensor::from_slice(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!(tensor.dims(), [2, 3]);
        assert_eq!(tensor.to_vec::<f32>().unwrap(), [1., 2., 3., 4., 5., 6.]);
        assert!(tensor.to_vec::<i32>().is_err());
        assert!(tensor.to_strings().is_err());
    }

    #[test]
    fn strings_short_and_long_come_back() {
        let long = vec![b'x'; 1000];
        let strings: Vec<&[u8]> = vec![b"", b"a\0b", &long];
        let tensor = Tensor::from_strings(&[3], &strings).unwrap();
        assert_eq!(tensor.to_strings().unwrap(), strings);
    }

    #[test]
    fn scalars_and_empty_tensors() {
        assert_eq!(Tensor::from_slice(&[], &[7i64]).unwrap().to_vec::<i64>().unwrap(), [7]);
        let empty = Tensor::from_slice::<i64>(&[0, 4], &[]).unwrap();
        assert_eq!(empty.dims(), [0, 4]);
        assert!(empty.to_vec::<i64>().unwrap().is_empty());
        assert_eq!(Tensor::from_bools(&[2], &[true, false]).unwrap().bytes(), [1, 0]);
    }

    #[test]
    fn bytes_of_somebody_else_are_used_where_they_are_or_copied() {
        #[repr(align(64))]
        struct Owner([u8; 64]);
        struct Part(Owner, usize, #[expect(dead_code)] std::sync::Arc<()>);
        impl AsRef<[u8]> for Part {
            fn as_ref(&self) -> &[u8] {
                &self.0.0[self.1..][..16]
            }
        }
        for begin in [0, 4] {
            let alive = std::sync::Arc::new(());
            let bytes = Owner(std::array::from_fn(|i| i as u8));
            let owner = Part(bytes, begin, alive.clone());
            let tensor = Tensor::from_owner(DataType::Int32, &[2, 2], owner).unwrap();
            assert_eq!(std::sync::Arc::strong_count(&alive), if begin == 0 { 2 } else { 1 });
            assert_eq!(tensor.bytes()[0], begin as u8);
            assert_eq!(tensor.dims(), [2, 2]);
            drop(tensor);
            assert_eq!(std::sync::Arc::strong_count(&alive), 1);
        }
        for (dtype, dims) in
            [(DataType::Int32, [2, 3]), (DataType::String, [2, 2]), (DataType::Float, [-1, 4])]
        {
            assert!(Tensor::from_owner(dtype, &dims, vec![0u8; 16]).is_err());
        }
        assert!(Tensor::from_owner(99, &[1], vec![0u8; 16]).is_err());
        let empty = Tensor::from_owner(DataType::Half, &[0, 3], Vec::new()).unwrap();
        assert_eq!(empty.dims(), [0, 3]);
    }

    #[test]
    fn a_shape_that_does_not_fit_is_an_error() {
        for dims in [&[2][..], &[-1], &[i64::MAX, i64::MAX], &[1; 255], &[i64::MAX, 2, 0]] {
            assert!(Tensor::from_slice(dims, &[1f32]).is_err());
            assert!(Tensor::from_fill(1, dims, |_| ()).is_ok() == (dims == [2]));
        }
        assert!(Tensor::from_slice(&[1; 254], &[1f32]).is_ok());
    }
}

//! Signatures: names and types as messages have them.

use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};

use crate::tensor::from_proto;
use crate::tensorflow::tensor_info::Encoding;
use crate::tensorflow::{DataType, SignatureDef, TensorInfo};

/// The signature of requests that name none.
pub const DEFAULT_SIGNATURE: &str = "serving_default";

/// The name of the graph's tensor behind an alias of a signature.
pub fn tensor_name(info: &TensorInfo) -> Result<&str> {
    match &info.encoding {
        Some(Encoding::Name(name)) => Ok(name),
        // Our messages leave out the encoding of composite tensors, such as ragged ones.
        _ => Err(Error::new(
            Code::Unimplemented,
            "an input or output of the signature is made of several tensors, as sparse and ragged ones are, \
             which can't be fed or fetched: ask for other outputs by output_filter, or export the model \
             with plain tensors",
        )),
    }
}

/// The tensor that an input gets if a request leaves it out; `None` where it has no default.
pub fn default_input(signature: &SignatureDef, alias: &str) -> Option<Result<Tensor>> {
    let default = signature.defaults.get(alias)?.clone();
    Some(from_proto(default).map_err(|error| {
        Error::new(error.code, format!("the default of input {alias:?}: {}", error.message))
    }))
}

/// Elements of a tensor of zeros.
const MOST_ZEROS: i64 = 1 << 24;

/// A tensor of zeros, or of empty strings, for an input; each size that is not known is one. An error where the shape
/// is out of proportion.
pub fn zeros(info: &TensorInfo) -> Result<Tensor> {
    let shape = info.tensor_shape.as_ref().filter(|shape| !shape.unknown_rank);
    let dims = shape.map(|shape| shape.dim.iter().map(|dim| dim.size).collect::<Vec<_>>());
    zeros_of(info.dtype, dims.as_deref())
}

/// The same for a type and a shape, where a negative size is not known.
pub fn zeros_of(dtype: i32, dims: Option<&[i64]>) -> Result<Tensor> {
    let dims: Vec<i64> =
        dims.unwrap_or(&[1]).iter().map(|&dim| if dim < 0 { 1 } else { dim }).collect();
    let count = dims.iter().try_fold(1i64, |count, &dim| count.checked_mul(dim));
    let Some(count) = count.filter(|&count| count <= MOST_ZEROS) else {
        return Err(Error::invalid(format!("shape {dims:?} is too large to be made up")));
    };
    if dtype == DataType::DtString as i32 {
        return Tensor::from_strings(&dims, &vec![""; count as usize]);
    }
    Tensor::from_fill(dtype, &dims, |_| ())
}

/// The name of a type in protobuf, such as `DT_FLOAT`.
pub fn proto_name(dtype: i32) -> &'static str {
    DataType::try_from(dtype).unwrap_or(DataType::DtInvalid).as_str_name()
}

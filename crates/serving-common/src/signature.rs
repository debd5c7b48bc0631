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

/// The name of a type in protobuf, such as `DT_FLOAT`.
pub fn proto_name(dtype: i32) -> &'static str {
    DataType::try_from(dtype).unwrap_or(DataType::DtInvalid).as_str_name()
}

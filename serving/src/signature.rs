//! Signatures: names and types as messages have them.

use session_group::{Code, Error, Result};

use crate::tensorflow::tensor_info::Encoding;
use crate::tensorflow::{DataType, TensorInfo};

/// The name of the graph's tensor behind an alias of a signature.
pub fn tensor_name(info: &TensorInfo) -> Result<&str> {
    match &info.encoding {
        Some(Encoding::Name(name)) => Ok(name),
        _ => Err(Error::new(
            Code::Unimplemented,
            "sparse tensors of signatures can't be fed or fetched",
        )),
    }
}

/// The name of a type in protobuf, such as `DT_FLOAT`.
pub fn proto_name(dtype: i32) -> &'static str {
    DataType::try_from(dtype).unwrap_or(DataType::DtInvalid).as_str_name()
}

//! Types by the names that the protocol gives them.

use session_group::{Error, Result};

use crate::proto::tensorflow::DataType;

const NAMES: [(&str, DataType); 14] = [
    ("BOOL", DataType::DtBool),
    ("UINT8", DataType::DtUint8),
    ("UINT16", DataType::DtUint16),
    ("UINT32", DataType::DtUint32),
    ("UINT64", DataType::DtUint64),
    ("INT8", DataType::DtInt8),
    ("INT16", DataType::DtInt16),
    ("INT32", DataType::DtInt32),
    ("INT64", DataType::DtInt64),
    ("FP16", DataType::DtHalf),
    ("BF16", DataType::DtBfloat16),
    ("FP32", DataType::DtFloat),
    ("FP64", DataType::DtDouble),
    ("BYTES", DataType::DtString),
];

/// The type of this name.
pub fn of_name(name: &str) -> Result<DataType> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, dtype)| *dtype).ok_or_else(|| {
        let known: Vec<_> = NAMES.iter().map(|(known, _)| *known).collect();
        Error::invalid(format!("there is no datatype {name:?}: send one of {}", known.join(", ")))
    })
}

/// The name of a type; `None` for those that the protocol lacks, such as complex numbers.
pub fn name(dtype: i32) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known as i32 == dtype).map(|(name, _)| *name)
}

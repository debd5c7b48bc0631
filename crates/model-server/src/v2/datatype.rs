//! Types by the names that the protocol gives them.

use session_group::{Error, Result};

use crate::proto::tensorflow::DataType;

const NAMES: [(&str, DataType, usize); 14] = [
    ("BOOL", DataType::DtBool, 1),
    ("UINT8", DataType::DtUint8, 1),
    ("UINT16", DataType::DtUint16, 2),
    ("UINT32", DataType::DtUint32, 4),
    ("UINT64", DataType::DtUint64, 8),
    ("INT8", DataType::DtInt8, 1),
    ("INT16", DataType::DtInt16, 2),
    ("INT32", DataType::DtInt32, 4),
    ("INT64", DataType::DtInt64, 8),
    ("FP16", DataType::DtHalf, 2),
    ("BF16", DataType::DtBfloat16, 2),
    ("FP32", DataType::DtFloat, 4),
    ("FP64", DataType::DtDouble, 8),
    ("BYTES", DataType::DtString, 0),
];

/// The type of this name.
pub fn of_name(name: &str) -> Result<DataType> {
    let found = NAMES.iter().find(|(known, ..)| *known == name);
    found.map(|(_, dtype, _)| *dtype).ok_or_else(|| {
        let known: Vec<_> = NAMES.iter().map(|(known, ..)| *known).collect();
        Error::invalid(format!("there is no datatype {name:?}: send one of {}", known.join(", ")))
    })
}

/// The name of a type; `None` for those that the protocol lacks, such as complex numbers.
pub fn name(dtype: i32) -> Option<&'static str> {
    NAMES.iter().find(|(_, known, _)| *known as i32 == dtype).map(|(name, ..)| *name)
}

/// Bytes of an element that is a number.
pub fn size(dtype: DataType) -> Option<usize> {
    let found = NAMES.iter().find(|(_, known, size)| *known == dtype && *size > 0);
    found.map(|(.., size)| *size)
}

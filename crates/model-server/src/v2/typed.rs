//! Tensors as lists of numbers in messages.

use session_group::tensorflow::{Element, Tensor};
use session_group::{Error, Result};

use super::raw::elements;
use crate::proto::inference::InferTensorContents;
use crate::proto::tensorflow::DataType;

/// The tensor, all of whose values are in the field of its type.
pub fn tensor(dtype: DataType, dims: &[i64], contents: InferTensorContents) -> Result<Tensor> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let lists = [
        ("bool_contents", bool_contents.len()),
        ("int_contents", int_contents.len()),
        ("int64_contents", int64_contents.len()),
        ("uint_contents", uint_contents.len()),
        ("uint64_contents", uint64_contents.len()),
        ("fp32_contents", fp32_contents.len()),
        ("fp64_contents", fp64_contents.len()),
        ("bytes_contents", bytes_contents.len()),
    ];
    let field = match dtype {
        DataType::DtBool => "bool_contents",
        DataType::DtInt8 | DataType::DtInt16 | DataType::DtInt32 => "int_contents",
        DataType::DtInt64 => "int64_contents",
        DataType::DtUint8 | DataType::DtUint16 | DataType::DtUint32 => "uint_contents",
        DataType::DtUint64 => "uint64_contents",
        DataType::DtFloat => "fp32_contents",
        DataType::DtDouble => "fp64_contents",
        DataType::DtString => "bytes_contents",
        _ => {
            return Err(Error::invalid(
                "its datatype has no field in contents: send raw_input_contents",
            ));
        }
    };
    if let Some((other, _)) = lists.iter().find(|(name, size)| *name != field && *size > 0) {
        return Err(Error::invalid(format!("it has {other}: its datatype has {field}")));
    }
    let count = elements(dims)?;
    let given = lists.iter().find(|(name, _)| *name == field).map_or(0, |(_, size)| *size);
    if given != count {
        return Err(Error::invalid(format!(
            "it has {given} values in {field}, but {count} elements by its shape"
        )));
    }
    match dtype {
        DataType::DtBool => {
            let bytes: Vec<u8> = bool_contents.into_iter().map(u8::from).collect();
            Tensor::from_bytes(dtype as i32, dims, &bytes)
        }
        DataType::DtInt8 => narrow::<_, i8>(dims, int_contents),
        DataType::DtInt16 => narrow::<_, i16>(dims, int_contents),
        DataType::DtInt32 => Tensor::from_slice(dims, &int_contents),
        DataType::DtInt64 => Tensor::from_slice(dims, &int64_contents),
        DataType::DtUint8 => narrow::<_, u8>(dims, uint_contents),
        DataType::DtUint16 => narrow::<_, u16>(dims, uint_contents),
        DataType::DtUint32 => Tensor::from_slice(dims, &uint_contents),
        DataType::DtUint64 => Tensor::from_slice(dims, &uint64_contents),
        DataType::DtFloat => Tensor::from_slice(dims, &fp32_contents),
        DataType::DtDouble => Tensor::from_slice(dims, &fp64_contents),
        _ => Tensor::from_strings(dims, &bytes_contents),
    }
}

/// Of numbers that come in a wider type than they are of.
fn narrow<W: Copy + std::fmt::Display, T: Element + TryFrom<W>>(
    dims: &[i64],
    values: Vec<W>,
) -> Result<Tensor> {
    let narrow = |value: W| {
        T::try_from(value).map_err(|_| {
            Error::invalid(format!(
                "{value} is out of the range of its datatype: send one that fits"
            ))
        })
    };
    let values = values.into_iter().map(narrow).collect::<Result<Vec<T>>>()?;
    Tensor::from_slice(dims, &values)
}

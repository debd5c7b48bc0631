//! `ArrayProto` to tensor and back.

use bytes::Bytes;
use half::{bf16, f16};
use session_group::tensorflow::MOST_DIMS;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};

use crate::proto::eas::{ArrayDataType, ArrayProto, ArrayShape};

/// The tensor that a request brings.
pub fn to_tensor(array: &ArrayProto) -> Result<Tensor> {
    let dims = array.array_shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    if dims.len() > MOST_DIMS {
        return Err(Error::invalid(format!(
            "a shape of {} dimensions is not the shape of a tensor",
            dims.len()
        )));
    }
    if let Some(dim) = dims.iter().find(|&&dim| dim < 0) {
        return Err(Error::invalid(format!("its shape {dims:?} has a dimension of {dim}")));
    }
    let count = dims.iter().try_fold(1i64, |count, &dim| count.checked_mul(dim));
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
        return Err(Error::invalid(format!("its shape {dims:?} has too many elements")));
    };
    let dtype = array.dtype();
    // Before allocating: the request must bring as many values as its shape says.
    let check = |field: &str, values: usize, each: usize| match count.checked_mul(each) {
        Some(needed) if needed == values => Ok(()),
        _ => Err(Error::invalid(format!(
            "a {} of shape {dims:?} needs {count} elements{} in {field}, where there are {values} values",
            dtype.as_str_name(),
            if each == 2 { " of two values" } else { "" },
        ))),
    };
    let floats = |each| check("float_val", array.float_val.len(), each).map(|()| &array.float_val);
    let doubles =
        |each| check("double_val", array.double_val.len(), each).map(|()| &array.double_val);
    let ints = || check("int_val", array.int_val.len(), 1).map(|()| &array.int_val);
    let number = array.dtype;
    match dtype {
        ArrayDataType::DtFloat => Tensor::from_slice(dims, floats(1)?),
        ArrayDataType::DtDouble => Tensor::from_slice(dims, doubles(1)?),
        ArrayDataType::DtHalf => {
            fill(number, dims, floats(1)?, |v| Ok(f16::from_f32(v).to_ne_bytes()))
        }
        ArrayDataType::DtBfloat16 => {
            fill(number, dims, floats(1)?, |v| Ok(bf16::from_f32(v).to_ne_bytes()))
        }
        ArrayDataType::DtComplex64 => fill(number, dims, floats(2)?, |v| Ok(v.to_ne_bytes())),
        ArrayDataType::DtComplex128 => fill(number, dims, doubles(2)?, |v| Ok(v.to_ne_bytes())),
        ArrayDataType::DtInt32 => Tensor::from_slice(dims, ints()?),
        ArrayDataType::DtQint32 => fill(number, dims, ints()?, |v| Ok(v.to_ne_bytes())),
        ArrayDataType::DtInt16 | ArrayDataType::DtQint16 => {
            fill(number, dims, ints()?, |v| Ok(narrow::<i16>(v, dtype)?.to_ne_bytes()))
        }
        ArrayDataType::DtUint16 | ArrayDataType::DtQuint16 => {
            fill(number, dims, ints()?, |v| Ok(narrow::<u16>(v, dtype)?.to_ne_bytes()))
        }
        ArrayDataType::DtInt8 | ArrayDataType::DtQint8 => {
            fill(number, dims, ints()?, |v| Ok(narrow::<i8>(v, dtype)?.to_ne_bytes()))
        }
        ArrayDataType::DtUint8 | ArrayDataType::DtQuint8 => {
            fill(number, dims, ints()?, |v| Ok(narrow::<u8>(v, dtype)?.to_ne_bytes()))
        }
        ArrayDataType::DtInt64 => {
            check("int64_val", array.int64_val.len(), 1)?;
            Tensor::from_slice(dims, &array.int64_val)
        }
        ArrayDataType::DtBool => {
            check("bool_val", array.bool_val.len(), 1)?;
            Tensor::from_bools(dims, &array.bool_val)
        }
        ArrayDataType::DtString => {
            check("string_val", array.string_val.len(), 1)?;
            Tensor::from_strings(dims, &array.string_val)
        }
        ArrayDataType::DtInvalid | ArrayDataType::DtResource | ArrayDataType::DtVariant => {
            let known = ArrayDataType::try_from(number).is_ok();
            let name = if known { dtype.as_str_name() } else { "unknown" };
            Err(Error::invalid(format!(
                "its dtype is {number} ({name}): set dtype to the type of its elements"
            )))
        }
    }
}

/// A tensor of these values' bytes.
fn fill<T: Copy, const N: usize>(
    dtype: i32,
    dims: &[i64],
    values: &[T],
    bytes: impl Fn(T) -> Result<[u8; N]>,
) -> Result<Tensor> {
    let mut outcome = Ok(());
    let tensor = Tensor::from_fill(dtype, dims, |to| {
        outcome = values.iter().zip(to.chunks_exact_mut(N)).try_for_each(|(&value, to)| {
            to.copy_from_slice(&bytes(value)?);
            Ok(())
        });
    })?;
    outcome.map(|()| tensor)
}

fn narrow<T: TryFrom<i32>>(value: i32, dtype: ArrayDataType) -> Result<T> {
    T::try_from(value)
        .map_err(|_| Error::invalid(format!("{value} is out of range for {}", dtype.as_str_name())))
}

/// The answer's form of a tensor.
pub fn from_tensor(tensor: &Tensor) -> Result<ArrayProto> {
    let mut array = ArrayProto {
        dtype: tensor.dtype().number(),
        array_shape: Some(ArrayShape { dim: tensor.dims() }),
        ..ArrayProto::default()
    };
    let unsent = || {
        let name = session_group_serving::signature::proto_name(tensor.dtype().number());
        Error::invalid(format!("a tensor of type {name} has no place in an ArrayProto"))
    };
    let count = tensor.dims().iter().product::<i64>() as usize;
    // An answer has at most 2^31 bytes, and each element takes at least one. Checked before an array is made that
    // is several times as large as the tensor.
    if count > i32::MAX as usize {
        return Err(Error::invalid(format!("{count} elements are too many for an answer")));
    }
    match ArrayDataType::try_from(tensor.dtype().number()).map_err(|_| unsent())? {
        ArrayDataType::DtFloat => array.float_val = values(tensor, f32::from_ne_bytes)?,
        ArrayDataType::DtDouble => array.double_val = values(tensor, f64::from_ne_bytes)?,
        ArrayDataType::DtHalf => {
            array.float_val = values(tensor, |v| f16::from_ne_bytes(v).to_f32())?;
        }
        ArrayDataType::DtBfloat16 => {
            array.float_val = values(tensor, |v| bf16::from_ne_bytes(v).to_f32())?;
        }
        ArrayDataType::DtComplex64 => array.float_val = values(tensor, f32::from_ne_bytes)?,
        ArrayDataType::DtComplex128 => array.double_val = values(tensor, f64::from_ne_bytes)?,
        ArrayDataType::DtInt32 => array.int_val = values(tensor, i32::from_ne_bytes)?,
        ArrayDataType::DtQint32 => array.int_val = values(tensor, i32::from_ne_bytes)?,
        ArrayDataType::DtInt16 | ArrayDataType::DtQint16 => {
            array.int_val = values(tensor, |v| i16::from_ne_bytes(v).into())?;
        }
        ArrayDataType::DtUint16 | ArrayDataType::DtQuint16 => {
            array.int_val = values(tensor, |v| u16::from_ne_bytes(v).into())?;
        }
        ArrayDataType::DtInt8 | ArrayDataType::DtQint8 => {
            array.int_val = values(tensor, |v| i8::from_ne_bytes(v).into())?;
        }
        ArrayDataType::DtUint8 | ArrayDataType::DtQuint8 => {
            array.int_val = values(tensor, |v| u8::from_ne_bytes(v).into())?;
        }
        ArrayDataType::DtInt64 => array.int64_val = values(tensor, i64::from_ne_bytes)?,
        ArrayDataType::DtBool => array.bool_val = values(tensor, |[v]: [u8; 1]| v != 0)?,
        ArrayDataType::DtString => {
            array.string_val = tensor.strings()?.into_iter().map(Bytes::copy_from_slice).collect();
        }
        ArrayDataType::DtInvalid | ArrayDataType::DtResource | ArrayDataType::DtVariant => {
            return Err(unsent());
        }
    }
    Ok(array)
}

fn values<T, const N: usize>(tensor: &Tensor, value: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
    let bytes = tensor.bytes().chunks_exact(N);
    let mut values = Vec::new();
    values.try_reserve_exact(bytes.len()).map_err(|error| {
        Error::new(
            Code::ResourceExhausted,
            format!("no memory for {} elements: {error}", bytes.len()),
        )
    })?;
    values.extend(bytes.map(|chunk| value(chunk.try_into().expect("N bytes"))));
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(dtype: ArrayDataType, dims: &[i64]) -> ArrayProto {
        let array_shape = Some(ArrayShape { dim: dims.to_vec() });
        ArrayProto { dtype: dtype.into(), array_shape, ..ArrayProto::default() }
    }

    #[test]
    fn all_types_go_there_and_back() {
        let floats = |dtype| ArrayProto { float_val: vec![1.5, -2.0], ..array(dtype, &[2]) };
        let ints = |dtype, values: &[i32]| ArrayProto {
            int_val: values.to_vec(),
            ..array(dtype, &[values.len() as i64])
        };
        let arrays = [
            floats(ArrayDataType::DtFloat),
            floats(ArrayDataType::DtHalf),
            floats(ArrayDataType::DtBfloat16),
            ArrayProto { float_val: vec![1.5, -2.0], ..array(ArrayDataType::DtComplex64, &[]) },
            ArrayProto { double_val: vec![0.1, 7.0], ..array(ArrayDataType::DtDouble, &[1, 2]) },
            ArrayProto { double_val: vec![0.1, 7.0], ..array(ArrayDataType::DtComplex128, &[1]) },
            ints(ArrayDataType::DtInt32, &[i32::MIN, i32::MAX]),
            ints(ArrayDataType::DtQint32, &[i32::MIN, i32::MAX]),
            ints(ArrayDataType::DtInt16, &[-32768, 32767]),
            ints(ArrayDataType::DtQint16, &[-32768, 32767]),
            ints(ArrayDataType::DtUint16, &[0, 65535]),
            ints(ArrayDataType::DtQuint16, &[0, 65535]),
            ints(ArrayDataType::DtInt8, &[-128, 127]),
            ints(ArrayDataType::DtQint8, &[-128, 127]),
            ints(ArrayDataType::DtUint8, &[0, 255]),
            ints(ArrayDataType::DtQuint8, &[0, 255]),
            ArrayProto { int64_val: vec![i64::MIN], ..array(ArrayDataType::DtInt64, &[1, 1, 1]) },
            ArrayProto { bool_val: vec![true, false], ..array(ArrayDataType::DtBool, &[2]) },
            ArrayProto {
                string_val: vec![Bytes::from_static(b""), Bytes::from_static(b"a\0b")],
                ..array(ArrayDataType::DtString, &[2])
            },
            array(ArrayDataType::DtFloat, &[0, 3]),
            array(ArrayDataType::DtString, &[0]),
        ];
        for array in arrays {
            let tensor = to_tensor(&array).unwrap();
            assert_eq!(tensor.dtype().number(), array.dtype);
            assert_eq!(from_tensor(&tensor).unwrap(), array);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |array: &ArrayProto, says: &str| {
            let error = to_tensor(array).err().unwrap_or_else(|| panic!("{says}"));
            assert!(error.message.contains(says), "{} in {}", says, error.message);
        };
        let float = |dims: &[i64], n| ArrayProto {
            float_val: vec![0.0; n],
            ..array(ArrayDataType::DtFloat, dims)
        };
        wrong(&float(&[2, 3], 5), "needs 6 elements in float_val, where there are 5");
        wrong(&float(&[], 0), "needs 1 elements");
        wrong(&float(&[-1], 1), "a dimension of -1");
        wrong(&float(&[i64::MAX, i64::MAX], 1), "too many elements");
        wrong(&float(&[1 << 40], 1), "needs 1099511627776 elements");
        wrong(&float(&[1; 255], 1), "is not the shape of a tensor");
        wrong(&array(ArrayDataType::DtComplex64, &[1]), "1 elements of two values in float_val");
        wrong(&array(ArrayDataType::DtInvalid, &[]), "set dtype");
        wrong(&array(ArrayDataType::DtVariant, &[]), "DT_VARIANT");
        wrong(&ArrayProto { dtype: 99, ..ArrayProto::default() }, "99 (unknown)");
        let wide = ArrayProto { int_val: vec![128], ..array(ArrayDataType::DtInt8, &[1]) };
        wrong(&wide, "128 is out of range for DT_INT8");
        let unsigned = Tensor::from_slice(&[1], &[1u64]).unwrap();
        assert!(from_tensor(&unsigned).unwrap_err().message.contains("DT_UINT64"));
    }
}

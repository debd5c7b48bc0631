//! `TensorProto` to tensor and back.

use bytes::{Buf, Bytes};
use prost::Message;
use session_group::tensorflow::Tensor;
use session_group::{Error, Result};

use crate::tensorflow::tensor_shape_proto::Dim;
use crate::tensorflow::{DataType, TensorProto, TensorShapeProto};

/// Larger tensors must bring all their values: few bytes could ask for very much memory.
const MOST_REPEATED: usize = 1 << 20;

/// The tensor that a request brings. What is in `tensor_content` is used where it is, if it is aligned.
pub fn from_proto(proto: TensorProto) -> Result<Tensor> {
    let dims = dims(proto.tensor_shape.as_ref())?;
    let count = dims
        .iter()
        .try_fold(1usize, |count, &dim| count.checked_mul(dim as usize))
        .ok_or_else(|| Error::invalid(format!("{dims:?} has more elements than can be counted")))?;
    let dtype = DataType::try_from(proto.dtype).unwrap_or(DataType::DtInvalid);
    if dtype == DataType::DtString {
        return match proto.tensor_content.is_empty() {
            true => filled_strings(&dims, count, &proto.string_val),
            false => Tensor::from_strings(&dims, &encoded_strings(count, proto.tensor_content)?),
        };
    }
    if !proto.tensor_content.is_empty() {
        return Tensor::from_owner(proto.dtype, &dims, proto.tensor_content);
    }
    if count > MOST_REPEATED && proto.encoded_len() < count {
        return Err(Error::invalid(format!("there are too few values for {count} elements")));
    }
    let fill =
        |value: &dyn Fn(&mut [u8])| Tensor::from_fill(proto.dtype, &dims, |bytes| value(bytes));
    match dtype {
        DataType::DtFloat => fill(&|to| spread(to, &proto.float_val, f32::to_ne_bytes)),
        DataType::DtDouble => fill(&|to| spread(to, &proto.double_val, f64::to_ne_bytes)),
        DataType::DtInt32 | DataType::DtQint32 => {
            fill(&|to| spread(to, &proto.int_val, i32::to_ne_bytes))
        }
        DataType::DtInt16 | DataType::DtQint16 => {
            let values = narrow::<i16>(&proto.int_val, count, dtype)?;
            fill(&|to| spread(to, &values, i16::to_ne_bytes))
        }
        DataType::DtUint16 | DataType::DtQuint16 => {
            let values = narrow::<u16>(&proto.int_val, count, dtype)?;
            fill(&|to| spread(to, &values, u16::to_ne_bytes))
        }
        DataType::DtInt8 | DataType::DtQint8 => {
            let values = narrow::<i8>(&proto.int_val, count, dtype)?;
            fill(&|to| spread(to, &values, i8::to_ne_bytes))
        }
        DataType::DtUint8 | DataType::DtQuint8 => {
            let values = narrow::<u8>(&proto.int_val, count, dtype)?;
            fill(&|to| spread(to, &values, u8::to_ne_bytes))
        }
        DataType::DtInt64 => fill(&|to| spread(to, &proto.int64_val, i64::to_ne_bytes)),
        DataType::DtUint32 => fill(&|to| spread(to, &proto.uint32_val, u32::to_ne_bytes)),
        DataType::DtUint64 => fill(&|to| spread(to, &proto.uint64_val, u64::to_ne_bytes)),
        DataType::DtBool => fill(&|to| spread(to, &proto.bool_val, |v| [u8::from(v)])),
        DataType::DtHalf | DataType::DtBfloat16 => {
            // Their bits.
            let values = narrow::<u16>(&proto.half_val, count, dtype)?;
            fill(&|to| spread(to, &values, u16::to_ne_bytes))
        }
        DataType::DtComplex64 => {
            let pairs = pairs(&proto.scomplex_val);
            fill(&|to| spread(to, &pairs, |(a, b)| join::<4, 8>(a.to_ne_bytes(), b.to_ne_bytes())))
        }
        DataType::DtComplex128 => {
            let pairs = pairs(&proto.dcomplex_val);
            fill(&|to| spread(to, &pairs, |(a, b)| join::<8, 16>(a.to_ne_bytes(), b.to_ne_bytes())))
        }
        _ => Err(Error::invalid(format!("tensors of type {} can't be fed", dtype.as_str_name()))),
    }
}

/// The shape, all of whose sizes must be known.
fn dims(shape: Option<&TensorShapeProto>) -> Result<Vec<i64>> {
    let Some(shape) = shape else { return Ok(Vec::new()) };
    let dims: Vec<i64> = shape.dim.iter().map(|dim| dim.size).collect();
    if shape.unknown_rank || dims.iter().any(|&dim| dim < 0) {
        return Err(Error::invalid("its shape is not fully known"));
    }
    Ok(dims)
}

/// Fewer values than elements repeat the last; none are zeros; surplus ones are ignored.
fn spread<T: Copy, const N: usize>(to: &mut [u8], values: &[T], bytes: impl Fn(T) -> [u8; N]) {
    let Some(&last) = values.last() else { return };
    let values = values.iter().copied().chain(std::iter::repeat(last));
    for (to, value) in to.chunks_exact_mut(N).zip(values) {
        to.copy_from_slice(&bytes(value));
    }
}

/// Numbers that come in a wider type than they are of. Those that are surplus may be any.
fn narrow<T: TryFrom<i32>>(values: &[i32], count: usize, dtype: DataType) -> Result<Vec<T>> {
    let narrow = |&value: &i32| {
        T::try_from(value).map_err(|_| {
            let dtype = dtype.as_str_name();
            Error::invalid(format!("{value} is out of the range of {dtype}: send one that fits"))
        })
    };
    values.iter().take(count.max(1)).map(narrow).collect()
}

fn pairs<T: Copy>(values: &[T]) -> Vec<(T, T)> {
    values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

fn join<const N: usize, const M: usize>(a: [u8; N], b: [u8; N]) -> [u8; M] {
    let mut both = [0; M];
    both[..N].copy_from_slice(&a);
    both[N..].copy_from_slice(&b);
    both
}

fn filled_strings(dims: &[i64], count: usize, values: &[Bytes]) -> Result<Tensor> {
    if values.len() == count {
        return Tensor::from_strings(dims, values);
    }
    if count > MOST_REPEATED.max(values.len()) {
        return Err(Error::invalid(format!(
            "there are {} strings for {count} elements",
            values.len()
        )));
    }
    let last = values.last().cloned().unwrap_or_default();
    let strings: Vec<_> =
        values.iter().cloned().chain(std::iter::repeat(last)).take(count).collect();
    Tensor::from_strings(dims, &strings)
}

/// Strings in `tensor_content`: the lengths of all, then the bytes of all.
fn encoded_strings(count: usize, mut content: Bytes) -> Result<Vec<Bytes>> {
    let wrong = || Error::invalid("its tensor_content does not hold the strings of its shape");
    if count > content.len() {
        return Err(wrong());
    }
    let lengths: Vec<u64> = (0..count)
        .map(|_| prost::encoding::decode_varint(&mut content).map_err(|_| wrong()))
        .collect::<Result<_>>()?;
    let strings = lengths
        .into_iter()
        .map(|length| match usize::try_from(length) {
            Ok(length) if length <= content.len() => Ok(content.split_to(length)),
            _ => Err(wrong()),
        })
        .collect::<Result<_>>()?;
    match content.has_remaining() {
        true => Err(wrong()),
        false => Ok(strings),
    }
}

/// The answer's form of a tensor: values in the field of their type, or, where asked for, its bytes.
pub fn to_proto(tensor: &Tensor, as_content: bool) -> Result<TensorProto> {
    let dim = |size| Dim { size, name: String::new() };
    let mut proto = TensorProto {
        dtype: tensor.dtype().number(),
        tensor_shape: Some(TensorShapeProto {
            dim: tensor.dims().into_iter().map(dim).collect(),
            unknown_rank: false,
        }),
        ..TensorProto::default()
    };
    let dtype = DataType::try_from(proto.dtype).unwrap_or(DataType::DtInvalid);
    if dtype == DataType::DtString {
        let strings = tensor.strings()?;
        match as_content {
            true => proto.tensor_content = encode_strings(&strings),
            false => proto.string_val = strings.into_iter().map(Bytes::copy_from_slice).collect(),
        }
        return Ok(proto);
    }
    let bytes = tensor.bytes();
    if as_content {
        proto.tensor_content = Bytes::copy_from_slice(bytes);
        return Ok(proto);
    }
    match dtype {
        DataType::DtFloat => proto.float_val = values(bytes, f32::from_ne_bytes),
        DataType::DtDouble => proto.double_val = values(bytes, f64::from_ne_bytes),
        DataType::DtInt32 | DataType::DtQint32 => proto.int_val = values(bytes, i32::from_ne_bytes),
        DataType::DtInt16 | DataType::DtQint16 => {
            proto.int_val = values(bytes, |v| i32::from(i16::from_ne_bytes(v)));
        }
        DataType::DtUint16 | DataType::DtQuint16 => {
            proto.int_val = values(bytes, |v| i32::from(u16::from_ne_bytes(v)));
        }
        DataType::DtInt8 | DataType::DtQint8 => {
            proto.int_val = values(bytes, |v| i32::from(i8::from_ne_bytes(v)));
        }
        DataType::DtUint8 | DataType::DtQuint8 => {
            proto.int_val = values(bytes, |[v]: [u8; 1]| i32::from(v));
        }
        DataType::DtInt64 => proto.int64_val = values(bytes, i64::from_ne_bytes),
        DataType::DtUint32 => proto.uint32_val = values(bytes, u32::from_ne_bytes),
        DataType::DtUint64 => proto.uint64_val = values(bytes, u64::from_ne_bytes),
        DataType::DtBool => proto.bool_val = values(bytes, |[v]: [u8; 1]| v != 0),
        DataType::DtHalf | DataType::DtBfloat16 => {
            proto.half_val = values(bytes, |v| i32::from(u16::from_ne_bytes(v)));
        }
        DataType::DtComplex64 => proto.scomplex_val = values(bytes, f32::from_ne_bytes),
        DataType::DtComplex128 => proto.dcomplex_val = values(bytes, f64::from_ne_bytes),
        _ => {
            return Err(Error::invalid(format!(
                "tensors of type {} can't be sent",
                dtype.as_str_name()
            )));
        }
    }
    Ok(proto)
}

fn values<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|chunk| value(chunk.try_into().expect("N bytes"))).collect()
}

fn encode_strings(strings: &[&[u8]]) -> Bytes {
    let mut content = Vec::new();
    for string in strings {
        prost::encoding::encode_varint(string.len() as u64, &mut content);
    }
    strings.iter().for_each(|string| content.extend_from_slice(string));
    content.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(dtype: DataType, dims: &[i64]) -> TensorProto {
        let dim = |&size: &i64| Dim { size, name: String::new() };
        TensorProto {
            dtype: dtype as i32,
            tensor_shape: Some(TensorShapeProto {
                dim: dims.iter().map(dim).collect(),
                unknown_rank: false,
            }),
            ..TensorProto::default()
        }
    }

    /// Types with the bytes of two elements.
    const TYPES: [(DataType, &[u8]); 20] = [
        (DataType::DtFloat, &[0, 0, 128, 63, 0, 0, 0, 192]),
        (DataType::DtDouble, &[0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 192]),
        (DataType::DtInt32, &[1, 0, 0, 0, 254, 255, 255, 255]),
        (DataType::DtUint8, &[1, 255]),
        (DataType::DtInt16, &[1, 0, 254, 255]),
        (DataType::DtInt8, &[1, 254]),
        (DataType::DtComplex64, &[0, 0, 128, 63, 0, 0, 0, 192, 0, 0, 0, 0, 0, 0, 128, 63]),
        (DataType::DtInt64, &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
        (DataType::DtBool, &[1, 0]),
        (DataType::DtQint8, &[1, 254]),
        (DataType::DtQuint8, &[1, 255]),
        (DataType::DtQint32, &[1, 0, 0, 0, 254, 255, 255, 255]),
        (DataType::DtBfloat16, &[128, 63, 0, 192]),
        (DataType::DtQint16, &[1, 0, 254, 255]),
        (DataType::DtQuint16, &[1, 0, 254, 255]),
        (DataType::DtUint16, &[1, 0, 254, 255]),
        (DataType::DtComplex128, &[7; 32]),
        (DataType::DtHalf, &[0, 60, 0, 192]),
        (DataType::DtUint32, &[1, 0, 0, 0, 254, 255, 255, 255]),
        (DataType::DtUint64, &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
    ];

    #[test]
    fn all_types_come_back_in_both_encodings() {
        for (dtype, bytes) in TYPES {
            let mut content = proto(dtype, &[2]);
            content.tensor_content = Bytes::copy_from_slice(bytes);
            let tensor = from_proto(content.clone()).unwrap();
            assert_eq!(tensor.bytes(), bytes, "{dtype:?}");
            assert_eq!(to_proto(&tensor, true).unwrap(), content);
            let typed = to_proto(&tensor, false).unwrap();
            assert!(typed.tensor_content.is_empty());
            assert_eq!(from_proto(typed).unwrap().bytes(), bytes, "{dtype:?}");
        }
        let mut typed = proto(DataType::DtString, &[3]);
        typed.string_val = vec![Bytes::from("a"), Bytes::new(), Bytes::from(vec![0; 300])];
        let tensor = from_proto(typed.clone()).unwrap();
        assert_eq!(to_proto(&tensor, false).unwrap(), typed);
        let content = to_proto(&tensor, true).unwrap();
        assert_eq!(&content.tensor_content[..4], &[1, 0, 172, 2]);
        assert_eq!(to_proto(&from_proto(content).unwrap(), false).unwrap(), typed);
    }

    #[test]
    fn values_that_are_missing_repeat_the_last() {
        let mut some = proto(DataType::DtInt64, &[2, 2]);
        assert_eq!(from_proto(some.clone()).unwrap().to_vec::<i64>().unwrap(), [0; 4]);
        some.int64_val = vec![7, 8];
        assert_eq!(from_proto(some.clone()).unwrap().to_vec::<i64>().unwrap(), [7, 8, 8, 8]);
        some.int64_val = (1..9).collect();
        assert_eq!(from_proto(some).unwrap().to_vec::<i64>().unwrap(), [1, 2, 3, 4]);
        let mut strings = proto(DataType::DtString, &[2]);
        strings.string_val = vec![Bytes::from("a")];
        assert_eq!(from_proto(strings).unwrap().to_strings().unwrap(), [b"a", b"a"]);
        assert_eq!(from_proto(proto(DataType::DtFloat, &[0, 5])).unwrap().dims(), [0, 5]);
        let mut scalar = proto(DataType::DtFloat, &[]);
        scalar.tensor_shape = None;
        assert!(from_proto(scalar).unwrap().dims().is_empty());
    }

    #[test]
    fn what_is_wrong_is_an_error() {
        let mut short = proto(DataType::DtFloat, &[3]);
        short.tensor_content = Bytes::from(vec![0; 8]);
        let mut unknown = proto(DataType::DtFloat, &[]);
        unknown.tensor_shape.as_mut().unwrap().unknown_rank = true;
        let mut strings = proto(DataType::DtString, &[2]);
        strings.tensor_content = Bytes::from(vec![1, 9, b'a']);
        let mut surplus = proto(DataType::DtString, &[1]);
        surplus.tensor_content = Bytes::from(vec![1, b'a', b'b']);
        let mut number = proto(DataType::DtFloat, &[]);
        number.dtype = 4711;
        for wrong in [
            short,
            unknown,
            strings,
            surplus,
            number,
            proto(DataType::DtFloat, &[-1]),
            proto(DataType::DtFloat, &[i64::MAX, i64::MAX]),
            proto(DataType::DtString, &[1 << 40]),
            proto(DataType::DtBool, &[1 << 40]),
            proto(DataType::DtResource, &[]),
            proto(DataType::DtInvalid, &[]),
        ] {
            assert!(from_proto(wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_must_fit_their_type() {
        for (dtype, good, bad) in [
            (DataType::DtInt8, [-128, 127], [-129, 128]),
            (DataType::DtQint8, [-128, 127], [-129, 200]),
            (DataType::DtUint8, [0, 255], [-1, 256]),
            (DataType::DtQuint8, [0, 255], [-1, i32::MAX]),
            (DataType::DtInt16, [-32768, 32767], [-32769, 32768]),
            (DataType::DtQint16, [-32768, 32767], [i32::MIN, 32768]),
            (DataType::DtUint16, [0, 65535], [-1, 65536]),
            (DataType::DtQuint16, [0, 65535], [-1, 65536]),
            (DataType::DtHalf, [0, 65535], [-1, 65536]),
            (DataType::DtBfloat16, [0, 65535], [-1, 65536]),
        ] {
            let of = |values: &[i32]| {
                let (int_val, half_val) = (values.to_vec(), values.to_vec());
                from_proto(TensorProto { int_val, half_val, ..proto(dtype, &[2]) })
            };
            assert!(of(&good).is_ok(), "{dtype:?}");
            assert!(of(&[0, 1, bad[0]]).is_ok(), "surplus values are ignored");
            for bad in bad {
                let message = of(&[0, bad]).err().expect("it does not fit").message;
                assert!(message.contains(&format!("{bad} is out of the range")), "{message}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(
            dtype in -1..40i32,
            dims in proptest::collection::vec(-2..5i64, 0..4),
            content in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
            numbers in proptest::collection::vec(proptest::prelude::any::<i32>(), 0..5),
        ) {
            let mut proto = proto(DataType::DtInvalid, &dims);
            proto.dtype = dtype;
            proto.tensor_content = content.into();
            proto.int_val = numbers.clone();
            proto.half_val = numbers.clone();
            proto.scomplex_val = numbers.iter().map(|&number| number as f32).collect();
            proto.string_val = numbers.iter().map(|number| Bytes::from(number.to_string())).collect();
            for proto in [TensorProto { tensor_content: Bytes::new(), ..proto.clone() }, proto] {
                if let Ok(tensor) = from_proto(proto) {
                    let again = from_proto(to_proto(&tensor, false).unwrap()).unwrap();
                    proptest::prop_assert_eq!(again.dims(), tensor.dims());
                }
            }
        }
    }
}

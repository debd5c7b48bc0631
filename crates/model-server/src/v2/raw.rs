//! Tensors as bytes: numbers as they lie in memory, and strings each after its length, of four bytes.

use bytes::Bytes;
use session_group::tensorflow::{self, Tensor};
use session_group::{Error, Result};

use crate::proto::tensorflow::DataType;

/// How many elements a tensor of this shape has.
pub fn elements(dims: &[i64]) -> Result<usize> {
    let mut count = 1usize;
    for &dim in dims {
        let dim = usize::try_from(dim)
            .map_err(|_| Error::invalid(format!("its shape has {dim}: give sizes of 0 or more")))?;
        count = count
            .checked_mul(dim)
            .ok_or_else(|| Error::invalid("its shape has more elements than can be counted"))?;
    }
    Ok(count)
}

/// The tensor, which uses numbers where they are, if they are aligned.
pub fn tensor(dtype: DataType, dims: &[i64], bytes: Bytes) -> Result<Tensor> {
    let count = elements(dims)?;
    let Some(size) = tensorflow::DataType::from(dtype as i32).size() else {
        return Tensor::from_strings(dims, &strings(count, &bytes)?);
    };
    if count.checked_mul(size) != Some(bytes.len()) {
        return Err(Error::invalid(format!(
            "it has {} bytes, but {count} elements of {size} bytes by its shape and datatype",
            bytes.len()
        )));
    }
    if dtype == DataType::DtBool
        && let Some(wrong) = bytes.iter().find(|&&byte| byte > 1)
    {
        return Err(Error::invalid(format!("it has a BOOL of {wrong}: send 0 or 1")));
    }
    Tensor::from_owner(dtype as i32, dims, bytes)
}

const LENGTH: usize = 4;

fn strings(count: usize, mut bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let wrong = || {
        Error::invalid(format!(
            "its bytes are not {count} strings, each after its length: four bytes, the lowest first"
        ))
    };
    if count > bytes.len() / LENGTH {
        return Err(wrong());
    }
    let mut strings = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or_else(wrong)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (string, rest) = rest.split_at_checked(length).ok_or_else(wrong)?;
        strings.push(string);
        bytes = rest;
    }
    match bytes.is_empty() {
        true => Ok(strings),
        false => Err(wrong()),
    }
}

/// A tensor's bytes.
pub fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    if tensor.dtype().number() != DataType::DtString as i32 {
        return Ok(tensor.bytes().to_vec());
    }
    let strings = tensor.strings()?;
    let size = strings.iter().map(|string| LENGTH + string.len()).sum();
    let mut bytes = Vec::with_capacity(size);
    for string in strings {
        let length = u32::try_from(string.len()).map_err(|_| {
            Error::invalid(
                "a string of 4 GiB or more can't be sent: ask by TensorFlow Serving's protocol",
            )
        })?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(string);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_and_go_after_their_lengths() {
        let sent = b"\x01\0\0\0a\0\0\0\0\x02\0\0\0\xff\0";
        let tensor = |count: i64, bytes: &'static [u8]| {
            tensor(DataType::DtString, &[count], Bytes::from_static(bytes))
        };
        let three = tensor(3, sent).unwrap();
        assert_eq!(three.strings().unwrap(), [b"a".as_slice(), b"", b"\xff\0"]);
        assert_eq!(bytes(&three).unwrap(), sent);
        assert!(tensor(0, b"").is_ok());
        for (count, wrong) in
            [(2, &sent[..]), (4, sent), (3, &sent[..14]), (1 << 40, sent), (1, b"\xff\xff\xff\xff")]
        {
            assert!(tensor(count, wrong).is_err(), "{count} {wrong:?}");
        }
    }

    #[test]
    fn numbers_have_the_bytes_of_their_shape() {
        let tensor = |dtype, dims: &[i64], bytes: &'static [u8]| {
            tensor(dtype, dims, Bytes::from_static(bytes)).map(|tensor| tensor.dims())
        };
        assert_eq!(tensor(DataType::DtHalf, &[2, 1], &[0; 4]), Ok(vec![2, 1]));
        assert_eq!(tensor(DataType::DtFloat, &[0, 5], &[]), Ok(vec![0, 5]));
        assert!(tensor(DataType::DtFloat, &[], &[0; 4]).unwrap().is_empty());
        for (dims, bytes) in
            [(&[3][..], &[0; 8][..]), (&[-1], &[]), (&[i64::MAX, 2], &[]), (&[i64::MAX], &[0; 4])]
        {
            assert!(tensor(DataType::DtFloat, dims, bytes).is_err(), "{dims:?}");
        }
        assert!(tensor(DataType::DtBool, &[2], &[0, 2]).is_err());
    }
}

//! Tensors of messages, and of batches.

use session_group::tensorflow::Tensor;
use session_group::{Error, Result};
pub use session_group_serving::tensor::{from_proto, to_proto};

use crate::proto::tensorflow::DataType;

/// The name of a type in TensorFlow's texts: that of Python, such as `float` and `int64`.
pub fn type_name(dtype: i32) -> String {
    let name = DataType::try_from(dtype).unwrap_or(DataType::DtInvalid).as_str_name();
    name.trim_start_matches("DT_").to_lowercase()
}

/// The rows of all parts, one after the other, and then `more` copies of the last part's first row. All
/// are of one type, and of one shape but for the number of rows.
pub fn concat(parts: &[&Tensor], more: usize) -> Result<Tensor> {
    let last = parts[parts.len() - 1];
    let rows: i64 = parts.iter().map(|part| part.dims()[0]).sum();
    let mut dims = last.dims();
    let last_rows = dims[0] as usize;
    dims[0] = rows + more as i64;
    if let Ok(first) = parts[0].strings() {
        let mut all = first;
        for part in &parts[1..] {
            all.extend(part.strings()?);
        }
        let mut row = last.strings()?;
        row.truncate(row.len() / last_rows);
        (0..more).for_each(|_| all.extend_from_slice(&row));
        return Tensor::from_strings(&dims, &all);
    }
    let row = &last.bytes()[..last.bytes().len() / last_rows];
    Tensor::from_fill(last.dtype(), &dims, |to| {
        let mut to = to;
        let more = std::iter::repeat_n(row, more);
        for from in parts.iter().map(|part| part.bytes()).chain(more) {
            let (here, rest) = std::mem::take(&mut to).split_at_mut(from.len());
            here.copy_from_slice(from);
            to = rest;
        }
    })
}

/// Rows of a tensor.
pub fn rows(tensor: &Tensor, begin: usize, number: usize) -> Result<Tensor> {
    let mut dims = tensor.dims();
    let all = dims[0] as usize;
    dims[0] = number as i64;
    let range = |elements: usize| {
        let row = elements / all.max(1);
        begin * row..(begin + number) * row
    };
    if let Ok(strings) = tensor.strings() {
        return Tensor::from_strings(&dims, &strings[range(strings.len())]);
    }
    let bytes = tensor.bytes();
    Tensor::from_bytes(tensor.dtype(), &dims, &bytes[range(bytes.len())])
}

/// How much larger padding may make what is not small.
const MOST_PADDING: i64 = 64;

/// The tensor, made as large as these sizes at the end of each dimension, with its own first element.
pub fn padded(tensor: &Tensor, dims: &[i64]) -> Result<Tensor> {
    let own = tensor.dims();
    if own == dims {
        return rows(tensor, 0, own.first().map_or(0, |&rows| rows as usize));
    }
    if own.contains(&0) {
        return Err(Error::invalid("Got empty tensor in batch of non-empty tensors."));
    }
    let elements = |dims: &[i64]| dims.iter().try_fold(1i64, |n, &dim| n.checked_mul(dim));
    let (Some(count), Some(before)) = (elements(dims), elements(&own)) else {
        return Err(Error::invalid(format!("a tensor of shape {dims:?} is too large")));
    };
    if count / MOST_PADDING > before.max(1 << 16) {
        return Err(Error::invalid(format!(
            "padding a tensor of shape {own:?} to {dims:?}, as others of its batch have it, would make it \
             more than {MOST_PADDING} times as large"
        )));
    }
    // Where each element of the larger tensor comes from, if it is not padding.
    let source = |mut place: i64| {
        let (mut from, mut stride) = (0, 1);
        for (&size, &own) in dims.iter().zip(&own).rev() {
            let index = place % size;
            place /= size;
            if index >= own {
                return 0;
            }
            from += index * stride;
            stride *= own;
        }
        from as usize
    };
    if let Ok(strings) = tensor.strings() {
        let all: Vec<&[u8]> = (0..count).map(|place| strings[source(place)]).collect();
        return Tensor::from_strings(dims, &all);
    }
    let from = tensor.bytes();
    let size = from.len() / before as usize;
    Tensor::from_fill(tensor.dtype(), dims, |to| {
        for (place, to) in to.chunks_exact_mut(size).enumerate() {
            to.copy_from_slice(&from[source(place as i64) * size..][..size]);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_put_together_and_taken_apart() {
        let a = Tensor::from_slice(&[1, 2], &[1i32, 2]).unwrap();
        let b = Tensor::from_slice(&[2, 2], &[3i32, 4, 5, 6]).unwrap();
        let all = concat(&[&a, &b], 2).unwrap();
        assert_eq!(all.dims(), [5, 2]);
        assert_eq!(all.to_vec::<i32>().unwrap(), [1, 2, 3, 4, 5, 6, 3, 4, 3, 4]);
        assert_eq!(rows(&all, 1, 2).unwrap().to_vec::<i32>().unwrap(), [3, 4, 5, 6]);
        let c = Tensor::from_strings(&[2], &["x", "y"]).unwrap();
        let strings = concat(&[&c, &c], 1).unwrap();
        assert_eq!(strings.strings().unwrap(), [b"x", b"y", b"x", b"y", b"x"]);
        assert_eq!(rows(&strings, 3, 2).unwrap().strings().unwrap(), [b"y", b"x"]);
    }

    #[test]
    fn padding_is_the_first_element() {
        let a = Tensor::from_slice(&[2, 2], &[1i64, 2, 3, 4]).unwrap();
        let larger = padded(&a, &[2, 3]).unwrap();
        assert_eq!(larger.to_vec::<i64>().unwrap(), [1, 2, 1, 3, 4, 1]);
        let c = Tensor::from_strings(&[1, 1], &["x"]).unwrap();
        assert_eq!(padded(&c, &[1, 3]).unwrap().strings().unwrap(), [b"x", b"x", b"x"]);
        assert_eq!(padded(&a, &[2, 2]).unwrap().to_vec::<i64>().unwrap(), [1, 2, 3, 4]);
        let long = Tensor::from_fill(10, &[1, 1 << 20, 1], |_| ()).unwrap();
        assert!(padded(&long, &[1, 1 << 20, 1 << 20]).is_err());
        assert!(padded(&long, &[1, 1 << 62, 1 << 20]).is_err());
        let empty = Tensor::from_slice::<i64>(&[1, 0], &[]).unwrap();
        assert!(padded(&empty, &[1, 3]).is_err());
    }
}

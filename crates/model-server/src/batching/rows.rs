//! Rows of tensors: those of several requests in one tensor, and those of one again.

use session_group::tensorflow::Tensor;
use session_group::{Error, Result};

use crate::tensor;

/// How many rows a request is in a batch. 0 is one that is to be computed alone: it has no rows, or it `has_defaults`,
/// which the client can't give as many rows as its own inputs, and they have others.
pub fn rows(inputs: &[(&str, Tensor)], has_defaults: bool) -> Result<usize> {
    match same_rows(inputs.iter().map(|(_, tensor)| tensor)) {
        Err(_) if has_defaults => Ok(0),
        rows => rows,
    }
}

/// The size of the first dimension, which must be the same for all inputs.
fn same_rows<'a>(inputs: impl Iterator<Item = &'a Tensor>) -> Result<usize> {
    let mut rows = None;
    for tensor in inputs {
        let dims = tensor.dims();
        let &first = dims.first().ok_or_else(|| {
            Error::invalid("Batching Run() input tensors must have at least one dimension")
        })?;
        if rows.is_some_and(|rows| rows != first) {
            return Err(Error::invalid(
                "Batching Run() input tensors must have equal 0th-dimension size",
            ));
        }
        rows = Some(first);
    }
    Ok(rows.unwrap_or(0) as usize)
}

/// Inputs with so many rows: their first ones, or copies of the first in addition. `None` for what is not batched.
pub fn in_size<'a>(
    inputs: &[(&'a str, &Tensor)],
    size: usize,
) -> Result<Option<Vec<(&'a str, Tensor)>>> {
    let own = match same_rows(inputs.iter().map(|(_, tensor)| *tensor)) {
        Ok(own @ 1..) => own,
        _ => return Ok(None),
    };
    let of_size = |tensor: &Tensor| match size <= own {
        true => tensor::rows(tensor, 0, size),
        false => tensor::concat(&[tensor], size - own),
    };
    let named = |&(name, tensor): &(&'a str, &Tensor)| Ok((name, of_size(tensor)?));
    inputs.iter().map(named).collect::<Result<_>>().map(Some)
}

/// Whether the rows of both can be in one tensor, which `pads` the shorter ones.
pub fn are_mergeable(one: &Tensor, other: &Tensor, pads: bool) -> bool {
    let (dims, others) = (one.dims(), other.dims());
    let fits = if pads { dims.len() == others.len() } else { dims[1..] == others[1..] };
    fits && one.dtype() == other.dtype()
}

/// The rows of all parts, which are mergeable, one after the other, and then `more` copies of the last part's first
/// row.
pub fn merge(parts: &[&Tensor], more: usize) -> Result<Tensor> {
    let first = parts[0].dims();
    if parts.iter().all(|part| part.dims()[1..] == first[1..]) {
        return tensor::concat(parts, more);
    }
    let rank = first.len();
    let largest: Vec<i64> = (1..rank)
        .map(|i| parts.iter().map(|part| part.dims()[i]).max().unwrap_or_default())
        .collect();
    let padded: Vec<Tensor> = parts
        .iter()
        .map(|part| {
            let mut dims = part.dims();
            dims[1..].copy_from_slice(&largest);
            tensor::padded(part, &dims)
        })
        .collect::<Result<_>>()?;
    tensor::concat(&padded.iter().collect::<Vec<_>>(), more)
}

/// The rows of each request.
pub fn split(output: &Tensor, sizes: &[usize], rows: usize) -> Result<Vec<Tensor>> {
    match output.dims().first() {
        None => Err(Error::precondition("Batched output tensor has 0 dimensions")),
        Some(&first) if first != rows as i64 => Err(Error::precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of \
             the input tensors",
        )),
        Some(_) => {
            let mut begin = 0;
            sizes
                .iter()
                .map(|&size| {
                    let part = tensor::rows(output, begin, size);
                    begin += size;
                    part
                })
                .collect()
        }
    }
}

/// The outputs of a request of which each part has its own, in the order of the parts.
pub fn joined(mut parts: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    if parts.len() == 1 {
        return Ok(parts.remove(0));
    }
    let outputs = parts.first().map_or(0, Vec::len);
    let join = |i: usize| {
        let of_output: Vec<&Tensor> = parts.iter().map(|part| &part[i]).collect();
        let shape = |tensor: &Tensor| tensor.dims()[1..].to_vec();
        if of_output.iter().any(|part| shape(part) != shape(of_output[0])) {
            return Err(Error::precondition(
                "the batches over which this request was split have outputs of different shapes: send fewer rows, or \
                 leave out enable_large_batch_splitting",
            ));
        }
        tensor::concat(&of_output, 0)
    };
    (0..outputs).map(join).collect()
}

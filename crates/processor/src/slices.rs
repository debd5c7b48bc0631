//! Slices of tensors: how partitioned variables lie in checkpoints.

use session_group::tensorflow::Tensor;
use session_group::{Error, Result};
use tensorflow_sys::TF_STRING;

use crate::proto::model::TensorSlice;

/// A part of a tensor: in each dimension, where it begins and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub full: Vec<i64>,
    start: Vec<i64>,
    length: Vec<i64>,
}

/// Slices of one tensor, each of which is compared with each other.
const MOST_SLICES: usize = 4096;

impl Slice {
    /// Reads `4 2 0,2:-`: the tensor's dimensions, then begin and length in each, or `-` for all of it.
    pub fn parse(text: &str) -> Option<Self> {
        let (full, extents) = text.rsplit_once(' ')?;
        let full: Vec<i64> = full.split(' ').map(|dim| dim.parse().ok()).collect::<Option<_>>()?;
        let extents = extents.split(':').map(|extent| match extent {
            "-" => Some(None),
            extent => {
                let (start, length) = extent.split_once(',')?;
                Some(Some((start.parse().ok()?, length.parse().ok()?)))
            }
        });
        Self::new(full, extents.collect::<Option<Vec<_>>>()?)
    }

    /// As an index lists it.
    pub fn of(full: &[i64], slice: &TensorSlice) -> Option<Self> {
        let extents = slice.extent.iter().map(|extent| Some((extent.start, extent.length?)));
        Self::new(full.to_vec(), extents.collect())
    }

    fn new(full: Vec<i64>, extents: Vec<Option<(i64, i64)>>) -> Option<Self> {
        if full.len() != extents.len() {
            return None;
        }
        let extents = extents.iter().zip(&full).map(|(extent, &dim)| extent.unwrap_or((0, dim)));
        let (start, length): (Vec<i64>, Vec<i64>) = extents.unzip();
        let slice = Self { full, start, length };
        let fits = |((&start, &length), &full): ((&i64, &i64), &i64)| {
            start >= 0 && length >= 0 && start.checked_add(length).is_some_and(|end| end <= full)
        };
        let are_in = slice.start.iter().zip(&slice.length).zip(&slice.full).all(fits);
        (are_in && volume(&slice.full).is_some()).then_some(slice)
    }

    pub fn dims(&self) -> &[i64] {
        &self.length
    }

    /// Which rows it has: the first, and how many.
    pub fn rows(&self) -> Option<(i64, i64)> {
        Some((*self.start.first()?, *self.length.first()?))
    }

    /// What it is of each row.
    pub fn of_row(&self) -> Self {
        let rest = |of: &[i64]| of.get(1..).unwrap_or_default().to_vec();
        Self { full: rest(&self.full), start: rest(&self.start), length: rest(&self.length) }
    }

    /// Its contiguous pieces: the first element of each in the whole and in the slice, and their number.
    pub fn pieces(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let rank = self.full.len();
        let count = volume(&self.length).unwrap_or(0);
        let length = self.length.last().map_or(1, |&last| last as usize);
        let pieces = count.checked_div(length).unwrap_or(0);
        (0..pieces).map(move |piece| {
            let (mut rest, mut at, mut stride) = (piece, 0, 1);
            for dim in (0..rank).rev() {
                let own = if dim + 1 == rank { 0 } else { rest % self.length[dim] as usize };
                if dim + 1 != rank {
                    rest /= self.length[dim] as usize;
                }
                at += (self.start[dim] as usize + own) * stride;
                stride *= self.full[dim] as usize;
            }
            (at, piece * length, length)
        })
    }

    fn overlaps(&self, other: &Self) -> bool {
        let mut dims = (0..self.full.len()).map(|dim| {
            let end = |slice: &Self| slice.start[dim] + slice.length[dim];
            self.start[dim] < end(other) && other.start[dim] < end(self)
        });
        dims.all(|overlaps| overlaps)
    }

    /// The key of its entry in an index, which is in the order of TensorFlow's OrderedCode: a zero, the
    /// tensor's name, and numbers.
    pub fn key(name: &str, slice: &TensorSlice) -> Vec<u8> {
        let mut key = vec![0];
        for &byte in name.as_bytes() {
            match byte {
                0 => key.extend([0, 0xff]),
                0xff => key.extend([0xff, 0]),
                byte => key.push(byte),
            }
        }
        key.extend([0, 1]);
        unsigned(slice.extent.len() as u64, &mut key);
        for extent in &slice.extent {
            // What is the whole of a dimension has no length there.
            let (start, length) = extent.length.map_or((0, -1), |length| (extent.start, length));
            signed(start, &mut key);
            signed(length, &mut key);
        }
        key
    }
}

/// The slice of a tensor.
pub fn cut(tensor: &Tensor, slice: &Slice) -> Result<Tensor> {
    if tensor.dtype().number() == TF_STRING as i32 {
        let whole = tensor.strings()?;
        let part = slice.pieces().flat_map(|(at, _, count)| &whole[at..at + count]);
        return Tensor::from_strings(slice.dims(), &part.copied().collect::<Vec<_>>());
    }
    Tensor::from_fill(tensor.dtype().number(), slice.dims(), |bytes| {
        let (whole, size) = (tensor.bytes(), element_size(tensor));
        for (at, from, count) in slice.pieces() {
            let piece = &whole[at * size..(at + count) * size];
            bytes[from * size..(from + count) * size].copy_from_slice(piece);
        }
    })
}

/// These rows of a tensor, and of each the slice.
pub fn cut_rows(tensor: &Tensor, rows: &[usize], of_row: &Slice) -> Result<Tensor> {
    let dims: Vec<i64> =
        [rows.len() as i64].into_iter().chain(of_row.dims().iter().copied()).collect();
    let pieces: Vec<_> = of_row.pieces().collect();
    Tensor::from_fill(tensor.dtype().number(), &dims, |bytes| {
        let (all, size) = (tensor.bytes(), element_size(tensor));
        let whole = volume(&of_row.full).unwrap_or(0) * size;
        let part = bytes.len() / rows.len().max(1);
        for (i, &row) in rows.iter().enumerate() {
            let (from, to) = (&all[row * whole..][..whole], &mut bytes[i * part..][..part]);
            for &(at, place, count) in &pieces {
                let piece = &from[at * size..(at + count) * size];
                to[place * size..(place + count) * size].copy_from_slice(piece);
            }
        }
    })
}

/// A tensor of these dimensions from its slices, which make up the whole.
pub fn put_together(dtype: i32, dims: &[i64], parts: &[(Slice, Tensor)]) -> Result<Tensor> {
    if dtype == TF_STRING as i32 {
        let mut whole: Vec<&[u8]> = vec![b""; volume(dims).unwrap_or(0)];
        for (slice, part) in parts {
            let part = part.strings()?;
            for (at, from, count) in slice.pieces() {
                whole[at..at + count].copy_from_slice(&part[from..from + count]);
            }
        }
        return Tensor::from_strings(dims, &whole);
    }
    Tensor::from_fill(dtype, dims, |bytes| {
        for (slice, part) in parts {
            let (part, size) = (part.bytes(), element_size(part));
            for (at, from, count) in slice.pieces() {
                let piece = &part[from * size..(from + count) * size];
                bytes[at * size..(at + count) * size].copy_from_slice(piece);
            }
        }
    })
}

/// In bytes; 0 where there is none.
fn element_size(tensor: &Tensor) -> usize {
    tensor.bytes().len() / volume(&tensor.dims()).unwrap_or(1).max(1)
}

/// Checks that slices make up the whole tensor, each element once.
pub fn check_whole(full: &[i64], slices: &[Slice]) -> Result<()> {
    if slices.len() > MOST_SLICES {
        return Err(Error::invalid(format!("it is in more than {MOST_SLICES} slices: use fewer")));
    }
    let all = slices.iter().try_fold(0usize, |all, slice| all.checked_add(volume(slice.dims())?));
    let is_empty = |slice: &Slice| volume(slice.dims()) == Some(0);
    let overlap = slices.iter().enumerate().any(|(i, slice)| {
        slices[..i]
            .iter()
            .any(|other| !is_empty(slice) && !is_empty(other) && slice.overlaps(other))
    });
    match overlap {
        true => Err(Error::invalid("its slices overlap")),
        false if all != volume(full) => {
            Err(Error::invalid("its slices are not all there: write all of it into one delta"))
        }
        false => Ok(()),
    }
}

/// How many elements a tensor of these dimensions has.
pub fn volume(dims: &[i64]) -> Option<usize> {
    let count = dims.iter().try_fold(1i64, |count, &dim| count.checked_mul(dim))?;
    usize::try_from(count).ok()
}

/// The number of its bytes, then those, the highest first.
fn unsigned(number: u64, to: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let from = number.leading_zeros() as usize / 8;
    to.push((8 - from) as u8);
    to.extend(&bytes[from..]);
}

/// Its lowest bytes, the highest first; as many bits as there are of them are set at the beginning, inverted for
/// negative numbers.
fn signed(number: i64, to: &mut Vec<u8>) {
    let bits = 64 - (number ^ (number >> 63)).leading_zeros() as usize;
    let length = bits / 7 + 1;
    let mut bytes = [if number < 0 { 0xff } else { 0 }; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    let bytes = &mut bytes[10 - length..];
    let header = !0u16 << (16 - length.min(16));
    bytes[0] ^= (header >> 8) as u8;
    if length > 8 {
        bytes[1] ^= header as u8;
    }
    to.extend(&*bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::model::tensor_slice::Extent;

    #[test]
    fn slices_are_read_as_tensorflow_writes_them() {
        let slice = Slice::parse("4 2 2,2:-").unwrap();
        assert_eq!((slice.dims(), slice.rows()), (&[2, 2][..], Some((2, 2))));
        assert_eq!(slice.pieces().collect::<Vec<_>>(), [(4, 0, 2), (6, 2, 2)]);
        let columns = Slice::parse("2 3 4 -:1,2:1,3").unwrap();
        let places: Vec<_> = columns.pieces().map(|(at, _, _)| at).collect();
        assert_eq!(places, [5, 9, 17, 21]);
        assert_eq!(columns.of_row(), Slice::parse("3 4 1,2:1,3").unwrap());
        assert_eq!(Slice::parse("4 0 0,4:-").unwrap().pieces().count(), 0);
        for wrong in ["", "4", "4 2 0,2", "4 3,2", "4 -1,2", "4 0,x", "4 0,2:-", "-4 0,2", "4  0,2"]
        {
            assert_eq!(Slice::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn slices_have_to_be_whole() {
        let check = |slices: &[&str]| {
            let slices: Vec<_> = slices.iter().map(|text| Slice::parse(text).unwrap()).collect();
            check_whole(&[4, 2], &slices).map_err(|error| error.message)
        };
        assert_eq!(check(&["4 2 0,2:-", "4 2 2,2:-"]), Ok(()));
        assert_eq!(check(&["4 2 -:0,1", "4 2 0,3:1,1", "4 2 3,1:1,1", "4 2 1,0:-"]), Ok(()));
        assert!(check(&["4 2 0,2:-"]).unwrap_err().contains("not all there"));
        assert!(check(&["4 2 0,3:-", "4 2 2,1:-"]).unwrap_err().contains("overlap"));
    }

    #[test]
    fn keys_are_those_of_ordered_code() {
        let extent = |start, length| Extent { start, length };
        let key = |name: &str, extent: Vec<Extent>| Slice::key(name, &TensorSlice { extent });
        assert_eq!(key("v", vec![]), b"\0v\0\x01\0");
        assert_eq!(
            key("v", vec![extent(0, Some(2)), extent(0, None)]),
            b"\0v\0\x01\x01\x02\x80\x82\x80\x7f"
        );
        let number = |number| {
            let mut bytes = Vec::new();
            signed(number, &mut bytes);
            bytes
        };
        assert_eq!(number(63), [0xbf]);
        assert_eq!(number(64), [0xc0, 0x40]);
        assert_eq!(number(8191), [0xdf, 0xff]);
        assert_eq!(number(8192), [0xe0, 0x20, 0]);
        assert_eq!(number(-65), [0x3f, 0xbf]);
        assert_eq!(number(i64::MAX), [0xff, 0xc0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    }
}

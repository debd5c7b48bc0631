//! Checkpoints that a trainer might have written for a model, or almost.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use arbitrary::Arbitrary;
use prost::Message;
use serving_processor::bundle::Bundle;
use serving_processor::proto::model::tensor_slice::Extent;
use serving_processor::proto::model::{BundleEntry, TensorSlice};
use serving_processor::slices::Slice;
use serving_processor::template::Template;
use session_group_serving::checksum::masked;
use session_group_serving::tensorflow::tensor_shape_proto::Dim;
use session_group_serving::tensorflow::{DataType, TensorShapeProto};

use crate::index::{Entry, table};

/// What the model's variables are: their names, types and shapes. Those are left out that are too large for an input.
pub fn variables(template: &Template) -> Vec<(String, i32, Vec<i64>)> {
    const MOST_BYTES: usize = 1 << 16;
    let own = template.own_checkpoint().expect("a model with variables");
    let bundle = Bundle::open(&own).expect("the model's own checkpoint");
    let known = template.variables.keys().filter(|name| bundle.has(name));
    let variable = |name: &String| {
        let tensor = bundle.tensor(name).expect("the model's own tensor");
        let is_small = tensor.bytes().len() <= MOST_BYTES;
        is_small.then(|| (name.clone(), tensor.dtype().number(), tensor.dims()))
    };
    known.filter_map(variable).collect()
}

/// A tensor of a checkpoint.
#[derive(Arbitrary, Debug)]
pub struct Item {
    /// Of which variable.
    of: u8,
    what: What,
    /// Another type or shape than the variable's.
    dtype: Option<u8>,
    dims: Option<Vec<i8>>,
    /// Over and over, as many as its size needs.
    bytes: Vec<u8>,
    wrong: Option<Wrong>,
}

#[derive(Arbitrary, Debug)]
enum What {
    Whole,
    /// The numbers of rows that change, and so many values for them.
    Rows {
        rows: Vec<u8>,
        values: u8,
    },
    /// Its slices in the first dimension end here.
    Slices(Vec<u8>),
    /// Of a name that the model may not have.
    Other(String),
}

/// What does not agree with its data.
#[derive(Arbitrary, Debug)]
enum Wrong {
    Offset(i64),
    Size(i64),
    Shard(i32),
    Checksum,
    Slices(Vec<Vec<(i8, Option<i8>)>>),
}

/// Its files.
#[derive(Default)]
pub struct Files {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    data: Vec<u8>,
    /// What variables have once it is applied, as far as it is known.
    pub values: HashMap<String, Vec<u8>>,
}

impl Files {
    /// Adds a tensor.
    pub fn add(&mut self, item: &Item, variables: &[(String, i32, Vec<i64>)]) {
        let (name, dtype, dims) = &variables[usize::from(item.of) % variables.len()];
        let dtype = item.dtype.map_or(*dtype, i32::from);
        let dims = item
            .dims
            .as_ref()
            .map_or(dims.clone(), |dims| dims.iter().map(|&dim| dim.into()).collect());
        self.values.remove(name);
        match &item.what {
            What::Whole => {
                let data = self.put(name.as_bytes(), dtype, &dims, item, None);
                if item.wrong.is_none() && dtype != DataType::DtString as i32 {
                    self.values.insert(name.clone(), data);
                }
            }
            What::Other(name) => drop(self.put(name.as_bytes(), dtype, &dims, item, None)),
            What::Rows { rows, values } => {
                let keys: Vec<u8> =
                    rows.iter().flat_map(|&row| i64::from(row).to_le_bytes()).collect();
                let key = format!("{name}-sparse_incr_keys");
                self.put(
                    key.as_bytes(),
                    DataType::DtInt64 as i32,
                    &[rows.len() as i64],
                    item,
                    Some(&keys),
                );
                let values = if *values == 0 { rows.len() } else { (*values).into() };
                let row = dims.get(1..).unwrap_or_default();
                let key = format!("{name}-sparse_incr_values");
                self.put(key.as_bytes(), dtype, &[&[values as i64], row].concat(), item, None);
            }
            What::Slices(ends) => {
                let mut slices = Vec::new();
                let mut start = 0;
                for end in ends.iter().map(|&end| i64::from(end)).chain(dims.first().copied()) {
                    let whole = Extent::default();
                    let first = Extent { start, length: Some(end.wrapping_sub(start)) };
                    let rest = dims.iter().skip(1).map(|_| whole);
                    let slice = TensorSlice { extent: [first].into_iter().chain(rest).collect() };
                    let own = [&[first.length()], dims.get(1..).unwrap_or_default()].concat();
                    self.put(&Slice::key(name, &slice), dtype, &own, item, None);
                    slices.push(slice);
                    start = end;
                }
                let entry = BundleEntry {
                    dtype,
                    shape: Some(shape(&dims)),
                    slices,
                    ..BundleEntry::default()
                };
                self.entries.insert(name.as_bytes().to_vec(), entry.encode_to_vec());
            }
        }
    }

    /// Adds an entry with its data, which it gives.
    fn put(
        &mut self,
        key: &[u8],
        dtype: i32,
        dims: &[i64],
        item: &Item,
        data: Option<&[u8]>,
    ) -> Vec<u8> {
        let count = dims.iter().try_fold(1i64, |count, &dim| count.checked_mul(dim));
        let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let (data, checksum) = match data {
            Some(data) => (data.to_vec(), None),
            None if dtype == DataType::DtString as i32 => strings(count.min(64), &item.bytes),
            None => {
                let own = item.bytes.iter().copied().cycle();
                (own.take((count * size(dtype)).min(1 << 16)).collect::<Vec<u8>>(), None)
            }
        };
        let mut entry = BundleEntry {
            dtype,
            shape: Some(shape(dims)),
            offset: self.data.len() as i64,
            size: data.len() as i64,
            crc32c: checksum.unwrap_or_else(|| masked(crc32c::crc32c(&data))),
            ..BundleEntry::default()
        };
        match &item.wrong {
            None => {}
            Some(Wrong::Offset(offset)) => entry.offset = *offset,
            Some(Wrong::Size(size)) => entry.size = *size,
            Some(Wrong::Shard(shard)) => entry.shard_id = *shard,
            Some(Wrong::Checksum) => entry.crc32c ^= 1,
            Some(Wrong::Slices(slices)) => {
                entry.slices = slices.iter().map(|slice| any_slice(slice)).collect()
            }
        }
        self.data.extend(&data);
        self.entries.insert(key.to_vec(), entry.encode_to_vec());
        data
    }

    /// Writes them, with more blocks for the index. Gives the index.
    pub fn write(&self, prefix: &Path, more: &[Vec<Entry>], damage: Option<(u16, u8)>) -> Vec<u8> {
        let entry = |(key, value): (&Vec<u8>, &Vec<u8>)| Entry {
            same: 0,
            more: key.clone(),
            value: value.clone(),
        };
        let entries: Vec<_> = self.entries.iter().map(entry).collect();
        let mut index = table(entries.chunks(3).chain(more.iter().map(Vec::as_slice)));
        if let Some((at, change)) = damage {
            let at = usize::from(at) % index.len();
            index[at] ^= change;
        }
        let with = |end: &str| PathBuf::from(format!("{}{end}", prefix.display()));
        std::fs::write(with(".index"), &index).expect("a temporary file");
        std::fs::write(with(".data-00000-of-00001"), &self.data).expect("a temporary file");
        index
    }
}

fn any_slice(slice: &[(i8, Option<i8>)]) -> TensorSlice {
    let extent = |&(start, length): &(i8, Option<i8>)| Extent {
        start: start.into(),
        length: length.map(i64::from),
    };
    TensorSlice { extent: slice.iter().map(extent).collect() }
}

fn shape(dims: &[i64]) -> TensorShapeProto {
    let dim = dims.iter().map(|&size| Dim { size, ..Dim::default() }).collect();
    TensorShapeProto { dim, ..TensorShapeProto::default() }
}

/// Bytes of an element.
fn size(dtype: i32) -> usize {
    match DataType::try_from(dtype) {
        Ok(DataType::DtBool | DataType::DtInt8 | DataType::DtUint8) => 1,
        Ok(DataType::DtHalf | DataType::DtBfloat16 | DataType::DtInt16 | DataType::DtUint16) => 2,
        Ok(DataType::DtDouble | DataType::DtInt64 | DataType::DtUint64 | DataType::DtComplex64) => {
            8
        }
        Ok(DataType::DtComplex128) => 16,
        _ => 4,
    }
}

/// The data of strings, each as long as one of these bytes says, and their checksum.
fn strings(count: usize, bytes: &[u8]) -> (Vec<u8>, Option<u32>) {
    let length = |i: usize| bytes.get(i % bytes.len().max(1)).copied().unwrap_or(0) % 100;
    let lengths: Vec<u8> = (0..count).map(length).collect();
    let mut crc = 0;
    for &length in &lengths {
        crc = crc32c::crc32c_append(crc, &u32::from(length).to_le_bytes());
    }
    let of_lengths = masked(crc).to_le_bytes();
    let all = lengths.iter().map(|&length| usize::from(length)).sum::<usize>();
    let text: Vec<u8> = bytes.iter().copied().cycle().take(all).collect();
    crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &of_lengths), &text);
    ([lengths, of_lengths.to_vec(), text].concat(), Some(masked(crc)))
}

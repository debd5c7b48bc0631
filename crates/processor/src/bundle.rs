//! Reads a checkpoint's tensors.
//!
//! TensorFlow's own reader passes over blocks of an index that are damaged, and ends the process where an entry
//! is not what it expects. A delta has to be read whole or not at all, so this one checks everything.
//!
//! `PREFIX.index` is a table of LevelDB's format: blocks of sorted keys, each with a checksum, an index of the
//! blocks, and a footer. Its keys are the tensors' names; its values, `BundleEntryProto`s, say where in
//! `PREFIX.data-SSSSS-of-NNNNN` their bytes are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use prost::Message;
use prost::encoding::decode_varint;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};
use session_group_serving::checksum::masked;
use session_group_serving::signature::proto_name;
use session_group_serving::tensorflow::DataType;

use crate::proto::model::{BundleEntry, BundleHeader};
use crate::slices::{self, Slice};
use crate::versions::digest;

/// A checkpoint that is open.
pub struct Bundle {
    prefix: PathBuf,
    /// Of its index.
    digest: u64,
    shards: i32,
    entries: BTreeMap<String, BundleEntry>,
    /// Of tensors that are in slices, by their keys in the index.
    slices: BTreeMap<Vec<u8>, BundleEntry>,
}

const FOOTER: usize = 48;
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Of a block: its kind of compression, and a checksum.
const TRAILER: usize = 5;

/// How much longer than the index all its keys may be. Keys say what they share with the one before, and are whole at
/// each sixteenth at least, as TensorFlow writes them; otherwise a small file could ask for any amount of memory.
const MOST_TIMES: usize = 64;
/// What they may be in any case.
const ROOM: usize = 1 << 20;

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Code::DataLoss, format!("its index is damaged: {what}"))
}

impl Bundle {
    /// `prefix` is what its files' names begin with, up to `.index`.
    pub fn open(prefix: &Path) -> Result<Self> {
        let table = std::fs::read(with(prefix, ".index"))
            .map_err(|error| Error::new(Code::NotFound, format!("its index: {error}")))?;
        let footer = table.len().checked_sub(FOOTER).map(|at| &table[at..]);
        let footer = footer.ok_or_else(|| damaged("it is too short"))?;
        if footer[FOOTER - 8..] != MAGIC.to_le_bytes() {
            return Err(damaged("it does not end as one"));
        }
        let mut rest = footer;
        let (_meta, index) = (Handle::take(&mut rest)?, Handle::take(&mut rest)?);
        let (mut entries, mut slices) = (BTreeMap::new(), BTreeMap::new());
        let mut header = None;
        let mut room = ROOM + table.len().saturating_mul(MOST_TIMES);
        let (mut end, mut before) = (0, None);
        for (_, handle) in block(&table, index, &mut room)? {
            let handle = Handle::take(&mut handle.as_slice())?;
            // No byte is in two blocks: each is read once.
            if handle.offset < end {
                return Err(damaged("a block does not follow the one before"));
            }
            end = handle.offset.saturating_add(handle.size);
            for (key, value) in block(&table, handle, &mut room)? {
                if before.as_ref().is_some_and(|before| *before >= key) {
                    return Err(damaged("its keys are not in order"));
                }
                before = Some(key.clone());
                if key.is_empty() {
                    header = Some(BundleHeader::decode(value.as_slice()).map_err(damaged)?);
                    continue;
                }
                let entry = BundleEntry::decode(value.as_slice()).map_err(damaged)?;
                match key[0] {
                    0 => slices.insert(key, entry),
                    _ => entries.insert(String::from_utf8(key).map_err(damaged)?, entry),
                };
            }
        }
        let header = header.ok_or_else(|| damaged("it has no header"))?;
        if header.endianness != 0 {
            return Err(Error::invalid("it was written on a big-endian machine"));
        }
        let digest = digest(&table);
        Ok(Self {
            prefix: prefix.to_path_buf(),
            digest,
            shards: header.num_shards,
            entries,
            slices,
        })
    }

    /// Which index was read.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The names of all tensors.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &String> {
        self.entries.keys()
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The whole tensor, read from disk.
    pub fn tensor(&self, key: &str) -> Result<Tensor> {
        let of = |error: Error| Error::new(error.code, format!("{key}: {}", error.message));
        let entry = self.entries.get(key);
        let entry = entry.ok_or_else(|| Error::invalid(format!("it has no tensor {key}")))?;
        match entry.slices.is_empty() {
            true => self.read(entry).map_err(of),
            false => self.put_together(key, entry).map_err(of),
        }
    }

    /// A tensor from its slices.
    fn put_together(&self, key: &str, entry: &BundleEntry) -> Result<Tensor> {
        let dims = dims(entry)?;
        let slices =
            entry.slices.iter().map(|slice| Slice::of(&dims, slice)).collect::<Option<_>>();
        let slices: Vec<Slice> = slices.ok_or_else(|| damaged("a slice is not in its tensor"))?;
        slices::check_whole(&dims, &slices)?;
        let parts = entry.slices.iter().zip(&slices).map(|(listed, slice)| {
            let part = self.slices.get(&Slice::key(key, listed));
            let part = part.ok_or_else(|| damaged("a slice that it lists is not there"))?;
            let tensor = self.read(part)?;
            match tensor.dims() == slice.dims() && tensor.dtype().number() == entry.dtype {
                true => Ok(tensor),
                false => Err(damaged("a slice is not of the size or type that is listed")),
            }
        });
        let parts: Vec<Tensor> = parts.collect::<Result<_>>()?;
        let parts: Vec<_> = slices.into_iter().zip(parts).collect();
        slices::put_together(entry.dtype, &dims, &parts)
    }

    fn read(&self, entry: &BundleEntry) -> Result<Tensor> {
        let dims = dims(entry)?;
        let is_string = entry.dtype == DataType::DtString as i32;
        let bytes = self.bytes(entry)?;
        if is_string {
            return strings(&dims, &bytes, entry.crc32c);
        }
        if masked(crc32c::crc32c(&bytes)) != entry.crc32c {
            return Err(Error::new(Code::DataLoss, "its data are damaged"));
        }
        Tensor::from_bytes(entry.dtype, &dims, &bytes).map_err(|error| {
            Error::new(error.code, format!("{}: {}", proto_name(entry.dtype), error.message))
        })
    }

    fn bytes(&self, entry: &BundleEntry) -> Result<Vec<u8>> {
        let shard = format!(".data-{:05}-of-{:05}", entry.shard_id, self.shards);
        let path = with(&self.prefix, &shard);
        let unread =
            |error: io::Error| Error::new(Code::DataLoss, format!("{}: {error}", path.display()));
        let file = File::open(&path).map_err(unread)?;
        let there = file.metadata().map_err(unread)?.len();
        let (offset, size) = (entry.offset as u64, entry.size as u64);
        // Before memory is asked for.
        if offset.checked_add(size).is_none_or(|end| end > there) {
            let message = format!("{} ends before its data", path.display());
            return Err(Error::new(Code::DataLoss, message));
        }
        let mut bytes = vec![0; size as usize];
        file.read_exact_at(&mut bytes, offset).map_err(unread)?;
        Ok(bytes)
    }
}

fn dims(entry: &BundleEntry) -> Result<Vec<i64>> {
    let shape = entry.shape.clone().unwrap_or_default();
    let dims: Vec<i64> = shape.dim.iter().map(|dim| dim.size).collect();
    match shape.unknown_rank || dims.iter().any(|&dim| dim < 0) {
        true => Err(damaged("a shape is not fully known")),
        false => Ok(dims),
    }
}

fn with(prefix: &Path, end: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// Where a block is.
#[derive(Clone, Copy)]
struct Handle {
    offset: u64,
    size: u64,
}

impl Handle {
    fn take(from: &mut &[u8]) -> Result<Self> {
        let offset = decode_varint(from).map_err(damaged)?;
        Ok(Self { offset, size: decode_varint(from).map_err(damaged)? })
    }
}

/// The keys and values of a block. Keys take from `room`.
fn block(table: &[u8], handle: Handle, room: &mut usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let begin = usize::try_from(handle.offset).unwrap_or(usize::MAX);
    let size = usize::try_from(handle.size).unwrap_or(usize::MAX);
    let end = begin.checked_add(size).and_then(|end| end.checked_add(TRAILER));
    let whole = end.and_then(|end| table.get(begin..end));
    let whole = whole.ok_or_else(|| damaged("a block is not in it"))?;
    let (checked, checksum) = whole.split_at(size + 1);
    if masked(crc32c::crc32c(checked)).to_le_bytes() != checksum {
        return Err(damaged("a block is not what was written"));
    }
    if checked[size] != 0 {
        return Err(Error::invalid("its index is compressed: write it without compression"));
    }
    // The places at which keys are whole; they are for searching.
    let restarts = checked[..size].last_chunk::<4>().map(|n| u32::from_le_bytes(*n) as usize);
    let entries = restarts
        .and_then(|n| size.checked_sub(n.checked_mul(4)?.checked_add(4)?))
        .ok_or_else(|| damaged("a block has no end"))?;
    let mut rest = &checked[..entries];
    let (mut key, mut all) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let mut number = || -> Result<usize> {
            let number = decode_varint(&mut rest).map_err(damaged)?;
            usize::try_from(number).map_err(damaged)
        };
        // How much of the key before it begins with, how much more there is, how long the value is.
        let (same, more, length) = (number()?, number()?, number()?);
        if same > key.len() || more.checked_add(length).is_none_or(|both| both > rest.len()) {
            return Err(damaged("an entry is longer than its block"));
        }
        key.truncate(same);
        key.extend_from_slice(&rest[..more]);
        *room = room.checked_sub(key.len()).ok_or_else(|| damaged("its keys are too long"))?;
        all.push((key.clone(), rest[more..more + length].to_vec()));
        rest = &rest[more + length..];
    }
    Ok(all)
}

/// Strings: the lengths of all, a checksum of these, then the bytes of all.
fn strings(dims: &[i64], bytes: &[u8], checksum: u32) -> Result<Tensor> {
    let wrong = || Error::new(Code::DataLoss, "its data are damaged");
    let count = dims.iter().try_fold(1i64, |count, &dim| count.checked_mul(dim));
    let count = count.and_then(|count| usize::try_from(count).ok()).ok_or_else(wrong)?;
    if count > bytes.len() {
        return Err(wrong());
    }
    let mut rest = bytes;
    let (mut lengths, mut crc) = (Vec::with_capacity(count), 0);
    for _ in 0..count {
        let length = decode_varint(&mut rest).map_err(|_| wrong())?;
        crc = match u32::try_from(length) {
            Ok(length) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
            Err(_) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
        };
        lengths.push(usize::try_from(length).map_err(|_| wrong())?);
    }
    let (of_lengths, mut rest) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    if *of_lengths != masked(crc).to_le_bytes() {
        return Err(wrong());
    }
    crc = crc32c::crc32c_append(crc, of_lengths);
    if masked(crc32c::crc32c_append(crc, rest)) != checksum {
        return Err(wrong());
    }
    let mut all = Vec::with_capacity(count);
    for length in lengths {
        let (string, more) = rest.split_at_checked(length).ok_or_else(wrong)?;
        all.push(string);
        rest = more;
    }
    Tensor::from_strings(dims, &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry: how much of the key before it begins with, what follows, and its value.
    type Entry = (usize, Vec<u8>, Vec<u8>);

    fn number(mut n: usize, to: &mut Vec<u8>) {
        while n >= 0x80 {
            to.push(n as u8 | 0x80);
            n >>= 7;
        }
        to.push(n as u8);
    }

    /// Adds a block to a table, and gives its handle.
    fn add(table: &mut Vec<u8>, entries: &[Entry]) -> Vec<u8> {
        let begin = table.len();
        for (same, more, value) in entries {
            for n in [*same, more.len(), value.len()] {
                number(n, table);
            }
            table.extend(more);
            table.extend(value);
        }
        table.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        let mut handle = Vec::new();
        for n in [begin, table.len() - begin] {
            number(n, &mut handle);
        }
        table.push(0);
        table.extend(masked(crc32c::crc32c(&table[begin..])).to_le_bytes());
        handle
    }

    /// Opens an index whose blocks are as these handles say.
    fn open(mut table: Vec<u8>, handles: Vec<Vec<u8>>) -> std::result::Result<Bundle, String> {
        let keyed = handles.into_iter().enumerate();
        let keyed: Vec<Entry> = keyed.map(|(i, handle)| (0, vec![i as u8], handle)).collect();
        let index = add(&mut table, &keyed);
        let mut footer = [vec![0, 0], index].concat();
        footer.resize(FOOTER - 8, 0);
        table.extend(footer);
        table.extend(MAGIC.to_le_bytes());
        let folder = std::env::temp_dir().join(format!("bundle-{}", std::process::id()));
        let prefix = folder.join(format!("{:016x}", digest(&table)));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(with(&prefix, ".index"), table).unwrap();
        let opened = Bundle::open(&prefix).map_err(|error| error.message);
        std::fs::remove_file(with(&prefix, ".index")).unwrap();
        opened
    }

    fn header() -> Entry {
        (0, Vec::new(), BundleHeader { num_shards: 1, ..BundleHeader::default() }.encode_to_vec())
    }

    fn entry(same: usize, more: &[u8]) -> Entry {
        (same, more.to_vec(), Vec::new())
    }

    #[test]
    fn keys_share_what_they_begin_with() {
        let mut table = Vec::new();
        let first = add(&mut table, &[header(), entry(0, b"abc"), entry(2, b"d"), entry(1, b"c")]);
        let second = add(&mut table, &[entry(0, b"b")]);
        let bundle = open(table, vec![first, second]).unwrap();
        assert_eq!(bundle.keys().collect::<Vec<_>>(), ["abc", "abd", "ac", "b"]);
    }

    /// Each would otherwise take time or memory that grows with the square of the index.
    #[test]
    fn an_index_asks_for_no_more_than_it_has() {
        let long = vec![b'a'; 1 << 20];
        let numbered = (0..1 << 16).map(|i: u32| (1 << 20, i.to_be_bytes().to_vec(), Vec::new()));
        let keys: Vec<Entry> =
            [header(), (0, long, Vec::new())].into_iter().chain(numbered).collect();
        let mut table = Vec::new();
        let first = add(&mut table, &keys);
        assert!(open(table, vec![first]).err().unwrap().contains("keys are too long"));

        let mut table = Vec::new();
        let first = add(&mut table, &[header(), entry(0, b"a"), entry(1, b"")]);
        assert!(open(table, vec![first]).err().unwrap().contains("not in order"));

        let mut table = Vec::new();
        let first = add(&mut table, &[header(), entry(0, b"a")]);
        let second = add(&mut table, &[entry(0, b"b")]);
        let opened = |handles: &[&Vec<u8>]| {
            open(table.clone(), handles.iter().copied().cloned().collect())
                .err()
                .unwrap_or_default()
        };
        assert_eq!(opened(&[&first, &second]), "");
        assert!(opened(&[&first, &first]).contains("does not follow"));
        assert!(opened(&[&second, &first]).contains("does not follow"));
    }
}

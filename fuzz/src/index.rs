//! The index of a checkpoint, whose checksums are right, whatever is in it.

use arbitrary::Arbitrary;
use prost::Message;
use serving_processor::proto::model::BundleHeader;
use session_group_serving::checksum::masked;

/// A key and its value, as a block has them.
#[derive(Arbitrary, Clone, Debug)]
pub struct Entry {
    /// How much of the key before it begins with.
    pub same: u16,
    /// What follows.
    pub more: Vec<u8>,
    /// Of any kind.
    pub value: Vec<u8>,
}

fn number(mut n: usize, to: &mut Vec<u8>) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

/// Adds a block, and gives its handle.
fn add(table: &mut Vec<u8>, entries: &[Entry]) -> Vec<u8> {
    let begin = table.len();
    for Entry { same, more, value } in entries {
        for n in [usize::from(*same), more.len(), value.len()] {
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

/// The table of these blocks. A header comes before their entries.
pub fn table<'a>(blocks: impl Iterator<Item = &'a [Entry]>) -> Vec<u8> {
    let header = BundleHeader { num_shards: 1, ..BundleHeader::default() }.encode_to_vec();
    let mut table = Vec::new();
    let mut handles = vec![add(&mut table, &[Entry { same: 0, more: Vec::new(), value: header }])];
    handles.extend(blocks.map(|block| add(&mut table, block)));
    let keyed = (0u32..).zip(handles);
    let keyed = keyed.map(|(i, value)| Entry { same: 0, more: i.to_be_bytes().to_vec(), value });
    let handle = add(&mut table, &keyed.collect::<Vec<_>>());
    let end = table.len();
    table.extend([0, 0]);
    table.extend(handle);
    table.resize(end + 40, 0);
    table.extend(0xdb47_7524_8b80_fb57u64.to_le_bytes());
    table
}

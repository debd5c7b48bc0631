//! Changes serialised protocol buffers of any type field by field, so that the lengths around a change
//! stay right and most of what comes out can still be parsed.

use libfuzzer_sys::fuzzer_mutate;

/// Deeper messages are taken for bytes.
const MAX_DEPTH: u32 = 12;

#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    /// Bytes that can be read as one: so a string may be taken for a message, which does no harm.
    Message(Vec<Field>),
}

/// For [`fuzz_mutator!`](libfuzzer_sys::fuzz_mutator): changes one to four fields of the message in the
/// first `size` bytes of `data`, and gives the new size.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) << 1 | 1);
    let Some(mut message) = parse(&data[..size], 0).filter(|fields| !fields.is_empty()) else {
        return fuzzer_mutate(data, size, max_size);
    };
    for _ in 0..=random.below(4) {
        change(&mut message, &mut random);
    }
    let bytes = serialise(&message);
    if bytes.is_empty() || bytes.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

/// Changes a field of the message, or of one inside it.
fn change(message: &mut Vec<Field>, random: &mut Random) {
    if message.is_empty() {
        return;
    }
    let i = random.below(message.len());
    if let Value::Message(inner) = &mut message[i].value
        && !inner.is_empty()
        && random.below(5) != 0
    {
        return change(inner, random);
    }
    let other = random.below(message.len());
    match random.below(8) {
        0 => drop(message.remove(i)),
        1 => message.insert(other, message[i].clone()),
        2 => message.swap(i, other),
        3 => message[i].value = message[other].value.clone(),
        4 => message[i].number = 1 + random.next() % 20,
        _ => message[i].value.change(random),
    }
}

impl Value {
    fn change(&mut self, random: &mut Random) {
        const NUMBERS: [u64; 12] = [
            0,
            1,
            2,
            3,
            9,
            100,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 62,
            i64::MAX as u64,
            u64::MAX,
        ];
        match self {
            Self::Varint(number) => {
                *number = match random.below(3) {
                    0 => number.wrapping_add(1),
                    1 => number.wrapping_sub(1),
                    _ => NUMBERS[random.below(NUMBERS.len())],
                }
            }
            Self::Fixed64(bytes) => *bytes = random.next().to_le_bytes(),
            Self::Fixed32(bytes) => *bytes = (random.next() as u32).to_le_bytes(),
            Self::Bytes(bytes) => mutate_bytes(bytes),
            Self::Message(fields) => {
                let mut bytes = serialise(fields);
                mutate_bytes(&mut bytes);
                *self = Self::Bytes(bytes);
            }
        }
    }
}

fn mutate_bytes(bytes: &mut Vec<u8>) {
    let size = bytes.len();
    let room = size + 16;
    bytes.resize(room, 0);
    let size = fuzzer_mutate(bytes, size, room);
    bytes.truncate(size);
}

fn parse(mut bytes: &[u8], depth: u32) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(*take(&mut bytes, 8)?.first_chunk()?),
            2 => {
                let size = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, size)?;
                match parse(inner, depth + 1) {
                    Some(fields) if depth < MAX_DEPTH && !fields.is_empty() => {
                        Value::Message(fields)
                    }
                    _ => Value::Bytes(inner.to_vec()),
                }
            }
            5 => Value::Fixed32(*take(&mut bytes, 4)?.first_chunk()?),
            _ => return None,
        };
        fields.push(Field { number: (key >> 3 != 0).then_some(key >> 3)?, value });
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some(taken)
}

fn serialise(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Field { number, value } in fields {
        let mut key = |kind| put_varint(&mut bytes, number << 3 | kind);
        match value {
            Value::Varint(number) => {
                key(0);
                put_varint(&mut bytes, *number);
            }
            Value::Fixed64(value) => {
                key(1);
                bytes.extend(value);
            }
            Value::Fixed32(value) => {
                key(5);
                bytes.extend(value);
            }
            Value::Bytes(value) => {
                key(2);
                put_varint(&mut bytes, value.len() as u64);
                bytes.extend(value);
            }
            Value::Message(fields) => {
                key(2);
                let value = serialise(fields);
                put_varint(&mut bytes, value.len() as u64);
                bytes.extend(value);
            }
        }
    }
    bytes
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// xorshift, from libFuzzer's own seed, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }
}

//! Changes frames of HTTP/2 one by one, so that the sizes around a change stay right and most of what comes out is
//! still looked at: the fields of a head, which are literal, and the message of gRPC that data have.

use libfuzzer_sys::fuzzer_mutate;

use crate::wire;

const DATA: u8 = 0;
const HEAD: u8 = 1;
const FRAME: usize = 9;
/// Of a message of gRPC: whether it is compressed, and its size.
const MESSAGE: usize = 5;
/// A frame may grow by this much.
const ROOM: usize = 64;

#[derive(Clone)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: [u8; 4],
    payload: Vec<u8>,
}

/// For [`fuzz_mutator!`](libfuzzer_sys::fuzz_mutator): changes one of the frames in the first `size` bytes of `data`,
/// and gives the new size.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut frames = parse(&data[..size]);
    let choice = seed as usize;
    if frames.is_empty() || choice % 16 == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let (at, other) = (choice / 16 % frames.len(), choice / 1024 % frames.len());
    match choice % 16 {
        1 => drop(frames.remove(at)),
        2 => frames.insert(other, frames[at].clone()),
        3 => frames.swap(at, other),
        4 => frames[at].kind = (choice >> 20) as u8 % 12,
        5 => frames[at].flags ^= 1 << (choice >> 20 & 7),
        6 => frames[at].stream[3] = (choice >> 20) as u8 % 8,
        7 => change(&mut frames[at].payload),
        _ => frames[at].change(seed),
    }
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    if bytes.is_empty() || bytes.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

/// The frames, as far as they are whole.
fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<FRAME>() {
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(size) else { break };
        let stream = [head[5], head[6], head[7], head[8]];
        frames.push(Frame { kind: head[3], flags: head[4], stream, payload: payload.to_vec() });
        bytes = rest;
    }
    frames
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let size = (self.payload.len() as u32).to_be_bytes();
        [&size[1..], &[self.kind, self.flags], &self.stream, &self.payload].concat()
    }

    fn change(&mut self, seed: u32) {
        match self.kind {
            DATA if self.payload.len() >= MESSAGE => {
                let mut message = self.payload.split_off(MESSAGE);
                let size = message.len();
                message.resize(size + ROOM, 0);
                let size = wire::mutate(&mut message, size, size + ROOM, seed);
                message.truncate(size);
                self.payload[1..MESSAGE].copy_from_slice(&(size as u32).to_be_bytes());
                self.payload.extend(message);
            }
            HEAD => match fields(&self.payload) {
                Some(mut fields) if !fields.is_empty() => {
                    let at = seed as usize / 64 % fields.len();
                    let (name, value) = &mut fields[at];
                    change(if seed % 64 < 8 { name } else { value });
                    self.payload =
                        fields.iter().flat_map(|(name, value)| field(name, value)).collect();
                }
                _ => change(&mut self.payload),
            },
            _ => change(&mut self.payload),
        }
    }
}

fn change(bytes: &mut Vec<u8>) {
    let size = bytes.len();
    bytes.resize(size + ROOM, 0);
    let size = fuzzer_mutate(bytes, size, size + ROOM);
    bytes.truncate(size);
}

/// Sizes have one byte, in which the first bit says something else.
const MOST: usize = 126;

fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let [name, value] = [name, value].map(|text| &text[..text.len().min(MOST)]);
    [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
}

/// The names and values of a head, if all are literal.
fn fields(mut bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut fields = Vec::new();
    let text = |bytes: &mut &[u8]| {
        let (&size, rest) = bytes.split_first()?;
        let (text, rest) = rest.split_at_checked(size.into())?;
        *bytes = rest;
        Some(text.to_vec())
    };
    while let Some((&0, rest)) = bytes.split_first() {
        bytes = rest;
        fields.push((text(&mut bytes)?, text(&mut bytes)?));
    }
    bytes.is_empty().then_some(fields)
}

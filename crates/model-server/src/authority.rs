//! Clients of gRPC's C core and of Java send a Unix socket's path as `:authority`, which is not one, and
//! h2 refuses their requests. Here such a path is made a name as it comes in: its slashes and percent signs
//! become dashes, which keeps all lengths, and with them HPACK's tables, as they are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, BufReader, Join, ReadBuf, join};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// What is read of a connection, with authorities that are names.
pub struct Renamed {
    /// Frames are read piece by piece, which need not be as many calls of the system.
    stream: BufReader<OwnedReadHalf>,
    place: Place,
    /// What has been read of the connection's preface, a frame's head or a block of headers.
    held: Vec<u8>,
    /// How much of `held` has been given.
    given: usize,
}

/// Where in the stream of frames the next byte is.
enum Place {
    /// In `held`, of which this many bytes are needed.
    Before(usize),
    Head,
    Headers(usize),
    /// In something that is given as it is.
    Payload(usize),
    Giving(usize),
}

/// The connection, with authorities that are names.
pub fn renamed(stream: UnixStream) -> Join<Renamed, OwnedWriteHalf> {
    let (read, write) = stream.into_split();
    join(Renamed::new(read), write)
}

const PREFACE: usize = 24;
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

impl Renamed {
    fn new(stream: OwnedReadHalf) -> Self {
        let stream = BufReader::with_capacity(16 << 10, stream);
        Self { stream, place: Place::Before(PREFACE), held: Vec::new(), given: 0 }
    }

    /// Reads until so many bytes are held. Whether there are.
    fn poll_hold(&mut self, context: &mut Context<'_>, needed: usize) -> Poll<io::Result<bool>> {
        while self.held.len() < needed {
            let begin = self.held.len();
            self.held.resize(needed, 0);
            let mut buffer = ReadBuf::new(&mut self.held[begin..]);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            let got = buffer.filled().len();
            self.held.truncate(begin + got);
            ready!(read)?;
            if got == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Renamed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.place {
                Place::Before(needed) | Place::Headers(needed) => {
                    let is_all = ready!(this.poll_hold(context, needed))?;
                    if let (true, Place::Headers(_)) = (is_all, &this.place) {
                        rename(&mut this.held);
                    }
                    this.place = Place::Giving(0);
                }
                Place::Head => {
                    if !ready!(this.poll_hold(context, HEAD))? {
                        this.place = Place::Giving(0);
                        continue;
                    }
                    let size = u32::from_be_bytes([0, this.held[0], this.held[1], this.held[2]]);
                    this.place = match this.held[3] {
                        HEADERS => Place::Headers(HEAD + size as usize),
                        _ => Place::Giving(size as usize),
                    };
                }
                Place::Giving(payload) => {
                    let left = &this.held[this.given..];
                    if left.is_empty() {
                        let is_ended = this.held.is_empty();
                        this.held.clear();
                        this.given = 0;
                        this.place = Place::Payload(payload);
                        if is_ended {
                            return Poll::Ready(Ok(()));
                        }
                        continue;
                    }
                    let n = left.len().min(buffer.remaining());
                    buffer.put_slice(&left[..n]);
                    this.given += n;
                    return Poll::Ready(Ok(()));
                }
                Place::Payload(0) => this.place = Place::Head,
                Place::Payload(left) => {
                    let mut part = buffer.take(left);
                    // The same memory: what is filled there is filled here.
                    let before = part.filled().len();
                    ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
                    let got = part.filled().len() - before;
                    // SAFETY: the part has initialised and filled these bytes of the buffer.
                    unsafe { buffer.assume_init(got) };
                    buffer.advance(got);
                    this.place = Place::Payload(left - got);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Makes a name of each `:authority` in a frame of headers that is written out.
fn rename(frame: &mut [u8]) {
    let flags = frame[4];
    let mut at = HEAD;
    at += usize::from(flags & PADDED != 0);
    at += if flags & PRIORITY != 0 { 5 } else { 0 };
    // A frame that is cut short, or wrong, is left to who reads it.
    while let Some((next, authority)) = field(frame, at) {
        for byte in &mut frame[authority] {
            if matches!(byte, b'/' | b'%') {
                *byte = b'-';
            }
        }
        at = next;
    }
}

/// The end of the field that begins here, and where in it there is an authority.
fn field(block: &[u8], at: usize) -> Option<(usize, std::ops::Range<usize>)> {
    const AUTHORITY: usize = 1;
    let first = *block.get(at)?;
    let (bits, has_value) = match first {
        0x80.. => (7, false),
        0x40..0x80 => (6, true),
        0x20..0x40 => (5, false),
        _ => (4, true),
    };
    let (name, mut at) = number(block, at, bits)?;
    if !has_value {
        return Some((at, 0..0));
    }
    let mut is_authority = name == AUTHORITY;
    if name == 0 {
        let (size, begin) = number(block, at, 7)?;
        at = begin.checked_add(size)?;
        is_authority = block.get(begin..at)? == b":authority";
    }
    let is_packed = block.get(at)? & 0x80 != 0;
    let (size, begin) = number(block, at, 7)?;
    let end = begin.checked_add(size).filter(|&end| end <= block.len())?;
    Some((end, if is_authority && !is_packed { begin..end } else { 0..0 }))
}

/// A number of which the first byte has so many bits, and where it ends.
fn number(block: &[u8], mut at: usize, bits: u32) -> Option<(usize, usize)> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    at += 1;
    if value < most {
        return Some((value, at));
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(*block.get(at)?);
        at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(block: &[u8]) -> Vec<u8> {
        [&[0, 0, block.len() as u8, HEADERS, 4, 0, 0, 0, 1], block].concat()
    }

    #[test]
    fn only_authorities_are_renamed() {
        // ":method: POST", ":path: /a%" with a name of the table and with its own, a long ":authority".
        let long = [b"%2Ftmp%2F".as_slice(), &[b'x'; 130]].concat();
        let mut block = vec![0x83, 0x44, 3, b'/', b'a', b'%', 0x00, 2, b'a', b'b', 2, b'%', b'/'];
        block.extend([0x41, 0x7f, (long.len() - 127) as u8]);
        block.extend(&long);
        block.extend(b"\x40\x0a:authority\x03a%c");
        block.extend([0x41, 2, b'/', b'b']);
        let mut renamed = frame(&block);
        rename(&mut renamed);
        let text = String::from_utf8_lossy(&renamed[HEAD..]).into_owned();
        assert!(
            text.contains("/a%") && text.contains("%/") && text.contains("-2Ftmp-2Fxx"),
            "{text}"
        );
        assert!(text.contains("a-c"), "{text}");
        assert!(text.ends_with("-b"), "{text}");
        assert_eq!(renamed.len(), HEAD + block.len());
    }

    #[test]
    fn what_is_cut_short_or_wrong_is_left() {
        for block in
            [&[0x41][..], &[0x41, 5, b'/'], &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x00]]
        {
            let mut same = frame(block);
            rename(&mut same);
            assert_eq!(same, frame(block));
        }
    }
}

//! Holds the pong back that ends a connection of HTTP/2, until requests that were begun before have come.
//!
//! A server that ends a connection says so first (GOAWAY) and sends a ping: once the pong is there, h2 takes no more
//! requests. But gRPC's C++ library sends the pong before requests that it had begun when it heard of the end. These
//! would be ignored; the library tries small ones again by itself and fails large ones. Worse, h2 takes what else the
//! client sends for such a request for an error, and drops all other requests of the connection with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// For requests that were begun, to come.
const HELD: Duration = Duration::from_secs(1);
const PREFACE: usize = 24;
const HEAD: usize = 9;
const PING: u8 = 6;
const ACK: u8 = 1;
/// What h2 has in the ping of the end.
const END: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// The server's side of a connection of HTTP/2.
pub struct HeldPong<S> {
    stream: S,
    place: Place,
    pong: Pong,
}

/// Where in the client's frames what was read last ends.
enum Place {
    /// In the middle of a frame or the preface, of which so many bytes are left.
    Inside(usize),
    /// In the head of a frame, or at the end of one.
    Head([u8; HEAD], usize),
    /// In the payload of a pong.
    Pong([u8; END.len()], usize),
}

enum Pong {
    NotThere,
    Held(Pin<Box<Sleep>>),
    /// So many bytes of it are passed on.
    Due(usize),
    Over,
}

impl<S> HeldPong<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, place: Place::Inside(PREFACE), pong: Pong::NotThere }
    }

    /// Passes the pong on where its time has come and no frame is in its way. Says whether it did.
    fn give(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> bool {
        if let Pong::Held(until) = &mut self.pong
            && until.as_mut().poll(context).is_ready()
        {
            self.pong = Pong::Due(0);
        }
        let Pong::Due(given) = &mut self.pong else { return false };
        let is_between = *given > 0 || matches!(self.place, Place::Head(_, 0));
        // What reads nothing would mean the end.
        if !is_between || buffer.remaining() == 0 {
            return false;
        }
        let mut frame = [0; HEAD + END.len()];
        (frame[2], frame[3], frame[4]) = (END.len() as u8, PING, ACK);
        frame[HEAD..].copy_from_slice(&END);
        let rest = &frame[*given..];
        let fits = &rest[..rest.len().min(buffer.remaining())];
        buffer.put_slice(fits);
        *given += fits.len();
        if *given == frame.len() {
            self.pong = Pong::Over;
        }
        true
    }

    /// Follows the frames through what was read. The pong that is looked for becomes one that means nothing.
    fn follow(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.place {
                Place::Inside(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.place = Place::Head([0; HEAD], 0);
                    }
                    taken
                }
                Place::Head(head, filled) => {
                    let taken = fill(head, filled, bytes);
                    if *filled == HEAD {
                        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                        let is_pong = head[3] == PING && head[4] & ACK != 0 && size == END.len();
                        self.place = match size {
                            0 => Place::Head([0; HEAD], 0),
                            _ if is_pong => Place::Pong([0; END.len()], 0),
                            size => Place::Inside(size),
                        };
                    }
                    taken
                }
                Place::Pong(payload, filled) => {
                    let taken = fill(payload, filled, bytes);
                    if *filled == END.len() {
                        if *payload == END && matches!(self.pong, Pong::NotThere) {
                            bytes[taken - 1] ^= 1;
                            self.pong = Pong::Held(Box::pin(tokio::time::sleep(HELD)));
                        }
                        self.place = Place::Head([0; HEAD], 0);
                    }
                    taken
                }
            };
            bytes = &mut bytes[taken..];
        }
    }
}

/// Fills what is not filled from the begin of the bytes. Says how many it took.
fn fill(to: &mut [u8], filled: &mut usize, from: &[u8]) -> usize {
    let taken = from.len().min(to.len() - *filled);
    to[*filled..*filled + taken].copy_from_slice(&from[..taken]);
    *filled += taken;
    taken
}

impl<S: AsyncRead + Unpin> AsyncRead for HeldPong<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.give(context, buffer) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.follow(&mut buffer.filled_mut()[before..]);
        // From the pong on, its time wakes the reader, too.
        match read.is_pending() && self.give(context, buffer) {
            true => Poll::Ready(Ok(())),
            false => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeldPong<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

//! Bodies that come compressed.

use std::io::Read;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use flate2::read::{GzDecoder, ZlibDecoder};
use session_group::{Code, Error, Result};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    /// With zlib's head and checksum, as HTTP defines it.
    Deflate,
}

/// Of what a compressed body says.
const MOST: usize = 100 << 20;

impl Packing {
    pub fn of(headers: &HeaderMap) -> Self {
        let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        match encoding {
            Some(encoding) if encoding.contains("gzip") => Self::Gzip,
            Some(encoding) if encoding.contains("deflate") => Self::Deflate,
            _ => Self::None,
        }
    }

    /// The body as it was before, if it has no more than `most` bytes.
    pub fn unpacked(self, body: Bytes, most: usize) -> Result<Bytes> {
        match self {
            Self::None => Ok(body),
            Self::Gzip => read(GzDecoder::new(&body[..]), most),
            Self::Deflate => read(ZlibDecoder::new(&body[..]), most),
        }
    }
}

fn read(from: impl Read, most: usize) -> Result<Bytes> {
    let most = most.min(MOST);
    let mut unpacked = Vec::new();
    match from.take(most as u64 + 1).read_to_end(&mut unpacked) {
        Ok(size) if size <= most => Ok(unpacked.into()),
        Ok(_) => Err(Error::new(
            Code::ResourceExhausted,
            format!("the request has more than {most} bytes when unpacked"),
        )),
        Err(error) => {
            Err(Error::invalid(format!("the request is not packed as its head says: {error}")))
        }
    }
}

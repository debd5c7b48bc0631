//! Frames on a connection of gRPC, by way of a Unix socket, on which authorities are renamed: answered or ended, and
//! the server serves on.
#![no_main]

use std::os::unix::net::UnixStream;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use session_group_fuzz::frames;
use session_group_fuzz::server::{PATIENCE, SERVER, SILENCE, ask};

/// What a connection begins with: the preface, and settings that change nothing.
const FIRST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// GOAWAY: the client opens no more streams.
const LAST: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";

fuzz_target!(|data: &[u8]| {
    let connect = || UnixStream::connect(&SERVER.grpc_socket).expect("a connection");
    ask(connect(), &[FIRST, data].concat(), LAST, SILENCE);
    // The server's own settings come first.
    assert_eq!(ask(connect(), FIRST, LAST, PATIENCE).get(3), Some(&4));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    frames::mutate(data, size, max_size, seed)
});

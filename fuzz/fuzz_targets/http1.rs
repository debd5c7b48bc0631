//! Bytes on a connection of REST: answered or ended, and the server serves on.
#![no_main]

use std::net::TcpStream;

use libfuzzer_sys::fuzz_target;
use session_group_fuzz::server::{PATIENCE, SERVER, SILENCE, ask};

const LAST: &[u8] = b"GET /v1/models/half HTTP/1.0\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let connect = || TcpStream::connect(("127.0.0.1", SERVER.rest_port)).expect("a connection");
    ask(connect(), data, LAST, SILENCE);
    assert!(ask(connect(), b"", LAST, PATIENCE).starts_with(b"HTTP/1.0 200"));
});

//! `--grpc_channel_arguments`: settings of gRPC by the names that its C++ library gives them.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http2;
use tracing::warn;

const LARGEST_REQUEST: &str = "grpc.max_receive_message_length";

/// The names in a list such as `a=1,b=2`, each with its value.
pub fn parse(list: &str) -> impl Iterator<Item = Result<(&str, &str)>> {
    let arguments = list.split(',').filter(|argument| !argument.is_empty());
    arguments.map(|argument| {
        argument
            .split_once('=')
            .with_context(|| format!("--grpc_channel_arguments has {argument:?}: give name=value"))
    })
}

/// The largest request in bytes; `None` where the list sets no limit of its own. As in gRPC, -1 means no limit.
pub fn largest_request(list: &str) -> Result<Option<usize>> {
    for argument in parse(list) {
        match argument? {
            (LARGEST_REQUEST, "-1") => return Ok(Some(usize::MAX)),
            (LARGEST_REQUEST, value) => return Ok(Some(number(LARGEST_REQUEST, value)?)),
            _ => {}
        }
    }
    Ok(None)
}

/// Sets what concerns connections.
pub fn apply<E>(list: &str, http2: &mut http2::Builder<E>) -> Result<()> {
    for argument in parse(list) {
        let (name, value) = argument?;
        match name {
            "grpc.max_concurrent_streams" => {
                http2.max_concurrent_streams(number::<u32>(name, value)?);
            }
            "grpc.keepalive_time_ms" => {
                http2.keep_alive_interval(Duration::from_millis(number(name, value)?));
            }
            "grpc.keepalive_timeout_ms" => {
                http2.keep_alive_timeout(Duration::from_millis(number(name, value)?));
            }
            LARGEST_REQUEST => {}
            other => warn!("--grpc_channel_arguments: {other} has no effect in this server"),
        }
    }
    Ok(())
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| {
        format!("--grpc_channel_arguments has {name}={value}: give a whole number that is in range")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_request_is_found_and_mistakes_are_named() {
        assert_eq!(largest_request("").unwrap(), None);
        assert_eq!(largest_request("a=b,,grpc.max_receive_message_length=7").unwrap(), Some(7));
        let unlimited = largest_request("grpc.max_receive_message_length=-1").unwrap();
        assert_eq!(unlimited, Some(usize::MAX));
        let says = |list: &str, says: &str| {
            let message = largest_request(list).unwrap_err().to_string();
            assert!(message.contains(says), "{says:?} in {message:?}");
        };
        says("a", "\"a\": give name=value");
        says("grpc.max_receive_message_length=many", "length=many: give a whole number");
    }
}

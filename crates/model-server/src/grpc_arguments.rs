//! `--grpc_channel_arguments`: settings of gRPC by the names that its C++ library gives them.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tracing::warn;

use crate::connections::Grpc;

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
pub fn apply(list: &str, grpc: &mut Grpc) -> Result<()> {
    let (http2, times) = (&mut grpc.http2, &mut grpc.times);
    for argument in parse(list) {
        let (name, value) = argument?;
        match name {
            "grpc.max_concurrent_streams" => {
                http2.max_concurrent_streams(number::<u32>(name, value)?);
            }
            "grpc.keepalive_time_ms" => {
                http2.keep_alive_interval(time(name, value)?);
            }
            "grpc.keepalive_timeout_ms" => {
                http2.keep_alive_timeout(time(name, value)?.unwrap_or(UNLIMITED));
            }
            "grpc.max_connection_idle_ms" => times.idle = time(name, value)?,
            "grpc.max_connection_age_ms" => times.age = time(name, value)?,
            "grpc.max_connection_age_grace_ms" => times.grace = grace(name, value)?,
            "grpc.server_handshake_timeout_ms" => {
                times.handshake = time(name, value)?.unwrap_or(UNLIMITED);
            }
            LARGEST_REQUEST => {}
            other => warn!("--grpc_channel_arguments: {other} has no effect in this server"),
        }
    }
    Ok(())
}

/// Longer than a server runs, but not so long that no time is that far away.
const UNLIMITED: Duration = Duration::from_millis(i32::MAX as u64);

/// A time of which gRPC's largest means none.
fn grace(name: &str, value: &str) -> Result<Option<Duration>> {
    let millis = number::<i32>(name, value)?;
    let millis = u64::try_from(millis).ok().with_context(|| wrong(name, value, "0 or more"))?;
    let time = Duration::from_millis(millis);
    Ok((time < UNLIMITED).then_some(time))
}

/// The same, but not at once.
fn time(name: &str, value: &str) -> Result<Option<Duration>> {
    let time = grace(name, value)?;
    ensure!(time != Some(Duration::ZERO), wrong(name, value, "1 or more"));
    Ok(time)
}

fn wrong(name: &str, value: &str, range: &str) -> String {
    format!(
        "--grpc_channel_arguments has {name}={value}: give milliseconds, {range}; {} means no limit",
        i32::MAX
    )
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| {
        format!("--grpc_channel_arguments has {name}={value}: give a whole number that is in range")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Times;

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

    #[test]
    fn connections_are_limited_as_asked() {
        let grpc = |list: &str| {
            let routes = tonic::service::Routes::default();
            let mut grpc = Grpc::new(routes, None, Duration::from_secs(10));
            apply(list, &mut grpc).map(|()| grpc.times).map_err(|error| error.to_string())
        };
        let seconds = Duration::from_secs;
        let times = grpc(
            "grpc.max_connection_age_ms=2000,grpc.max_connection_age_grace_ms=0,\
             grpc.max_connection_idle_ms=2147483647,grpc.server_handshake_timeout_ms=3000,\
             grpc.keepalive_time_ms=1000,grpc.keepalive_timeout_ms=2147483647,grpc.max_concurrent_streams=7",
        );
        let (age, grace) = (Some(seconds(2)), Some(seconds(0)));
        assert_eq!(times, Ok(Times { handshake: seconds(3), idle: None, age, grace }));
        for wrong in ["grpc.keepalive_time_ms=0", "grpc.max_connection_age_ms=-1"] {
            let message = grpc(wrong).unwrap_err();
            assert!(message.contains("give milliseconds, "), "{message}");
        }
        assert!(grpc("grpc.max_connection_idle_ms=1.5").unwrap_err().contains("a whole number"));
    }
}

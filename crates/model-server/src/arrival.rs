//! Who sends a request, and until when it waits for the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::HeaderMap;

use crate::lane::Client;

/// What a connection knows of a request. It is among the request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    pub client: Client,
    /// The client's address.
    pub peer: Arc<str>,
    pub deadline: Option<Instant>,
}

/// When the client of a gRPC request stops waiting: the header `grpc-timeout` has a number and its unit.
pub fn grpc_deadline(headers: &HeaderMap, now: Instant) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = u64::from(number.parse::<u32>().ok()?);
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    now.checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_read_in_all_units() {
        let now = Instant::now();
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            grpc_deadline(&headers, now).map(|deadline| deadline - now)
        };
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("15S"), Some(Duration::from_secs(15)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(of("7n"), Some(Duration::from_nanos(7)));
        for nonsense in ["", "S", "-1S", "1x", "1", "99999999999S"] {
            assert_eq!(of(nonsense), None, "{nonsense}");
        }
        assert_eq!(grpc_deadline(&HeaderMap::new(), now), None);
    }
}

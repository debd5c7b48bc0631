//! Which request a method and a path are.

use session_group::{Code, Error, Result};

use crate::v2::parameters::SHARED_MEMORY;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Live,
    Ready,
    Server,
    Index,
    Model { name: String, version: String },
    ModelReady { name: String, version: String },
    Infer { name: String, version: String },
}

/// Whether a path is of this protocol.
pub fn is_ours(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// `path` is without its query, which says nothing.
pub fn parse(method: &str, path: &str) -> Result<Target> {
    let parts: Vec<&str> = path.split('/').skip(2).filter(|part| !part.is_empty()).collect();
    let named =
        |name: &str| percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    let (wanted, target) = match parts[..] {
        [] => ("GET", Target::Server),
        ["health", "live"] => ("GET", Target::Live),
        ["health", "ready"] => ("GET", Target::Ready),
        ["repository", "index"] => ("POST", Target::Index),
        ["models", name, ref rest @ ..] => {
            let (version, rest) = match rest {
                ["versions", version, rest @ ..] => (*version, rest),
                rest => ("", rest),
            };
            let (name, version) = (named(name), named(version));
            match rest {
                [] => ("GET", Target::Model { name, version }),
                ["ready"] => ("GET", Target::ModelReady { name, version }),
                ["infer"] => ("POST", Target::Infer { name, version }),
                ["config"] => return Err(lacks("configurations of models as Triton has them")),
                ["stats"] => return Err(lacks("statistics by this protocol: see its metrics")),
                ["generate" | "generate_stream"] => return Err(lacks("generation of text")),
                _ => return Err(unknown(method, path)),
            }
        }
        ["systemsharedmemory" | "cudasharedmemory", ..] => return Err(lacks(SHARED_MEMORY)),
        ["repository", "models", ..] => {
            return Err(lacks("loading by this protocol: it looks for versions itself"));
        }
        ["trace" | "logging", ..] => return Err(lacks("settings by this protocol")),
        _ => return Err(unknown(method, path)),
    };
    match method == wanted {
        true => Ok(target),
        false => Err(Error::invalid(format!("{path} is asked by {wanted}, not {method}"))),
    }
}

fn lacks(what: &str) -> Error {
    Error::new(Code::Unimplemented, format!("this server has no {what}"))
}

fn unknown(method: &str, path: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no {method} {path} in this protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_asked_of_whom() {
        let get = |path| parse("GET", path).unwrap();
        let (name, version) = ("a b/c".to_string(), "2".to_string());
        assert_eq!(get("/v2"), Target::Server);
        assert_eq!(get("/v2/"), Target::Server);
        assert_eq!(get("/v2/health/live"), Target::Live);
        assert_eq!(get("/v2/health/ready"), Target::Ready);
        let none = String::new();
        assert_eq!(
            get("/v2/models/a%20b%2Fc"),
            Target::Model { name: name.clone(), version: none }
        );
        let path = "/v2/models/a%20b%2Fc/versions/2";
        let ready = Target::ModelReady { name: name.clone(), version: version.clone() };
        assert_eq!(get(&format!("{path}/ready")), ready);
        let infer = parse("POST", &format!("{path}/infer"));
        assert_eq!(infer, Ok(Target::Infer { name, version }));
        assert_eq!(parse("POST", "/v2/repository/index"), Ok(Target::Index));
    }

    #[test]
    fn others_are_refused_by_what_they_ask_for() {
        let code = |method, path| parse(method, path).unwrap_err().code;
        for path in ["/v2/x", "/v2/models", "/v2/models/m/x", "/v2/models/m/versions", "/v2/health"]
        {
            assert_eq!(code("GET", path), Code::NotFound, "{path}");
        }
        for path in [
            "/v2/systemsharedmemory/region/a/register",
            "/v2/cudasharedmemory/status",
            "/v2/models/m/config",
            "/v2/models/m/versions/1/stats",
            "/v2/repository/models/m/load",
            "/v2/logging",
        ] {
            assert_eq!(code("POST", path), Code::Unimplemented, "{path}");
        }
        assert_eq!(code("GET", "/v2/models/m/infer"), Code::InvalidArgument);
        assert_eq!(code("POST", "/v2/models/m"), Code::InvalidArgument);
        assert!(is_ours("/v2/x") && is_ours("/v2") && !is_ours("/v20"));
    }
}

//! Which request a method and a path are.

use std::sync::LazyLock;

use regex::Regex;
use session_group::Error;

use crate::proto::serving::ModelSpec;
use crate::proto::serving::model_spec::VersionChoice;

/// A request, with what its path says.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub endpoint: Endpoint,
    pub spec: ModelSpec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Predict,
    Classify,
    Regress,
    Status,
    Metadata,
    /// Ours alone; TensorFlow Serving refuses it.
    Explain,
}

/// What is wrong with a path. TensorFlow Serving says only what of some.
#[derive(Debug, PartialEq, Eq)]
pub enum PathError {
    WithMessage(Error),
    /// A version that is no number.
    NotANumber,
}

static POST: LazyLock<Regex> = LazyLock::new(|| {
    let path = r"(?i)^/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)$";
    Regex::new(path).expect("a valid expression")
});
static GET: LazyLock<Regex> = LazyLock::new(|| {
    let path = r"(?i)^/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata)|:(explain))?$";
    Regex::new(path).expect("a valid expression")
});

/// `path` is with its query, which TensorFlow Serving takes for a part of it.
pub fn parse(method: &str, path: &str) -> Result<Target, PathError> {
    let malformed =
        || PathError::WithMessage(Error::invalid(format!("Malformed request: {method} {path}")));
    let found = match method {
        "POST" => POST.captures(path),
        // What HEAD asks for is sent without its body.
        "GET" | "HEAD" => GET.captures(path),
        _ => None,
    };
    let found = found.ok_or_else(malformed)?;
    let part = |i| found.get(i).map(|part: regex::Match<'_>| part.as_str());
    let endpoint = match (method, part(4)) {
        ("POST", Some("predict")) => Endpoint::Predict,
        ("POST", Some("classify")) => Endpoint::Classify,
        ("POST", Some("regress")) => Endpoint::Regress,
        ("POST", _) => return Err(malformed()),
        (_, Some("metadata")) => Endpoint::Metadata,
        _ if part(5).is_some() => Endpoint::Explain,
        _ => Endpoint::Status,
    };
    let version_choice = match (part(2), part(3)) {
        (Some(version), _) => {
            Some(VersionChoice::Version(version.parse().map_err(|_| PathError::NotANumber)?))
        }
        (None, Some(label)) => Some(VersionChoice::VersionLabel(decoded(label))),
        (None, None) => None,
    };
    let Some(name) = part(1) else {
        return Err(PathError::WithMessage(Error::invalid("Missing model name in request.")));
    };
    let spec = ModelSpec { name: decoded(name), version_choice, signature_name: String::new() };
    Ok(Target { endpoint, spec })
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str) -> (Endpoint, String, Option<VersionChoice>) {
        let Target { endpoint, spec } = parse(method, path).unwrap();
        (endpoint, spec.name, spec.version_choice)
    }

    #[test]
    fn paths_say_what_is_asked_of_whom() {
        let m = || "m".to_string();
        let version = |version| Some(VersionChoice::Version(version));
        assert_eq!(of("POST", "/v1/models/m:predict"), (Endpoint::Predict, m(), None));
        assert_eq!(
            of("POST", "/V1/models/m/versions/3:regress"),
            (Endpoint::Regress, m(), version(3))
        );
        let label = Some(VersionChoice::VersionLabel("a b".to_string()));
        assert_eq!(
            of("POST", "/v1/models/m/labels/a%20b:classify"),
            (Endpoint::Classify, m(), label)
        );
        assert_eq!(of("GET", "/v1/models/m"), (Endpoint::Status, m(), None));
        assert_eq!(
            of("GET", "/v1/models/m/versions/1/metadata"),
            (Endpoint::Metadata, m(), version(1))
        );
        assert_eq!(of("GET", "/v1/models/a%2Fb").1, "a/b");
        assert_eq!(of("GET", "/v1/models/m:explain"), (Endpoint::Explain, m(), None));
        assert_eq!(
            of("GET", "/v1/models/m/versions/1:explain"),
            (Endpoint::Explain, m(), version(1))
        );
    }

    #[test]
    fn others_are_malformed() {
        for (method, path) in [
            ("GET", "/v1/models/m:predict"),
            ("POST", "/v1/models/m"),
            ("POST", "/v1/models/m:explain"),
            ("GET", "/v1/models/m/metadata:explain"),
            ("POST", "/v1/models/m:PREDICT"),
            ("POST", "/v1/models/m:predict?x=1"),
            ("GET", "/v1/models/m/"),
            ("GET", "/v1/models/m/versions/x"),
            ("PUT", "/v1/models/m:predict"),
        ] {
            let Err(PathError::WithMessage(error)) = parse(method, path) else {
                panic!("{method} {path}")
            };
            assert_eq!(error.message, format!("Malformed request: {method} {path}"));
        }
        let Err(PathError::WithMessage(error)) = parse("GET", "/v1/models") else { panic!() };
        assert_eq!(error.message, "Missing model name in request.");
        let huge = "/v1/models/m/versions/18446744073709551615:predict";
        assert_eq!(parse("POST", huge), Err(PathError::NotANumber));
    }
}

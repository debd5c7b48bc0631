//! REST: paths ([`path`]), requests ([`request`]) and answers ([`answer`]). [`crate::rest`] knows the connection.

mod answer;
pub mod path;
mod request;

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use session_group::{Code, Error, Result};

use super::about;
use super::infer::infer;
pub use super::infer::spec;
use crate::catalog::Catalog;
use crate::core::{Core, Found};
use crate::json::read::{Kind, parse};
use crate::proto::serving::ModelSpec;
use crate::servable::Servable;
pub use answer::Answer;
use path::Target;
use request::Request;

/// The body of an answer that needs no thread.
pub fn about(catalog: &Catalog, target: &Target, body: &[u8]) -> Result<Vec<u8>> {
    match target {
        // Ports open once models serve.
        Target::Live => Ok(answer::flag("live")),
        Target::Ready => Ok(answer::flag("ready")),
        Target::Server => Ok(answer::message(&about::server(), "inference.ServerMetadataResponse")),
        Target::Model { name, version } => about::model(catalog, name, version)
            .map(|model| answer::message(&model, "inference.ModelMetadataResponse")),
        Target::ModelReady { name, version } => match about::is_ready(catalog, name, version)? {
            true => Ok(answer::flag("ready")),
            false => {
                let message = format!("model {name} is not ready: see /v1/models/{name}");
                Err(Error::new(Code::Unavailable, message))
            }
        },
        Target::Index => {
            let is_empty = body.iter().all(u8::is_ascii_whitespace);
            let [only_ready] = match is_empty {
                true => [None],
                false => parse(body, ["ready"])?.1,
            };
            let only_ready = only_ready.is_some_and(|value| value.kind() == Kind::True);
            Ok(answer::messages(
                &about::index(catalog, only_ready).models,
                "inference.RepositoryIndexResponse.ModelIndex",
            ))
        }
        Target::Infer { .. } => Err(Error::new(Code::Internal, "compute() does this")),
    }
}

/// The header that says how much of a body is JSON, if bytes of tensors follow.
pub const JSON_SIZE: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What it says.
pub fn json_size(headers: &HeaderMap) -> Result<Option<usize>> {
    let Some(value) = headers.get(JSON_SIZE) else { return Ok(None) };
    let size = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    size.map(Some).ok_or_else(|| Error::invalid("Inference-Header-Content-Length must be a number"))
}

/// When a request has begun, and until when it is to be answered.
pub struct Times {
    pub begun: Instant,
    pub deadline: Option<Instant>,
}

/// Computes what a body asks for of a model. `head` is how much of the body is JSON, if it is
/// not all.
pub async fn compute(
    core: &Core,
    spec: &ModelSpec,
    body: &Bytes,
    head: Option<usize>,
    Times { begun, deadline }: Times,
    found: &Found,
) -> Result<Answer> {
    let request = Request::parse(body, head)?;
    let deadline = request.asked.deadline(begun, deadline);
    let Request { id, asked, inputs, outputs } = request;
    let signature = &asked.signature_name;
    let (asked, outputs) = (&asked, &outputs);
    let compute = |servable: Arc<Servable>| async move {
        let names: Vec<_> = outputs.iter().map(|output| output.name.clone()).collect();
        let tensors = infer(&servable, signature, inputs, &names, deadline, core.format).await?;
        let is_binary = |name: &str| {
            let output = outputs.iter().find(|output| output.name == name);
            output.and_then(|output| output.is_binary).unwrap_or(asked.binary_output)
        };
        Answer::new(&servable, id.as_deref(), &tensors, is_binary)
    };
    core.compute("ModelInfer", Some(spec), signature, found, compute).await
}

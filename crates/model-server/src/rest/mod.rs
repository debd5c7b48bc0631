//! REST: the paths, bodies and codes that TensorFlow Serving's clients know, and the connection to those of
//! `v2`.

mod examples;
mod packing;
mod path;
mod predict;

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use memchr::memmem;
use session_group::{Code, Error, Result};

use crate::arrival::Arrival;
use crate::core::{Call, Core, Found};
use crate::examples::{classify_serialised, regress_serialised};
use crate::json::write::error_body;
use crate::lane::Lane;
use crate::proto::serving::{ModelSpec, SignatureDefMap};
use crate::servable::Servable;
use crate::v2::http::{self, path as v2, path::Target as V2Target};
use crate::{predict as predicting, proto};
use packing::Packing;
use path::{Endpoint, PathError, Target};

/// What answers REST's requests.
pub struct Rest {
    pub core: Arc<Core>,
    pub lane: Arc<Lane>,
    pub most_bytes: usize,
    /// Where metrics are, if they are.
    pub metrics_path: Option<String>,
    /// Whether web pages from elsewhere may ask.
    pub allows_other_origins: bool,
}

/// Answers a request, whatever its path.
pub async fn answer(State(rest): State<Arc<Rest>>, request: Request) -> Response<Body> {
    let path = request.uri().path();
    let is_cors = rest.allows_other_origins && (path.starts_with("/v1/") || v2::is_ours(path));
    let mut response = route(&rest, request).await;
    if is_cors {
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

async fn route(rest: &Rest, request: Request) -> Response<Body> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if rest.metrics_path.as_deref() == Some(head.uri.path()) {
        return response(StatusCode::OK, "text/plain", rest.core.metrics.text());
    }
    if v2::is_ours(head.uri.path()) && head.method != Method::OPTIONS {
        return rest.v2(&head, body, begun).await.unwrap_or_else(|error| refused(&error));
    }
    let is_v1 = path.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("/v1/"));
    if !is_v1 && !v2::is_ours(head.uri.path()) {
        let page = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n\
                    </BODY></HTML>\n";
        return response(StatusCode::NOT_FOUND, "text/html", page);
    }
    if head.method == Method::OPTIONS {
        let has_origin = head
            .headers
            .get(header::ORIGIN)
            .and_then(|origin| origin.to_str().ok())
            .is_some_and(|origin| origin.contains("http://") || origin.contains("https://"));
        let code = if has_origin { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        return response(code, "text/html", "");
    }
    let target = match path::parse(head.method.as_str(), path) {
        Ok(target) => target,
        Err(PathError::WithMessage(error)) => return refused(&error),
        Err(PathError::NotANumber) => {
            return response(StatusCode::BAD_REQUEST, "application/json", "");
        }
    };
    let result = match target.endpoint {
        Endpoint::Status => statuses(&rest.core, &target.spec),
        Endpoint::Metadata => metadata(&rest.core, &target.spec),
        Endpoint::Explain => explain(&rest.core, &target.spec),
        _ => {
            let Target { endpoint, spec } = target;
            let (api, of) = (name(endpoint), spec.clone());
            let work = move |core: Arc<Core>, found: Arc<Found>, body: Result<Bytes>, deadline| async move {
                // As TensorFlow Serving has it, what can't be unpacked is no document.
                compute(&core, endpoint, spec, &body.unwrap_or_default(), deadline, &found).await
            };
            rest.compute(api, of, &head, body, begun, work).await
        }
    };
    match result {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(error) => refused(&error),
    }
}

impl Rest {
    async fn body(&self, body: Body, most: usize, deadline: Option<Instant>) -> Result<Bytes> {
        let body = Limited::new(body, most).collect();
        let body = match deadline {
            None => body.await,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), body).await.map_err(|_| {
                    Error::new(
                        Code::DeadlineExceeded,
                        "the request was not complete in time: let it take longer with \
                         --rest_api_timeout_in_ms",
                    )
                })?
            }
        };
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Error::new(
                Code::ResourceExhausted,
                format!("the request has more than {most} bytes"),
            ),
            None => Error::invalid(format!("reading the request failed: {error}")),
        })?;
        Ok(body.to_bytes())
    }

    /// Reads a body, and works with it on a thread of the lane.
    async fn compute<T: Send + 'static, W: Future<Output = Result<T>> + Send>(
        &self,
        api: &'static str,
        spec: ModelSpec,
        head: &Parts,
        body: Body,
        begun: Instant,
        work: impl FnOnce(Arc<Core>, Arc<Found>, Result<Bytes>, Option<Instant>) -> W + Send + 'static,
    ) -> Result<T> {
        let arrival = arrival(head);
        let deadline = arrival.deadline;
        let body = self.body(body, self.most_bytes, deadline).await?;
        let packing = Packing::of(&head.headers);
        let kind = match packing == Packing::None && asks_for_all(&body) {
            true => self.core.kind(api, Some(&spec), "", &[], body.len()),
            false => None,
        };
        let call = Call { api, model: spec.name, arrival, begun, is_counted: true, kind };
        let most = self.most_bytes;
        let work = move |core: Arc<Core>, found: Arc<Found>| async move {
            work(core, found, packing.unpacked(body, most), deadline).await
        };
        self.core.answer(&self.lane, call, work).await
    }

    /// Answers a request by KServe's protocol.
    async fn v2(&self, head: &Parts, body: Body, begun: Instant) -> Result<Response<Body>> {
        /// Of a request that is not to infer, in bytes.
        const MOST: usize = 1 << 16;
        let target = v2::parse(head.method.as_str(), head.uri.path())?;
        let V2Target::Infer { name, version } = target else {
            let body = self.body(body, MOST, arrival(head).deadline).await?;
            let answer = http::about(&self.core.catalog, &target, &body)?;
            return Ok(response(StatusCode::OK, "application/json", answer));
        };
        let json = http::json_size(&head.headers)?;
        let spec = http::spec(&name, &version);
        let of = spec.clone();
        let work = move |core: Arc<Core>, found: Arc<Found>, body: Result<Bytes>, deadline| async move {
            let times = http::Times { begun, deadline };
            http::compute(&core, &spec, &body?, json, times, &found).await
        };
        let answer = self.compute("infer", of, head, body, begun, work).await?;
        Ok(match answer.head {
            None => response(StatusCode::OK, "application/json", answer.body),
            Some(size) => {
                let mut response =
                    response(StatusCode::OK, "application/octet-stream", answer.body);
                response.headers_mut().insert(http::JSON_SIZE, size.into());
                response
            }
        })
    }
}

/// Whether a body asks for all outputs of the default signature, as far as can be seen before it is parsed.
fn asks_for_all(body: &[u8]) -> bool {
    // What could be read in no time, and no name that is written in another way.
    const MOST: usize = 1 << 16;
    let names = ["signature_name", "\"outputs\"", "\\u"];
    body.len() <= MOST && names.iter().all(|name| memmem::find(body, name.as_bytes()).is_none())
}

fn arrival(head: &Parts) -> Arrival {
    head.extensions.get().cloned().unwrap_or_default()
}

fn name(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Classify => "classify",
        Endpoint::Regress => "regress",
        _ => "predict",
    }
}

async fn compute(
    core: &Core,
    endpoint: Endpoint,
    spec: ModelSpec,
    body: &[u8],
    deadline: Option<Instant>,
    found: &Found,
) -> Result<Vec<u8>> {
    if !matches!(endpoint, Endpoint::Classify | Endpoint::Regress) {
        return predict(core, &spec, body, deadline, found).await;
    }
    let (signature, examples) = &examples::parse(body, name(endpoint))?;
    if endpoint == Endpoint::Classify {
        let compute = |servable: Arc<Servable>| async move {
            classify_serialised(&servable, signature, examples, deadline, core.format).await
        };
        let answer = core.compute("Classify", Some(&spec), signature, found, compute).await?;
        return Ok(examples::classes(&answer.result.unwrap_or_default()));
    }
    let compute = |servable: Arc<Servable>| async move {
        regress_serialised(&servable, signature, examples, deadline, core.format).await
    };
    let answer = core.compute("Regress", Some(&spec), signature, found, compute).await?;
    Ok(examples::values(&answer.result.unwrap_or_default()))
}

async fn predict(
    core: &Core,
    spec: &ModelSpec,
    body: &[u8],
    deadline: Option<Instant>,
    found: &Found,
) -> Result<Vec<u8>> {
    let request = &predict::Request::parse(body)?;
    let compute = |servable: Arc<Servable>| async move {
        let (name, signature) = servable.signature(&request.signature_name);
        let signature = signature.ok_or_else(|| {
            let message = format!("Serving signature name: \"{name}\" not found in signature def");
            Error::invalid(message)
        })?;
        let (format, tensors) = request.tensors(signature)?;
        let step = predicting::step(&servable, name, tensors, Ok, &[], core.format)?;
        let outputs: Vec<_> = step.run(&servable, deadline).await?.collect();
        predict::answer(&outputs, format)
    };
    core.compute("Predict", Some(spec), &request.signature_name, found, compute).await
}

fn statuses(core: &Core, spec: &ModelSpec) -> Result<Vec<u8>> {
    let answer = core.catalog.statuses(spec)?;
    let json = proto::to_json(&answer, "tensorflow.serving.GetModelStatusResponse");
    Ok(format!("{json}\n").into_bytes())
}

fn metadata(core: &Core, spec: &ModelSpec) -> Result<Vec<u8>> {
    let servable = core.catalog.find(Some(spec))?;
    let name = serde_json::Value::from(servable.name.as_str());
    let signatures = SignatureDefMap { signature_def: servable.signatures.clone() };
    let signatures = proto::to_json(&signatures, "tensorflow.serving.SignatureDefMap");
    Ok(format!(
        "{{\n\"model_spec\":{{\n \"name\": {name},\n \"signature_name\": \"\",\n \"version\": \"{}\"\n}}\n,\n\
         \"metadata\": {{\"signature_def\": {signatures}\n}}\n}}\n",
        servable.version
    )
    .into_bytes())
}

/// In the form of the metadata: what is asked for stands beside whom it is of.
fn explain(core: &Core, spec: &ModelSpec) -> Result<Vec<u8>> {
    let servable = core.catalog.find(Some(spec))?;
    let name = serde_json::Value::from(servable.name.as_str());
    let (version, explained) = (servable.version, servable.explain());
    Ok(format!(
        "{{\"model_spec\":{{\"name\":{name},\"version\":\"{version}\"}},\"explain\":{explained}}}\n"
    )
    .into_bytes())
}

fn refused(error: &Error) -> Response<Body> {
    response(http_code(error.code), "application/json", error_body(&error.message))
}

fn response(code: StatusCode, kind: &str, body: impl Into<Body>) -> Response<Body> {
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, kind);
    response.body(body.into()).expect("a valid header")
}

/// The code that TensorFlow Serving gives for one of TensorFlow's.
fn http_code(code: Code) -> StatusCode {
    let code = match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        _ => 500,
    };
    StatusCode::from_u16(code).expect("a valid code")
}

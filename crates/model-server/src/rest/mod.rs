//! REST: the paths, bodies and codes that TensorFlow Serving's clients know.

mod examples;
mod json;
mod path;
mod predict;

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use session_group::{Code, Error, Result};

use crate::arrival::Arrival;
use crate::core::{Call, Core, Found};
use crate::examples::{classify, regress};
use crate::lane::Lane;
use crate::proto::serving::{ClassificationRequest, ModelSpec, RegressionRequest, SignatureDefMap};
use crate::{predict as predicting, proto};
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

/// Of what gzip says.
const MOST_UNPACKED: u64 = 100 << 20;

/// Answers a request, whatever its path.
pub async fn answer(State(rest): State<Arc<Rest>>, request: Request) -> Response<Body> {
    let is_cors = rest.allows_other_origins && request.uri().path().starts_with("/v1/");
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
    if !path.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("/v1/")) {
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
            let arrival: Arrival = head.extensions.get().cloned().unwrap_or_default();
            match rest.body(body, arrival.deadline).await {
                Ok(body) => {
                    rest.compute(target, body, is_packed(&head.headers), arrival, begun).await
                }
                Err(error) => Err(error),
            }
        }
    };
    match result {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(error) => refused(&error),
    }
}

fn is_packed(headers: &HeaderMap) -> bool {
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    encoding.is_some_and(|encoding| encoding.contains("gzip"))
}

impl Rest {
    async fn body(&self, body: Body, deadline: Option<Instant>) -> Result<Bytes> {
        let body = Limited::new(body, self.most_bytes).collect();
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
                format!("the request has more than {} bytes", self.most_bytes),
            ),
            None => Error::invalid(format!("reading the request failed: {error}")),
        })?;
        Ok(body.to_bytes())
    }

    async fn compute(
        &self,
        target: Target,
        body: Bytes,
        is_packed: bool,
        arrival: Arrival,
        begun: Instant,
    ) -> Result<Vec<u8>> {
        let Target { endpoint, spec } = target;
        let api = name(endpoint);
        let (model, deadline) = (spec.name.clone(), arrival.deadline);
        let call = Call { api, model, arrival, begun, is_counted: true };
        let most = MOST_UNPACKED.min(self.most_bytes as u64);
        let work = move |core: &Core, found: &Found| {
            let body = if is_packed { unpacked(&body, most) } else { body };
            compute(core, endpoint, spec, &body, deadline, found)
        };
        self.core.answer(&self.lane, call, work).await
    }
}

fn name(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Classify => "classify",
        Endpoint::Regress => "regress",
        _ => "predict",
    }
}

/// What is packed, unpacked. What can't be is no document, as TensorFlow Serving has it.
fn unpacked(body: &[u8], most: u64) -> Bytes {
    let mut unpacked = Vec::new();
    match GzDecoder::new(body).take(most + 1).read_to_end(&mut unpacked) {
        Ok(size) if size as u64 <= most => unpacked.into(),
        _ => Bytes::new(),
    }
}

fn compute(
    core: &Core,
    endpoint: Endpoint,
    spec: ModelSpec,
    body: &[u8],
    deadline: Option<Instant>,
    found: &Found,
) -> Result<Vec<u8>> {
    if !matches!(endpoint, Endpoint::Classify | Endpoint::Regress) {
        return predict(core, &spec, body, deadline, found);
    }
    let (signature_name, input) = examples::parse(body, name(endpoint))?;
    let spec = ModelSpec { signature_name, ..spec };
    let (model_spec, input) = (Some(spec.clone()), Some(input));
    let signature = &spec.signature_name;
    if endpoint == Endpoint::Classify {
        let request = ClassificationRequest { model_spec, input };
        let answer = core.compute("Classify", Some(&spec), signature, found, |servable| {
            classify(servable, request, deadline, core.format)
        })?;
        return Ok(examples::classes(&answer.result.unwrap_or_default()));
    }
    let request = RegressionRequest { model_spec, input };
    let answer = core.compute("Regress", Some(&spec), signature, found, |servable| {
        regress(servable, request, deadline, core.format)
    })?;
    Ok(examples::values(&answer.result.unwrap_or_default()))
}

fn predict(
    core: &Core,
    spec: &ModelSpec,
    body: &[u8],
    deadline: Option<Instant>,
    found: &Found,
) -> Result<Vec<u8>> {
    let request = predict::Request::parse(body)?;
    core.compute("Predict", Some(spec), &request.signature_name, found, |servable| {
        let (name, signature) = servable.signature(&request.signature_name);
        let signature = signature.ok_or_else(|| {
            let message = format!("Serving signature name: \"{name}\" not found in signature def");
            Error::invalid(message)
        })?;
        let (format, tensors) = request.tensors(signature)?;
        let step = predicting::step(servable, name, tensors, Ok, &[], core.format)?;
        let outputs: Vec<_> = step.run(servable, deadline)?.collect();
        predict::answer(&outputs, format)
    })
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
    response(http_code(error.code), "application/json", json::error_body(&error.message))
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

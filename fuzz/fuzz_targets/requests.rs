//! Requests to models, whole and without connections: bodies of REST and messages of gRPC for the server, in both of
//! its protocols, and requests for the processor. Answered, or refused with a message.
//!
//! The first byte says whom to ask what, as [`KINDS`] has it; what follows is the body or the message.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serving_processor::model::Model;
use session_group_fuzz::server::SERVICES;
use session_group_fuzz::{models, wire};

enum Kind {
    /// A path.
    Rest(&'static str),
    /// The same of KServe's protocol. JSON ends at the first zero byte, which goes, and bytes of tensors follow.
    V2(&'static str),
    /// A procedure.
    Grpc(&'static str),
    /// One of the processors.
    Processor(usize),
}

static KINDS: [Kind; 18] = [
    Kind::Rest("/v1/models/half:predict"),
    Kind::Rest("/v1/models/half/versions/1:classify"),
    Kind::Rest("/v1/models/half:regress"),
    Kind::Rest("/v1/models/types:predict"),
    Kind::Rest("/v1/models/batched:predict"),
    Kind::V2("/v2/models/half/infer"),
    Kind::V2("/v2/models/types/versions/1/infer"),
    Kind::V2("/v2/models/strings/infer"),
    Kind::Grpc("/tensorflow.serving.PredictionService/Predict"),
    Kind::Grpc("/tensorflow.serving.PredictionService/Classify"),
    Kind::Grpc("/tensorflow.serving.PredictionService/Regress"),
    Kind::Grpc("/tensorflow.serving.PredictionService/MultiInference"),
    Kind::Grpc("/tensorflow.serving.PredictionService/GetModelMetadata"),
    Kind::Grpc("/tensorflow.serving.ModelService/GetModelStatus"),
    Kind::Grpc("/inference.GRPCInferenceService/ModelInfer"),
    Kind::Grpc("/inference.GRPCInferenceService/ModelMetadata"),
    Kind::Processor(0),
    Kind::Processor(1),
];

static PROCESSORS: LazyLock<[Model; 2]> = LazyLock::new(|| {
    ["half_plus", "every_type"].map(|model| {
        let (signature, path) = ("float32", models::path(model));
        let signature = if model == "half_plus" { "serving_default" } else { signature };
        let config = format!("{{\"savedmodel_dir\": {path:?}, \"signature_name\": {signature:?}}}");
        Model::new("", &config).expect("the model serves")
    })
});

fn kind(first: u8) -> &'static Kind {
    &KINDS[usize::from(first) % KINDS.len()]
}

fn rest(path: &str, head: Option<usize>, body: Vec<u8>) {
    let request = http::Request::post(path);
    let request = match head {
        None => request,
        Some(head) => request.header("inference-header-content-length", head),
    };
    let answer = SERVICES.rest(request.body(body).expect("a valid request"));
    let has_message = || answer.body().windows(8).any(|part| part == b"\"error\":");
    assert!(answer.status().is_success() || has_message(), "{answer:?}");
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else { return };
    match kind(first) {
        Kind::Rest(path) => rest(path, None, bytes.to_vec()),
        Kind::V2(path) => match bytes.iter().position(|&byte| byte == 0) {
            None => rest(path, None, bytes.to_vec()),
            Some(head) => rest(path, Some(head), [&bytes[..head], &bytes[head + 1..]].concat()),
        },
        Kind::Grpc(path) => {
            if let Err(status) = SERVICES.grpc(path, None, bytes) {
                assert!(!status.message().is_empty(), "{status:?}");
            }
        }
        Kind::Processor(number) => {
            if let Err(error) = PROCESSORS[*number].predict(bytes, |size| Ok(vec![0u8; size])) {
                assert!(!error.message.is_empty(), "{error:?}");
            }
        }
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match data.split_first_mut() {
        Some((first, rest))
            if size > 1
                && max_size > 1
                && matches!(kind(*first), Kind::Grpc(_) | Kind::Processor(_)) =>
        {
            1 + wire::mutate(rest, size - 1, max_size - 1, seed)
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
});

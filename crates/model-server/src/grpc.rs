//! gRPC: PredictionService and ModelService, as TensorFlow Serving's clients know them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use session_group::{Error, Result};
use tonic::{Request, Response, Status};

use crate::arrival::Arrival;
use crate::core::{Call, Core, Found, shortened};
use crate::examples::{classify, multi_inference, regress};
use crate::lane::Lane;
use crate::manager::WaitFor;
use crate::predict::{ResponseFormat, predict};
use crate::proto::serving::model_service_server::ModelService;
use crate::proto::serving::model_spec::VersionChoice;
use crate::proto::serving::prediction_service_server::PredictionService;
use crate::proto::serving::{
    ClassificationRequest, ClassificationResponse, GetModelMetadataRequest,
    GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse, ModelSpec,
    MultiInferenceRequest, MultiInferenceResponse, PredictRequest, PredictResponse,
    RegressionRequest, RegressionResponse, ReloadConfigRequest, ReloadConfigResponse,
    SignatureDefMap, StatusProto, model_server_config,
};
use crate::servable::Servable;

pub type Answer<T> = std::result::Result<Response<T>, Status>;

const MULTI_INFERENCE: &str = "MultiInference";

/// Both services.
#[derive(Clone)]
pub struct Service {
    pub core: Arc<Core>,
    pub lane: Arc<Lane>,
}

impl Service {
    /// Answers a request of a model that `spec` finds in it. `outputs` are those that it asks for; `None` for a request
    /// that may always take long.
    async fn answer<Q, A, W>(
        &self,
        api: &'static str,
        request: Request<Q>,
        spec: fn(&Q) -> Option<&ModelSpec>,
        outputs: fn(&Q) -> Option<&[String]>,
        compute: fn(Arc<Servable>, Q, Option<Instant>, ResponseFormat) -> W,
    ) -> Answer<A>
    where
        Q: Message + 'static,
        A: Send + 'static,
        W: Future<Output = Result<A>> + Send + 'static,
    {
        let begun = Instant::now();
        let arrival: Arrival = request.extensions().get().cloned().unwrap_or_default();
        let deadline = arrival.deadline;
        let request = request.into_inner();
        let spec = spec(&request).cloned();
        let signature = spec.as_ref().map_or("", |spec| spec.signature_name.as_str());
        let kind = outputs(&request).and_then(|outputs| {
            let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
            self.core.kind(api, spec.as_ref(), signature, &outputs, request.encoded_len())
        });
        let model = spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
        // As TensorFlow Serving, which does not count it.
        let is_counted = api != MULTI_INFERENCE;
        let call = Call { api, model, arrival, begun, is_counted, kind };
        let work = move |core: Arc<Core>, found: Arc<Found>| async move {
            let signature = spec.as_ref().map_or("", |spec| spec.signature_name.as_str());
            let compute = |servable| compute(servable, request, deadline, core.format);
            core.compute(api, spec.as_ref(), signature, &found, compute).await
        };
        reply(self.core.answer(&self.lane, call, work).await)
    }
}

/// Of requests that get all that a signature has.
fn all<Q>(_: &Q) -> Option<&[String]> {
    Some(&[])
}

#[tonic::async_trait]
impl PredictionService for Service {
    async fn predict(&self, request: Request<PredictRequest>) -> Answer<PredictResponse> {
        fn outputs(request: &PredictRequest) -> Option<&[String]> {
            Some(&request.output_filter)
        }
        self.answer("Predict", request, |request| request.model_spec.as_ref(), outputs, predict)
            .await
    }

    async fn classify(
        &self,
        request: Request<ClassificationRequest>,
    ) -> Answer<ClassificationResponse> {
        self.answer("Classify", request, |request| request.model_spec.as_ref(), all, classify).await
    }

    async fn regress(&self, request: Request<RegressionRequest>) -> Answer<RegressionResponse> {
        self.answer("Regress", request, |request| request.model_spec.as_ref(), all, regress).await
    }

    async fn multi_inference(
        &self,
        request: Request<MultiInferenceRequest>,
    ) -> Answer<MultiInferenceResponse> {
        static NONE: ModelSpec =
            ModelSpec { name: String::new(), signature_name: String::new(), version_choice: None };
        fn spec(request: &MultiInferenceRequest) -> Option<&ModelSpec> {
            let first = request.tasks.first().and_then(|task| task.model_spec.as_ref());
            Some(first.unwrap_or(&NONE))
        }
        self.answer(MULTI_INFERENCE, request, spec, |_| None, multi_inference).await
    }

    async fn get_model_metadata(
        &self,
        request: Request<GetModelMetadataRequest>,
    ) -> Answer<GetModelMetadataResponse> {
        reply(metadata(&self.core, request.get_ref()))
    }
}

#[tonic::async_trait]
impl ModelService for Service {
    async fn get_model_status(
        &self,
        request: Request<GetModelStatusRequest>,
    ) -> Answer<GetModelStatusResponse> {
        let spec = request.get_ref().model_spec.as_ref();
        let spec = spec.ok_or_else(|| Error::invalid("Missing ModelSpec"));
        reply(spec.and_then(|spec| self.core.catalog.statuses(spec)))
    }

    async fn handle_reload_config_request(
        &self,
        request: Request<ReloadConfigRequest>,
    ) -> Answer<ReloadConfigResponse> {
        let config = request.into_inner().config.unwrap_or_default();
        if !matches!(config.config, Some(model_server_config::Config::ModelConfigList(_))) {
            return reply(Err(Error::invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList \
                 is currently supported",
            )));
        }
        // It may take as long as loading a model.
        let result = self.core.manager.apply(&config, WaitFor::All).await;
        let status = Some(StatusProto::default());
        reply(result.map(|()| ReloadConfigResponse { status, metric: Vec::new() }))
    }
}

/// What signatures a version has.
pub fn metadata(
    core: &Core,
    request: &GetModelMetadataRequest,
) -> Result<GetModelMetadataResponse> {
    const SIGNATURES: &str = "signature_def";
    if request.model_spec.is_none() {
        return Err(Error::invalid("Missing ModelSpec"));
    }
    if request.metadata_field.is_empty() {
        return Err(Error::invalid(
            "GetModelMetadataRequest must specify at least one metadata_field",
        ));
    }
    if let Some(other) = request.metadata_field.iter().find(|field| *field != SIGNATURES) {
        return Err(Error::invalid(format!("Metadata field {other} is not supported")));
    }
    let servable = core.catalog.find(request.model_spec.as_ref())?;
    let signatures = SignatureDefMap { signature_def: servable.signatures.clone() };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/tensorflow.serving.SignatureDefMap".to_string(),
        value: signatures.encode_to_vec(),
    };
    Ok(GetModelMetadataResponse {
        model_spec: Some(ModelSpec {
            name: servable.name.clone(),
            version_choice: Some(VersionChoice::Version(servable.version)),
            signature_name: String::new(),
        }),
        metadata: BTreeMap::from([(SIGNATURES.to_string(), any)]),
    })
}

pub fn reply<T>(result: Result<T>) -> Answer<T> {
    /// Of a message, as far as it is sent.
    const MOST: usize = 1024;
    result.map(Response::new).map_err(|error| {
        let message = shortened(error.message, MOST, "...TRUNCATED");
        Status::new((error.code as i32).into(), message)
    })
}

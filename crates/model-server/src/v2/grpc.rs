//! gRPC: inference.GRPCInferenceService.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use session_group::{Code, Error, Result};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::infer::{Input, Inputs, Values, datatype_of, infer, of_tensor, spec};
use super::parameters::{Parameters, SHARED_MEMORY};
use super::{about, datatype, raw};
use crate::arrival::Arrival;
use crate::core::{Call, Core, Found};
use crate::grpc::{Answer, reply};
use crate::lane::Lane;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::inference::model_infer_request::InferRequestedOutputTensor;
use crate::proto::inference::model_infer_response::InferOutputTensor;
use crate::proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ModelStreamInferResponse, Refused,
    RepositoryIndexRequest, RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use crate::servable::Servable;

const INFER: &str = "ModelInfer";

/// The service of this name.
#[derive(Clone)]
pub struct Service {
    pub core: Arc<Core>,
    pub lane: Arc<Lane>,
}

impl Service {
    async fn infer(
        &self,
        mut request: ModelInferRequest,
        arrival: Arrival,
    ) -> Result<ModelInferResponse> {
        let begun = Instant::now();
        let parameters = Parameters::of_message(std::mem::take(&mut request.parameters));
        let asked = parameters.asked();
        let deadline = match &asked {
            Ok(asked) => asked.deadline(begun, arrival.deadline),
            Err(_) => arrival.deadline,
        };
        let arrival = Arrival { deadline, ..arrival };
        let model = request.model_name.clone();
        let spec = spec(&request.model_name, &request.model_version);
        let kind = asked.as_ref().ok().and_then(|asked| {
            let outputs: Vec<&str> = request.outputs.iter().map(|output| &*output.name).collect();
            let bytes = request.encoded_len();
            self.core.kind(INFER, Some(&spec), &asked.signature_name, &outputs, bytes)
        });
        let call = Call { api: INFER, model, arrival, begun, is_counted: true, kind };
        let work = move |core: Arc<Core>, found: Arc<Found>| async move {
            let asked = asked?;
            let (name, format) = (&asked.signature_name, core.format);
            let compute = |servable: Arc<Servable>| async move {
                let outputs = outputs(&mut request)?;
                let take = std::mem::take::<String>;
                let (model_name, id) = (take(&mut request.model_name), take(&mut request.id));
                let inputs = inputs(request)?;
                let tensors = infer(&servable, name, inputs, &outputs, deadline, format).await?;
                let mut answer = ModelInferResponse {
                    model_name,
                    model_version: servable.version.to_string(),
                    id,
                    ..ModelInferResponse::default()
                };
                for (name, tensor) in tensors {
                    answer.outputs.push(InferOutputTensor {
                        name: name.to_string(),
                        datatype: datatype_of(name, &tensor)?.to_string(),
                        shape: tensor.dims(),
                        ..InferOutputTensor::default()
                    });
                    answer.raw_output_contents.push(raw::bytes(&tensor)?.into());
                }
                Ok(answer)
            };
            core.compute(INFER, Some(&spec), name, &found, compute).await
        };
        self.core.answer(&self.lane, call, work).await
    }
}

/// The names of the outputs that are asked for.
fn outputs(request: &mut ModelInferRequest) -> Result<Vec<String>> {
    let name = |output: InferRequestedOutputTensor| {
        let parameters = Parameters::of_message(output.parameters);
        of_tensor("output", &output.name, parameters.check_output())?;
        Ok(output.name)
    };
    std::mem::take(&mut request.outputs).into_iter().map(name).collect()
}

/// The inputs, with the bytes that come after all of them, if there are any.
fn inputs(request: ModelInferRequest) -> Result<Inputs<'static>> {
    let ModelInferRequest { inputs, raw_input_contents, .. } = request;
    if !raw_input_contents.is_empty() && raw_input_contents.len() != inputs.len() {
        return Err(Error::invalid(format!(
            "there are {} raw_input_contents for {} inputs: send one for each, or none",
            raw_input_contents.len(),
            inputs.len()
        )));
    }
    let mut raw = raw_input_contents.into_iter();
    let mut all = Inputs::default();
    for input in inputs {
        let parameters = Parameters::of_message(input.parameters);
        of_tensor("input", &input.name, parameters.check_input())?;
        let dtype = of_tensor("input", &input.name, datatype::of_name(&input.datatype))?;
        let values = match (raw.next(), input.contents) {
            (None, contents) => Values::Typed(contents.unwrap_or_default()),
            (Some(bytes), None) => Values::Raw(bytes),
            (Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "input {:?} has both contents and raw_input_contents: send one of them",
                    input.name
                )));
            }
        };
        all.add(input.name, Input { dtype, dims: input.shape, values })?;
    }
    Ok(all)
}

/// What clients may call, and this server does not do.
fn refused(what: &str) -> Answer<Refused> {
    reply(Err(Error::new(Code::Unimplemented, format!("this server has no {what}"))))
}

const STATISTICS: &str = "statistics by this protocol: see its metrics for Prometheus";
const LOADING: &str = "loading by this protocol: it looks for versions itself, and takes models by \
                       ModelService.HandleReloadConfigRequest";

type Requests = Request<Streaming<ModelInferRequest>>;
type Responses =
    Pin<Box<dyn Stream<Item = std::result::Result<ModelStreamInferResponse, Status>> + Send>>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    type ModelStreamInferStream = Responses;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        reply(Ok(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        // Ports open once models serve.
        reply(Ok(ServerReadyResponse { ready: true }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = about::is_ready(&self.core.catalog, &name, &version);
        reply(ready.map(|ready| ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Answer<ServerMetadataResponse> {
        reply(Ok(about::server()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answer<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        reply(about::model(&self.core.catalog, &name, &version))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let arrival = request.extensions().get().cloned().unwrap_or_default();
        reply(self.infer(request.into_inner(), arrival).await)
    }

    /// Answers in the order of the requests; one that fails does not end the stream.
    async fn model_stream_infer(&self, request: Requests) -> Answer<Responses> {
        let arrival: Arrival = request.extensions().get().cloned().unwrap_or_default();
        let service = self.clone();
        let answers = request.into_inner().then(move |request| {
            let (service, arrival) = (service.clone(), arrival.clone());
            async move {
                let request = request?;
                let (id, model_name) = (request.id.clone(), request.model_name.clone());
                Ok(match service.infer(request, arrival).await {
                    Ok(answer) => ModelStreamInferResponse {
                        infer_response: Some(answer),
                        ..ModelStreamInferResponse::default()
                    },
                    Err(error) => ModelStreamInferResponse {
                        error_message: error.message,
                        infer_response: Some(ModelInferResponse {
                            id,
                            model_name,
                            ..ModelInferResponse::default()
                        }),
                    },
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answer<RepositoryIndexResponse> {
        reply(Ok(about::index(&self.core.catalog, request.get_ref().ready)))
    }

    async fn model_config(&self, _: Request<Refused>) -> Answer<Refused> {
        refused("configurations of models as Triton has them: see ModelMetadata")
    }

    async fn model_statistics(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(STATISTICS)
    }

    async fn repository_model_load(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(LOADING)
    }

    async fn repository_model_unload(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(LOADING)
    }

    async fn system_shared_memory_status(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(SHARED_MEMORY)
    }

    async fn system_shared_memory_register(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_status(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_register(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(&self, _: Request<Refused>) -> Answer<Refused> {
        refused(SHARED_MEMORY)
    }

    async fn trace_setting(&self, _: Request<Refused>) -> Answer<Refused> {
        refused("settings of traces by this protocol")
    }

    async fn log_settings(&self, _: Request<Refused>) -> Answer<Refused> {
        refused("settings of its log by this protocol")
    }
}

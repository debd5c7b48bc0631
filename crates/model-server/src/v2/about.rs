//! What is said about the server and its models.

use session_group::{Code, Result};

use super::datatype;
use super::infer::spec;
use crate::catalog::Catalog;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::repository_index_response::ModelIndex;
use crate::proto::inference::{
    ModelMetadataResponse, RepositoryIndexResponse, ServerMetadataResponse,
};
use crate::proto::serving::model_version_status::State;
use crate::proto::tensorflow::TensorInfo;

pub fn server() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "session_group_model_server".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        extensions: ["binary_tensor_data", "parameters"].map(String::from).to_vec(),
    }
}

/// Of a model: the versions that serve, and the inputs and outputs of the default signature, if there is one.
pub fn model(catalog: &Catalog, name: &str, version: &str) -> Result<ModelMetadataResponse> {
    let servable = catalog.find(Some(&spec(name, version)))?;
    let (_, signature) = servable.signature("");
    let (inputs, outputs) = match signature {
        None => Default::default(),
        Some(signature) => (
            signature.inputs.iter().map(tensor).collect(),
            signature.outputs.iter().map(tensor).collect(),
        ),
    };
    let versions = catalog.versions(name).iter().map(i64::to_string).collect();
    let platform = "tensorflow_savedmodel".to_string();
    Ok(ModelMetadataResponse { name: name.to_string(), versions, platform, inputs, outputs })
}

fn tensor((name, info): (&String, &TensorInfo)) -> TensorMetadata {
    let shape = info.tensor_shape.as_ref().filter(|shape| !shape.unknown_rank);
    TensorMetadata {
        name: name.clone(),
        datatype: datatype::name(info.dtype).unwrap_or("INVALID").to_string(),
        // The protocol has no way to say that the rank is not known.
        shape: shape.map_or(vec![-1], |shape| shape.dim.iter().map(|dim| dim.size).collect()),
    }
}

/// Whether a version serves.
pub fn is_ready(catalog: &Catalog, name: &str, version: &str) -> Result<bool> {
    match catalog.find(Some(&spec(name, version))) {
        Ok(_) => Ok(true),
        Err(error) if error.code == Code::NotFound && catalog.knows(name) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All versions of all models, or those that serve.
pub fn index(catalog: &Catalog, only_ready: bool) -> RepositoryIndexResponse {
    let mut models = Vec::new();
    for (name, versions) in catalog.all_statuses() {
        for of_version in versions {
            let state = State::try_from(of_version.state).unwrap_or(State::Unknown);
            if only_ready && state != State::Available {
                continue;
            }
            let state = match state {
                State::Available => "READY",
                State::Start | State::Loading => "LOADING",
                State::Unloading => "UNLOADING",
                State::End | State::Unknown => "UNAVAILABLE",
            };
            models.push(ModelIndex {
                name: name.clone(),
                version: of_version.version.to_string(),
                state: state.to_string(),
                reason: of_version.status.map(|status| status.error_message).unwrap_or_default(),
            });
        }
    }
    RepositoryIndexResponse { models }
}

//! A request: from bytes to feeds, and from tensors to bytes.

use prost::Message;
use session_group::tensorflow::Tensor;
use session_group::{Error, Result};

use crate::array;
use crate::proto::eas::{PredictRequest, PredictResponse};
use crate::signature::{Port, find};
use crate::template::Template;

/// What to run for a request.
pub struct Step<'a> {
    inputs: Vec<(&'a Port, Tensor)>,
    /// Under the names that were asked for.
    outputs: Vec<(String, &'a Port)>,
}

impl<'a> Step<'a> {
    /// Reads a serialised `PredictRequest`.
    pub fn parse(template: &'a Template, default_signature: &str, bytes: &[u8]) -> Result<Self> {
        let request = PredictRequest::decode(bytes)
            .map_err(|error| Error::invalid(format!("the input is no PredictRequest: {error}")))?;
        let name = match request.signature_name.as_str() {
            "" => default_signature,
            name => name,
        };
        let signature = template.signature(name)?;
        let mut inputs: Vec<(&Port, Tensor)> = Vec::with_capacity(signature.inputs.len());
        for (key, array) in &request.inputs {
            let port = find(&signature.inputs, key, "input", name)?;
            if inputs.iter().any(|(given, _)| std::ptr::eq(*given, port)) {
                return Err(Error::invalid(format!("input {:?} is there twice", port.alias)));
            }
            let tensor = array::to_tensor(array).map_err(|error| {
                Error::new(error.code, format!("input {key:?}: {}", error.message))
            })?;
            port.check(&tensor)?;
            inputs.push((port, tensor));
        }
        let is_given = |port: &Port| inputs.iter().any(|(given, _)| std::ptr::eq(*given, port));
        let missing: Vec<_> = signature.inputs.iter().filter(|port| !is_given(port)).collect();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|port| port.alias.as_str()).collect();
            return Err(Error::invalid(format!(
                "signature {name:?} needs also the inputs {}",
                names.join(", ")
            )));
        }
        let mut outputs = Vec::with_capacity(signature.outputs.len());
        for key in &request.output_filter {
            outputs.push((key.clone(), find(&signature.outputs, key, "output", name)?));
        }
        if outputs.is_empty() {
            outputs.extend(signature.outputs.iter().map(|port| (port.alias.clone(), port)));
        }
        Ok(Self { inputs, outputs })
    }

    /// What a signature takes, with zeros, and all that it gives.
    pub fn zeros(template: &'a Template, signature: &str) -> Result<Self> {
        let signature = template.signature(signature)?;
        let zeros = |port: &'a Port| {
            let of = |error: Error| {
                Error::new(error.code, format!("input {:?}: {}", port.alias, error.message))
            };
            Ok((port, port.zeros().map_err(of)?))
        };
        Ok(Self {
            inputs: signature.inputs.iter().map(zeros).collect::<Result<_>>()?,
            outputs: signature.outputs.iter().map(|port| (port.alias.clone(), port)).collect(),
        })
    }

    /// Feeds, by the graph's names.
    pub fn feeds(&self) -> Vec<(&str, &Tensor)> {
        self.inputs.iter().map(|(port, tensor)| (port.tensor.as_str(), tensor)).collect()
    }

    /// Fetches, by the graph's names.
    pub fn fetches(&self) -> Vec<&str> {
        self.outputs.iter().map(|(_, port)| port.tensor.as_str()).collect()
    }

    /// The answer, of what was fetched.
    pub fn response(&self, tensors: &[Tensor]) -> Result<PredictResponse> {
        let output = |((key, _), tensor): (&(String, &Port), &Tensor)| {
            let array = array::from_tensor(tensor).map_err(|error| {
                Error::new(error.code, format!("output {key:?}: {}", error.message))
            })?;
            Ok((key.clone(), array))
        };
        let outputs = self.outputs.iter().zip(tensors).map(output).collect::<Result<_>>()?;
        Ok(PredictResponse { outputs })
    }
}

//! A request: from bytes to feeds, and from tensors to bytes.

use prost::Message;
use session_group::tensorflow::Tensor;
use session_group::{Error, Result};

use crate::array;
use crate::proto::eas::{PredictRequest, PredictResponse};
use crate::signature::{Port, find, shortened};
use crate::template::Template;

/// What to run for a request.
pub struct Step<'a> {
    inputs: Vec<(&'a Port, Input<'a>)>,
    /// What is fetched: one of the signature's outputs, or all. Each other set of them would be prepared
    /// anew, and there are too many.
    fetched: &'a [Port],
    /// The names that were asked for, and which of the fetched they are.
    outputs: Vec<(String, usize)>,
}

/// The tensor of an input.
enum Input<'a> {
    Given(Tensor),
    Default(&'a Tensor),
}

impl Input<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::Given(tensor) => tensor,
            Self::Default(tensor) => tensor,
        }
    }
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
        let mut inputs: Vec<(&Port, Input<'_>)> = Vec::with_capacity(signature.inputs.len());
        for (key, array) in &request.inputs {
            let port = find(&signature.inputs, key, "input", name)?;
            if inputs.iter().any(|(given, _)| std::ptr::eq(*given, port)) {
                return Err(Error::invalid(format!("input {:?} is there twice", port.alias)));
            }
            let tensor = array::to_tensor(array).map_err(|error| {
                Error::new(error.code, format!("input {:?}: {}", shortened(key), error.message))
            })?;
            port.check(&tensor)?;
            inputs.push((port, Input::Given(tensor)));
        }
        let is_given = |port: &Port| inputs.iter().any(|(given, _)| std::ptr::eq(*given, port));
        let absent: Vec<_> = signature.inputs.iter().filter(|port| !is_given(port)).collect();
        let missing: Vec<_> = absent.iter().filter(|port| port.default.is_none()).collect();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|port| port.alias.as_str()).collect();
            return Err(Error::invalid(format!(
                "signature {name:?} needs also the inputs {}",
                names.join(", ")
            )));
        }
        let default = |port: &'a Port| Some((port, Input::Default(port.default.as_ref()?)));
        inputs.extend(absent.into_iter().filter_map(default));
        // In the signature's order, whatever the request's: the same request is prepared once.
        inputs.sort_by_key(|(port, _)| position(&signature.inputs, port));
        let mut outputs = Vec::with_capacity(signature.outputs.len());
        for key in &request.output_filter {
            let port = find(&signature.outputs, key, "output", name)?;
            let output = (key.clone(), position(&signature.outputs, port));
            if outputs.contains(&output) {
                return Err(Error::invalid(format!("output {key:?} is in the filter twice")));
            }
            outputs.push(output);
        }
        let mut fetched = &signature.outputs[..];
        match &mut outputs[..] {
            [] => outputs.extend(all(fetched)),
            [(_, output)] => {
                fetched = &fetched[*output..=*output];
                *output = 0;
            }
            _ => {}
        }
        Ok(Self { inputs, fetched, outputs })
    }

    /// What a signature takes, with zeros where there is no default, and all that it gives.
    pub fn zeros(template: &'a Template, signature: &str) -> Result<Self> {
        let signature = template.signature(signature)?;
        let zeros = |port: &'a Port| {
            let of = |error: Error| {
                Error::new(error.code, format!("input {:?}: {}", port.alias, error.message))
            };
            Ok((
                port,
                match &port.default {
                    Some(default) => Input::Default(default),
                    None => Input::Given(port.zeros().map_err(of)?),
                },
            ))
        };
        Ok(Self {
            inputs: signature.inputs.iter().map(zeros).collect::<Result<_>>()?,
            fetched: &signature.outputs,
            outputs: all(&signature.outputs).collect(),
        })
    }

    /// Feeds, by the graph's names.
    pub fn feeds(&self) -> Vec<(&str, &Tensor)> {
        self.inputs.iter().map(|(port, input)| (port.tensor.as_str(), input.tensor())).collect()
    }

    /// Fetches, by the graph's names.
    pub fn fetches(&self) -> Vec<&str> {
        self.fetched.iter().map(|port| port.tensor.as_str()).collect()
    }

    /// The answer, of what was fetched.
    pub fn response(&self, tensors: &[Tensor]) -> Result<PredictResponse> {
        let output = |(key, fetched): &(String, usize)| {
            let array = array::from_tensor(&tensors[*fetched]).map_err(|error| {
                Error::new(error.code, format!("output {key:?}: {}", error.message))
            })?;
            Ok((key.clone(), array))
        };
        Ok(PredictResponse { outputs: self.outputs.iter().map(output).collect::<Result<_>>()? })
    }
}

fn position(ports: &[Port], port: &Port) -> usize {
    ports.iter().position(|one| std::ptr::eq(one, port)).expect("one of them")
}

fn all(ports: &[Port]) -> impl Iterator<Item = (String, usize)> {
    ports.iter().enumerate().map(|(i, port)| (port.alias.clone(), i))
}

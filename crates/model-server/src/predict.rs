//! Predict: tensors in, tensors out, by the aliases of a signature.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Instant;

use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};
use session_group_serving::signature::{default_input, tensor_name};

use crate::proto::serving::{
    ModelSpec, PredictRequest, PredictResponse, model_spec::VersionChoice,
};
use crate::proto::tensorflow::{SignatureDef, TensorInfo};
use crate::servable::Servable;
use crate::tensor;

pub const PREDICT: &str = "tensorflow/serving/predict";
pub const CLASSIFY: &str = "tensorflow/serving/classify";
pub const REGRESS: &str = "tensorflow/serving/regress";

/// How requests are taken and answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseFormat {
    /// Whether a signature's method_name must be that of the call.
    pub checks_method: bool,
    /// Whether answers have their tensors as `tensor_content`.
    pub answers_content: bool,
}

/// Feeds and fetches of a request, by the graph's names.
pub struct Step<'a> {
    pub signature_name: &'a str,
    feeds: Vec<(&'a str, Tensor)>,
    aliases: Vec<&'a str>,
    fetches: Vec<&'a str>,
    /// Whether some of the feeds are the signature's own.
    has_defaults: bool,
}

impl<'a> Step<'a> {
    /// Tensors by alias.
    pub async fn run(
        self,
        servable: &Servable,
        deadline: Option<Instant>,
    ) -> Result<impl Iterator<Item = (&'a str, Tensor)>> {
        let run = servable.run(self.feeds, &self.fetches, self.has_defaults, deadline);
        let tensors = run.await?;
        Ok(self.aliases.into_iter().zip(tensors))
    }
}

/// What a request asks of a servable. `convert` makes tensors of its inputs.
pub fn step<'a, T>(
    servable: &'a Servable,
    signature_name: &'a str,
    mut inputs: BTreeMap<String, T>,
    convert: impl Fn(T) -> Result<Tensor>,
    output_filter: &[String],
    format: ResponseFormat,
) -> Result<Step<'a>> {
    let (signature_name, signature) = find(servable, signature_name)?;
    check_method(signature, format)?;
    check_names(signature, &inputs)?;
    let has_defaults = inputs.len() < signature.inputs.len();
    let mut feeds = Vec::with_capacity(signature.inputs.len());
    for (alias, info) in &signature.inputs {
        let tensor = match inputs.remove(alias) {
            Some(input) => convert(input),
            None => {
                default_input(signature, alias).expect("check_names() has seen that it is there")
            }
        };
        let tensor = tensor.map_err(|error| {
            Error::new(error.code, format!("tensor parsing error: {alias}: {}", error.message))
        })?;
        feeds.push((tensor_of(alias, info)?, tensor));
    }
    let (aliases, fetches) = fetches(signature, output_filter)?.into_iter().unzip();
    Ok(Step { signature_name, feeds, aliases, fetches, has_defaults })
}

fn find<'a>(servable: &'a Servable, name: &'a str) -> Result<(&'a str, &'a SignatureDef)> {
    match servable.signature(name) {
        (name, Some(signature)) => Ok((name, signature)),
        (name, None) => {
            Err(Error::precondition(format!("Serving signature key \"{name}\" not found.")))
        }
    }
}

fn check_method(signature: &SignatureDef, format: ResponseFormat) -> Result<()> {
    let method = &signature.method_name;
    if format.checks_method && ![PREDICT, CLASSIFY, REGRESS].contains(&method.as_str()) {
        return Err(Error::new(
            Code::Internal,
            format!(
                "Expected prediction signature method_name to be one of {{{PREDICT}, {CLASSIFY}, \
                 {REGRESS}}}. Was: {method}"
            ),
        ));
    }
    Ok(())
}

/// Every input that the signature has and no default gives, and no other.
fn check_names<T>(signature: &SignatureDef, given: &BTreeMap<String, T>) -> Result<()> {
    let (inputs, defaults) = (&signature.inputs, &signature.defaults);
    let too_few = given.len() < inputs.len() && defaults.is_empty();
    if given.len() > inputs.len() || too_few {
        let extra = given.keys().filter(|alias| !inputs.contains_key(*alias));
        let missing = inputs.keys().filter(|alias| !given.contains_key(*alias));
        return Err(Error::invalid(format!(
            "input size does not match signature: {}!={} len({{{}}}) != len({{{}}}). Sent extra: {{{}}}. \
             Missing but required: {{{}}}.",
            given.len(),
            inputs.len(),
            joined(given.keys()),
            joined(inputs.keys()),
            joined(extra),
            joined(missing),
        )));
    }
    for (alias, info) in inputs {
        if !given.contains_key(alias) && !defaults.contains_key(alias) {
            return Err(Error::invalid(format!(
                "Signature input alias: {alias}(feed name: {}) not found in request and no default value \
                 provided. Inputs expected to be in the request {{{}}}, or default input alias set: {{{}}}",
                tensor_name(info)?,
                joined(given.keys()),
                joined(defaults.keys()),
            )));
        }
    }
    if given.keys().any(|alias| !inputs.contains_key(alias)) {
        let used = given.keys().filter(|alias| inputs.contains_key(*alias));
        return Err(Error::invalid(format!(
            "Inputs contains invalid name. Used request inputs: {{{}}}, request input: {{{}}}",
            joined(used),
            joined(given.keys()),
        )));
    }
    Ok(())
}

fn fetches<'a>(signature: &'a SignatureDef, filter: &[String]) -> Result<Vec<(&'a str, &'a str)>> {
    let mut fetches: Vec<(&str, &str)> = Vec::new();
    if filter.is_empty() {
        for (alias, info) in &signature.outputs {
            fetches.push((alias, tensor_of(alias, info)?));
        }
    }
    for alias in filter {
        let Some((alias, info)) = signature.outputs.get_key_value(alias) else {
            return Err(Error::invalid(format!(
                "output tensor alias not found in signature: {alias} Outputs expected to be in the set \
                 {{{}}}.",
                joined(signature.outputs.keys())
            )));
        };
        if fetches.iter().any(|(seen, _)| seen == alias) {
            return Err(Error::invalid(format!("duplicate output tensor alias: {alias}")));
        }
        fetches.push((alias, tensor_of(alias, info)?));
    }
    Ok(fetches)
}

/// The name of the tensor behind an alias. An error names the alias.
fn tensor_of<'a>(alias: &str, info: &'a TensorInfo) -> Result<&'a str> {
    tensor_name(info)
        .map_err(|error| Error::new(error.code, format!("{alias:?}: {}", error.message)))
}

fn joined<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Answers a request.
pub async fn predict(
    servable: impl Deref<Target = Servable>,
    request: PredictRequest,
    deadline: Option<Instant>,
    format: ResponseFormat,
) -> Result<PredictResponse> {
    let PredictRequest { model_spec, inputs, output_filter } = request;
    let spec = model_spec.unwrap_or_default();
    let name = &spec.signature_name;
    let step = step(&servable, name, inputs, tensor::from_proto, &output_filter, format)?;
    let model_spec = Some(answered_by(&servable, step.signature_name));
    let proto = |(alias, tensor): (&str, Tensor)| {
        Ok((alias.to_string(), tensor::to_proto(&tensor, format.answers_content)?))
    };
    let outputs = step.run(&servable, deadline).await?.map(proto).collect::<Result<_>>()?;
    Ok(PredictResponse { model_spec, outputs })
}

/// Who has answered.
pub fn answered_by(servable: &Servable, signature_name: &str) -> ModelSpec {
    ModelSpec {
        name: servable.name.clone(),
        signature_name: signature_name.to_string(),
        version_choice: Some(VersionChoice::Version(servable.version)),
    }
}

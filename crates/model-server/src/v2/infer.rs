//! From the inputs of a request to outputs.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};

use super::{datatype, raw, typed};
use crate::json::column::Column;
use crate::json::read::Json;
use crate::predict::{ResponseFormat, step};
use crate::proto::inference::InferTensorContents;
use crate::proto::serving::ModelSpec;
use crate::proto::serving::model_spec::VersionChoice;
use crate::proto::tensorflow::DataType;
use crate::servable::Servable;

/// The model that a request names; a version that is no number is a label.
pub fn spec(name: &str, version: &str) -> ModelSpec {
    let version_choice = match (version, version.parse()) {
        ("", _) => None,
        (_, Ok(number)) => Some(VersionChoice::Version(number)),
        (label, Err(_)) => Some(VersionChoice::VersionLabel(label.to_string())),
    };
    ModelSpec { name: name.to_string(), version_choice, signature_name: String::new() }
}

/// An input as it was sent.
pub struct Input<'b> {
    pub dtype: DataType,
    pub dims: Vec<i64>,
    pub values: Values<'b>,
}

pub enum Values<'b> {
    Raw(Bytes),
    Typed(InferTensorContents),
    Json(Json<'b>),
}

impl Input<'_> {
    fn tensor(self) -> Result<Tensor> {
        let Self { dtype, dims, values } = self;
        match values {
            Values::Raw(bytes) => raw::tensor(dtype, &dims, bytes),
            Values::Typed(contents) => typed::tensor(dtype, &dims, contents),
            Values::Json(json) => of_json(dtype, &dims, json),
        }
    }
}

/// The tensor of a list that is nested as its shape says, or not at all.
fn of_json(dtype: DataType, dims: &[i64], json: Json<'_>) -> Result<Tensor> {
    let mut column = Column::new(dtype as i32);
    column.add(json)?;
    let sent = column.dims(false);
    let count = raw::elements(dims)? as i64;
    if sent != [count] && sent != dims {
        return Err(Error::invalid(format!(
            "its data is a list of shape {sent:?}: send {count} values by its shape {dims:?}, nested like \
             it or in one list"
        )));
    }
    column.tensor(dims)
}

/// Inputs by their names, each once.
#[derive(Default)]
pub struct Inputs<'b>(BTreeMap<String, Input<'b>>);

impl<'b> Inputs<'b> {
    pub fn add(&mut self, name: String, input: Input<'b>) -> Result<()> {
        match self.0.insert(name.clone(), input) {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("input {name:?} is there twice"))),
        }
    }
}

/// Outputs, each with its name, of the signature's or of those that are named.
pub async fn infer<'a>(
    servable: &'a Servable,
    signature_name: &'a str,
    inputs: Inputs<'_>,
    outputs: &[String],
    deadline: Option<Instant>,
    format: ResponseFormat,
) -> Result<Vec<(&'a str, Tensor)>> {
    let (name, signature) = servable.signature(signature_name);
    let Some(signature) = signature else {
        let known: Vec<_> = servable.signatures.keys().map(String::as_str).collect();
        return Err(Error::invalid(format!(
            "there is no signature {name:?}: name one of {} by the parameter signature_name",
            known.join(", ")
        )));
    };
    for (alias, input) in &inputs.0 {
        if let Some(info) = signature.inputs.get(alias)
            && info.dtype != input.dtype as i32
        {
            let name = |dtype| datatype::name(dtype).unwrap_or("of a type that the protocol lacks");
            return Err(Error::invalid(format!(
                "input {alias:?} was sent as {}, but is {}",
                name(input.dtype as i32),
                name(info.dtype)
            )));
        }
    }
    let step = step(servable, signature_name, inputs.0, Input::tensor, outputs, format)?;
    Ok(step.run(servable, deadline).await?.collect())
}

/// The datatype of an output.
pub fn datatype_of(name: &str, tensor: &Tensor) -> Result<&'static str> {
    let dtype = tensor.dtype().number();
    datatype::name(dtype).ok_or_else(|| {
        Error::new(
            Code::Unimplemented,
            format!(
                "output {name:?} is of type {}, which the protocol lacks: ask for other outputs, or by \
                 TensorFlow Serving's protocol",
                crate::tensor::type_name(dtype)
            ),
        )
    })
}

/// Says of which tensor an error is.
pub fn of_tensor<T>(what: &str, name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| Error::new(error.code, format!("{what} {name:?}: {}", error.message)))
}

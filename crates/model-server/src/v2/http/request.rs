//! What a body asks for: JSON, and after it the bytes of those inputs that have a size instead of data.

use bytes::Bytes;
use session_group::{Error, Result};

use crate::json::read::{Json, Kind, parse};
use crate::v2::datatype;
use crate::v2::infer::{Input, Inputs, Values, of_tensor};
use crate::v2::parameters::{Asked, Parameter, Parameters};

pub struct Request<'b> {
    pub id: Option<String>,
    pub asked: Asked,
    pub inputs: Inputs<'b>,
    pub outputs: Vec<Output>,
}

/// An output that is asked for.
pub struct Output {
    pub name: String,
    /// Whether it comes as bytes, if the request says so of it.
    pub is_binary: Option<bool>,
}

impl<'b> Request<'b> {
    /// `head` is how much of the body is JSON, if it is not all.
    pub fn parse(body: &'b Bytes, head: Option<usize>) -> Result<Self> {
        let head = head.unwrap_or(body.len());
        let json = body.get(..head).ok_or_else(|| {
            Error::invalid(format!(
                "Inference-Header-Content-Length is {head}, but the body has {} bytes",
                body.len()
            ))
        })?;
        let mut bytes = body.slice(head..);
        let (document, []) = parse(json, [])?;
        let (mut id, mut asked) = (None, Asked::default());
        let (mut inputs, mut outputs) = (None, Vec::new());
        for member in object(document, "the request")? {
            let (name, value) = member?;
            match name.as_str() {
                "id" => id = Some(text(value, "id")?),
                "parameters" => asked = parameters(value)?.asked()?,
                "inputs" => inputs = Some(read_inputs(value, &mut bytes)?),
                "outputs" => {
                    outputs = list(value, "outputs")?
                        .map(|value| Output::read(value?))
                        .collect::<Result<_>>()?;
                }
                _ => {}
            }
        }
        let inputs = inputs.ok_or_else(|| Error::invalid("the request has no inputs"))?;
        if !bytes.is_empty() {
            return Err(Error::invalid(format!(
                "{} bytes follow those of the inputs: give each its binary_data_size",
                bytes.len()
            )));
        }
        Ok(Self { id, asked, inputs, outputs })
    }
}

impl Output {
    fn read(json: Json<'_>) -> Result<Self> {
        let (mut name, mut of) = (None, Parameters::default());
        for member in object(json, "an output")? {
            let (key, value) = member?;
            match key.as_str() {
                "name" => name = Some(text(value, "name")?),
                "parameters" => of = parameters(value)?,
                _ => {}
            }
        }
        let name = name.ok_or_else(|| Error::invalid("an output has no name"))?;
        let is_binary = of.check_output().and_then(|()| of.flag("binary_data"));
        let is_binary = of_tensor("output", &name, is_binary)?;
        Ok(Self { name, is_binary })
    }
}

fn read_inputs<'b>(json: Json<'b>, bytes: &mut Bytes) -> Result<Inputs<'b>> {
    let mut inputs = Inputs::default();
    for value in list(json, "inputs")? {
        let (name, input) = input(value?, bytes)?;
        inputs.add(name, input)?;
    }
    Ok(inputs)
}

/// An input. Its bytes are the first of those that are left.
fn input<'b>(json: Json<'b>, bytes: &mut Bytes) -> Result<(String, Input<'b>)> {
    let (mut name, mut dims, mut dtype, mut data) = (None, None, None, None);
    let mut of = Parameters::default();
    for member in object(json, "an input")? {
        let (key, value) = member?;
        match key.as_str() {
            "name" => name = Some(text(value, "name")?),
            "datatype" => dtype = Some(text(value, "datatype")?),
            "shape" => dims = Some(shape(value)?),
            "parameters" => of = parameters(value)?,
            "data" => data = Some(value),
            _ => {}
        }
    }
    let name = name.ok_or_else(|| Error::invalid("an input has no name"))?;
    let read = || -> Result<Input<'b>> {
        let missing = |what| Error::invalid(format!("it has no {what}"));
        of.check_input()?;
        let dims = dims.ok_or_else(|| missing("shape"))?;
        let dtype = datatype::of_name(&dtype.ok_or_else(|| missing("datatype"))?)?;
        let values = match (of.number("binary_data_size")?, data) {
            (None, Some(data)) => Values::Json(data),
            (Some(size), None) => Values::Raw(first(bytes, size)?),
            (None, None) => return Err(missing("data, and no binary_data_size")),
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "it has both data and binary_data_size: send one of them",
                ));
            }
        };
        Ok(Input { dtype, dims, values })
    };
    let input = of_tensor("input", &name, read())?;
    Ok((name, input))
}

/// Takes the first bytes.
fn first(bytes: &mut Bytes, size: u64) -> Result<Bytes> {
    match usize::try_from(size) {
        Ok(size) if size <= bytes.len() => Ok(bytes.split_to(size)),
        _ => Err(Error::invalid(format!(
            "its binary_data_size is {size}, but {} bytes are left: send Inference-Header-Content-Length, \
             and the bytes of all inputs after the JSON, in their order",
            bytes.len()
        ))),
    }
}

fn shape(json: Json<'_>) -> Result<Vec<i64>> {
    let size = |value: Json<'_>| {
        let size = match value.kind() {
            Kind::Number => value.leaf()?.integer(),
            _ => None,
        };
        size.and_then(|size| i64::try_from(size).ok()).ok_or_else(|| {
            Error::invalid(format!("a shape has {}: give whole numbers", value.dump()))
        })
    };
    list(json, "shape")?.map(|value| size(value?)).collect()
}

fn parameters(json: Json<'_>) -> Result<Parameters> {
    let mut parameters = Parameters::default();
    for member in object(json, "parameters")? {
        let (name, value) = member?;
        let leaf = match value.kind() {
            // Nothing that this server knows is a list or an object.
            Kind::Array | Kind::Object | Kind::Null => continue,
            _ => value.leaf()?,
        };
        let parameter = match (leaf.kind, leaf.integer(), leaf.number()) {
            (Kind::True, ..) => Parameter::Bool(true),
            (Kind::False, ..) => Parameter::Bool(false),
            (_, Some(integer), _) => Parameter::Integer(integer),
            (_, None, Some(number)) => Parameter::Float(number),
            (_, None, None) => Parameter::Text(value.text().unwrap_or_default()),
        };
        parameters.0.insert(name, parameter);
    }
    Ok(parameters)
}

fn object<'b>(
    json: Json<'b>,
    what: &str,
) -> Result<impl Iterator<Item = Result<(String, Json<'b>)>> + use<'b>> {
    match json.kind() {
        Kind::Object => Ok(json.members()),
        kind => Err(Error::invalid(format!("{what} must be an object, not {}", kind.name()))),
    }
}

fn list<'b>(
    json: Json<'b>,
    what: &str,
) -> Result<impl Iterator<Item = Result<Json<'b>>> + use<'b>> {
    match json.kind() {
        Kind::Array => Ok(json.elements()),
        kind => Err(Error::invalid(format!("{what} must be a list, not {}", kind.name()))),
    }
}

fn text(json: Json<'_>, what: &str) -> Result<String> {
    json.text().ok_or_else(|| Error::invalid(format!("{what} must be a string: {}", json.dump())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODIES: [&str; 4] = [
        r#"{"id": "7", "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.5, 2]}]}"#,
        r#"{"parameters": {"timeout": 9, "a": [1]}, "inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": [["a"]]}], "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}"#,
        r#"{"inputs": [{"name": "x", "shape": [], "datatype": "INT8", "parameters": {"binary_data_size": 1}}]}x"#,
        r#"{"inputs": []}"#,
    ];

    proptest! {
        #[test]
        fn no_body_panics(
            body in 0..BODIES.len(),
            changes in prop::collection::vec((0..300usize, any::<u8>()), 0..4),
            end in 0..300usize,
            head in prop::option::of(0..300usize),
        ) {
            let mut bytes = BODIES[body].as_bytes().to_vec();
            for (at, byte) in changes {
                let n = bytes.len();
                bytes[at % n] = byte;
            }
            bytes.truncate(end);
            let _ = Request::parse(&bytes.into(), head);
        }
    }

    #[test]
    fn bytes_are_those_of_the_inputs_in_their_order() {
        let json = r#"{"inputs": [
            {"name": "a", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": 2}},
            {"name": "b", "shape": [1], "datatype": "INT8", "data": [5]},
            {"name": "c", "shape": [0], "datatype": "INT8", "parameters": {"binary_data_size": 0}},
            {"name": "d", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}}]}"#;
        let parse = |bytes: &str, head: usize| {
            Request::parse(&format!("{json}{bytes}").into(), Some(head))
                .map(|request| request.outputs.len())
        };
        assert_eq!(parse("xyz", json.len()), Ok(0));
        for (bytes, head, says) in [
            ("xy", json.len(), "input \"d\": its binary_data_size is 1, but 0 bytes are left"),
            ("wxyz", json.len(), "1 bytes follow those of the inputs"),
            ("", json.len() + 1, "but the body has"),
            ("", json.len() - 1, "JSON Parse error"),
        ] {
            let message = parse(bytes, head).unwrap_err().message;
            assert!(message.contains(says), "{message}");
        }
    }
}

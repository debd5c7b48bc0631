//! Predict over REST: lists of rows (`instances`) or of columns (`inputs`) to tensors, and back.

use std::collections::BTreeMap;

use session_group::tensorflow::Tensor;
use session_group::{Error, Result};

use crate::json::column::Column;
use crate::json::read::{Json, Kind, parse, visit_members};
use crate::json::values::Values;
use crate::json::write::Writer;
use crate::metrics::status;
use crate::proto::tensorflow::{SignatureDef, TensorInfo};

/// Whether a request, and so its answer, has rows or columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Rows,
    Columns,
}

/// A request without its tensors, which need the signature.
pub struct Request<'j> {
    document: Json<'j>,
    pub signature_name: String,
    instances: Option<Json<'j>>,
    inputs: Option<Json<'j>>,
}

impl<'j> Request<'j> {
    pub fn parse(body: &'j [u8]) -> Result<Self> {
        let names = ["signature_name", "instances", "inputs"];
        let (document, [name, instances, inputs]) = parse(body, names)?;
        let signature_name = signature_name(document, name)?;
        Ok(Self { document, signature_name, instances, inputs })
    }

    /// Its tensors, by alias.
    pub fn tensors(&self, signature: &SignatureDef) -> Result<(Format, BTreeMap<String, Tensor>)> {
        let document = self.document;
        match (self.instances, self.inputs) {
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "JSON Value: {} Not formatted correctly expecting only one of 'inputs' or 'instances' keys \
                 to exist ",
                document.dump()
            ))),
            (None, None) => Err(Error::invalid("Missing 'inputs' or 'instances' key")),
            (Some(instances), None) => Ok((Format::Rows, rows(instances, document, signature)?)),
            (None, Some(inputs)) => Ok((Format::Columns, columns(inputs, signature)?)),
        }
    }
}

/// The name of the signature, empty where the document has none.
pub fn signature_name(document: Json<'_>, name: Option<Json<'_>>) -> Result<String> {
    if document.kind() != Kind::Object {
        return Err(Error::invalid(format!("JSON Value: {} Is not object", document.dump())));
    }
    match name {
        None => Ok(String::new()),
        Some(name) => name.text().ok_or_else(|| {
            Error::invalid(format!(
                "JSON Value: {} not formatted correctly. 'signature_name' key must be a string value.",
                document.dump()
            ))
        }),
    }
}

/// The input that a request means which names none: the only one, or the only one without a default.
fn unnamed(signature: &SignatureDef) -> Option<(&String, &TensorInfo)> {
    let SignatureDef { inputs, defaults, .. } = signature;
    let mut needed = inputs.iter().filter(|(name, _)| !defaults.contains_key(*name));
    match (needed.next(), needed.next()) {
        (Some(only), None) => Some(only),
        _ if inputs.len() == 1 => inputs.first_key_value(),
        _ => None,
    }
}

fn rows(
    instances: Json<'_>,
    document: Json<'_>,
    signature: &SignatureDef,
) -> Result<BTreeMap<String, Tensor>> {
    let SignatureDef { inputs, defaults, .. } = signature;
    if instances.kind() != Kind::Array {
        return Err(Error::invalid(format!(
            "JSON Value: {} Expecting 'instances' to be an list/array",
            document.dump()
        )));
    }
    let unnamed = unnamed(signature).map(|(name, _)| name.as_str());
    let mut columns: BTreeMap<&str, Column> =
        inputs.iter().map(|(name, info)| (name.as_str(), Column::new(info.dtype))).collect();
    // As the first has it.
    let mut by_name = None;
    let mut number = 0;
    instances.visit_elements(|reader, peek, item| {
        let has_names = item.kind() == Kind::Object && !item.is_base64();
        if number == 0 && unnamed.is_none() && !has_names {
            return Err(Error::invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required \
                 as per tensorinfo_map",
            ));
        }
        let failed = |name: Option<&str>, error: Error| {
            let key = name.map_or(String::new(), |name| format!(" key: {name}"));
            let status = status(Some(error.code));
            Error::invalid(format!(
                "Failed to process element: {number}{key} of 'instances' list. Error: {status}: {}",
                error.message
            ))
        };
        match (*by_name.get_or_insert(has_names), has_names) {
            (true, true) => {
                let find = |name: &str| match inputs.get_key_value(name) {
                    Some((name, _)) => Ok(name.as_str()),
                    None => Err(name.to_string()),
                };
                visit_members(reader, find, |reader, peek, name| {
                    let name = name.map_err(|name| {
                        let message = format!("JSON object: does not have named input: {name}");
                        failed(Some(&name), Error::invalid(message))
                    })?;
                    let column = columns.get_mut(name).expect("one for each input");
                    column.add_next(reader, peek).map_err(|error| failed(Some(name), error))
                })?;
                // What the first row leaves out, all have to.
                let is_complete = |(name, column): (&&str, &Column)| {
                    let is_left_out = column.items == 0 && defaults.contains_key(*name);
                    column.items == number + 1 || is_left_out
                };
                if !columns.iter().all(is_complete) {
                    let keys: Vec<_> = inputs.keys().map(String::as_str).collect();
                    return Err(Error::invalid(format!(
                        "Failed to process element: {number} of 'instances' list. JSON object: {} keys must \
                         be equal to: {}",
                        item.dump(),
                        keys.join(",")
                    )));
                }
            }
            (true, false) => {
                return Err(Error::invalid(format!(
                    "Expecting object but got list at item {number} of input list"
                )));
            }
            (false, true) => {
                return Err(Error::invalid(format!(
                    "Expecting value/list but got object at item {number} of input list"
                )));
            }
            (false, false) => {
                let column = unnamed.and_then(|name| columns.get_mut(name));
                let column = column.expect("the first is without names, too");
                column.add_next(reader, peek).map_err(|error| failed(None, error))?;
            }
        }
        number += 1;
        Ok(())
    })?;
    if number == 0 {
        return Err(Error::invalid(format!(
            "JSON Value: {} No values in 'instances' array",
            document.dump()
        )));
    }
    columns
        .into_iter()
        .filter(|(_, column)| column.items > 0)
        .map(|(name, column)| {
            let dims = column.dims(true);
            Ok((name.to_string(), column.tensor(&dims)?))
        })
        .collect()
}

fn columns(inputs: Json<'_>, signature: &SignatureDef) -> Result<BTreeMap<String, Tensor>> {
    let SignatureDef { inputs: wanted, defaults, .. } = signature;
    let alone = |value: Json<'_>, info: &TensorInfo| {
        let mut column = Column::new(info.dtype);
        column.add(value)?;
        let dims = column.dims(false);
        column.tensor(&dims)
    };
    if inputs.kind() != Kind::Object || inputs.is_base64() {
        let Some((name, info)) = unnamed(signature) else {
            return Err(Error::invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required \
                 as per tensorinfo_map",
            ));
        };
        return Ok(BTreeMap::from([(name.clone(), alone(inputs, info)?)]));
    }
    let mut given = BTreeMap::new();
    for member in inputs.members() {
        let (name, value) = member?;
        if wanted.contains_key(&name) {
            given.entry(name).or_insert(value);
        }
    }
    let found = |(name, info): (&String, &TensorInfo)| match given.get(name) {
        Some(&value) => Some(alone(value, info).map(|tensor| (name.clone(), tensor))),
        None if defaults.contains_key(name) => None,
        None => {
            let message = format!("Missing named input: {name} in 'inputs' object.");
            Some(Err(Error::invalid(message)))
        }
    };
    wanted.iter().filter_map(found).collect()
}

/// The body of an answer.
pub fn answer<N: AsRef<str>>(outputs: &[(N, Tensor)], format: Format) -> Result<Vec<u8>> {
    if outputs.is_empty() {
        return Err(Error::invalid("Cannot convert empty tensor map to JSON"));
    }
    let mut writer = Writer::new();
    writer.begin_object();
    let outputs = outputs
        .iter()
        .map(|(name, tensor)| Output::new(name.as_ref(), tensor))
        .collect::<Result<Vec<_>>>()?;
    match format {
        Format::Rows => {
            writer.string(b"predictions");
            write_rows(&mut writer, &outputs)?;
        }
        Format::Columns => {
            writer.string(b"outputs");
            if let [output] = &outputs[..] {
                output.write_all(&mut writer);
            } else {
                writer.begin_object();
                for output in &outputs {
                    writer.string(output.name.as_bytes());
                    output.write_all(&mut writer);
                }
                writer.end_object();
            }
        }
    }
    writer.end_object();
    Ok(writer.into_bytes())
}

fn write_rows(writer: &mut Writer, outputs: &[Output<'_>]) -> Result<()> {
    let mut size = None;
    for output in outputs {
        let name = output.name;
        let &rows = output.dims.first().ok_or_else(|| {
            Error::invalid(format!("Tensor name: {name} has no shape information "))
        })?;
        let expected = *size.get_or_insert(rows);
        if rows != expected {
            return Err(Error::invalid(format!(
                "Tensor name: {name} has inconsistent batch size: {rows} expecting: {expected}"
            )));
        }
    }
    writer.begin_array();
    for row in 0..size.unwrap_or(0) {
        if let [output] = outputs {
            writer.on_one_line = true;
            output.write_row(writer, row);
            writer.on_one_line = false;
            continue;
        }
        writer.begin_object();
        for output in outputs {
            writer.string(output.name.as_bytes());
            writer.on_one_line = true;
            output.write_row(writer, row);
            writer.on_one_line = false;
        }
        writer.end_object();
    }
    writer.end_array();
    Ok(())
}

/// A tensor that is written.
struct Output<'a> {
    name: &'a str,
    dims: Vec<usize>,
    values: Values<'a>,
}

impl<'a> Output<'a> {
    fn new(name: &'a str, tensor: &'a Tensor) -> Result<Self> {
        let dims = tensor.dims().into_iter().map(|size| size as usize).collect();
        Ok(Self { name, dims, values: Values::of(tensor)? })
    }

    fn write_all(&self, writer: &mut Writer) {
        self.write(writer, 0, &mut 0);
    }

    fn write_row(&self, writer: &mut Writer, row: usize) {
        let size: usize = self.dims[1..].iter().product();
        self.write(writer, 1, &mut (row * size));
    }

    fn write(&self, writer: &mut Writer, level: usize, next: &mut usize) {
        let Some(&size) = self.dims.get(level) else {
            self.write_value(writer, *next);
            *next += 1;
            return;
        };
        writer.begin_array();
        (0..size).for_each(|_| self.write(writer, level + 1, next));
        writer.end_array();
    }

    fn write_value(&self, writer: &mut Writer, i: usize) {
        match self.values.string(i) {
            // JSON has no other bytes.
            Some(bytes) if self.name.ends_with("_bytes") || std::str::from_utf8(bytes).is_err() => {
                writer.base64(bytes);
            }
            _ => self.values.write(writer, i),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::tensorflow::DataType;
    use crate::proto::tensorflow::tensor_info::Encoding;

    fn signature(dtypes: &[i32]) -> SignatureDef {
        let input = |(i, &dtype): (usize, &i32)| {
            let encoding = Some(Encoding::Name(format!("x{i}:0")));
            (format!("x{i}"), TensorInfo { dtype, encoding, tensor_shape: None })
        };
        let inputs = dtypes.iter().enumerate().map(input).collect();
        SignatureDef { inputs, ..SignatureDef::default() }
    }

    fn tensors(body: &[u8], dtypes: &[i32]) -> Result<(Format, BTreeMap<String, Tensor>)> {
        Request::parse(body)?.tensors(&signature(dtypes))
    }

    const BODIES: [&str; 6] = [
        r#"{"instances": [1.5, -2, NaN, 3e8]}"#,
        r#"{"instances": [{"x0": [1, 2], "x1": "a"}, {"x0": [3, 4], "x1": {"b64": "YQ=="}}]}"#,
        r#"{"inputs": [[true, false], [true, true]], "signature_name": "x"}"#,
        r#"{"inputs": {"x0": 7, "x1": ["a", "\u00fc"]}}"#,
        r#"{"inputs": {"x0": [[], []], "x1": 18446744073709551615}}"#,
        r#"{"instances": [{"b64": "YQ=="}]}"#,
    ];

    proptest! {
        #[test]
        fn no_body_panics(
            body in 0..BODIES.len(),
            changes in prop::collection::vec((0..200usize, any::<u8>()), 0..4),
            end in 0..300usize,
            dtypes in prop::collection::vec(0..34i32, 0..3),
        ) {
            let mut bytes = BODIES[body].as_bytes().to_vec();
            for (at, byte) in changes {
                let n = bytes.len();
                bytes[at % n] = byte;
            }
            bytes.truncate(end);
            if let Ok((format, tensors)) = tensors(&bytes, &dtypes) {
                // What came as JSON goes as JSON. Lists without a value may be of any type.
                let outputs: Vec<_> = tensors.into_iter().collect();
                let answered = answer(&outputs, format).is_ok();
                let has_values = outputs.iter().all(|(_, tensor)| !tensor.dims().contains(&0));
                prop_assert!(outputs.is_empty() || answered || !has_values);
            }
        }

        #[test]
        fn numbers_come_back(values in prop::collection::vec(any::<f32>(), 1..20)) {
            let tensor = Tensor::from_slice(&[values.len() as i64], &values).unwrap();
            let body = answer(&[("x0".to_string(), tensor)], Format::Columns).unwrap();
            let text = String::from_utf8(body).unwrap().replace("\"outputs\"", "\"inputs\"");
            let (_, tensors) = tensors(text.as_bytes(), &[DataType::DtFloat as i32]).unwrap();
            let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
            let back = tensors["x0"].to_vec::<f32>().unwrap();
            prop_assert!(values.iter().zip(&back).all(same), "{values:?} {back:?}");
        }
    }
}

//! Predict over REST: lists of rows (`instances`) or of columns (`inputs`) to tensors, and back.

use std::collections::BTreeMap;

use half::{bf16, f16};
use jiter::JsonValue;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};

use super::json::{self, Writer, dump, is_base64, member, type_name};
use crate::metrics::status;
use crate::proto::tensorflow::{DataType, SignatureDef, TensorInfo};
use crate::tensor;

/// Whether a request, and so its answer, has rows or columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Rows,
    Columns,
}

/// A request without its tensors, which need the signature.
pub struct Request<'j> {
    document: JsonValue<'j>,
    pub signature_name: String,
}

impl<'j> Request<'j> {
    pub fn parse(body: &'j [u8]) -> Result<Self> {
        let document = json::parse(body)?;
        let signature_name = signature_name(&document)?;
        Ok(Self { document, signature_name })
    }

    /// Its tensors, by alias.
    pub fn tensors(&self, signature: &SignatureDef) -> Result<(Format, BTreeMap<String, Tensor>)> {
        let document = &self.document;
        match (member(document, "instances"), member(document, "inputs")) {
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "JSON Value: {} Not formatted correctly expecting only one of 'inputs' or 'instances' keys \
                 to exist ",
                dump(document)
            ))),
            (None, None) => Err(Error::invalid("Missing 'inputs' or 'instances' key")),
            (Some(instances), None) => Ok((Format::Rows, rows(instances, document, signature)?)),
            (None, Some(inputs)) => Ok((Format::Columns, columns(inputs, signature)?)),
        }
    }
}

/// The name of the signature, empty where none is given.
pub fn signature_name(document: &JsonValue<'_>) -> Result<String> {
    if !matches!(document, JsonValue::Object(_)) {
        return Err(Error::invalid(format!("JSON Value: {} Is not object", dump(document))));
    }
    match member(document, "signature_name") {
        None => Ok(String::new()),
        Some(JsonValue::Str(name)) => Ok(name.to_string()),
        Some(_) => Err(Error::invalid(format!(
            "JSON Value: {} not formatted correctly. 'signature_name' key must be a string value.",
            dump(document)
        ))),
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
    instances: &JsonValue<'_>,
    document: &JsonValue<'_>,
    signature: &SignatureDef,
) -> Result<BTreeMap<String, Tensor>> {
    let SignatureDef { inputs, defaults, .. } = signature;
    let JsonValue::Array(items) = instances else {
        return Err(Error::invalid(format!(
            "JSON Value: {} Expecting 'instances' to be an list/array",
            dump(document)
        )));
    };
    let Some(first) = items.first() else {
        return Err(Error::invalid(format!(
            "JSON Value: {} No values in 'instances' array",
            dump(document)
        )));
    };
    let names = |value: &JsonValue<'_>| matches!(value, JsonValue::Object(_)) && !is_base64(value);
    let unnamed = unnamed(signature).map(|(name, _)| name.as_str());
    if unnamed.is_none() && !names(first) {
        return Err(Error::invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required \
             as per tensorinfo_map",
        ));
    }
    let by_name = names(first);
    let mut columns: BTreeMap<&str, Column> =
        inputs.iter().map(|(name, info)| (name.as_str(), Column::new(info.dtype))).collect();
    for (number, item) in items.iter().enumerate() {
        match (item, by_name, names(item)) {
            (JsonValue::Object(members), true, true) => {
                for (name, value) in members.iter() {
                    let added = match columns.get_mut(&**name) {
                        Some(column) => column.add(value),
                        None => Err(Error::invalid(format!(
                            "JSON object: does not have named input: {name}"
                        ))),
                    };
                    added.map_err(|error| {
                        Error::invalid(format!(
                            "Failed to process element: {number} key: {name} of 'instances' list. Error: {}: \
                             {}",
                            status(Some(error.code)),
                            error.message
                        ))
                    })?;
                }
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
                        dump(item),
                        keys.join(",")
                    )));
                }
            }
            (_, true, _) => {
                return Err(Error::invalid(format!(
                    "Expecting object but got list at item {number} of input list"
                )));
            }
            (_, false, true) => {
                return Err(Error::invalid(format!(
                    "Expecting value/list but got object at item {number} of input list"
                )));
            }
            (item, false, false) => {
                let Some(column) = unnamed.and_then(|name| columns.get_mut(name)) else { break };
                column.add(item).map_err(|error| {
                    Error::invalid(format!(
                        "Failed to process element: {number} of 'instances' list. Error: {}: {}",
                        status(Some(error.code)),
                        error.message
                    ))
                })?;
            }
        }
    }
    columns
        .into_iter()
        .filter(|(_, column)| column.items > 0)
        .map(|(name, column)| Ok((name.to_string(), column.tensor(true)?)))
        .collect()
}

fn columns(inputs: &JsonValue<'_>, signature: &SignatureDef) -> Result<BTreeMap<String, Tensor>> {
    let SignatureDef { inputs: wanted, defaults, .. } = signature;
    let alone = |value: &JsonValue<'_>, info: &TensorInfo| {
        let mut column = Column::new(info.dtype);
        column.add(value)?;
        column.tensor(false)
    };
    if !matches!(inputs, JsonValue::Object(_)) || is_base64(inputs) {
        let Some((name, info)) = unnamed(signature) else {
            return Err(Error::invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required \
                 as per tensorinfo_map",
            ));
        };
        return Ok(BTreeMap::from([(name.clone(), alone(inputs, info)?)]));
    }
    let found = |(name, info): (&String, &TensorInfo)| match member(inputs, name) {
        Some(value) => Some(alone(value, info).map(|tensor| (name.clone(), tensor))),
        None if defaults.contains_key(name) => None,
        None => {
            let message = format!("Missing named input: {name} in 'inputs' object.");
            Some(Err(Error::invalid(message)))
        }
    };
    wanted.iter().filter_map(found).collect()
}

/// The values of an input, as far as they have been read.
struct Column {
    dtype: i32,
    items: usize,
    /// Of each item.
    dims: Vec<usize>,
    /// How many values each item has.
    size: usize,
    bytes: Vec<u8>,
    strings: Vec<Vec<u8>>,
}

impl Column {
    fn new(dtype: i32) -> Self {
        let (bytes, strings) = (Vec::new(), Vec::new());
        Self { dtype, items: 0, dims: Vec::new(), size: 0, bytes, strings }
    }

    /// Adds the values of an item, which has the shape of the first.
    fn add(&mut self, value: &JsonValue<'_>) -> Result<()> {
        let dims = shape(value);
        let mut size = 0;
        self.walk(value, 0, &dims, &mut size)?;
        if self.items == 0 {
            (self.dims, self.size) = (dims, size);
        } else if size != self.size {
            return Err(Error::invalid(format!(
                "Expecting tensor size: {} but got: {size}",
                self.size
            )));
        } else if dims != self.dims {
            let text = |dims: &[usize]| {
                let dims: Vec<_> = dims.iter().map(usize::to_string).collect();
                format!("[{}]", dims.join(","))
            };
            return Err(Error::invalid(format!(
                "Expecting shape {} but got: {}",
                text(&self.dims),
                text(&dims)
            )));
        }
        self.items += 1;
        Ok(())
    }

    fn walk(
        &mut self,
        value: &JsonValue<'_>,
        level: usize,
        dims: &[usize],
        size: &mut usize,
    ) -> Result<()> {
        let JsonValue::Array(values) = value else {
            if level != dims.len() {
                return Err(Error::invalid(format!(
                    "JSON Value: {} found at incorrect level: {} in the JSON DOM. Expected at level: {}",
                    dump(value),
                    level + 1,
                    dims.len()
                )));
            }
            *size += 1;
            return self.push(value);
        };
        match dims.get(level) {
            None => Err(Error::invalid(format!(
                "Encountered list at unexpected level: {level} expected < {}",
                dims.len()
            ))),
            Some(&expected) if expected != values.len() => Err(Error::invalid(format!(
                "Encountered list at unexpected size: {} at level: {level} expected size: {expected}",
                values.len()
            ))),
            Some(_) => values.iter().try_for_each(|value| self.walk(value, level + 1, dims, size)),
        }
    }

    fn push(&mut self, value: &JsonValue<'_>) -> Result<()> {
        let dtype = DataType::try_from(self.dtype).unwrap_or(DataType::DtInvalid);
        let wrong = || {
            Error::invalid(format!(
                "JSON Value: {} Type: {} is not of expected type: {}",
                dump(value),
                type_name(value),
                tensor::type_name(self.dtype)
            ))
        };
        let within = |least: i128, most: i128| {
            json::integer(value).filter(|value| (least..=most).contains(value)).ok_or_else(wrong)
        };
        let number = || json::number(value).ok_or_else(wrong);
        // What JSON has as a finite number stays one.
        let finite = |number: f64, becomes: f64| match number.is_finite() && !becomes.is_finite() {
            true => Err(wrong()),
            false => Ok(()),
        };
        match dtype {
            DataType::DtFloat => {
                let number = number()?;
                finite(number, (number as f32).into())?;
                self.bytes.extend((number as f32).to_ne_bytes());
            }
            DataType::DtHalf => {
                let (number, half) = (number()?, f16::from_f64(number()?));
                finite(number, half.to_f64())?;
                self.bytes.extend(half.to_ne_bytes());
            }
            DataType::DtBfloat16 => {
                let (number, half) = (number()?, bf16::from_f64(number()?));
                finite(number, half.to_f64())?;
                self.bytes.extend(half.to_ne_bytes());
            }
            DataType::DtDouble => {
                let number = number()?;
                // As 1e400, which is read as infinite.
                if matches!(value, JsonValue::Int(_) | JsonValue::BigInt(_)) {
                    finite(0.0, number)?;
                }
                self.bytes.extend(number.to_ne_bytes());
            }
            DataType::DtInt32 => {
                let value = within(i32::MIN.into(), i32::MAX.into())?;
                self.bytes.extend((value as i32).to_ne_bytes());
            }
            DataType::DtInt16 => {
                let value = within(i16::MIN.into(), i16::MAX.into())?;
                self.bytes.extend((value as i16).to_ne_bytes());
            }
            DataType::DtUint16 => {
                self.bytes.extend((within(0, u16::MAX.into())? as u16).to_ne_bytes());
            }
            DataType::DtInt8 => self.bytes.push(within(i8::MIN.into(), i8::MAX.into())? as u8),
            DataType::DtUint8 => self.bytes.push(within(0, u8::MAX.into())? as u8),
            DataType::DtInt64 => {
                let value = within(i64::MIN.into(), i64::MAX.into())?;
                self.bytes.extend((value as i64).to_ne_bytes());
            }
            DataType::DtUint32 => {
                self.bytes.extend((within(0, u32::MAX.into())? as u32).to_ne_bytes());
            }
            DataType::DtUint64 => {
                self.bytes.extend((within(0, u64::MAX.into())? as u64).to_ne_bytes());
            }
            DataType::DtBool => match value {
                JsonValue::Bool(value) => self.bytes.push(u8::from(*value)),
                _ => return Err(wrong()),
            },
            DataType::DtString => match value {
                JsonValue::Str(_) | JsonValue::Object(_) => self.strings.push(json::bytes(value)?),
                _ => return Err(wrong()),
            },
            _ => {
                return Err(Error::new(
                    Code::Unimplemented,
                    format!(
                        "Conversion of JSON Value: {} to type: {}",
                        dump(value),
                        tensor::type_name(self.dtype)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The tensor of all items, or of the only one.
    fn tensor(self, with_items: bool) -> Result<Tensor> {
        let items = with_items.then_some(self.items);
        let dims: Vec<i64> = items.into_iter().chain(self.dims).map(|size| size as i64).collect();
        match self.dtype == DataType::DtString as i32 {
            true => Tensor::from_strings(&dims, &self.strings),
            false => Tensor::from_bytes(self.dtype, &dims, &self.bytes),
        }
    }
}

/// As deep as the first elements are lists.
fn shape(mut value: &JsonValue<'_>) -> Vec<usize> {
    let mut dims = Vec::new();
    while let JsonValue::Array(values) = value {
        dims.push(values.len());
        match values.first() {
            Some(first) => value = first,
            None => break,
        }
    }
    dims
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

enum Values<'a> {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Strings(Vec<&'a [u8]>),
    /// Those whose text needs no quotes.
    Plain(Box<dyn Fn(usize) -> String + 'a>),
}

impl<'a> Output<'a> {
    fn new(name: &'a str, tensor: &'a Tensor) -> Result<Self> {
        fn plain<T: session_group::tensorflow::Element + ToString + 'static>(
            tensor: &Tensor,
        ) -> Result<Values<'static>> {
            let values = tensor.to_vec::<T>()?;
            Ok(Values::Plain(Box::new(move |i| values[i].to_string())))
        }
        let values =
            match DataType::try_from(tensor.dtype().number()).unwrap_or(DataType::DtInvalid) {
                DataType::DtFloat => Values::F32(tensor.to_vec()?),
                DataType::DtDouble => Values::F64(tensor.to_vec()?),
                DataType::DtHalf => {
                    let halves = tensor.bytes().chunks_exact(2);
                    let value = |bits: &[u8]| f16::from_ne_bytes([bits[0], bits[1]]).to_f32();
                    Values::F32(halves.map(value).collect())
                }
                DataType::DtBfloat16 => {
                    let halves = tensor.bytes().chunks_exact(2);
                    let value = |bits: &[u8]| bf16::from_ne_bytes([bits[0], bits[1]]).to_f32();
                    Values::F32(halves.map(value).collect())
                }
                DataType::DtInt32 => plain::<i32>(tensor)?,
                DataType::DtInt16 => plain::<i16>(tensor)?,
                DataType::DtInt8 => plain::<i8>(tensor)?,
                DataType::DtUint8 => plain::<u8>(tensor)?,
                DataType::DtInt64 => plain::<i64>(tensor)?,
                DataType::DtUint16 => plain::<u16>(tensor)?,
                DataType::DtUint32 => plain::<u32>(tensor)?,
                DataType::DtUint64 => plain::<u64>(tensor)?,
                DataType::DtBool => {
                    let bytes = tensor.bytes();
                    Values::Plain(Box::new(|i| (bytes[i] != 0).to_string()))
                }
                DataType::DtString => Values::Strings(tensor.strings()?),
                _ => {
                    return Err(Error::invalid(format!(
                        "Failed to write JSON value for tensor type: {}",
                        tensor::type_name(tensor.dtype().number())
                    )));
                }
            };
        let dims = tensor.dims().into_iter().map(|size| size as usize).collect();
        Ok(Self { name, dims, values })
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
        match &self.values {
            Values::F32(values) => writer.f32(values[i]),
            Values::F64(values) => writer.f64(values[i]),
            Values::Strings(values) if self.name.ends_with("_bytes") => writer.base64(values[i]),
            // JSON has no other bytes.
            Values::Strings(values) if std::str::from_utf8(values[i]).is_err() => {
                writer.base64(values[i]);
            }
            Values::Strings(values) => writer.string(values[i]),
            Values::Plain(text) => writer.raw(&text(i)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
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

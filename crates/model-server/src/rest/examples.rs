//! Classify and Regress over REST.

use jiter::JsonValue;
use session_group::{Error, Result};

use super::json::{self, Writer, dump, member, type_name};
use super::predict::signature_name;
use crate::proto::serving::input::Kind;
use crate::proto::serving::{
    ClassificationResult, ExampleList, ExampleListWithContext, Input, RegressionResult,
};
use crate::proto::tensorflow::{
    BytesList, Example, Feature, Features, FloatList, Int64List, feature,
};

/// The signature's name and the examples of a request's body.
pub fn parse(body: &[u8], method: &str) -> Result<(String, Input)> {
    let document = json::parse(body)?;
    let signature_name = signature_name(&document)?;
    let context = member(&document, "context").map(example).transpose()?;
    let examples = match member(&document, "examples") {
        Some(JsonValue::Array(examples)) if examples.is_empty() => {
            return Err(Error::invalid(format!(
                "JSON Value: {} 'examples' value is an empty array",
                dump(&document)
            )));
        }
        Some(JsonValue::Array(examples)) => examples.iter().map(example).collect::<Result<_>>()?,
        Some(_) => {
            return Err(Error::invalid(format!(
                "JSON Value: {} Expecting 'examples' value to be an list/array",
                dump(&document)
            )));
        }
        None => {
            return Err(Error::invalid(format!(
                "JSON Value: {} When method is {method}, key 'examples' is expected and was not found",
                dump(&document)
            )));
        }
    };
    let kind = match context {
        None => Kind::ExampleList(ExampleList { examples }),
        context => Kind::ExampleListWithContext(ExampleListWithContext { examples, context }),
    };
    Ok((signature_name, Input { kind: Some(kind) }))
}

fn example(value: &JsonValue<'_>) -> Result<Example> {
    let JsonValue::Object(members) = value else {
        return Err(Error::invalid(format!(
            "Example must be JSON object but got JSON {}",
            type_name(value)
        )));
    };
    let feature = |(name, value): &(std::borrow::Cow<'_, str>, _)| {
        Ok((name.to_string(), feature(name, value)?))
    };
    let feature = members.iter().map(feature).collect::<Result<_>>()?;
    Ok(Example { features: Some(Features { feature }) })
}

/// One value, or a list of values of one kind, which the first one decides.
fn feature(name: &str, value: &JsonValue<'_>) -> Result<Feature> {
    let values = match value {
        JsonValue::Array(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    };
    let mut kind = None;
    for value in values {
        add(name, value, &mut kind)?;
    }
    Ok(Feature { kind })
}

fn add(name: &str, value: &JsonValue<'_>, kind: &mut Option<feature::Kind>) -> Result<()> {
    use feature::Kind;
    let integer = match value {
        JsonValue::Bool(value) => Some(i64::from(*value)),
        JsonValue::Int(value) => Some(*value),
        value if json::integer(value).is_some() => {
            return Err(Error::invalid(format!(
                "Feature: {name} has uint64_t element. Only int64_t is supported."
            )));
        }
        _ => None,
    };
    if let Some(integer) = integer {
        let list = || Kind::Int64List(Int64List::default());
        match kind.get_or_insert_with(list) {
            Kind::Int64List(list) => list.value.push(integer),
            other => return Err(mixed(name, other)),
        }
    } else if let Some(number) = json::number(value) {
        let list = || Kind::FloatList(FloatList::default());
        match kind.get_or_insert_with(list) {
            Kind::FloatList(_) if number.is_finite() && !(number as f32).is_finite() => {
                return Err(Error::invalid(format!(
                    "Feature: {name} has {number:e}, which is out of the range of float: send one that fits"
                )));
            }
            Kind::FloatList(list) => list.value.push(number as f32),
            other => return Err(mixed(name, other)),
        }
    } else if matches!(value, JsonValue::Str(_)) || json::is_base64(value) {
        let list = || Kind::BytesList(BytesList::default());
        match kind.get_or_insert_with(list) {
            Kind::BytesList(list) => list.value.push(json::bytes(value)?),
            other => return Err(mixed(name, other)),
        }
    } else {
        return Err(Error::invalid(format!(
            "Feature: {name} has element with unexpected JSON type: {}",
            type_name(value)
        )));
    }
    Ok(())
}

fn mixed(name: &str, kind: &feature::Kind) -> Error {
    let kind = match kind {
        feature::Kind::Int64List(_) => "int64",
        feature::Kind::FloatList(_) => "float",
        feature::Kind::BytesList(_) => "bytes",
    };
    Error::invalid(format!("Unexpected element type in feature: {name} expecting type: {kind}"))
}

/// The body of Classify's answer.
pub fn classes(result: &ClassificationResult) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.begin_object();
    writer.string(b"results");
    writer.begin_array();
    for row in &result.classifications {
        writer.on_one_line = true;
        writer.begin_array();
        for class in &row.classes {
            writer.begin_array();
            writer.string(class.label.as_bytes());
            writer.f32(class.score);
            writer.end_array();
        }
        writer.end_array();
        writer.on_one_line = false;
    }
    writer.end_array();
    writer.end_object();
    writer.into_bytes()
}

/// The body of Regress' answer.
pub fn values(result: &RegressionResult) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.begin_object();
    writer.string(b"results");
    writer.on_one_line = true;
    writer.begin_array();
    result.regressions.iter().for_each(|regression| writer.f32(regression.value));
    writer.end_array();
    writer.end_object();
    writer.into_bytes()
}

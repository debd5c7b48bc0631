//! Classify and Regress over REST.

use jiter::JsonValue;
use prost::Message;
use session_group::{Error, Result};

use super::predict::signature_name;
use crate::json::read::{Json, Kind, Leaf, parse as document_of};
use crate::json::write::Writer;
use crate::proto::serving::{ClassificationResult, RegressionResult};
use crate::proto::tensorflow::{
    BytesList, Example, Feature, Features, FloatList, Int64List, feature,
};

/// The signature's name and the examples of a request's body, serialised, each after what the context says.
pub fn parse(body: &[u8], method: &str) -> Result<(String, Vec<Vec<u8>>)> {
    let names = ["signature_name", "context", "examples"];
    let (document, [name, context, examples]) = document_of(body, names)?;
    let signature_name = signature_name(document, name)?;
    let context = context.map(example).transpose()?.unwrap_or_default();
    let Some(examples) = examples else {
        return Err(Error::invalid(format!(
            "JSON Value: {} When method is {method}, key 'examples' is expected and was not found",
            document.dump()
        )));
    };
    if examples.kind() != Kind::Array {
        return Err(Error::invalid(format!(
            "JSON Value: {} Expecting 'examples' value to be an list/array",
            document.dump()
        )));
    }
    let serialised = |value: Result<_>| Ok([context.clone(), example(value?)?].concat());
    let examples = examples.elements().map(serialised).collect::<Result<Vec<_>>>()?;
    if examples.is_empty() {
        return Err(Error::invalid(format!(
            "JSON Value: {} 'examples' value is an empty array",
            document.dump()
        )));
    }
    Ok((signature_name, examples))
}

/// An example, serialised.
fn example(value: Json<'_>) -> Result<Vec<u8>> {
    let kind = value.kind();
    if kind != Kind::Object {
        let kind = kind.name();
        return Err(Error::invalid(format!("Example must be JSON object but got JSON {kind}")));
    }
    let feature = |member: Result<(String, _)>| {
        let (name, value) = member?;
        let feature = feature(&name, value)?;
        Ok((name, feature))
    };
    let feature = value.members().map(feature).collect::<Result<_>>()?;
    Ok(Example { features: Some(Features { feature }) }.encode_to_vec())
}

/// One value, or a list of values of one kind, which the first one decides.
fn feature(name: &str, value: Json<'_>) -> Result<Feature> {
    let mut kind = None;
    match value.kind() {
        Kind::Array => value.elements().try_for_each(|value| add(name, value?, &mut kind))?,
        _ => add(name, value, &mut kind)?,
    }
    Ok(Feature { kind })
}

fn add(name: &str, value: Json<'_>, to: &mut Option<feature::Kind>) -> Result<()> {
    use feature::Kind as Of;
    let unexpected = |kind: Kind| {
        let kind = kind.name();
        Error::invalid(format!("Feature: {name} has element with unexpected JSON type: {kind}"))
    };
    if value.kind() == Kind::Array {
        return Err(unexpected(Kind::Array));
    }
    let leaf: Leaf<'_> = value.leaf()?;
    let integer = match &leaf.value {
        Some(JsonValue::Bool(value)) => Some(i64::from(*value)),
        Some(JsonValue::Int(value)) => Some(*value),
        _ if leaf.integer().is_some() => {
            return Err(Error::invalid(format!(
                "Feature: {name} has uint64_t element. Only int64_t is supported."
            )));
        }
        _ => None,
    };
    if let Some(integer) = integer {
        match to.get_or_insert_with(|| Of::Int64List(Int64List::default())) {
            Of::Int64List(list) => list.value.push(integer),
            other => return Err(mixed(name, other)),
        }
    } else if let Some(number) = leaf.number() {
        match to.get_or_insert_with(|| Of::FloatList(FloatList::default())) {
            Of::FloatList(_) if number.is_finite() && !(number as f32).is_finite() => {
                return Err(Error::invalid(format!(
                    "Feature: {name} has {number:e}, which is out of the range of float: send one that fits"
                )));
            }
            Of::FloatList(list) => list.value.push(number as f32),
            other => return Err(mixed(name, other)),
        }
    } else if leaf.kind == Kind::String || value.is_base64() {
        match to.get_or_insert_with(|| Of::BytesList(BytesList::default())) {
            Of::BytesList(list) => list.value.push(leaf.bytes()?),
            other => return Err(mixed(name, other)),
        }
    } else {
        return Err(unexpected(leaf.kind));
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

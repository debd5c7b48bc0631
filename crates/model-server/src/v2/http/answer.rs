//! The body of an answer: JSON, and after it the bytes of those outputs that were asked for as bytes.

use prost::Message;
use session_group::tensorflow::Tensor;
use session_group::{Error, Result};

use crate::json::values::Values;
use crate::json::write::Writer;
use crate::proto;
use crate::servable::Servable;
use crate::v2::infer::datatype_of;
use crate::v2::raw;

pub struct Answer {
    pub body: Vec<u8>,
    /// How much of it is JSON, if bytes follow.
    pub head: Option<usize>,
}

impl Answer {
    pub fn new(
        servable: &Servable,
        id: Option<&str>,
        tensors: &[(&str, Tensor)],
        is_binary: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let mut writer = Writer::new();
        let mut bytes = Vec::new();
        let mut has_bytes = false;
        writer.begin_object();
        member(&mut writer, "model_name", &servable.name);
        member(&mut writer, "model_version", &servable.version.to_string());
        if let Some(id) = id {
            member(&mut writer, "id", id);
        }
        writer.string(b"outputs");
        writer.begin_array();
        for (name, tensor) in tensors {
            writer.begin_object();
            member(&mut writer, "name", name);
            member(&mut writer, "datatype", datatype_of(name, tensor)?);
            writer.string(b"shape");
            let dims = tensor.dims();
            let texts = dims.iter().map(i64::to_string);
            on_one_line(&mut writer, |writer| texts.for_each(|size| writer.raw(&size)));
            if is_binary(name) {
                has_bytes = true;
                let own = raw::bytes(tensor)?;
                writer.string(b"parameters");
                writer.begin_object();
                writer.string(b"binary_data_size");
                writer.raw(&own.len().to_string());
                writer.end_object();
                bytes.extend(own);
            } else {
                let values = Values::of(tensor)?;
                let count = raw::elements(&dims)?;
                if (0..count)
                    .any(|i| values.string(i).is_some_and(|s| std::str::from_utf8(s).is_err()))
                {
                    return Err(Error::invalid(format!(
                        "output {name:?} has bytes that are not UTF-8, which JSON has no form for: ask for \
                         binary data, by its parameter binary_data or the request's binary_data_output"
                    )));
                }
                writer.string(b"data");
                on_one_line(&mut writer, |writer| (0..count).for_each(|i| values.write(writer, i)));
            }
            writer.end_object();
        }
        writer.end_array();
        writer.end_object();
        let mut body = writer.into_bytes();
        let head = has_bytes.then_some(body.len());
        body.extend(bytes);
        Ok(Self { body, head })
    }
}

fn member(writer: &mut Writer, name: &str, value: &str) {
    writer.string(name.as_bytes());
    writer.string(value.as_bytes());
}

fn on_one_line(writer: &mut Writer, write: impl FnOnce(&mut Writer)) {
    writer.on_one_line = true;
    writer.begin_array();
    write(writer);
    writer.end_array();
    writer.on_one_line = false;
}

/// An object that says yes.
pub fn flag(name: &str) -> Vec<u8> {
    format!("{{\"{name}\": true}}").into_bytes()
}

/// A message as JSON. `name` is its full name.
pub fn message<M: Message>(message: &M, name: &str) -> Vec<u8> {
    proto::to_plain_json(message, name).into_bytes()
}

/// A list of them.
pub fn messages<M: Message>(messages: &[M], name: &str) -> Vec<u8> {
    let each: Vec<_> = messages.iter().map(|one| proto::to_plain_json(one, name)).collect();
    format!("[{}]", each.join(",")).into_bytes()
}

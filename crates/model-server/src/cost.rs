//! How much memory a message will take, found from its bytes before anything is built of them: two bytes may be an
//! element of hundreds.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Buf;
use prost::encoding::decode_varint;
use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use session_group::{Error, Result};

use crate::proto::DESCRIPTORS;

/// What any message may take, and what it may take for each of its bytes.
const FREE: usize = 16 << 20;
const FOR_EACH_BYTE: usize = 32;

/// Deeper messages are refused by who decodes them.
const MOST_DEEP: usize = 100;

/// So many elements a list has room for as soon as it has one.
const FIRST: usize = 4;

/// Refuses a message of this name whose parts would take too much memory. Whether it can be decoded at all is not seen
/// here.
pub fn check(name: &str, bytes: &[u8]) -> Result<()> {
    let Some(&layout) = LAYOUTS.by_name.get(name) else { return Ok(()) };
    let most = bytes.len().saturating_mul(FOR_EACH_BYTE).saturating_add(FREE);
    let mut left = most;
    match spend(&LAYOUTS.all, layout, bytes, MOST_DEEP, &mut left) {
        Some(()) => Ok(()),
        None => Err(Error::invalid(format!(
            "the request's {} bytes have so many parts that they would take more than {most} bytes of memory: \
             send values as the bytes of tensors, or fewer at a time",
            bytes.len()
        ))),
    }
}

static LAYOUTS: LazyLock<Layouts> = LazyLock::new(Layouts::new);

#[derive(Default)]
struct Layouts {
    by_name: HashMap<String, usize>,
    all: Vec<Layout>,
}

/// What a message is made of.
struct Layout {
    /// By number.
    fields: Vec<(u32, Field)>,
}

#[derive(Clone, Copy)]
struct Field {
    /// Of an element of a list; 0 where there is none, since the message has room for it.
    element: usize,
    is: Is,
}

#[derive(Clone, Copy)]
enum Is {
    Number,
    /// With its own copy of its bytes.
    Text,
    Message(usize),
}

impl Layouts {
    fn new() -> Self {
        let pool = DescriptorPool::decode(DESCRIPTORS).expect("as it was compiled");
        let messages: Vec<_> = pool.all_messages().collect();
        let number =
            |(i, message): (usize, &MessageDescriptor)| (message.full_name().to_string(), i);
        let by_name: HashMap<_, _> = messages.iter().enumerate().map(number).collect();
        let field = |field: FieldDescriptor| {
            let is = match field.kind() {
                Kind::Message(message) => Is::Message(by_name[message.full_name()]),
                Kind::String | Kind::Bytes => Is::Text,
                _ => Is::Number,
            };
            let element = match field.cardinality() {
                Cardinality::Repeated => element(&field),
                _ => 0,
            };
            (field.number(), Field { element, is })
        };
        let layout = |message: &MessageDescriptor| {
            let mut fields: Vec<_> = message.fields().map(field).collect();
            fields.sort_by_key(|(number, _)| *number);
            Layout { fields }
        };
        let all = messages.iter().map(layout).collect();
        Self { by_name, all }
    }
}

/// Bytes of a message without what its lists and strings hold. Those inside each other without end are behind pointers.
fn size(message: &MessageDescriptor, around: &mut Vec<String>) -> usize {
    const POINTER: usize = 8;
    if around.iter().any(|name| name == message.full_name()) {
        return POINTER;
    }
    around.push(message.full_name().to_string());
    let mut own = |field: FieldDescriptor| match field.cardinality() {
        Cardinality::Repeated => size_of::<Vec<u8>>(),
        _ => one(&field, around),
    };
    let mut size = 0;
    let mut choices = HashMap::new();
    for field in message.fields() {
        // Those of which a message has one at a time are in the same place.
        let choice = field.containing_oneof().filter(|choice| !choice.is_synthetic());
        let own = own(field);
        match choice {
            None => size += own,
            Some(choice) => {
                let most = choices.entry(choice.name().to_string()).or_insert(0);
                *most = own.max(*most);
            }
        }
    }
    around.pop();
    size + choices.into_values().sum::<usize>()
}

/// Bytes of a value of a field.
fn one(field: &FieldDescriptor, around: &mut Vec<String>) -> usize {
    match field.kind() {
        Kind::Message(message) => size(&message, around),
        Kind::String => size_of::<String>(),
        Kind::Bytes => size_of::<bytes::Bytes>(),
        Kind::Bool => 1,
        Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Fixed32 | Kind::Sfixed32 => 4,
        Kind::Float | Kind::Enum(_) => 4,
        _ => 8,
    }
}

/// Bytes of an element of a list, or of an entry of a map, which is in a tree.
fn element(field: &FieldDescriptor) -> usize {
    let own = one(field, &mut Vec::new());
    if field.is_map() { 2 * own } else { own }
}

/// Takes what a message costs from what is left; `None` where that is not enough.
fn spend(
    all: &[Layout],
    layout: usize,
    mut bytes: &[u8],
    deep: usize,
    left: &mut usize,
) -> Option<()> {
    let Layout { fields } = &all[layout];
    let mut before = 0;
    while let Ok(key) = decode_varint(&mut bytes) {
        let number = (key >> 3) as u32;
        let value: &[u8] = match key & 7 {
            0 if decode_varint(&mut bytes).is_ok() => &[],
            1 if bytes.len() >= 8 => split(&mut bytes, 8),
            5 if bytes.len() >= 4 => split(&mut bytes, 4),
            2 => match decode_varint(&mut bytes) {
                Ok(size) if size <= bytes.len() as u64 => split(&mut bytes, size as usize),
                _ => break,
            },
            // What is in a group of fields is looked at as if it were here.
            3 | 4 => continue,
            _ => break,
        };
        let Ok(at) = fields.binary_search_by_key(&number, |(number, _)| *number) else { continue };
        let Field { element, is } = fields[at].1;
        let elements = match is {
            // A list in one piece.
            Is::Number if key & 7 == 2 => value.len().max(FIRST),
            _ if number != before => FIRST,
            _ => 1,
        };
        before = number;
        *left = left.checked_sub(element.saturating_mul(elements))?;
        match is {
            Is::Number => {}
            Is::Text => *left = left.checked_sub(value.len())?,
            Is::Message(inner) if deep > 0 => spend(all, inner, value, deep - 1, left)?,
            Is::Message(_) => {}
        }
    }
    Some(())
}

fn split<'b>(bytes: &mut &'b [u8], size: usize) -> &'b [u8] {
    let value = &bytes[..size];
    bytes.advance(size);
    value
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::inference::ModelInferRequest;
    use crate::proto::inference::model_infer_request::InferInputTensor;
    use crate::proto::serving::{PredictRequest, RegressionRequest};
    use crate::proto::tensorflow::{MetaGraphDef, TensorProto};

    #[test]
    fn sizes_are_those_of_the_messages() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let within = |name: &str, real: usize| {
            let estimated = size(&pool.get_message_by_name(name).unwrap(), &mut Vec::new());
            assert!(
                (real * 2 / 3..=real * 3 / 2).contains(&estimated),
                "{name}: {estimated}, {real}"
            );
        };
        within("tensorflow.TensorProto", size_of::<TensorProto>());
        within("tensorflow.MetaGraphDef", size_of::<MetaGraphDef>());
        within("tensorflow.serving.RegressionRequest", size_of::<RegressionRequest>());
        within("inference.ModelInferRequest.InferInputTensor", size_of::<InferInputTensor>());
    }

    #[test]
    fn few_bytes_are_not_very_many_parts() {
        let check = |bytes: &[u8]| super::check("inference.ModelInferRequest", bytes);
        let inputs = |number: usize| [0x2a, 0].repeat(number);
        assert!(check(&inputs(1000)).is_ok());
        let message = check(&inputs(1 << 20)).unwrap_err().message;
        assert!(message.starts_with("the request's 2097152 bytes have so many parts"), "{message}");
        // In a message inside, as numbers, and behind what is unknown or a group.
        let contents = [vec![0x2a, 4, 0x2a, 2, 0x12, 0], inputs(1 << 20)].concat();
        assert!(check(&contents).is_err());
        assert!(check(&[vec![0x7b, 0xa0, 6, 1, 0x7c], inputs(1 << 20)].concat()).is_err());
        let raw = ModelInferRequest {
            raw_input_contents: vec![vec![0x2a; 64 << 20].into(), vec![0; 64 << 20].into()],
            ..ModelInferRequest::default()
        };
        assert!(check(&raw.encode_to_vec()).is_ok());
        // Lists of numbers and of short strings are usual.
        let tensor = TensorProto {
            int64_val: vec![0; 8 << 20],
            string_val: vec![bytes::Bytes::from_static(b"a"); 2 << 20],
            ..TensorProto::default()
        };
        let inputs = std::collections::BTreeMap::from([("x".to_string(), tensor)]);
        let request = PredictRequest { inputs, ..PredictRequest::default() };
        assert!(
            super::check("tensorflow.serving.PredictRequest", &request.encode_to_vec()).is_ok()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            for name in ["inference.ModelInferRequest", "tensorflow.serving.ReloadConfigRequest", "x"] {
                proptest::prop_assert!(check(name, &bytes).is_ok());
            }
        }
    }
}

//! The messages of TensorFlow Serving and of KServe, and their text and JSON forms.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use session_group::{Code, Error, Result};
use session_group_serving::text_format::Messages;

#[allow(missing_docs, dead_code, clippy::all)]
mod generated {
    pub mod inference {
        include!(concat!(env!("OUT_DIR"), "/inference.rs"));
    }
    pub mod session_group {
        include!(concat!(env!("OUT_DIR"), "/session_group.rs"));
    }
    /// Generated code finds messages of other packages by these paths.
    pub mod tensorflow {
        pub use session_group_serving::tensorflow::*;
        pub mod serving {
            include!(concat!(env!("OUT_DIR"), "/tensorflow.serving.rs"));
        }
    }
}

pub use generated::inference;
pub use generated::session_group::SessionGroupConfig;
pub use generated::tensorflow::serving;
pub use session_group_serving::tensorflow;

/// Descriptors of all messages and services, serialised.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| Messages::new(DESCRIPTORS));

/// Reads a file in protobuf's text format. `name` is the message's full name, that of `M`.
pub fn read_text<M: Message + Default>(path: &Path, name: &str) -> Result<M> {
    let text = fs::read_to_string(path)
        .map_err(|error| Error::new(Code::NotFound, format!("{}: {error}", path.display())))?;
    MESSAGES.parse(&text, name).map_err(|error| {
        Error::invalid(format!("Invalid protobuf file: '{}': {error}", path.display()))
    })
}

/// The message in protobuf's JSON form, as TensorFlow Serving prints it: with the names of the definition, with
/// fields that are not set, and indented by one space for each level.
pub fn to_json<M: Message>(message: &M, name: &str) -> String {
    json(message, name, &SerializeOptions::new())
}

/// The same, but numbers of 64 bits are numbers, not strings.
pub fn to_plain_json<M: Message>(message: &M, name: &str) -> String {
    json(message, name, &SerializeOptions::new().stringify_64_bit_integers(false))
}

fn json<M: Message>(message: &M, name: &str, options: &SerializeOptions) -> String {
    let mut dynamic = DynamicMessage::new(MESSAGES.descriptor(name));
    dynamic.transcode_from(message).expect("the same message");
    let options = options.clone().use_proto_field_name(true).skip_default_fields(false);
    let mut json = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, style);
    dynamic.serialize_with_options(&mut serializer, &options).expect("memory takes it");
    String::from_utf8(json).expect("JSON is text")
}

#[cfg(test)]
mod tests {
    use super::serving::ModelServerConfig;
    use super::serving::model_server_config::Config;
    use super::*;

    #[test]
    fn text_is_read_and_mistakes_name_their_place() {
        let text = r#"
            model_config_list {
              config {
                name: "m" base_path: "/m" model_platform: "tensorflow"
                model_version_policy { specific { versions: 3 versions: 5 } }
                version_labels { key: "stable" value: 3 }
                session_group { cpuset: "0;1" }
              }
            }"#;
        let config: ModelServerConfig =
            MESSAGES.parse(text, "tensorflow.serving.ModelServerConfig").unwrap();
        let Some(Config::ModelConfigList(list)) = config.config else { panic!("a list") };
        assert_eq!(list.config[0].version_labels["stable"], 3);
        assert_eq!(list.config[0].session_group.as_ref().unwrap().cpuset(), "0;1");
        let wrong = MESSAGES.parse::<ModelServerConfig>(
            "model_config_list { config { nome: 'm' } }",
            "tensorflow.serving.ModelServerConfig",
        );
        assert!(wrong.unwrap_err().to_string().contains("nome"));
    }
}

//! The messages of TensorFlow Serving, and their text and JSON forms.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use session_group::{Error, Result};

#[allow(missing_docs, dead_code, clippy::all)]
mod generated {
    pub mod session_group {
        include!(concat!(env!("OUT_DIR"), "/session_group.rs"));
    }
    /// The package of a message is where others look for it.
    pub mod tensorflow {
        pub use session_group_serving::tensorflow::*;
        pub mod serving {
            include!(concat!(env!("OUT_DIR"), "/tensorflow.serving.rs"));
        }
    }
}

pub use generated::session_group::SessionGroupConfig;
pub use generated::tensorflow::serving;
pub use session_group_serving::tensorflow;

/// Descriptors of all messages and services, serialised.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("as the compiler made them"));

/// Reads a file in protobuf's text format. `name` is the message's full name, that of `M`.
pub fn read_text<M: Message + Default>(path: &Path, name: &str) -> Result<M> {
    let text = fs::read_to_string(path).map_err(|error| {
        Error::new(session_group::Code::NotFound, format!("{}: {error}", path.display()))
    })?;
    parse_text(&text, name).map_err(|error| {
        Error::invalid(format!("Invalid protobuf file: '{}': {error}", path.display()))
    })
}

fn parse_text<M: Message + Default>(text: &str, name: &str) -> anyhow::Result<M> {
    let descriptor = POOL.get_message_by_name(name).expect("a message of this name");
    Ok(DynamicMessage::parse_text_format(descriptor, text)?.transcode_to()?)
}

/// The message in protobuf's JSON form, as TensorFlow Serving prints it: names as in the definition,
/// what is not set, too, and one space for each level.
pub fn to_json<M: Message>(message: &M, name: &str) -> String {
    let descriptor = POOL.get_message_by_name(name).expect("a message of this name");
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).expect("the same message");
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
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
            parse_text(text, "tensorflow.serving.ModelServerConfig").unwrap();
        let Some(Config::ModelConfigList(list)) = config.config else { panic!("a list") };
        assert_eq!(list.config[0].version_labels["stable"], 3);
        assert_eq!(list.config[0].session_group.as_ref().unwrap().cpuset(), "0;1");
        let wrong = parse_text::<ModelServerConfig>(
            "model_config_list { config { nome: 'm' } }",
            "tensorflow.serving.ModelServerConfig",
        );
        assert!(wrong.unwrap_err().to_string().contains("nome"));
    }
}

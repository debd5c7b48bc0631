//! Protobuf's text format, in which people and TensorFlow write files.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

/// The messages that a program knows, by their full names.
pub struct Messages(DescriptorPool);

impl Messages {
    /// From a serialised `FileDescriptorSet` that the build script made.
    pub fn new(descriptors: &[u8]) -> Self {
        Self(DescriptorPool::decode(descriptors).expect("the build script made it"))
    }

    /// The message of this name, which must be there.
    pub fn descriptor(&self, name: &str) -> MessageDescriptor {
        let found = self.0.get_message_by_name(name);
        found.unwrap_or_else(|| panic!("the build script compiled no message {name}"))
    }

    /// Reads a text. `name` is the full name of `M`.
    pub fn parse<M: Message + Default>(&self, text: &str, name: &str) -> anyhow::Result<M> {
        Ok(DynamicMessage::parse_text_format(self.descriptor(name), text)?.transcode_to()?)
    }
}

//! Compiles TensorFlow's messages, without protoc, and makes tests find the TensorFlow that session-group was
//! linked with.

#[path = "proto_files.rs"]
mod proto_files;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(dir) = std::env::var("DEP_SESSION_GROUP_TENSORFLOW_LIBDIR") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{dir}");
    }
    let proto = Path::new("proto");
    println!("cargo::rerun-if-changed=build.rs");
    let descriptors = protox::compile(proto_files::find(&[proto])?, [proto])?;
    prost_build::Config::new()
        // Slices of the request, not copies.
        .bytes([".tensorflow.TensorProto.tensor_content", ".tensorflow.TensorProto.string_val"])
        .btree_map(["."])
        .include_file("protos.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

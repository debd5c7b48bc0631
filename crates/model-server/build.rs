//! Compiles the messages and services of TensorFlow Serving and of KServe, without protoc, and makes the program find the
//! TensorFlow that session-group was linked with.

#[path = "../serving-common/proto_files.rs"]
mod proto_files;

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(dir) = std::env::var("DEP_SESSION_GROUP_TENSORFLOW_LIBDIR") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{dir}");
    }
    // Where `make install-serving` and the container install it.
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/session_group/tensorflow");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    println!("cargo::rerun-if-changed=build.rs");
    // The server's own messages, and TensorFlow's, whose types serving-common has.
    let folders = [Path::new("proto"), Path::new("../serving-common/proto")];
    let descriptors = protox::compile(proto_files::find(&folders)?, folders)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For reflection, and to read and write messages as text and JSON.
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    // Tensors, which are used where they lie.
    config.bytes([".inference"]);
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::codec::Codec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

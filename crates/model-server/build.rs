//! Compiles the messages and services of TensorFlow Serving, without protoc, and makes the program find the
//! TensorFlow that session-group was linked with.

#[path = "../serving-common/proto_files.rs"]
mod proto_files;

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(dir) = std::env::var("DEP_SESSION_GROUP_TENSORFLOW_LIBDIR") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{dir}");
    }
    // Where it is installed: by make install-serving, and in the container.
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/session_group/tensorflow");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    // TensorFlow's own messages, of which that crate has the types.
    let (proto, tensorflow) = (Path::new("proto"), Path::new("../serving-common/proto"));
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    for folder in [proto, tensorflow] {
        println!("cargo::rerun-if-changed={}", folder.display());
        proto_files::find(folder, &mut files)?;
    }
    let descriptors = protox::compile(&files, [proto, tensorflow])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For reflection, and for what is read and written as text and JSON.
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

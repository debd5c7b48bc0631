//! Compiles the processor's messages, without protoc, and makes what is linked find the TensorFlow that
//! session-group was linked with.

use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Where session-group-tensorflow links to it; then, where it was linked.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,$ORIGIN/session_group/tensorflow");
    if let Ok(dir) = std::env::var("DEP_SESSION_GROUP_TENSORFLOW_LIBDIR") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{dir}");
    }
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libserving_processor.so");
    // No functions but its own, so that it goes with libsession_group.so in one process.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    println!("cargo::rerun-if-changed=build.rs");
    // TensorFlow's own messages, of which that crate has the types.
    let folders = [Path::new("proto"), Path::new("../serving-common/proto")];
    for folder in folders {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let descriptors = protox::compile(["proto/predict.proto", "proto/model.proto"], folders)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For what is read as text.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        .bytes([".tensorflow.eas.ArrayProto.string_val"])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}

//! Compiles the processor's messages, without protoc, and makes what is linked find the TensorFlow that
//! session-group was linked with.

#[path = "../serving-common/proto_files.rs"]
mod proto_files;

use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // TensorFlow is found where session-group-tensorflow links to it, then where this was linked.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,$ORIGIN/session_group/tensorflow");
    if let Ok(dir) = std::env::var("DEP_SESSION_GROUP_TENSORFLOW_LIBDIR") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{dir}");
    }
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libserving_processor.so");
    // TensorFlow keeps what this registers with it until the process ends.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // It exports only its own functions, so that it and libsession_group.so can live in one process.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    println!("cargo::rerun-if-changed=build.rs");
    // TensorFlow's messages, which these import, have their types in serving-common.
    let (proto, tensorflow) = (Path::new("proto"), Path::new("../serving-common/proto"));
    println!("cargo::rerun-if-changed={}", tensorflow.display());
    let descriptors = protox::compile(proto_files::find(&[proto])?, [proto, tensorflow])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // To read messages as text.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        .bytes([".tensorflow.eas.ArrayProto.string_val"])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}

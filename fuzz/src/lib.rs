//! What fuzz targets share: [`status`] to call the C ABI with, [`models`] to run, [`wire`] to change protocol
//! buffers so that they can still be parsed and [`frames`] to do so with HTTP/2, [`stock`] to see what TensorFlow does
//! by itself, the [`server`], and [`checkpoint`]s with their [`index`].

pub mod checkpoint;
pub mod frames;
pub mod index;
pub mod models;
pub mod server;
pub mod status;
pub mod stock;
pub mod wire;

/// A new folder of this process, below that for temporary files.
pub fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("session_group_{name}.{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

//! The comparison on a GPU: which contenders, how they find it, what they take of its memory.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::contender::Contender;

/// Where CUDA's processes look for the MPS control daemon.
const MPS_VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";

/// All that can be compared here.
pub fn contenders() -> Vec<Contender> {
    let all = Contender::value_variants().iter().copied().filter(|contender| contender.is_on_gpu());
    if mps_directory().join("control").exists() {
        return all.collect();
    }
    eprintln!("No MPS control daemon in {}: processes run without.", mps_directory().display());
    all.filter(|&contender| contender != Contender::GpuProcessesMps).collect()
}

fn mps_directory() -> PathBuf {
    std::env::var_os(MPS_VARIABLE).map_or_else(|| "/tmp/nvidia-mps".into(), PathBuf::from)
}

/// Keeps the processes of a contender away from the daemon, unless they are to have it.
pub fn prepare(contender: Contender, command: &mut Command) {
    if contender.is_on_gpu() && contender != Contender::GpuProcessesMps {
        command.env(MPS_VARIABLE, "/nonexistent");
    }
}

/// Loads a library that brings devices with it.
pub fn load(library: &Path) -> Result<()> {
    let path = CString::new(library.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string; what runs when the library is loaded is made for that.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    ensure!(!handle.is_null(), "{} can't be loaded", library.display());
    Ok(())
}

/// The bytes of the first GPU that are in use, by all processes; an error where there is no GPU of
/// NVIDIA's.
pub fn memory() -> Result<u64> {
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mib: u64 = text.trim().parse().with_context(|| format!("nvidia-smi said {text:?}"))?;
    Ok(mib << 20)
}

//! Whether TensorFlow computes with oneDNN, or with Eigen.

use std::process::Command;

use anyhow::{Context, Result};

use crate::contender::{Contender, Family};

/// Where TensorFlow looks, once in a process. Unset, it decides by what the CPU can.
pub const VARIABLE: &str = "TF_ENABLE_ONEDNN_OPTS";

/// Switches oneDNN off for the contenders that are to be without.
pub fn prepare(contender: Contender, command: &mut Command) {
    if contender.is_without_onednn() {
        command.env(VARIABLE, "0");
    }
}

/// Whether this process's TensorFlow uses oneDNN; nothing where the contender is not TensorFlow.
pub fn in_use(contender: Contender) -> Result<Option<bool>> {
    if !matches!(contender.family(), Family::Stock | Family::Group) {
        return Ok(None);
    }
    // tensorflow::IsMKLEnabled(), of tensorflow/core/util/util.h.
    let name = c"_ZN10tensorflow12IsMKLEnabledEv";
    // SAFETY: the name is a C string.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    let symbol = std::ptr::NonNull::new(symbol)
        .context("TensorFlow has no IsMKLEnabled(): the benchmark is for TensorFlow 2.21")?;
    // SAFETY: the mangled name says that it is a function without arguments; its header, that it
    // returns a bool.
    let is_enabled: extern "C" fn() -> bool = unsafe { std::mem::transmute(symbol) };
    Ok(Some(is_enabled()))
}

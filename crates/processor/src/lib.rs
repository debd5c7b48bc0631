//! DeepRec's serving ABI on session groups: `libserving_processor.so`.
//!
//! In reading order: `ffi` is the C ABI over [`handles`], which finds the [`model`] of a request. [`config`]
//! says what it shall be, [`template`] what its SavedModel is, with the help of [`graph`]; [`predict`] turns
//! requests into feeds and fetches of a [`signature`], tensors by [`mod@array`], which run on what is [`served`].
//! [`update`] takes the [`versions`] that appear on disk, [`delta`]s by reading their [`bundle`], partitioned
//! variables by their [`slices`], and lets each session run a [`warmup`]. [`proto`] are the messages.

#![allow(missing_docs)] // C sees `ffi`, which is documented; the rest is public for tests.

pub mod array;
pub mod bundle;
pub mod config;
pub mod delta;
mod ffi;
pub mod graph;
pub mod handles;
pub mod model;
pub mod predict;
pub mod proto;
pub mod served;
pub mod signature;
pub mod slices;
pub mod template;
pub mod update;
pub mod versions;
pub mod warmup;

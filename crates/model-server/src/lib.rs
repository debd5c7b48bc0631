//! A model server that TensorFlow Serving's clients can't tell from it, on session groups. Triton's clients may ask
//! it, too.
//!
//! In reading order: [`flags`] is the command line, [`config`] what follows from it, [`serve`] starts and ends
//! everything. [`connections`] accepts connections and hands them to [`serving_threads`], with [`tls`], [`watched`],
//! `held_pong`, [`activity`], [`arrival`], [`authority`] and [`grpc_arguments`]. [`grpc`] and [`rest`] are the
//! protocols, and `v2` is KServe's, over [`core`], which waits for a thread of a [`lane`] unless the [`pace`] of such
//! requests, taken by a `stopwatch`, says that they are short, finds a [`servable`] in the [`catalog`] and computes
//! with it: [`predict`] or [`examples`], alone or in [`turns`] by [`batching`], until its [`deadline`]. [`manager`] decides which
//! [`versions`] to load, by a [`loader`] and with their [`warmup`]. [`log`] is the log; [`metrics`] counts; [`proto`]
//! and [`tensor`] are the messages, which `codec` reads unless `cost` says that they would take too much memory, and
//! `json` is REST's form of them.
//!
//! A module uses those after it, never one before: `serve`; `loader`, `rest`; `v2`; `grpc`, `json`; `config`, `core`,
//! `warmup`; `manager`, `examples`; `predict`, `catalog`; `servable`; `warm_runs`; `batching`; the rest.

#![allow(missing_docs)] // It is a program; its parts are public for the benchmark and for fuzzing.

pub mod activity;
pub mod arrival;
pub mod authority;
pub mod batching;
pub mod catalog;
mod codec;
pub mod config;
pub mod connections;
pub mod core;
mod cost;
pub mod deadline;
pub mod examples;
mod files;
pub mod flags;
#[cfg(fuzzing)]
pub mod fuzzing;
// So that it compiles when it is needed.
#[cfg(all(test, not(fuzzing)))]
#[allow(unused)]
mod fuzzing;
pub mod grpc;
pub mod grpc_arguments;
mod held_pong;
mod json;
pub mod lane;
pub mod loader;
pub mod log;
pub mod manager;
pub mod metrics;
pub mod pace;
pub mod predict;
pub mod proto;
pub mod rest;
pub mod servable;
pub mod serve;
pub mod serving_threads;
mod stopwatch;
pub mod tensor;
pub mod tls;
pub mod turns;
mod v2;
pub mod versions;
mod warm_runs;
pub mod warmup;
pub mod watched;

//! The ways to serve that are compared: [`stock`] TensorFlow, session [`group`]s, ONNX Runtime
//! ([`onnx`]) and [`openvino`].

pub mod group;
pub mod onnx;
pub mod openvino;
pub mod stock;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::feeds::Feed;
use crate::model::Model;

/// A way to serve a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// One stock session with TensorFlow's defaults
    Stock,
    /// One stock session that runs on its callers' threads
    StockInline,
    /// The same without oneDNN: with TensorFlow's Eigen kernels
    StockInlineEigen,
    /// N stock sessions with TensorFlow's defaults
    Independent,
    /// N stock sessions that run on their callers' threads
    IndependentInline,
    /// N processes, each on a core of its own with one stock session that runs on its caller's thread
    Processes,
    /// The same without oneDNN
    ProcessesEigen,
    /// A group that runs on its callers' threads, which are pinned
    GroupCaller,
    /// The same, with names that are looked up once
    GroupCallable,
    /// The same without oneDNN
    GroupCallableEigen,
    /// A callable of a group whose requests go round robin, on the threads that call
    GroupRoundRobin,
    /// The same with policy `least_loaded`
    GroupLeastLoaded,
    /// The same with policy `cpu_local`
    GroupCpuLocal,
    /// A group whose sessions have a pinned worker thread each
    GroupWorker,
    /// A group that runs on its sessions' inter-op pools
    GroupPool,
    /// One ONNX Runtime session with its defaults
    Onnx,
    /// One ONNX Runtime session that runs on its callers' threads
    OnnxInline,
    /// N ONNX Runtime sessions that run on their callers' threads
    OnnxIndependent,
    /// The same, with shared initialisers and prepacked weights
    OnnxShared,
    /// OpenVINO with N streams of one thread, hint THROUGHPUT
    OpenvinoThroughput,
    /// OpenVINO with the hint LATENCY
    OpenvinoLatency,
    /// On a GPU: one stock session
    GpuStock,
    /// A group whose sessions share the GPU's one stream
    GpuOneStream,
    /// A group of one session
    GpuStreams1,
    /// A group of two sessions with a stream each
    GpuStreams2,
    /// The same of four
    GpuStreams4,
    /// The same of eight
    GpuStreams8,
    /// N processes with a stock session each
    GpuProcesses,
    /// The same under CUDA's Multi-Process Service
    GpuProcessesMps,
}

/// Whose code a contender runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Stock,
    Group,
    Onnx,
    Openvino,
}

impl Contender {
    /// Its name in the report.
    pub fn title(self, n: usize) -> String {
        match self {
            Self::Stock => "TensorFlow, 1 session".into(),
            Self::StockInline => "TensorFlow, 1 session, inline".into(),
            Self::StockInlineEigen => "TensorFlow, 1 session, inline, Eigen".into(),
            Self::Independent => format!("TensorFlow, {n} sessions"),
            Self::IndependentInline => format!("TensorFlow, {n} sessions, inline"),
            Self::Processes => format!("TensorFlow, {n} processes"),
            Self::ProcessesEigen => format!("TensorFlow, {n} processes, Eigen"),
            Self::GroupCaller => format!("group of {n}, caller"),
            Self::GroupCallable => format!("group of {n}, callable"),
            Self::GroupCallableEigen => format!("group of {n}, callable, Eigen"),
            Self::GroupRoundRobin => format!("group of {n}, callable, round_robin"),
            Self::GroupLeastLoaded => format!("group of {n}, callable, least_loaded"),
            Self::GroupCpuLocal => format!("group of {n}, callable, cpu_local"),
            Self::GroupWorker => format!("group of {n}, worker"),
            Self::GroupPool => format!("group of {n}, pool"),
            Self::Onnx => "ONNX Runtime, 1 session".into(),
            Self::OnnxInline => "ONNX Runtime, 1 session, inline".into(),
            Self::OnnxIndependent => format!("ONNX Runtime, {n} sessions"),
            Self::OnnxShared => format!("ONNX Runtime, {n} sessions, shared"),
            Self::OpenvinoThroughput => format!("OpenVINO, {n} streams"),
            Self::OpenvinoLatency => "OpenVINO, latency".into(),
            Self::GpuStock => "TensorFlow, 1 session".into(),
            Self::GpuOneStream => format!("group of {n}, one stream"),
            Self::GpuStreams1 => "group of 1, its own stream".into(),
            Self::GpuStreams2 => "group of 2, 2 streams".into(),
            Self::GpuStreams4 => "group of 4, 4 streams".into(),
            Self::GpuStreams8 => "group of 8, 8 streams".into(),
            Self::GpuProcesses => format!("TensorFlow, {n} processes"),
            Self::GpuProcessesMps => format!("TensorFlow, {n} processes, MPS"),
        }
    }

    pub fn family(self) -> Family {
        match self {
            Self::Stock
            | Self::StockInline
            | Self::StockInlineEigen
            | Self::Independent
            | Self::IndependentInline
            | Self::Processes
            | Self::ProcessesEigen
            | Self::GpuStock
            | Self::GpuProcesses
            | Self::GpuProcessesMps => Family::Stock,
            Self::GroupCaller
            | Self::GroupCallable
            | Self::GroupCallableEigen
            | Self::GroupRoundRobin
            | Self::GroupLeastLoaded
            | Self::GroupCpuLocal
            | Self::GroupWorker
            | Self::GroupPool
            | Self::GpuOneStream
            | Self::GpuStreams1
            | Self::GpuStreams2
            | Self::GpuStreams4
            | Self::GpuStreams8 => Family::Group,
            Self::Onnx | Self::OnnxInline | Self::OnnxIndependent | Self::OnnxShared => {
                Family::Onnx
            }
            Self::OpenvinoThroughput | Self::OpenvinoLatency => Family::Openvino,
        }
    }

    /// Whether graphs run on the clients' threads, which then get a core each. Otherwise they must
    /// leave the choice of cores to the scheduler, since other threads do the work.
    pub fn runs_on_clients(self) -> bool {
        match self {
            Self::StockInline
            | Self::StockInlineEigen
            | Self::IndependentInline
            | Self::Processes
            | Self::ProcessesEigen
            | Self::GroupCaller
            | Self::GroupCallable
            | Self::GroupCallableEigen
            | Self::GroupRoundRobin
            | Self::GroupLeastLoaded
            | Self::GroupCpuLocal
            | Self::OnnxInline
            | Self::OnnxIndependent
            | Self::OnnxShared => true,
            Self::Stock
            | Self::Independent
            | Self::GroupWorker
            | Self::GroupPool
            | Self::Onnx
            | Self::OpenvinoThroughput
            | Self::OpenvinoLatency
            | Self::GpuStock
            | Self::GpuOneStream
            | Self::GpuStreams1
            | Self::GpuStreams2
            | Self::GpuStreams4
            | Self::GpuStreams8
            | Self::GpuProcesses
            | Self::GpuProcessesMps => false,
        }
    }

    /// Whether it is for [`gpu`](crate::gpu).
    pub fn is_on_gpu(self) -> bool {
        let others =
            [Self::GpuStock, Self::GpuOneStream, Self::GpuProcesses, Self::GpuProcessesMps];
        self.streams().is_some() || others.contains(&self)
    }

    /// Whether it differs from another one in its policy alone, which matters with many cores: it is
    /// for [`scaling`](crate::scaling).
    pub fn is_for_scaling(self) -> bool {
        matches!(self, Self::GroupRoundRobin | Self::GroupLeastLoaded | Self::GroupCpuLocal)
    }

    /// How many streams of a GPU a group has, each for a session.
    pub fn streams(self) -> Option<usize> {
        match self {
            Self::GpuStreams1 => Some(1),
            Self::GpuStreams2 => Some(2),
            Self::GpuStreams4 => Some(4),
            Self::GpuStreams8 => Some(8),
            _ => None,
        }
    }

    /// Whether it is N processes.
    pub fn is_processes(self) -> bool {
        matches!(
            self,
            Self::Processes | Self::ProcessesEigen | Self::GpuProcesses | Self::GpuProcessesMps
        )
    }

    /// Whether its processes switch oneDNN off. The others leave it to TensorFlow, which looks at the
    /// CPU.
    pub fn is_without_onednn(self) -> bool {
        matches!(self, Self::StockInlineEigen | Self::ProcessesEigen | Self::GroupCallableEigen)
    }

    /// Loads a model and makes a client for each thread that will send requests.
    pub fn load(self, job: Job) -> Result<Loaded> {
        match self.family() {
            Family::Stock => stock::load(self, job),
            Family::Group => group::load(self, job),
            Family::Onnx => onnx::load(self, job),
            Family::Openvino => openvino::load(self, job),
        }
    }
}

/// What to serve, and to whom. A process does it until it ends, so that nothing here is ever freed.
#[derive(Clone, Copy)]
pub struct Job {
    pub model: &'static Model,
    pub requests: &'static [Vec<Feed>],
    pub batch: u32,
    pub sessions: usize,
    pub clients: usize,
    pub cpus: &'static [u32],
    pub venv: &'static Path,
}

/// A contender that is ready.
pub struct Loaded {
    pub clients: Vec<Box<dyn Client>>,
    /// The name and version of what serves.
    pub version: String,
}

/// What a thread needs to send requests.
pub trait Client: Send {
    /// Sends a request of the pool and waits for its answer.
    fn run(&mut self, request: usize) -> Result<()>;

    /// The answer to the request that ran last.
    fn answer(&self) -> Result<Vec<f32>>;
}

/// A library that a wheel has installed into a virtual environment: the first file in `folder` of
/// its packages whose name starts so.
fn library(venv: &Path, folder: &str, name: &str) -> Result<PathBuf> {
    let missing =
        || format!("{name} is not installed in {}: run `make bench-models`", venv.display());
    let python = entry(&venv.join("lib"), "python3").with_context(missing)?;
    entry(&python.join("site-packages").join(folder), name).with_context(missing)
}

fn entry(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let names = std::fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let matches = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    names.map(|entry| entry.path()).find(matches)
}

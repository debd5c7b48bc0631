//! What is measured, and for how long.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use session_group::affinity;

use crate::contender::Contender;
use crate::gpu;

/// A model of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    WideDeep,
    Dlrm,
    Ranker,
    /// A transformer with constants in the graph that are only partly asked for
    Decoder,
    /// A loop of TensorFlow 1 over embeddings
    Tagger,
    /// Two loops of TensorFlow 1 with LSTMs, reference variables
    BilstmTagger,
    /// A loop of 100 turns of TensorFlow 1, reference variables
    Gru,
    /// Feature columns, as tf.estimator exports them: tf.Examples, partitioned reference variables
    WideDeepColumns,
    Convnet,
    MlpFrozen,
    /// 363 MB of constants, for `memory`
    MlpFrozenHuge,
    /// 3.5 GB of variables, for `memory`
    LargeVariables,
    Trivial,
}

impl Model {
    /// Those that are compared; the others are for special purposes.
    const COMPARED: [Self; 11] = [
        Self::WideDeep,
        Self::Dlrm,
        Self::Ranker,
        Self::Decoder,
        Self::Tagger,
        Self::BilstmTagger,
        Self::Gru,
        Self::WideDeepColumns,
        Self::Convnet,
        Self::MlpFrozen,
        Self::Trivial,
    ];

    /// The folder's name.
    pub fn name(self) -> String {
        name(&self).replace('-', "_")
    }

    /// What it is, for the report.
    pub fn title(self) -> &'static str {
        match self {
            Self::WideDeep => "Wide & Deep, 339 MB",
            Self::Dlrm => "DLRM, 166 MB",
            Self::Ranker => "transformer ranker, 51 MB",
            Self::Decoder => "frozen transformer decoder, 16 MB",
            Self::Tagger => "frozen tagger with a loop, 56 MB",
            Self::BilstmTagger => "BiLSTM tagger of TensorFlow 1, 26 MB",
            Self::Gru => "GRU of 100 turns of TensorFlow 1, 13 MB",
            Self::WideDeepColumns => "Wide & Deep of feature columns of TensorFlow 1, 88 MB",
            Self::Convnet => "convolutional net, 96 x 96",
            Self::MlpFrozen => "frozen MLP, 5 MB",
            Self::MlpFrozenHuge => "frozen MLP, 363 MB",
            Self::LargeVariables => "lookups in 3.5 GB",
            Self::Trivial => "x + 1",
        }
    }
}

/// The name of a variant on the command line.
pub fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().expect("every variant has a name").get_name().to_string()
}

/// What all contenders have in common.
#[derive(Args, Clone)]
pub struct Setup {
    /// Sessions, clients and processes where a contender has N of them; default: one for each CPU
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    sessions: Option<u16>,
    /// Folder of the exported models
    #[arg(long, default_value = "models/build/bench")]
    pub models_dir: PathBuf,
    /// Virtual environment with ONNX Runtime and OpenVINO
    #[arg(long, default_value = "tools/bench/.venv")]
    pub venv: PathBuf,
    /// Library to load first, with devices for TensorFlow
    #[arg(long)]
    pub device_library: Option<PathBuf>,
}

impl Setup {
    /// The N of the contenders.
    pub fn sessions(&self) -> Result<usize> {
        Ok(match self.sessions {
            Some(sessions) => usize::from(sessions),
            None => affinity::allowed()?.len(),
        })
    }

    pub fn with_sessions(&self, sessions: u16) -> Self {
        Self { sessions: Some(sessions), ..self.clone() }
    }
}

/// What to compare.
#[derive(Args, Clone)]
pub struct Settings {
    #[command(flatten)]
    pub setup: Setup,
    /// Models; default: all but mlp-frozen-huge
    #[arg(long, value_delimiter = ',')]
    models: Vec<Model>,
    /// Rows of a request [default: 1,32]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    batches: Vec<u32>,
    /// Contenders; default: all
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Turns of each contender: in a closed loop, and in an open loop with each load [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Length of a turn [default: 0.8]
    #[arg(long)]
    seconds: Option<f64>,
    /// How often a turn is repeated that something else disturbed [default: 2]
    #[arg(long)]
    redo: Option<u32>,
    /// Fewer models, batches and rounds, where you don't say otherwise: under 3 minutes
    #[arg(long)]
    quick: bool,
    /// Folder of the report
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
}

impl Settings {
    pub fn models(&self) -> Vec<Model> {
        let quick = [Model::WideDeep, Model::Trivial];
        or(&self.models, if self.quick { &quick } else { &Model::COMPARED })
    }

    pub fn batches(&self) -> Vec<u32> {
        or(&self.batches, if self.quick { &[1] } else { &[1, 32] })
    }

    pub fn contenders(&self) -> Vec<Contender> {
        let all = Contender::value_variants().iter().copied();
        let all = all.filter(|one| !one.is_on_gpu() && !one.is_for_scaling());
        or(&self.contenders, &all.collect::<Vec<_>>())
    }

    /// With what is usual on a GPU where nothing else is said.
    pub fn on_gpu(&self) -> Self {
        let mut settings = self.clone();
        settings.contenders = or(&self.contenders, &gpu::contenders());
        settings.models = or(&self.models, &[Model::Dlrm, Model::Ranker, Model::MlpFrozen]);
        settings.setup.sessions = self.setup.sessions.or(Some(4));
        settings
    }

    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 4 })
    }

    pub fn seconds(&self) -> Result<f64> {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.2 } else { 0.8 });
        ensure!((0.01..=3600.0).contains(&seconds), "--seconds must be 0.01 to 3600");
        Ok(seconds)
    }

    pub fn redo(&self) -> u32 {
        self.redo.unwrap_or(if self.quick { 0 } else { 2 })
    }
}

fn or<T: Clone>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default.to_vec() } else { given.to_vec() }
}

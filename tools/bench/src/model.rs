//! A model as it lies on the disk: `model.json`, which its export has written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What to feed, what to fetch and where the weights are.
#[derive(Deserialize)]
pub struct Model {
    #[serde(skip)]
    dir: PathBuf,
    /// The SavedModel's folder or the GraphDef's file.
    file: String,
    pub inputs: Vec<Input>,
    pub output: Output,
    pub weights: Vec<Weight>,
}

#[derive(Deserialize)]
pub struct Input {
    pub name: String,
    /// The name of the tensor in TensorFlow's graph, as `name:0`.
    pub tensorflow: String,
    dims: Vec<i64>,
    pub values: Values,
}

/// What values an input takes.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// Rows of a table of this size, as int64.
    Ids(u64),
    /// Floats from 0 to 1.
    Floats,
    /// Serialised tf.Examples.
    Examples(Features),
}

/// What a tf.Example has: strings `c0`, `c1`, ... and floats `d0`, `d1`, ...
#[derive(Deserialize)]
pub struct Features {
    pub fields: u64,
    pub floats: u64,
    /// How many different strings a field has.
    pub ids: u64,
}

/// The one output, floats.
#[derive(Deserialize)]
pub struct Output {
    pub name: String,
    pub tensorflow: String,
    dims: Vec<i64>,
}

/// A tensor of floats in `weights.bin`.
#[derive(Deserialize)]
pub struct Weight {
    pub name: String,
    pub dims: Vec<i64>,
    /// In bytes.
    pub offset: u64,
}

impl Model {
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("model.json");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("{} can't be read: run `make bench-models`", path.display())
        })?;
        let model: Self =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Ok(Self { dir: dir.to_path_buf(), ..model })
    }

    /// The SavedModel's folder or the GraphDef's file.
    pub fn tensorflow(&self) -> PathBuf {
        self.dir.join(&self.file)
    }

    pub fn is_saved_model(&self) -> bool {
        !self.file.ends_with(".pb")
    }

    pub fn onnx(&self) -> Result<PathBuf> {
        let path = self.dir.join("model.onnx");
        ensure!(path.exists(), "there is no ONNX model of it");
        Ok(path)
    }

    pub fn weights_file(&self) -> PathBuf {
        self.dir.join("weights.bin")
    }
}

impl Input {
    pub fn dims(&self, batch: u32) -> Vec<i64> {
        with_batch(&self.dims, batch)
    }
}

impl Output {
    pub fn dims(&self, batch: u32) -> Vec<i64> {
        with_batch(&self.dims, batch)
    }
}

fn with_batch(dims: &[i64], batch: u32) -> Vec<i64> {
    dims.iter().map(|&dim| if dim < 0 { i64::from(batch) } else { dim }).collect()
}

//! A model's serving signature, and random requests for it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use session_group::tensorflow::Tensor;

/// The parts of TensorFlow's MetaGraphDef that name what to feed and to fetch.
#[derive(Clone, PartialEq, Message)]
struct MetaGraphDef {
    #[prost(btree_map = "string, message", tag = "5")]
    signature_def: BTreeMap<String, SignatureDef>,
}

#[derive(Clone, PartialEq, Message)]
struct SignatureDef {
    #[prost(btree_map = "string, message", tag = "1")]
    inputs: BTreeMap<String, TensorInfo>,
    #[prost(btree_map = "string, message", tag = "2")]
    outputs: BTreeMap<String, TensorInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    dtype: i32,
    #[prost(message, optional, tag = "3")]
    shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
    #[prost(bool, tag = "3")]
    unknown_rank: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// What to feed and to fetch.
pub struct Signature {
    inputs: Vec<TensorInfo>,
    outputs: Vec<String>,
}

impl Signature {
    /// The signature `serving_default` of a serialised MetaGraphDef, or the only one it has.
    pub fn read(meta_graph_def: &[u8]) -> Result<Self> {
        let mut signatures = MetaGraphDef::decode(meta_graph_def)?.signature_def;
        signatures.retain(|_, signature| !signature.inputs.is_empty());
        let names: Vec<String> = signatures.keys().cloned().collect();
        let signature = match signatures.remove("serving_default") {
            Some(signature) => signature,
            None if signatures.len() == 1 => signatures.into_values().next().expect("one"),
            None => bail!("the model has no signature serving_default, but {names:?}"),
        };
        Ok(Self {
            inputs: signature.inputs.into_values().collect(),
            outputs: signature.outputs.into_values().map(|output| output.name).collect(),
        })
    }

    pub fn input_names(&self) -> Vec<&str> {
        self.inputs.iter().map(|input| input.name.as_str()).collect()
    }

    pub fn output_names(&self) -> Vec<&str> {
        self.outputs.iter().map(String::as_str).collect()
    }

    /// Random tensors for the inputs; the same for the same seed.
    pub fn request(&self, seed: u64, batch: u32, id_range: i64) -> Result<Vec<Tensor>> {
        let mut rng = StdRng::seed_from_u64(seed);
        self.inputs.iter().map(|input| random_tensor(input, &mut rng, batch, id_range)).collect()
    }
}

fn random_tensor(input: &TensorInfo, rng: &mut StdRng, batch: u32, ids: i64) -> Result<Tensor> {
    let shape = input.shape.as_ref().filter(|shape| !shape.unknown_rank);
    let shape = shape.with_context(|| format!("input {} has no known rank", input.name))?;
    let open = i64::from(batch);
    let dims: Vec<i64> =
        shape.dim.iter().map(|dim| if dim.size < 0 { open } else { dim.size }).collect();
    let n = dims.iter().product::<i64>() as usize;
    ensure!(n < 1 << 28, "input {} would have {n} elements: lower --batch", input.name);
    // The numbers of TensorFlow's DataType.
    let tensor = match input.dtype {
        1 => Tensor::from_slice(&dims, &random(n, || rng.random::<f32>())),
        2 => Tensor::from_slice(&dims, &random(n, || rng.random::<f64>())),
        3 => Tensor::from_slice(&dims, &random(n, || rng.random_range(0..ids) as i32)),
        7 => Tensor::from_strings(&dims, &random(n, || WORDS[rng.random_range(0..WORDS.len())])),
        9 => Tensor::from_slice(&dims, &random(n, || rng.random_range(0..ids))),
        10 => Tensor::from_bools(&dims, &random(n, || rng.random())),
        other => bail!("input {} has type {other}, for which the demo has no values", input.name),
    };
    Ok(tensor?)
}

fn random<T>(n: usize, mut value: impl FnMut() -> T) -> Vec<T> {
    (0..n).map(|_| value()).collect()
}

/// Strings of requests: the countries of the default model, and one that it does not know.
const WORDS: [&str; 6] = ["at", "br", "cn", "de", "us", "elsewhere"];

//! Stock TensorFlow, through its C API.

use anyhow::{Context, Result};
use session_group::tensorflow::{SessionOptions, Tensor, version};
use stock_session::{ON_CALLING_THREAD, Step, StockSession};

use super::{Client, Contender, Job, Loaded};
use crate::feeds::Feed;

pub fn load(contender: Contender, job: Job) -> Result<Loaded> {
    let inline = contender.runs_on_clients();
    let options = match contender {
        _ if inline => one_thread()?,
        _ if contender.is_on_gpu() => growing_memory()?,
        _ => SessionOptions::new(),
    };
    let sessions = match contender {
        Contender::Independent | Contender::IndependentInline => job.sessions,
        _ => 1,
    };
    let inputs: Vec<&str> =
        job.model.inputs.iter().map(|input| input.tensorflow.as_str()).collect();
    let outputs = [job.model.output.tensorflow.as_str()];
    let mut loaded = Vec::new();
    for _ in 0..sessions {
        let session = open(&options, job)?;
        let step = session.step(&inputs, &outputs);
        loaded.push((session, step));
    }
    let loaded: &'static [_] = loaded.leak();
    let requests = tensors(job.requests)?;
    let client = |i: usize| {
        let (session, step) = &loaded[i % sessions];
        let run_options: &[u8] = if inline { &ON_CALLING_THREAD } else { &[] };
        Box::new(Stock { session, step, run_options, requests, results: Vec::new() })
            as Box<dyn Client>
    };
    Ok(Loaded { clients: (0..job.clients).map(client).collect(), version: tensorflow_version() })
}

fn open(options: &SessionOptions, job: Job) -> Result<StockSession> {
    let path = job.model.tensorflow();
    Ok(if job.model.is_saved_model() {
        let dir = path.to_str().context("the model's path is not UTF-8")?;
        StockSession::load(options, dir).0
    } else {
        StockSession::create(options, &std::fs::read(path)?)
    })
}

struct Stock {
    session: &'static StockSession,
    step: &'static Step,
    run_options: &'static [u8],
    requests: &'static [Vec<&'static Tensor>],
    results: Vec<Tensor>,
}

impl Client for Stock {
    fn run(&mut self, request: usize) -> Result<()> {
        self.results = self.session.run(self.step, &self.requests[request], self.run_options);
        Ok(())
    }

    fn answer(&self) -> Result<Vec<f32>> {
        Ok(self.results[0].to_vec()?)
    }
}

/// The requests as TensorFlow takes them.
pub fn tensors(requests: &[Vec<Feed>]) -> Result<&'static [Vec<&'static Tensor>]> {
    let tensor = |feed: &Feed| -> Result<&'static Tensor> {
        let tensor = match feed {
            Feed::Ids { dims, values } => Tensor::from_slice(dims, values)?,
            Feed::Floats { dims, values } => Tensor::from_slice(dims, values)?,
            Feed::Strings { dims, values } => Tensor::from_strings(dims, values)?,
        };
        Ok(Box::leak(Box::new(tensor)))
    };
    let request = |request: &Vec<Feed>| request.iter().map(tensor).collect();
    Ok(requests.iter().map(request).collect::<Result<Vec<_>>>()?.leak())
}

/// A ConfigProto with `intra_op_parallelism_threads` and `inter_op_parallelism_threads` 1.
pub fn one_thread() -> Result<SessionOptions> {
    let mut options = SessionOptions::new();
    options.set_config(&[0x10, 1, 0x28, 1])?;
    Ok(options)
}

/// A ConfigProto with `gpu_options.allow_growth`, so that all contenders fit on a GPU.
pub fn growing_memory() -> Result<SessionOptions> {
    let mut options = SessionOptions::new();
    options.set_config(&[0x32, 2, 0x20, 1])?;
    Ok(options)
}

pub fn tensorflow_version() -> String {
    format!("TensorFlow {}", version::loaded())
}

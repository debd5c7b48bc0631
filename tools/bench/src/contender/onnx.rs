//! ONNX Runtime, through its C API: `ort` loads it and makes sessions, but would lock a session for
//! each request, which the C API does not ask for.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::null;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use ort::AsPointer;
use ort::session::Session;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::sys::OrtValue;
use ort::value::{DynValue, Tensor};

use super::{Client, Contender, Job, Loaded, library};
use crate::feeds::Feed;
use crate::model::{Model, Weight};

pub fn load(contender: Contender, job: Job) -> Result<Loaded> {
    let library = library(job.venv, "onnxruntime/capi", "libonnxruntime.so")?;
    ort::init_from(&library).map_err(|error| anyhow!("{}: {error}", library.display()))?.commit();
    let shared = match contender {
        Contender::OnnxShared => Some(Shared::read(job.model)?),
        _ => None,
    };
    let count = match contender {
        Contender::OnnxIndependent | Contender::OnnxShared => job.sessions,
        _ => 1,
    };
    let mut sessions = Vec::new();
    for _ in 0..count {
        let mut builder = builder(contender, job)?;
        if let Some(shared) = &shared {
            builder = shared.give(builder)?;
        }
        sessions.push(builder.commit_from_file(job.model.onnx()?)?);
    }
    let sessions: &'static [Session] = sessions.leak();
    let names: &'static Names = Box::leak(Box::new(Names::new(job.model)?));
    let requests = values(job.requests)?;
    let client = |i: usize| -> Result<Box<dyn Client>> {
        let dims = job.model.output.dims(job.batch);
        let zeros = vec![0f32; dims.iter().product::<i64>() as usize];
        let output = Tensor::from_array((dims, zeros))?;
        Ok(Box::new(Onnx { session: &sessions[i % count], names, requests, output }))
    };
    Ok(Loaded {
        clients: (0..job.clients).map(client).collect::<Result<_>>()?,
        version: format!("ONNX Runtime {}", version(&library)),
    })
}

/// Of a file such as `libonnxruntime.so.1.2.3`.
fn version(library: &Path) -> &str {
    let name = library.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split_once(".so.").map_or(name, |(_, version)| version)
}

fn builder(contender: Contender, job: Job) -> Result<SessionBuilder> {
    // With fixed shapes, memory is planned once.
    let batch = i64::from(job.batch);
    let builder = Session::builder()?.with_dimension_override("batch", batch).map_err(plain)?;
    Ok(if contender.runs_on_clients() {
        builder.with_intra_threads(1).map_err(plain)?.with_inter_threads(1).map_err(plain)?
    } else {
        builder
    })
}

/// Without the builder that the error would give back.
fn plain(error: ort::Error<SessionBuilder>) -> ort::Error {
    error.into()
}

/// What sessions share: the weights, and the forms into which kernels bring them.
struct Shared {
    initializers: Vec<(String, Arc<DynValue>)>,
    prepacked: PrepackedWeights,
}

impl Shared {
    fn read(model: &Model) -> Result<Self> {
        let file = File::open(model.weights_file())?;
        let initializer =
            |weight: &Weight| Ok((weight.name.clone(), Arc::new(read_weight(&file, weight)?)));
        Ok(Self {
            initializers: model.weights.iter().map(initializer).collect::<Result<_>>()?,
            prepacked: PrepackedWeights::new(),
        })
    }

    fn give(&self, mut builder: SessionBuilder) -> Result<SessionBuilder> {
        for (name, value) in &self.initializers {
            builder = builder.with_initializer(name, value.clone()).map_err(plain)?;
        }
        Ok(builder.with_prepacked_weights(&self.prepacked).map_err(plain)?)
    }
}

fn read_weight(file: &File, weight: &Weight) -> Result<DynValue> {
    let n = weight.dims.iter().product::<i64>() as usize;
    let mut values = vec![0f32; n];
    // SAFETY: the bytes are those of the vector, and any bytes make floats.
    let bytes = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), 4 * n) };
    file.read_exact_at(bytes, weight.offset)?;
    Ok(Tensor::from_array((weight.dims.clone(), values))?.into_dyn())
}

fn values(requests: &[Vec<Feed>]) -> Result<&'static [Vec<DynValue>]> {
    let value = |feed: &Feed| -> Result<DynValue> {
        Ok(match feed {
            Feed::Ids { dims, values } => {
                Tensor::from_array((dims.clone(), values.clone()))?.into_dyn()
            }
            Feed::Floats { dims, values } => {
                Tensor::from_array((dims.clone(), values.clone()))?.into_dyn()
            }
            Feed::Strings { .. } => bail!("ONNX has no operation for tf.Examples"),
        })
    };
    let request = |request: &Vec<Feed>| request.iter().map(value).collect();
    Ok(requests.iter().map(request).collect::<Result<Vec<_>>>()?.leak())
}

/// The names of inputs and output, as C takes them.
struct Names {
    inputs: Vec<CString>,
    output: CString,
}

impl Names {
    fn new(model: &Model) -> Result<Self> {
        let inputs = model.inputs.iter().map(|input| CString::new(input.name.as_str()));
        Ok(Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            output: CString::new(model.output.name.as_str())?,
        })
    }
}

struct Onnx {
    session: &'static Session,
    names: &'static Names,
    requests: &'static [Vec<DynValue>],
    /// Into which every answer is written.
    output: Tensor<f32>,
}

impl Client for Onnx {
    fn run(&mut self, request: usize) -> Result<()> {
        let names: Vec<*const c_char> =
            self.names.inputs.iter().map(|name| name.as_ptr()).collect();
        let inputs: Vec<*const OrtValue> =
            self.requests[request].iter().map(AsPointer::ptr).collect();
        let output_name = self.names.output.as_ptr();
        let mut output = self.output.ptr_mut();
        let api = ort::api();
        // SAFETY: all pointers are live; the arrays are as long as said. A session may run on many
        // threads at a time; the output is this client's own.
        unsafe {
            let status = (api.Run)(
                self.session.ptr().cast_mut(),
                null(),
                names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                &raw const output_name,
                1,
                &raw mut output,
            );
            if !status.0.is_null() {
                let message = CStr::from_ptr((api.GetErrorMessage)(status.0));
                // Not freed: the process ends now.
                bail!("{}", message.to_string_lossy());
            }
        }
        Ok(())
    }

    fn answer(&self) -> Result<Vec<f32>> {
        Ok(self.output.extract_tensor().1.to_vec())
    }
}

//! OpenVINO, through its C API.

use anyhow::{Context, Result, anyhow};
use openvino::{
    CompiledModel, Core, DeviceType, InferRequest, PartialShape, RwPropertyKey as Key, Tensor,
};

use super::{Client, Contender, Job, Loaded, library};
use crate::feeds::Feed;

pub fn load(contender: Contender, job: Job) -> Result<Loaded> {
    let path = library(job.venv, "openvino/libs", "libopenvino_c.so")?;
    openvino_sys::library::load_from(path).map_err(|error| anyhow!(error))?;
    let mut compiled = compile(contender, job)?;
    let client = |_| -> Result<Box<dyn Client>> {
        Ok(Box::new(Openvino::new(compiled.create_infer_request()?, job)?))
    };
    let clients = (0..job.clients).map(client).collect::<Result<_>>()?;
    // Infer requests use it until the process ends.
    std::mem::forget(compiled);
    let build = openvino::version().build_number;
    let version = build.split('-').next().unwrap_or(&build);
    Ok(Loaded { clients, version: format!("OpenVINO {version}") })
}

fn compile(contender: Contender, job: Job) -> Result<CompiledModel> {
    let mut core = Core::new()?;
    let streams = job.sessions.to_string();
    // By itself it would compute in bfloat16 where the CPU can, and answer something else.
    let mut properties = vec![(Key::HintInferencePrecision, "f32")];
    properties.extend(match contender {
        Contender::OpenvinoLatency => vec![(Key::HintPerformanceMode, "LATENCY")],
        _ => vec![
            (Key::HintPerformanceMode, "THROUGHPUT"),
            (Key::NumStreams, streams.as_str()),
            (Key::InferenceNumThreads, streams.as_str()),
        ],
    });
    core.set_properties(&DeviceType::CPU, properties)?;
    let path = job.model.onnx()?;
    let path = path.to_str().context("the model's path is not UTF-8")?;
    let mut model = core.read_model_from_file(path, "")?;
    // With fixed shapes, memory is planned once.
    for input in &job.model.inputs {
        let dims = input.dims(job.batch);
        let shape = PartialShape::new_static(dims.len() as i64, &dims)?;
        model.reshape_input_by_name(&input.name, &shape)?;
    }
    let compiled = core.compile_model(&model, DeviceType::CPU)?;
    std::mem::forget(core);
    Ok(compiled)
}

struct Openvino {
    request: InferRequest,
    /// Where the request reads its inputs: copying a few kilobytes there costs less than setting
    /// other tensors.
    inputs: Vec<&'static mut [u8]>,
    output: Tensor,
    requests: &'static [Vec<Feed>],
}

impl Openvino {
    fn new(request: InferRequest, job: Job) -> Result<Self> {
        let input = |input: &crate::model::Input| -> Result<&'static mut [u8]> {
            let tensor = Box::leak(Box::new(request.get_tensor(&input.name)?));
            Ok(tensor.get_raw_data_mut()?)
        };
        Ok(Self {
            inputs: job.model.inputs.iter().map(input).collect::<Result<_>>()?,
            output: request.get_tensor(&job.model.output.name)?,
            request,
            requests: job.requests,
        })
    }
}

impl Client for Openvino {
    fn run(&mut self, request: usize) -> Result<()> {
        for (input, feed) in self.inputs.iter_mut().zip(&self.requests[request]) {
            input.copy_from_slice(feed.bytes().context("strings")?);
        }
        Ok(self.request.infer()?)
    }

    fn answer(&self) -> Result<Vec<f32>> {
        Ok(self.output.get_data::<f32>()?.to_vec())
    }
}

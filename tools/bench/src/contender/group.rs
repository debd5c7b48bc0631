//! Session groups.

use anyhow::{Context, Result};
use session_group::execution::Execution;
use session_group::policy::Policy;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Options, SessionGroup};

use super::{Client, Contender, Job, Loaded, stock};

pub fn load(contender: Contender, job: Job) -> Result<Loaded> {
    let session_options =
        if contender.is_on_gpu() { stock::growing_memory()? } else { stock::one_thread()? };
    let group = open(&session_options, &options(contender, job)?, job)?;
    let group: &'static SessionGroup = Box::leak(Box::new(group));
    let requests = stock::tensors(job.requests)?;
    let client = |_| -> Result<Box<dyn Client>> {
        let run = runner(contender, group, job)?;
        Ok(Box::new(Group { run, requests, results: Vec::new() }))
    };
    Ok(Loaded {
        clients: (0..job.clients).map(client).collect::<Result<_>>()?,
        version: stock::tensorflow_version(),
    })
}

fn open(session_options: &SessionOptions, options: &Options, job: Job) -> Result<SessionGroup> {
    let path = job.model.tensorflow();
    if job.model.is_saved_model() {
        let dir = path.to_str().context("the model's path is not UTF-8")?;
        Ok(SessionGroup::load(session_options, None, dir, &["serve"], options, None)?)
    } else {
        let group = SessionGroup::new(session_options, options)?;
        group.create(&std::fs::read(path)?)?;
        Ok(group)
    }
}

fn options(contender: Contender, job: Job) -> Result<Options> {
    let mut options = Options::new();
    options.session_num(job.sessions);
    if let Some(streams) = contender.streams() {
        options.session_num(streams).policy(Policy::LeastLoaded);
        options.multi_stream(true).gpu_ids(&[0])?;
        return Ok(options);
    }
    match contender {
        Contender::GroupWorker => {
            options.execution(Execution::Worker).policy(Policy::LeastLoaded);
            options.cpuset(&one_cpu_each(job))?;
        }
        Contender::GroupPool => {
            options.execution(Execution::Pool).policy(Policy::LeastLoaded);
        }
        Contender::GroupRoundRobin => {
            options.execution(Execution::Caller).policy(Policy::RoundRobin);
        }
        Contender::GroupLeastLoaded => {
            options.execution(Execution::Caller).policy(Policy::LeastLoaded);
        }
        Contender::GroupCpuLocal => {
            options.execution(Execution::Caller).policy(Policy::CpuLocal);
            options.cpuset(&one_cpu_each(job))?;
        }
        Contender::GpuOneStream => {
            options.policy(Policy::LeastLoaded);
        }
        _ => {
            options.execution(Execution::Caller).policy(Policy::Thread);
        }
    }
    Ok(options)
}

fn one_cpu_each(job: Job) -> String {
    let cpus = job.cpus.iter().cycle().take(job.sessions).map(u32::to_string);
    cpus.collect::<Vec<_>>().join(";")
}

/// Runs a request.
type Run = Box<dyn Fn(&[&Tensor]) -> session_group::Result<Vec<Tensor>> + Send>;

fn runner(contender: Contender, group: &'static SessionGroup, job: Job) -> Result<Run> {
    let names: Vec<&str> = job.model.inputs.iter().map(|input| input.tensorflow.as_str()).collect();
    let outputs = [job.model.output.tensorflow.as_str()];
    let looks_up_names =
        matches!(contender, Contender::GroupCaller | Contender::GroupWorker | Contender::GroupPool);
    if !looks_up_names && !contender.is_on_gpu() {
        let callable = group.make_callable(&names, &outputs, &[])?;
        return Ok(Box::new(move |tensors| callable.run(tensors)));
    }
    Ok(Box::new(move |tensors| {
        let feeds: Vec<_> =
            std::iter::zip(names.iter().copied(), tensors.iter().copied()).collect();
        group.run(&feeds, &outputs, &[])
    }))
}

struct Group {
    run: Run,
    requests: &'static [Vec<&'static Tensor>],
    results: Vec<Tensor>,
}

impl Client for Group {
    fn run(&mut self, request: usize) -> Result<()> {
        self.results = (self.run)(&self.requests[request])?;
        Ok(())
    }

    fn answer(&self) -> Result<Vec<f32>> {
        Ok(self.results[0].to_vec()?)
    }
}

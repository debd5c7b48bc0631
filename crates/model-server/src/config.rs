//! What follows from the command line and the files that it names.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use session_group::Options;
use session_group::tensorflow::SessionOptions;
use session_group_serving::timeline::{Timelines, TraceSchedule};
use tracing::{info, warn};

use crate::batching::{Batching, Scheduler};
use crate::flags::Flags;
use crate::grpc_arguments;
use crate::manager::{Load, RetryPolicy};
use crate::metrics::Metrics;
use crate::predict::ResponseFormat;
use crate::proto::serving::{
    BatchingParameters, ModelConfig, ModelConfigList, ModelServerConfig, model_server_config,
};
use crate::proto::tensorflow::{ConfigProto, GpuOptions};
use crate::proto::{SessionGroupConfig, read_text};
use crate::servable::{Servable, Sessions};
use crate::warmup::warm_up;

/// Refuses flags that contradict each other.
pub fn check(flags: &Flags) -> Result<()> {
    let Flags { listen, models, sessions, batching, watching, limits, .. } = flags;
    ensure!(
        listen.port != 0 || listen.grpc_socket_path.is_some(),
        "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
    );
    ensure!(
        listen.port == 0 || listen.port != listen.rest_api_port,
        "--port and --rest_api_port are both {}: gRPC and REST need ports of their own",
        listen.port
    );
    ensure!(
        models.model_base_path.is_some() || models.model_config_file.is_some(),
        "Both server_options.model_base_path and server_options.model_config_file are empty! Set \
         --model_base_path to a folder with a folder for each version, named by its number"
    );
    ensure!(
        batching.enable_batching || batching.batching_parameters_file.is_none(),
        "server_options.batching_parameters_file is set without setting server_options.enable_batching to \
         true."
    );
    ensure!(
        batching.enable_batching || !batching.enable_per_model_batching_parameters,
        "--enable_per_model_batching_parameters needs --enable_batching"
    );
    ensure!(
        [
            sessions.tensorflow_session_parallelism,
            sessions.tensorflow_intra_op_parallelism,
            sessions.tensorflow_inter_op_parallelism
        ]
        .iter()
        .any(|&threads| threads <= 0),
        "Either configure server_options.tensorflow_session_parallelism or \
         (server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) \
         separately. You cannot configure all."
    );
    ensure!(
        sessions.session_num_per_group >= 0,
        "--session_num_per_group is {}: give the number of sessions of each model",
        sessions.session_num_per_group
    );
    ensure!(
        sessions.use_session_group || sessions.session_num_per_group <= 1,
        "--session_num_per_group={} contradicts --use_session_group=false",
        sessions.session_num_per_group
    );
    ensure!(
        watching.monitoring_config_file.is_none() || listen.rest_api_port != 0,
        "--monitoring_config_file needs --rest_api_port, where metrics are served"
    );
    ensure!(
        !batching.enable_batching || watching.timeline_path.is_none(),
        "--timeline_path traces requests that run alone: leave --enable_batching out, or the timelines"
    );
    ensure!(
        !limits.enable_prometheus || listen.rest_api_port != 0,
        "--enable_prometheus needs --rest_api_port, where metrics are served"
    );
    grpc_arguments::parse(&listen.grpc_channel_arguments)
        .try_for_each(|argument| argument.map(drop))?;
    if !sessions.use_per_session_threads {
        warn!("sessions have thread pools of their own, also with --use_per_session_threads=false");
    }
    Ok(())
}

/// How requests are taken and answered.
pub fn response_format(flags: &Flags) -> ResponseFormat {
    ResponseFormat {
        checks_method: flags.models.enable_signature_method_name_check,
        answers_content: flags.models.enable_serialization_as_tensor_content,
    }
}

/// How models are looked after.
pub fn retry_policy(flags: &Flags) -> RetryPolicy {
    let models = &flags.models;
    let seconds = models.file_system_poll_wait_seconds;
    RetryPolicy {
        poll: (seconds > 0).then(|| Duration::from_secs(seconds as u64)),
        retries: models.max_num_load_retries,
        retry_interval: Duration::from_micros(models.load_retry_interval_micros.max(0) as u64),
        allows_labels_ahead: models.allow_version_labels_for_unavailable_models,
    }
}

/// The models: those of the file, or the one of the command line.
pub fn models(flags: &Flags) -> Result<ModelServerConfig> {
    if let Some(file) = &flags.models.model_config_file {
        return Ok(read_text(file, "tensorflow.serving.ModelServerConfig")?);
    }
    let base_path = flags.models.model_base_path.as_deref().unwrap_or(Path::new(""));
    let model = ModelConfig {
        name: flags.models.model_name.clone(),
        base_path: base_path.to_str().context("--model_base_path is not UTF-8")?.to_string(),
        model_platform: "tensorflow".to_string(),
        ..ModelConfig::default()
    };
    let list = ModelConfigList { config: vec![model] };
    let config = Some(model_server_config::Config::ModelConfigList(list));
    Ok(ModelServerConfig { config })
}

/// What loads a version, warms it up and puts it behind batching.
pub fn load(flags: &Flags, metrics: Arc<Metrics>) -> Result<Arc<Load>> {
    let defaults = options(flags)?;
    let tags: Vec<String> =
        flags.models.saved_model_tags.split(',').map(|tag| tag.trim().to_string()).collect();
    let config = session_config(flags);
    let batching = flags.batching.clone();
    let parameters = match &batching.batching_parameters_file {
        Some(file) => read_text(file, "tensorflow.serving.BatchingParameters")?,
        None => BatchingParameters::default(),
    };
    let for_all = Batching::new(&parameters)?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let scheduler = batching
        .enable_batching
        .then(|| {
            let threads = match parameters.num_batch_threads {
                None => cpus,
                Some(threads) => usize::try_from(threads).unwrap_or(0),
            };
            Scheduler::new(threads, metrics.clone())
        })
        .transpose()?;
    let choice = timelines(flags)?;
    let (format, warms_up) = (response_format(flags), flags.models.enable_model_warmup);
    let iterations = flags.models.num_request_iterations_for_warmup;

    Ok(Arc::new(move |model: &ModelConfig, version, path: &Path| {
        let begun = Instant::now();
        let base = model.base_path.as_str();
        let loaded = || -> session_group::Result<Servable> {
            let mut session_options = SessionOptions::new();
            session_options.set_config(&config)?;
            let own = model.session_group.clone().unwrap_or_default();
            let options = with(&defaults, &own)?;
            let sessions = Sessions { session_options, options, tags: tags.clone() };
            let timelines = match &choice {
                Some(choice) => Some(Arc::new(Timelines::new(choice.clone(), &model.name)?)),
                None => None,
            };
            let servable = Servable::load(&model.name, version, path, &sessions, timelines)?;
            if warms_up {
                let begun = Instant::now();
                let warm = warm_up(&servable, path, iterations, format);
                let code = warm.as_ref().err().map(|error| error.code);
                metrics.warmed_up(base, code, begun.elapsed());
                info!("model {} version {version}: {} warm-up requests", model.name, warm?);
            }
            let batching = match (&scheduler, batching.enable_per_model_batching_parameters) {
                (None, _) => None,
                (Some(_), false) => Some(for_all.clone()),
                (Some(_), true) => Batching::of_version(path)?,
            };
            Ok(servable.warmed_up(|group| {
                let scheduler = scheduler.as_ref()?;
                Some(scheduler.batcher(group.clone(), batching?))
            }))
        }();
        let status = if loaded.is_ok() { "success" } else { "fail" };
        metrics.loads.with_label_values(&[base, status]).inc();
        if loaded.is_ok() {
            info!("model {} version {version}: loaded in {:.1?}", model.name, begun.elapsed());
        }
        loaded
    }))
}

/// Options of the command line, which a model's own come on top of.
struct Defaults {
    own: SessionGroupConfig,
    gpu_ids: Vec<i32>,
    multi_stream: bool,
}

fn options(flags: &Flags) -> Result<Defaults> {
    let sessions = &flags.sessions;
    let own = &flags.limits;
    let gpu_ids: Vec<i32> = match sessions.gpu_ids_list.as_str() {
        "" => Vec::new(),
        list => {
            list.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>().with_context(
                || format!("--gpu_ids_list is {list:?}: give numbers of GPUs, as \"0,1\""),
            )?
        }
    };
    let defaults = Defaults {
        own: SessionGroupConfig {
            session_num: (sessions.session_num_per_group > 0)
                .then_some(sessions.session_num_per_group),
            cpuset: own.session_group_cpuset.clone(),
            policy: own.session_group_policy.as_ref().map(|policy| policy.name().to_string()),
            execution: own.session_group_execution.map(|execution| execution.to_string()),
            kernels: own.session_group_kernels.map(|kernels| kernels.to_string()),
        },
        gpu_ids,
        multi_stream: sessions.use_multi_stream,
    };
    with(&defaults, &SessionGroupConfig::default())?;
    Ok(defaults)
}

/// The options of a model's group.
fn with(defaults: &Defaults, own: &SessionGroupConfig) -> session_group::Result<Options> {
    let of = |own: &Option<String>, default: &Option<String>| own.clone().or(default.clone());
    let mut options = Options::new();
    let cpuset = of(&own.cpuset, &defaults.own.cpuset);
    match (own.session_num.or(defaults.own.session_num), &cpuset) {
        (Some(session_num), _) => {
            options.set_session_num(session_num);
        }
        (None, None) if std::env::var_os("SESSION_GROUP_CPUSET").is_none() => {
            options.set_session_num(1);
        }
        // As many as the cpuset has entries.
        (None, _) => {}
    }
    if let Some(cpuset) = &cpuset {
        options.set_cpuset(cpuset)?;
    }
    if let Some(policy) = of(&own.policy, &defaults.own.policy) {
        options.set_policy(policy.parse()?);
    }
    if let Some(execution) = of(&own.execution, &defaults.own.execution) {
        options.set_execution(execution.parse()?);
    }
    if let Some(kernels) = of(&own.kernels, &defaults.own.kernels) {
        options.set_kernels(kernels.parse()?);
    }
    options.set_multi_stream(defaults.multi_stream);
    if !defaults.gpu_ids.is_empty() {
        options.set_gpu_ids(&defaults.gpu_ids)?;
    }
    Ok(options)
}

/// The sessions' ConfigProto.
fn session_config(flags: &Flags) -> Vec<u8> {
    let sessions = &flags.sessions;
    let or_both = |threads: i32| match threads {
        0 if sessions.tensorflow_intra_op_parallelism == 0
            && sessions.tensorflow_inter_op_parallelism == 0 =>
        {
            sessions.tensorflow_session_parallelism
        }
        threads => threads,
    };
    ConfigProto {
        intra_op_parallelism_threads: or_both(sessions.tensorflow_intra_op_parallelism),
        inter_op_parallelism_threads: or_both(sessions.tensorflow_inter_op_parallelism),
        use_per_session_threads: true,
        allow_soft_placement: true,
        gpu_options: Some(GpuOptions {
            allow_growth: sessions.allow_gpu_mem_growth,
            per_process_gpu_memory_fraction: sessions.per_process_gpu_memory_fraction,
            ..GpuOptions::default()
        }),
    }
    .encode_to_vec()
}

fn timelines(flags: &Flags) -> Result<Option<TraceSchedule>> {
    let watching = &flags.watching;
    let numbers = [
        ("--timeline_start_step", watching.timeline_start_step, 0),
        ("--timeline_interval_step", watching.timeline_interval_step, 1),
        ("--timeline_trace_count", watching.timeline_trace_count, 1),
    ];
    let Some(folder) = &watching.timeline_path else {
        if let Some((name, ..)) = numbers.iter().find(|(_, number, _)| *number >= 0) {
            bail!("{name} needs --timeline_path, the folder to write timelines to");
        }
        return Ok(None);
    };
    for (name, number, least) in numbers {
        ensure!(number >= least, "--timeline_path needs {name}, at least {least}");
    }
    Ok(Some(TraceSchedule {
        start: watching.timeline_start_step,
        interval: watching.timeline_interval_step,
        count: watching.timeline_trace_count,
        folder: folder.clone(),
    }))
}

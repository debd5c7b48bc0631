//! What the command line and the files that it names mean for the parts of the server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message;
use session_group::Options;
use session_group::environment::CPUSET_VARIABLE;
use session_group_serving::sessions::{GroupSettings, gpu_ids, session_config};
use session_group_serving::timeline::{TraceSchedule, TraceSettings};
use tracing::warn;

use crate::flags::Flags;
use crate::grpc_arguments;
use crate::manager::RetryPolicy;
use crate::predict::ResponseFormat;
use crate::proto::serving::{ModelConfig, ModelConfigList, ModelServerConfig, model_server_config};
use crate::proto::tensorflow::{ConfigProto, GpuOptions};
use crate::proto::{SessionGroupConfig, read_text};

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
        "--timeline_path and --enable_batching are both set, but timelines trace requests that run alone: leave one of \
         them out"
    );
    ensure!(
        !limits.enable_prometheus || listen.rest_api_port != 0,
        "--enable_prometheus needs --rest_api_port, where metrics are served"
    );
    grpc_arguments::parse(&listen.grpc_channel_arguments)
        .try_for_each(|argument| argument.map(drop))?;
    if !sessions.use_per_session_threads {
        warn!(
            "--use_per_session_threads=false has no effect: each session has thread pools of its own"
        );
    }
    Ok(())
}

/// How requests are checked and answered.
pub fn response_format(flags: &Flags) -> ResponseFormat {
    ResponseFormat {
        checks_method: flags.models.enable_signature_method_name_check,
        answers_content: flags.models.enable_serialization_as_tensor_content,
    }
}

/// How often to look for versions and to try again.
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
        base_path: base_path
            .to_str()
            .context("--model_base_path is not UTF-8: rename the folder")?
            .to_string(),
        model_platform: "tensorflow".to_string(),
        ..ModelConfig::default()
    };
    let list = ModelConfigList { config: vec![model] };
    let config = Some(model_server_config::Config::ModelConfigList(list));
    Ok(ModelServerConfig { config })
}

/// The settings of all models' groups. What a model itself sets comes before these.
pub fn group_settings(flags: &Flags) -> Result<GroupSettings> {
    let (sessions, own) = (&flags.sessions, &flags.limits);
    let list = &sessions.gpu_ids_list;
    let gpu_ids = gpu_ids(list)
        .with_context(|| format!("--gpu_ids_list is {list:?}: give numbers of GPUs, as \"0,1\""))?;
    let settings = GroupSettings {
        session_num: (sessions.session_num_per_group > 0).then_some(sessions.session_num_per_group),
        cpuset: own.session_group_cpuset.clone(),
        policy: own.session_group_policy.clone(),
        execution: own.session_group_execution,
        kernels: own.session_group_kernels,
        multi_stream: sessions.use_multi_stream,
        gpu_ids,
    };
    group_options(&settings, &SessionGroupConfig::default())?;
    Ok(settings)
}

/// The options of a model's group: what the model sets, and for the rest what holds for all.
pub fn group_options(
    for_all: &GroupSettings,
    own: &SessionGroupConfig,
) -> session_group::Result<Options> {
    let mut settings = for_all.clone();
    settings.session_num = own.session_num.map(|n| n as usize).or(settings.session_num);
    settings.cpuset = own.cpuset.clone().or(settings.cpuset);
    if let Some(policy) = &own.policy {
        settings.policy = Some(policy.parse()?);
    }
    if let Some(execution) = &own.execution {
        settings.execution = Some(execution.parse()?);
    }
    if let Some(kernels) = &own.kernels {
        settings.kernels = Some(kernels.parse()?);
    }
    // A cpuset has an entry for each session.
    let has_cpuset = settings.cpuset.is_some() || std::env::var_os(CPUSET_VARIABLE).is_some();
    if !has_cpuset {
        settings.session_num.get_or_insert(1);
    }
    settings.options()
}

/// The `ConfigProto` of the sessions, serialised.
pub fn config_proto(flags: &Flags) -> Vec<u8> {
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
        gpu_options: Some(GpuOptions {
            allow_growth: sessions.allow_gpu_mem_growth,
            per_process_gpu_memory_fraction: sessions.per_process_gpu_memory_fraction,
            ..GpuOptions::default()
        }),
        ..session_config(
            or_both(sessions.tensorflow_intra_op_parallelism),
            or_both(sessions.tensorflow_inter_op_parallelism),
        )
    }
    .encode_to_vec()
}

/// Which requests of each model are traced.
pub fn trace_schedule(flags: &Flags) -> Result<Option<TraceSchedule>> {
    let watching = &flags.watching;
    let given = |number: i64| (number >= 0).then_some(number);
    let settings = TraceSettings {
        start_step: given(watching.timeline_start_step),
        interval_step: given(watching.timeline_interval_step),
        trace_count: given(watching.timeline_trace_count),
        path: watching.timeline_path.clone(),
    };
    Ok(settings.schedule("--")?)
}

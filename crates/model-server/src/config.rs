//! What the command line and the files that it names mean for the parts of the server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
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
use crate::proto::serving::{
    ModelConfig, ModelConfigList, ModelServerConfig, PlatformConfigMap,
    SavedModelBundleSourceAdapterConfig, SessionBundleConfig, model_server_config,
};
use crate::proto::tensorflow::rewriter_config::Toggle;
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
    if models.model_config_file.is_some() && models.model_base_path.is_some() {
        warn!(
            "--model_config_file says which models are served: --model_name and --model_base_path have no effect"
        );
    }
    flags.ignored.warn();
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
        keeps_last: models.servable_versions_always_present,
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

/// What a platform_config_file or the flags for it say of a model's sessions.
pub fn bundle(flags: &Flags) -> Result<SessionBundleConfig> {
    let (models, sessions) = (&flags.models, &flags.sessions);
    let mut bundle = match &sessions.platform_config_file {
        Some(file) => platform(file)?,
        None => SessionBundleConfig::default(),
    };
    if let Some(file) = &sessions.tensorflow_session_config_file {
        bundle.session_config = Some(read_text(file, "tensorflow.ConfigProto")?);
    }
    if let Some(precision) = &sessions.mixed_precision {
        bundle.mixed_precision.clone_from(precision);
    }
    if bundle.saved_model_tags.is_empty() {
        let tags = models.saved_model_tags.split(',');
        bundle.saved_model_tags = tags.map(|tag| tag.trim().to_string()).collect();
    }
    let or_both = |threads: i32| match threads {
        0 if sessions.tensorflow_intra_op_parallelism == 0
            && sessions.tensorflow_inter_op_parallelism == 0 =>
        {
            sessions.tensorflow_session_parallelism
        }
        threads => threads,
    };
    let own = session_config(
        or_both(sessions.tensorflow_intra_op_parallelism),
        or_both(sessions.tensorflow_inter_op_parallelism),
    );
    let config = bundle.session_config.get_or_insert_default();
    // Flags come before files where they are set.
    if own.intra_op_parallelism_threads != 0 {
        config.intra_op_parallelism_threads = own.intra_op_parallelism_threads;
    }
    if own.inter_op_parallelism_threads != 0 {
        config.inter_op_parallelism_threads = own.inter_op_parallelism_threads;
    }
    config.use_per_session_threads = own.use_per_session_threads;
    config.allow_soft_placement |= own.allow_soft_placement;
    let gpus = config.gpu_options.get_or_insert_default();
    gpus.allow_growth |= sessions.allow_gpu_mem_growth;
    if sessions.per_process_gpu_memory_fraction != 0.0 {
        gpus.per_process_gpu_memory_fraction = sessions.per_process_gpu_memory_fraction;
    }
    match bundle.mixed_precision.as_str() {
        "" => {}
        "bfloat16" => {
            let graph = config.graph_options.get_or_insert_default();
            let rewrites = graph.rewrite_options.get_or_insert_default();
            rewrites.set_auto_mixed_precision_onednn_bfloat16(Toggle::On);
        }
        other => bail!("--mixed_precision is {other:?}: TensorFlow Serving knows bfloat16 only"),
    }
    Ok(bundle)
}

/// The settings of the platform `tensorflow`.
fn platform(file: &Path) -> Result<SessionBundleConfig> {
    let map: PlatformConfigMap = read_text(file, "tensorflow.serving.PlatformConfigMap")?;
    if let Some(other) = map.platform_configs.keys().find(|name| *name != "tensorflow") {
        bail!("{}: platform {other:?} is not served here: list tensorflow", file.display());
    }
    let tensorflow = map.platform_configs.get("tensorflow");
    let Some(adapter) = tensorflow.and_then(|platform| platform.source_adapter_config.as_ref())
    else {
        return Ok(SessionBundleConfig::default());
    };
    let name = adapter.type_url.rsplit('/').next().unwrap_or_default();
    ensure!(
        name == "tensorflow.serving.SavedModelBundleSourceAdapterConfig",
        "{}: source_adapter_config is a {name}: use tensorflow.serving.SavedModelBundleSourceAdapterConfig",
        file.display()
    );
    let adapter = SavedModelBundleSourceAdapterConfig::decode(adapter.value.as_slice())
        .with_context(|| format!("{}: source_adapter_config", file.display()))?;
    Ok(adapter.legacy_config.unwrap_or_default())
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

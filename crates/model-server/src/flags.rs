//! The command line: that of TensorFlow Serving and of DeepRec's fork of it, and what is our own.

use std::any::TypeId;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser};
use session_group::execution::Execution;
use session_group::kernels::Kernels;
use session_group::policy::Policy;
use session_group_serving::paths::check_local;
use tracing::warn;

use crate::manager::WaitFor;

/// Serves TensorFlow SavedModels to TensorFlow Serving's clients, over gRPC and REST, each model on a
/// group of sessions that share its variables.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "session_group_model_server",
    disable_version_flag = true,
    args_override_self = true
)]
#[command(
    after_help = "Flags are those of tensorflow_model_server and of DeepRec's fork of it, with the \
                        same meaning, unless their group says otherwise. Paths are absolute."
)]
pub struct Flags {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub models: Models,
    #[command(flatten)]
    pub sessions: Sessions,
    #[command(flatten)]
    pub batching: Batching,
    #[command(flatten)]
    pub watching: Watching,
    #[command(flatten)]
    pub limits: ServerLimits,
    #[command(flatten)]
    pub ignored: IgnoredFlags,
}

/// Flags of TensorFlow Serving's that have nothing to set here.
#[derive(Args, Clone, Debug)]
#[command(
    rename_all = "snake_case",
    next_help_heading = "Accepted for compatibility, without effect"
)]
pub struct IgnoredFlags {
    #[arg(long, hide_default_value = true, default_value_t = 0)]
    pub num_load_threads: u32,
    #[arg(long, hide_default_value = true, default_value_t = 0)]
    pub num_unload_threads: u32,
    #[arg(long, hide_default_value = true, default_value_t = true)]
    pub flush_filesystem_caches: Switch,
    #[arg(long, hide_default_value = true, default_value_t = true)]
    pub enable_profiler: Switch,
    #[arg(long, hide_default_value = true, default_value_t = true)]
    pub remove_unused_fields_from_bundle_metagraph: Switch,
    #[arg(long, hide_default_value = true, default_value_t = false)]
    pub use_alts_credentials: Switch,
    #[arg(long, hide_default_value = true, default_value_t = false)]
    pub prefer_tflite_model: Switch,
    #[arg(long, hide_default_value = true, default_value_t = 1)]
    pub num_tflite_pools: i32,
    #[arg(long, hide_default_value = true, default_value_t = 1)]
    pub num_tflite_interpreters_per_pool: i32,
    #[arg(long, hide_default_value = true, default_value_t = false)]
    pub xla_cpu_compilation_enabled: Switch,
    #[arg(long, hide_default_value = true, default_value_t = false)]
    pub xla_gpu_compilation_enabled: Switch,
    #[arg(long)]
    pub thread_pool_factory_config_file: Option<PathBuf>,
    #[arg(long, hide_default_value = true, default_value_t = false)]
    pub skip_initialize_tpu: Switch,
}

impl IgnoredFlags {
    /// Says which of them are set to what has no effect here.
    pub fn warn(&self) {
        let set = [
            (self.use_alts_credentials, "--use_alts_credentials", "use --ssl_config_file"),
            (
                self.prefer_tflite_model,
                "--prefer_tflite_model",
                "SavedModels are served as they are",
            ),
            (
                self.xla_cpu_compilation_enabled,
                "--xla_cpu_compilation_enabled",
                "graphs are not compiled by XLA",
            ),
            (
                self.xla_gpu_compilation_enabled,
                "--xla_gpu_compilation_enabled",
                "graphs are not compiled by XLA",
            ),
            (
                self.thread_pool_factory_config_file.is_some(),
                "--thread_pool_factory_config_file",
                "each session has pools of its own",
            ),
        ];
        for (_, flag, why) in set.iter().filter(|(is_set, ..)| *is_set) {
            warn!("{flag} has no effect: {why}");
        }
    }
}

/// Where it is said which libraries have operations that TensorFlow lacks.
pub const CUSTOM_OPERATIONS: &str = "--custom_op_libraries";

/// A flag that is given as --name, --name=true or --name=false.
type Switch = bool;

#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case", next_help_heading = "Where to listen")]
pub struct Listen {
    /// Port for gRPC, on all addresses; 0 for none
    #[arg(long, default_value_t = 8500)]
    pub port: u16,
    /// Unix socket for gRPC, beside the port
    #[arg(long)]
    pub grpc_socket_path: Option<PathBuf>,
    /// Port for REST, on all addresses; 0 for none
    #[arg(long, default_value_t = 0)]
    pub rest_api_port: u16,
    /// Requests that are computed at the same time for REST, and up to a quarter each in addition that are the first of
    /// their model or of their connection; default: 4 for each CPU
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub rest_api_num_threads: Option<u16>,
    /// How long a REST request may take, in milliseconds
    #[arg(long, default_value_t = 30_000)]
    pub rest_api_timeout_in_ms: i64,
    /// Answer REST requests of web pages from elsewhere
    #[arg(long, default_value_t = false)]
    pub rest_api_enable_cors_support: Switch,
    /// Requests that are computed at the same time for gRPC, and up to a quarter each in addition that are the first of
    /// their model or of their connection; default: 4 for each CPU
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub grpc_max_threads: Option<u16>,
    /// Settings of gRPC as name=value, separated by commas: grpc.max_receive_message_length (bytes),
    /// grpc.max_concurrent_streams (of a connection), grpc.keepalive_time_ms (30000),
    /// grpc.keepalive_timeout_ms (20000), grpc.max_connection_idle_ms, grpc.max_connection_age_ms,
    /// grpc.max_connection_age_grace_ms, grpc.server_handshake_timeout_ms
    #[arg(long, default_value = "")]
    pub grpc_channel_arguments: String,
    /// File with an SSLConfig, in protobuf's text format: gRPC's port then takes TLS only
    #[arg(long)]
    pub ssl_config_file: Option<PathBuf>,
    /// Answer gRPC's health checks. Here they always are; taken for compatibility
    #[arg(long, default_value_t = true)]
    pub enable_grpc_healthcheck_service: Switch,
}

#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case", next_help_heading = "Models")]
pub struct Models {
    /// Name of the model at --model_base_path
    #[arg(long, default_value = "default")]
    pub model_name: String,
    /// Folder with a folder for each version of the model, named by its number
    #[arg(long)]
    pub model_base_path: Option<PathBuf>,
    /// File with a ModelServerConfig, in protobuf's text format: models, version policies, labels. It comes
    /// before --model_name and --model_base_path
    #[arg(long)]
    pub model_config_file: Option<PathBuf>,
    /// Seconds between looks at that file; 0: it is read once
    #[arg(long, default_value_t = 0)]
    pub model_config_file_poll_wait_seconds: i64,
    /// Seconds between looks for new versions; 0 or less: one look at each configuration
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub file_system_poll_wait_seconds: i64,
    /// Keep the last version that serves when no version is found any more, as when storage lists nothing for a
    /// moment; false: unload it, as TensorFlow Serving does
    #[arg(long, default_value_t = true)]
    pub servable_versions_always_present: Switch,
    /// When to open the ports: once every model serves, or once every model was tried and one serves. Others are
    /// tried again meanwhile
    #[arg(long, value_enum, default_value_t = WaitFor::Any)]
    pub wait_for_models: WaitFor,
    /// How often to try again to load a version. Changed files are tried at once, and what no retry mends never
    #[arg(long, default_value_t = 5)]
    pub max_num_load_retries: u32,
    /// Microseconds between these tries
    #[arg(long, default_value_t = 60_000_000, allow_negative_numbers = true)]
    pub load_retry_interval_micros: i64,
    /// Tags of the MetaGraphDef to load, separated by commas
    #[arg(long, default_value = "serve")]
    pub saved_model_tags: String,
    /// Run the requests of assets.extra/tf_serving_warmup_requests, on each session, before a version serves
    #[arg(long, default_value_t = true)]
    pub enable_model_warmup: Switch,
    /// How often each of them runs on each session
    #[arg(long, default_value_t = 0)]
    pub num_request_iterations_for_warmup: u32,
    /// Libraries with operations that models use and TensorFlow lacks, separated by commas, loaded before any model
    #[arg(long, value_delimiter = ',')]
    pub custom_op_libraries: Vec<PathBuf>,
    /// Let a new label name a version that is not loaded yet
    #[arg(long, default_value_t = false)]
    pub allow_version_labels_for_unavailable_models: Switch,
    /// Refuse signatures whose method_name is not that of the call
    #[arg(long, default_value_t = false)]
    pub enable_signature_method_name_check: Switch,
    /// Answer Predict with tensor_content in place of typed fields
    #[arg(long, default_value_t = false)]
    pub enable_serialization_as_tensor_content: Switch,
}

#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case", next_help_heading = "Sessions")]
pub struct Sessions {
    /// File with a ConfigProto, in protobuf's text format: the settings of each session
    #[arg(long)]
    pub tensorflow_session_config_file: Option<PathBuf>,
    /// File with a PlatformConfigMap, in protobuf's text format, of which session_config, saved_model_tags and
    /// mixed_precision count
    #[arg(long)]
    pub platform_config_file: Option<PathBuf>,
    /// bfloat16: compute what may lose precision in bfloat16, where oneDNN does
    #[arg(long)]
    pub mixed_precision: Option<String>,
    /// Threads of both pools of each session; 0: one for each of its CPUs
    #[arg(long, default_value_t = 0)]
    pub tensorflow_session_parallelism: i32,
    /// Threads of each session's intra-op pool; 0: one for each of its CPUs
    #[arg(long, default_value_t = 0)]
    pub tensorflow_intra_op_parallelism: i32,
    /// Threads of each session's inter-op pool; 0: one for each of its CPUs
    #[arg(long, default_value_t = 0)]
    pub tensorflow_inter_op_parallelism: i32,
    /// Sessions of a group have thread pools of their own. Here they always have; taken for compatibility
    #[arg(long, default_value_t = true)]
    pub use_per_session_threads: Switch,
    /// Sessions of each model; 0: one, or as many as the cpuset has entries
    #[arg(long, default_value_t = 0)]
    pub session_num_per_group: usize,
    /// Serve by session groups. Here all models are; taken for compatibility
    #[arg(long, default_value_t = true)]
    pub use_session_group: Switch,
    /// GPUs of the sessions, as "0,1"
    #[arg(long, default_value = "")]
    pub gpu_ids_list: String,
    /// Give each session a stream of its own on the GPU
    #[arg(long, default_value_t = false)]
    pub use_multi_stream: Switch,
    /// Take memory of the GPU as it is needed
    #[arg(long, default_value_t = false)]
    pub allow_gpu_mem_growth: Switch,
    /// Share of the GPU's memory to take; 0: TensorFlow's default
    #[arg(long, default_value_t = 0.0)]
    pub per_process_gpu_memory_fraction: f64,
}

#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case", next_help_heading = "Batching")]
pub struct Batching {
    /// Compute requests that come together as one
    #[arg(long, default_value_t = false)]
    pub enable_batching: Switch,
    /// File with BatchingParameters, in protobuf's text format
    #[arg(long)]
    pub batching_parameters_file: Option<PathBuf>,
    /// Take them from each version's own batching_params.pbtxt; versions without are not batched
    #[arg(long, default_value_t = false)]
    pub enable_per_model_batching_parameters: Switch,
}

#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case", next_help_heading = "Watching")]
pub struct Watching {
    /// File with a MonitoringConfig, in protobuf's text format: metrics for Prometheus at REST's port
    #[arg(long)]
    pub monitoring_config_file: Option<PathBuf>,
    /// Number of the first request of a model whose timeline is written; -1: none
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub timeline_start_step: i64,
    /// Requests from one timeline to the next
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub timeline_interval_step: i64,
    /// How many timelines to write
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub timeline_trace_count: i64,
    /// Folder for timelines, as JSON that chrome://tracing and Perfetto show
    #[arg(long)]
    pub timeline_path: Option<PathBuf>,
    /// Print the versions of the server and of TensorFlow
    #[arg(long, default_value_t = false)]
    pub version: Switch,
}

#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case", next_help_heading = "Our own")]
pub struct ServerLimits {
    /// CPUs of the sessions of each model, as "0-3;4-7"
    #[arg(long)]
    pub session_group_cpuset: Option<String>,
    /// How a session is chosen: auto, round_robin, thread, least_loaded or cpu_local
    #[arg(long)]
    pub session_group_policy: Option<Policy>,
    /// On which threads graphs run: auto, caller, worker or pool
    #[arg(long)]
    pub session_group_execution: Option<Execution>,
    /// Which kernels programs take: auto (the faster for each size) or stock
    #[arg(long)]
    pub session_group_kernels: Option<Kernels>,
    /// Largest request, in bytes, for gRPC and REST
    #[arg(long, default_value_t = i32::MAX as usize)]
    pub max_request_bytes: usize,
    /// Requests that may wait for a thread; more are answered with RESOURCE_EXHAUSTED
    #[arg(long, default_value_t = 10_000)]
    pub max_waiting_requests: usize,
    /// Threads that serve connections, each its own; default: one for each CPU
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub serving_threads: Option<u16>,
    /// Requests that are known to take less than this are computed on the thread that serves their connection; 0: none
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..1_000_000))]
    pub short_request_micros: u32,
    /// Connections at the same time, for gRPC and REST each; more wait
    #[arg(long, default_value_t = 100_000)]
    pub max_connections: usize,
    /// Seconds in which clients have to agree on TLS and HTTP/2, or to send the head of a REST request
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub handshake_timeout_seconds: u32,
    /// Seconds after which a REST connection without a request is ended
    #[arg(long, default_value_t = 75, value_parser = clap::value_parser!(u32).range(1..))]
    pub rest_api_idle_timeout_seconds: u32,
    /// Seconds that requests which are running have, after SIGTERM
    #[arg(long, default_value_t = 30)]
    pub drain_seconds: u64,
    /// Serve metrics at REST's port, at /monitoring/prometheus/metrics, without a monitoring_config_file
    #[arg(long, default_value_t = false)]
    pub enable_prometheus: Switch,
    /// Log each request
    #[arg(long, default_value_t = false)]
    pub access_log: Switch,
    /// Log lines as JSON, TensorFlow's as well
    #[arg(long, default_value_t = false)]
    pub log_json: Switch,
}

impl Flags {
    /// Reads the command line. Where it asks for help, that is an error, too.
    pub fn read() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::command_line().try_get_matches()?)
    }

    /// All flags, each with what `--help` says of it.
    pub fn command_line() -> Command {
        Self::command().mut_args(|arg| {
            let kind = arg.get_value_parser().type_id();
            if kind == TypeId::of::<Switch>() {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else if kind == TypeId::of::<PathBuf>() {
                arg.value_parser(PathBufValueParser::new().try_map(local))
            } else {
                arg
            }
        })
    }
}

fn local(path: PathBuf) -> Result<PathBuf, String> {
    check_local(&path).map_err(|error| error.message)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The manual page, made of the flags and of the sections that are written by hand.
    fn manual_page(hand_written: &str) -> String {
        let page = clap_mangen::Man::new(Flags::command_line()).source("SessionGroup");
        let mut text = Vec::new();
        page.render_title(&mut text).unwrap();
        // Names of flags are too long for lines that end at one column.
        text.extend(b".ad l\n");
        page.render_name_section(&mut text).unwrap();
        // clap's synopsis lists every flag.
        text.extend(b".SH SYNOPSIS\n\\fBsession_group_model_server\\fR [\\fIFLAG\\fR]...\n");
        page.render_description_section(&mut text).unwrap();
        page.render_options_section(&mut text).unwrap();
        page.render_extra_section(&mut text).unwrap();
        String::from_utf8(text).unwrap() + hand_written
    }

    #[test]
    fn the_committed_manual_page_is_what_the_flags_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
        let hand_written = fs::read_to_string(folder.join("sections.roff")).unwrap();
        let page = manual_page(&hand_written);
        let file = folder.join("session_group_model_server.1");
        if std::env::var_os("UPDATE_MAN").is_some() {
            fs::write(&file, &page).unwrap();
        }
        assert!(
            fs::read_to_string(&file).unwrap_or_default() == page,
            "{} is out of date: run `make man` and commit it",
            file.display()
        );
    }
}

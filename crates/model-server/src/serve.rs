//! Starts all parts, each after those that it needs, and ends them in reverse.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::catalog::Catalog;
use crate::config;
use crate::connections::{Connections, End, Ending, Grpc, Http, Times};
use crate::core::Core;
use crate::flags::Flags;
use crate::grpc::Service;
use crate::grpc_arguments;
use crate::lane::Lane;
use crate::loader;
use crate::log;
use crate::manager::{Manager, WaitFor};
use crate::metrics::Metrics;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::serving::model_service_server::ModelServiceServer;
use crate::proto::serving::prediction_service_server::PredictionServiceServer;
use crate::proto::serving::{ModelServerConfig, MonitoringConfig};
use crate::proto::{DESCRIPTORS, read_text};
use crate::rest::{self, Rest};
use crate::serving_threads::ServingThreads;
use crate::{tls, v2};

/// Serves until SIGTERM or SIGINT.
pub fn serve(flags: Flags) -> Result<()> {
    config::check(&flags)?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let or_default = |threads: Option<u16>| threads.map_or(4 * cpus, usize::from);
    let (for_grpc, for_rest) =
        (or_default(flags.listen.grpc_max_threads), or_default(flags.listen.rest_api_num_threads));
    let most_waiting = flags.limits.max_waiting_requests;
    let grpc = Lane::new("GRPC", for_grpc, most_waiting);
    let rest = Lane::new("REST", for_rest, most_waiting);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cpus)
        // One for each request that computes, and some for answers whose batch is done.
        .max_blocking_threads(grpc.most() + rest.most() + 8)
        .thread_name("server")
        .enable_all()
        .build()?;
    let threads = flags.limits.serving_threads.map_or(cpus, usize::from);
    let metrics = Arc::new(Metrics::new(threads));
    let threads = Arc::new(ServingThreads::start(threads)?);
    let core = core(&flags, metrics, runtime.handle())?;
    let served = runtime.block_on(run(&flags, &core, &threads, grpc, rest));
    drop(threads);
    // Requests that still compute are left behind.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if !core.manager.end(Duration::from_secs(2)) {
        info!("a model is still loading: it is left behind");
        end_process(report(&served).into());
    }
    served
}

/// What answers requests, without a model so far. What takes long is computed on threads of that runtime.
pub(crate) fn core(flags: &Flags, metrics: Arc<Metrics>, computing: &Handle) -> Result<Arc<Core>> {
    let catalog = Arc::new(Catalog::default());
    let (check, load) = loader::new(flags, metrics.clone())?;
    let manager = Manager::new(catalog.clone(), config::retry_policy(flags), check, load)?;
    Ok(Arc::new(Core {
        catalog,
        manager,
        format: config::response_format(flags),
        metrics,
        logs_access: flags.limits.access_log,
        short: Duration::from_micros(flags.limits.short_request_micros.into()),
        computing: computing.clone(),
    }))
}

/// Says why the server has failed, if it has. Gives the status of the process.
pub fn report(served: &Result<()>) -> u8 {
    let Err(error) = served else { return 0 };
    eprintln!("Failed to start server. Error: {error:#}");
    255
}

/// Unlike exit(), this skips the destructors of TensorFlow's libraries, which would free what other threads still
/// use.
fn end_process(status: i32) -> ! {
    log::finish();
    // SAFETY: no precondition.
    unsafe { libc::_exit(status) }
}

async fn run(
    flags: &Flags,
    core: &Arc<Core>,
    threads: &Arc<ServingThreads>,
    grpc: Arc<Lane>,
    rest: Arc<Lane>,
) -> Result<()> {
    // Without handlers, the first process of a container ignores signals.
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Where there is a file to read again: elsewhere, SIGHUP ends the process, as when a terminal is closed.
    let has_file = flags.models.model_config_file.is_some();
    let hangup = has_file.then(|| signal(SignalKind::hangup())).transpose()?;
    let models = config::models(flags)?;
    tokio::select! {
        applied = core.manager.apply(&models, flags.models.wait_for_models) => applied?,
        _ = terminate.recv() => return ended_while_loading("SIGTERM"),
        _ = interrupt.recv() => return ended_while_loading("SIGINT"),
    }

    let (end, ending) = watch::channel(End::NotYet);
    let mut tasks = JoinSet::new();
    let health = serve_grpc(flags, core, threads, grpc, &ending, &mut tasks).await?;
    serve_rest(flags, core, threads, rest, &ending, &mut tasks).await?;
    if let Some(hangup) = hangup {
        watch_config(flags, core, hangup);
    }
    tell_systemd(NotifyState::Ready);

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: no new requests are taken"),
        _ = interrupt.recv() => info!("SIGINT: no new requests are taken"),
        ended = tasks.join_next() => {
            if let Some(ended) = ended {
                ended?;
            }
            bail!("a listener has ended");
        }
    }
    tell_systemd(NotifyState::Stopping);
    for name in SERVICES {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
    // Watching clients have heard of it; their streams end now.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut health = health;
    for name in SERVICES {
        health.clear_service_status(name).await;
    }
    let _ = end.send(End::Draining);
    let mut drained = pin!(async {
        let mut lost = 0;
        while let Some(ended) = tasks.join_next().await {
            lost += ended.unwrap_or_default();
        }
        lost
    });
    let patience = Duration::from_secs(flags.limits.drain_seconds);
    let lost = match tokio::time::timeout(patience, &mut drained).await {
        Ok(lost) => lost,
        Err(_) => {
            let _ = end.send(End::Over);
            drained.await
        }
    };
    if lost > 0 {
        warn!("{lost} requests are not answered after {} s", flags.limits.drain_seconds);
        end_process(1);
    }
    info!("all requests are answered");
    Ok(())
}

/// If it has started this process and wants to know.
fn tell_systemd(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("systemd is not told: {error}");
    }
}

/// No request needs draining, because no port is open yet.
fn ended_while_loading(signal: &str) -> Result<()> {
    info!("{signal}: ending before the models are loaded");
    Ok(())
}

/// What listens. Each says how many requests it has not answered.
type Tasks = JoinSet<usize>;

/// Their names in health checks. TensorFlow Serving has the last two.
const SERVICES: [&str; 6] = [
    "",
    "inference.GRPCInferenceService",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "PredictionService",
    "ModelService",
];

/// gRPC's services, and what says how they are.
pub(crate) fn services(
    flags: &Flags,
    core: &Arc<Core>,
    lane: Arc<Lane>,
) -> Result<(HealthReporter, Routes)> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let v2 = v2::grpc::Service { core: core.clone(), lane: lane.clone() };
    let service = Service { core: core.clone(), lane };
    let most = grpc_arguments::largest_request(&flags.listen.grpc_channel_arguments)?
        .unwrap_or(flags.limits.max_request_bytes);
    let prediction = PredictionServiceServer::new(service.clone())
        .max_decoding_message_size(most)
        .max_encoding_message_size(usize::MAX);
    let inference = GrpcInferenceServiceServer::new(v2)
        .max_decoding_message_size(most)
        .max_encoding_message_size(usize::MAX);
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure();
        builder.register_encoded_file_descriptor_set(DESCRIPTORS)
    };
    let models = ModelServiceServer::new(service).max_encoding_message_size(usize::MAX);
    /// As gRPC's libraries do, unless they are told otherwise.
    macro_rules! compressed {
        ($service:expr) => {
            $service
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
        };
    }
    let services = Routes::new(compressed!(health_service))
        .add_service(compressed!(reflection().build_v1()?))
        .add_service(compressed!(reflection().build_v1alpha()?))
        .add_service(compressed!(prediction))
        .add_service(compressed!(models))
        .add_service(compressed!(inference))
        .prepare();
    Ok((health, services))
}

async fn serve_grpc(
    flags: &Flags,
    core: &Arc<Core>,
    threads: &Arc<ServingThreads>,
    lane: Arc<Lane>,
    ending: &Ending,
    tasks: &mut Tasks,
) -> Result<HealthReporter> {
    let listen = &flags.listen;
    let arguments = &listen.grpc_channel_arguments;
    let (health, services) = services(flags, core, lane)?;
    let handshake = seconds(flags.limits.handshake_timeout_seconds);
    let grpc = |tls| -> Result<Grpc> {
        let mut grpc = Grpc::new(services.clone(), tls, handshake);
        grpc_arguments::apply(arguments, &mut grpc)?;
        Ok(grpc)
    };
    let most = flags.limits.max_connections;
    if listen.port != 0 {
        let tls = listen.ssl_config_file.as_deref().map(tls::acceptor).transpose()?;
        let connections = Connections::new(bind(listen.port).await?, most, threads.clone());
        tasks.spawn(connections.serve(grpc(tls)?, ending.clone()));
        info!("Running gRPC ModelServer at 0.0.0.0:{} ...", listen.port);
    }
    if let Some(path) = listen.grpc_socket_path.clone() {
        let connections = Connections::new(bind_unix(&path)?, most, threads.clone());
        info!("Running gRPC ModelServer at UNIX socket {} ...", path.display());
        let served = connections.serve(grpc(None)?, ending.clone());
        tasks.spawn(async move {
            let lost = served.await;
            let _ = std::fs::remove_file(&path);
            lost
        });
    }
    for name in SERVICES {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    Ok(health)
}

/// What answers REST's requests.
pub(crate) fn rest(flags: &Flags, core: &Arc<Core>, lane: Arc<Lane>) -> Result<Router> {
    let monitoring = match &flags.watching.monitoring_config_file {
        None => MonitoringConfig::default(),
        Some(file) => read_text(file, "tensorflow.serving.MonitoringConfig")?,
    };
    let prometheus = monitoring.prometheus_config.filter(|prometheus| prometheus.enable);
    let prometheus = prometheus.map(|prometheus| prometheus.path);
    let path = prometheus.or(flags.limits.enable_prometheus.then(String::new));
    let metrics_path = path.map(|path| match path.as_str() {
        "" => "/monitoring/prometheus/metrics".to_string(),
        path => path.to_string(),
    });
    let rest = Rest {
        core: core.clone(),
        lane,
        most_bytes: flags.limits.max_request_bytes,
        metrics_path,
        allows_other_origins: flags.listen.rest_api_enable_cors_support,
    };
    Ok(Router::new().fallback(rest::answer).with_state(Arc::new(rest)))
}

async fn serve_rest(
    flags: &Flags,
    core: &Arc<Core>,
    threads: &Arc<ServingThreads>,
    lane: Arc<Lane>,
    ending: &Ending,
    tasks: &mut Tasks,
) -> Result<()> {
    let listen = &flags.listen;
    if listen.rest_api_port == 0 {
        return Ok(());
    }
    let timeout = listen.rest_api_timeout_in_ms;
    let routes = rest(flags, core, lane)?;
    let handshake = seconds(flags.limits.handshake_timeout_seconds);
    let idle = Some(seconds(flags.limits.rest_api_idle_timeout_seconds));
    let http = Http {
        routes,
        times: Times { handshake, idle, age: None, grace: None },
        request_timeout: (timeout > 0).then(|| Duration::from_millis(timeout as u64)),
    };
    let listener = bind(listen.rest_api_port).await?;
    let connections = Connections::new(listener, flags.limits.max_connections, threads.clone());
    tasks.spawn(connections.serve(http, ending.clone()));
    info!("Exporting HTTP/REST API at:localhost:{} ...", listen.rest_api_port);
    Ok(())
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// Listens on all addresses, those of IPv6 included if the machine has any.
async fn bind(port: u16) -> Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("port {port}"))
        }
    }
}

/// Listens on a socket. Replaces one that an earlier server left behind.
fn bind_unix(path: &Path) -> Result<UnixListener> {
    let refused = std::os::unix::net::UnixStream::connect(path).err();
    let is_left =
        refused.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    if is_left && std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
    UnixListener::bind(path).with_context(|| format!("--grpc_socket_path {}", path.display()))
}

/// Reads the file with the models again at each interval and each SIGHUP, and applies what has changed.
fn watch_config(flags: &Flags, core: &Arc<Core>, mut hangup: Signal) {
    let seconds = flags.models.model_config_file_poll_wait_seconds;
    let interval = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0);
    let interval = interval.map_or(Duration::MAX, Duration::from_secs);
    let (flags, core) = (flags.clone(), core.clone());
    tokio::spawn(async move {
        let mut applied = None;
        let mut pending: Option<(ModelServerConfig, JoinHandle<session_group::Result<()>>)> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = hangup.recv() => info!("SIGHUP: the model config file is read again"),
            }
            if let Some((models, task)) = pending.take_if(|(_, task)| task.is_finished())
                && matches!(task.await, Ok(Ok(())))
            {
                applied = Some(models);
            }
            let models = match config::models(&flags) {
                Ok(models) => models,
                Err(error) => {
                    error!("the model config file is not applied: {error:#}");
                    continue;
                }
            };
            let current = pending.as_ref().map_or(applied.as_ref(), |(models, _)| Some(models));
            if current != Some(&models) {
                // In a task of its own, because the file may change again before all its models serve.
                let (core, own) = (core.clone(), models.clone());
                let task = tokio::spawn(async move {
                    let applied = core.manager.apply(&own, WaitFor::All).await;
                    // The next look tries again: a label's version may serve by then.
                    applied.inspect_err(|error| error!("the model config file: {error}"))
                });
                pending = Some((models, task));
            }
        }
    });
}

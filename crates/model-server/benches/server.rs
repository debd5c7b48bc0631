//! Requests through the server against the same requests to the group in process, on the same CPUs, and to what
//! TensorFlow Serving is made of, gRPC's C++ server with a stock session (`grpc_cpp`): `make bench-server`. Contenders
//! take turns; medians of rounds, and the least and the most.

use std::alloc::{GlobalAlloc, Layout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Options, SessionGroup};
use session_group_server::metrics::Metrics;
use session_group_server::predict::{ResponseFormat, predict};
use session_group_server::proto::serving::{
    GetModelStatusRequest, GetModelStatusResponse, ModelSpec, PredictRequest, PredictResponse,
};
use session_group_server::proto::tensorflow::TensorProto;
use session_group_server::servable::{Servable, Sessions};
use session_group_server::tensor::{from_proto, to_proto};
use session_group_server::turns::at_once;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Counts, for what a request allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static COUNTS: AtomicBool = AtomicBool::new(false);

// SAFETY: all is left to mimalloc.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Relaxed) {
            ALLOCATIONS.fetch_add(1, Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SESSIONS: usize = 2;
const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const STATUS: &str = "/tensorflow.serving.ModelService/GetModelStatus";
const OUTPUT: &str = "StatefulPartitionedCall:0";
const FEEDS: [(&str, &str); 3] = [
    ("ids", "serving_default_ids:0"),
    ("dense", "serving_default_dense:0"),
    ("country", "serving_default_country:0"),
];

/// What is measured of a contender in a round.
struct Round {
    requests: u64,
    qps: f64,
    p50: u64,
    p99: u64,
    /// Microseconds of CPU that the server's process took for a request; 0 without it.
    cpu: f64,
}

type Contender<'a> = (&'a str, Box<dyn Fn(Duration) -> Round + 'a>);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: f64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    if arguments.iter().any(|argument| argument == "--help") {
        println!(
            "--rounds N (5)  --seconds S, of each turn (2)  --clients N, connections (8)  --streams N, requests of a gRPC \
             connection at the same time (1)  --batch N, rows of a request (1)  --only TEXT, contenders with it in their names, beside the group in process"
        );
        return;
    }
    let (rounds, clients) = (value("--rounds", 5.0) as usize, value("--clients", 8.0) as usize);
    let streams = value("--streams", 1.0) as usize;
    let turn = Duration::from_secs_f64(value("--seconds", 2.0));
    let only = arguments.iter().position(|argument| argument == "--only");
    let only = only.and_then(|at| arguments.get(at + 1)).map_or("", String::as_str);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let model = root.join("models/build/wide_deep");

    let batch = value("--batch", 1.0) as usize;
    let inputs = inputs(batch);
    let servable = servable(&model);
    let group = group(&model);
    let server = Server::start(&root, &model);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let uds = runtime.block_on(connect(&format!("unix:{}", server.socket.display()), clients));
    let tcp = runtime.block_on(connect(&local(server.port), clients));
    let peers: Vec<_> = PEERS
        .iter()
        .filter(|(name, _)| name.contains(only))
        .filter_map(|(name, arguments)| Some((*name, Peer::start(&root, &model, arguments)?)))
        .map(|(name, peer)| {
            let channels = runtime.block_on(connect(&local(peer.port), clients));
            (name, peer, channels)
        })
        .collect();
    let slow = runtime.block_on(connect(&local(server.port), 1));
    let request = request(&inputs);
    let slow_request = slow_request();
    let status = GetModelStatusRequest { model_spec: request.model_spec.clone() };
    let body = Bytes::from(json(batch));
    let feeds: Vec<(&str, &Tensor)> =
        FEEDS.iter().zip(&inputs).map(|((_, name), (_, tensor))| (*name, tensor)).collect();

    let threads = SESSIONS;
    let mut contenders: Vec<Contender<'_>> = vec![
        (
            "group in process",
            Box::new(|turn| {
                by_threads(threads, turn, || {
                    group.run(&feeds, &[OUTPUT], &[]).expect("an answer");
                })
            }),
        ),
        (
            "decoded request to answer",
            Box::new(|turn| {
                by_threads(threads, turn, || {
                    at_once(predict(&servable, request.clone(), None, ResponseFormat::default()))
                        .expect("an answer");
                })
            }),
        ),
        (
            "gRPC, Unix socket",
            Box::new(|turn| {
                let asked = by_rpc(&uds, streams, PREDICT, &request, turn, check_score);
                server.process.cpu(|| runtime.block_on(asked))
            }),
        ),
        (
            "gRPC, TCP",
            Box::new(|turn| {
                let asked = by_rpc(&tcp, streams, PREDICT, &request, turn, check_score);
                server.process.cpu(|| runtime.block_on(asked))
            }),
        ),
        (
            "gRPC, TCP, beside slow ones",
            Box::new(|turn| {
                let asked = by_rpc(&tcp, streams, PREDICT, &request, turn, check_score);
                runtime.block_on(beside_slow_ones(&slow, &slow_request, asked))
            }),
        ),
        (
            "gRPC, TCP, among slow ones",
            Box::new(|turn| {
                let asked = by_rpc(&tcp, streams, PREDICT, &request, turn, check_score);
                runtime.block_on(beside_slow_ones(&tcp[..1], &slow_request, asked))
            }),
        ),
        (
            "gRPC, Unix socket, no model",
            Box::new(|turn| {
                let asked = by_rpc(&uds, streams, STATUS, &status, turn, check_status);
                server.process.cpu(|| runtime.block_on(asked))
            }),
        ),
        (
            "REST",
            Box::new(|turn| {
                let asked = by_rest(server.rest_port, &body, clients, turn);
                server.process.cpu(|| runtime.block_on(asked))
            }),
        ),
    ];
    for (name, peer, channels) in &peers {
        let (runtime, request) = (&runtime, &request);
        let run = move |turn| {
            let asked = by_rpc(channels, streams, PREDICT, request, turn, check_score);
            peer.process.cpu(|| runtime.block_on(asked))
        };
        contenders.push((name, Box::new(run)));
    }
    let group_in_process = contenders[0].0;
    contenders.retain(|(name, _)| *name == group_in_process || name.contains(only));
    println!(
        "Wide & Deep, batch {batch}, {SESSIONS} sessions, {threads} threads in process, {clients} connections to the server, \
         of gRPC with {streams} requests at a time each, {rounds} rounds of {turn:.1?}"
    );
    // Once for what happens the first time.
    for (_, run) in &contenders {
        run(turn / 4);
    }
    let mut results: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for ((_, run), results) in contenders.iter().zip(&mut results) {
            results.push(run(turn));
        }
    }
    let in_process = median(results[0].iter().map(|round| round.qps));
    println!(
        "{:28} {:>10} {:>21} {:>9} {:>8} {:>8} {:>13} {:>15}",
        "",
        "requests/s",
        "(min to max)",
        "of group",
        "p50 us",
        "p99 us",
        "server CPU us",
        "(min to max)"
    );
    for ((name, _), rounds) in contenders.iter().zip(&results) {
        let all: Vec<f64> = rounds.iter().map(|round| round.qps).collect();
        let range = format!(
            "{:.0} to {:.0}",
            all.iter().copied().fold(f64::MAX, f64::min),
            all.iter().copied().fold(0.0, f64::max)
        );
        let qps = median(all.iter().copied());
        let mut cpu: Vec<f64> = rounds.iter().map(|round| round.cpu).collect();
        cpu.sort_by(f64::total_cmp);
        let cpu = match cpu[..] {
            [least, .., most] if most > 0.0 => {
                format!("{:13.1} {:>15}", cpu[cpu.len() / 2], format!("{least:.1} to {most:.1}"))
            }
            _ => String::new(),
        };
        println!(
            "{name:28} {qps:10.0} {range:>21} {:8.0}% {:8.1} {:8.1} {cpu}",
            qps / in_process * 100.0,
            median(rounds.iter().map(|round| round.p50 as f64)) / 1e3,
            median(rounds.iter().map(|round| round.p99 as f64)) / 1e3,
        );
    }
    let cpu = |wanted: &str| {
        let found = contenders.iter().position(|(name, _)| *name == wanted)?;
        Some(median(results[found].iter().map(|round| round.cpu)))
    };
    if let Some(own) = cpu("gRPC, TCP") {
        for (name, _, _) in &peers {
            if let Some(other) = cpu(name) {
                println!("{name}: {:.1} times the server's CPU for a request", other / own);
            }
        }
    }
    own_cost(&group, &feeds, &servable, &request);
}

/// What the server's path between a decoded request and the session costs beside the session.
fn own_cost(
    group: &SessionGroup,
    feeds: &[(&str, &Tensor)],
    servable: &Servable,
    request: &PredictRequest,
) {
    const RUNS: u32 = 20_000;
    let alone = |work: &dyn Fn()| {
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let begun = Instant::now();
                (0..RUNS).for_each(|_| work());
                begun.elapsed().as_secs_f64() * 1e6 / f64::from(RUNS)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        COUNTS.store(true, Relaxed);
        let before = ALLOCATIONS.load(Relaxed);
        (0..1000).for_each(|_| work());
        COUNTS.store(false, Relaxed);
        (times[times.len() / 2], (ALLOCATIONS.load(Relaxed) - before) as f64 / 1000.0)
    };
    let (in_group, group_allocations) = alone(&|| {
        group.run(feeds, &[OUTPUT], &[]).expect("an answer");
    });
    let (copying, copy_allocations) = alone(&|| drop(request.clone()));
    let (whole, allocations) = alone(&|| {
        at_once(predict(servable, request.clone(), None, ResponseFormat::default()))
            .expect("an answer");
    });
    let own = whole - in_group - copying;
    println!(
        "One thread: {in_group:.2} us in the group, {whole:.2} us from decoded request to answer, of which \
         {copying:.2} us are the benchmark's copy of the request.\nOur path between decoded request and session: \
         {own:.2} us and {:.0} allocations a request, or {:.0} requests a second and core without gRPC and \
         TensorFlow.",
        allocations - group_allocations - copy_allocations,
        1e6 / own
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn inputs(batch: usize) -> Vec<(&'static str, Tensor)> {
    let rows = batch as i64;
    let ids: Vec<i64> = (0..26 * rows).map(|i| i % 26 * 31).collect();
    let dense: Vec<f32> = (0..13 * batch).map(|i| (i % 13) as f32 / 13.0).collect();
    vec![
        ("ids", Tensor::from_slice(&[rows, 26], &ids).expect("a tensor")),
        ("dense", Tensor::from_slice(&[rows, 13], &dense).expect("a tensor")),
        ("country", Tensor::from_strings(&[rows], &vec!["at"; batch]).expect("a tensor")),
    ]
}

/// As clients in Python send it: numbers as bytes.
fn request(inputs: &[(&'static str, Tensor)]) -> PredictRequest {
    let proto = |tensor: &Tensor| -> TensorProto {
        let is_text = tensor.strings().is_ok();
        to_proto(tensor, !is_text).expect("a tensor that can be sent")
    };
    let inputs = inputs.iter().map(|(name, tensor)| (name.to_string(), proto(tensor))).collect();
    let model_spec = Some(ModelSpec { name: "wide".to_string(), ..ModelSpec::default() });
    PredictRequest { model_spec, inputs, output_filter: Vec::new() }
}

/// One of a model with a loop, which takes about 50 ms.
fn slow_request() -> PredictRequest {
    let proto = |tensor: Result<Tensor, _>| to_proto(&tensor.expect("a tensor"), false);
    let [word, n] =
        [proto(Tensor::from_strings(&[1], &["a"])), proto(Tensor::from_slice(&[], &[25_000i32]))];
    let inputs = [("word", word), ("n", n)];
    let inputs = inputs.map(|(name, proto)| (name.to_string(), proto.expect("it can be sent")));
    let model_spec = Some(ModelSpec { name: "loop".to_string(), ..ModelSpec::default() });
    PredictRequest { model_spec, inputs: inputs.into(), output_filter: Vec::new() }
}

fn json(batch: usize) -> String {
    let ids: Vec<i64> = (0..26).map(|i| i * 31).collect();
    let dense: Vec<f32> = (0..13).map(|i| i as f32 / 13.0).collect();
    let row = format!(r#"{{"ids": {ids:?}, "dense": {dense:?}, "country": "at"}}"#);
    format!(r#"{{"instances": [{}]}}"#, vec![row; batch].join(","))
}

fn options() -> Options {
    let mut options = Options::new();
    options.session_num(SESSIONS);
    options
}

fn group(model: &Path) -> SessionGroup {
    let path = model.to_str().expect("a path in UTF-8");
    SessionGroup::load(&SessionOptions::new(), None, path, &["serve"], &options(), None)
        .expect("the model: make models")
}

fn servable(model: &Path) -> Servable {
    let sessions = Sessions {
        session_options: SessionOptions::new(),
        options: options(),
        tags: vec!["serve".to_string()],
    };
    let loaded = Servable::load("wide", 1, model, &sessions, None, None, &Metrics::default())
        .expect("the model");
    loaded.warmed_up(None)
}

/// What runs beside the benchmark, until this is dropped.
struct Process(Child);

impl Process {
    /// Adds what the process computes meanwhile.
    fn cpu(&self, run: impl FnOnce() -> Round) -> Round {
        let before = self.ticks();
        let round = run();
        // As Linux counts for programs, wherever they run.
        let micros = (self.ticks() - before) as f64 * 10_000.0;
        Round { cpu: micros / round.requests as f64, ..round }
    }

    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        let stat = stat.expect("the server runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// gRPC's C++ server with a stock session.
struct Peer {
    process: Process,
    port: u16,
}

/// With their arguments.
const PEERS: [(&str, &[&str]); 2] =
    [("gRPC C++, stock session", &[]), ("gRPC C++, stock, inline", &["inline"])];

impl Peer {
    /// `None` where it is not built.
    fn start(root: &Path, model: &Path, arguments: &[&str]) -> Option<Self> {
        let program = root.join("target/bench/grpc_cpp");
        if !program.exists() {
            return None;
        }
        let port = free_port();
        let process = Command::new(program)
            .arg(root.join("third_party/tensorflow/lib/libtensorflow_cc.so.2"))
            .arg(port.to_string())
            .arg(model)
            .args(arguments)
            .spawn()
            .expect("it starts");
        wait_for(port);
        Some(Self { process: Process(process), port })
    }
}

/// The server, in a process of its own.
struct Server {
    process: Process,
    folder: PathBuf,
    socket: PathBuf,
    port: u16,
    rest_port: u16,
}

impl Server {
    fn start(root: &Path, model: &Path) -> Self {
        let folder = std::env::temp_dir().join(format!("bench_server.{}", std::process::id()));
        let mut models = String::new();
        for (name, model) in [("wide", model), ("loop", &model.with_file_name("tf1_saved_model"))] {
            let base = folder.join(name);
            std::fs::create_dir_all(&base).expect("a folder");
            let _ = std::os::unix::fs::symlink(model, base.join("1"));
            models += &format!(
                "config {{ name: \"{name}\" base_path: \"{}\" model_platform: \"tensorflow\" }} ",
                base.display()
            );
        }
        let config = folder.join("models.config");
        std::fs::write(&config, format!("model_config_list {{ {models} }}")).expect("a file");
        let (socket, port, rest_port) = (folder.join("socket"), free_port(), free_port());
        let process = Command::new(root.join("target/release/session_group_model_server"))
            .arg(format!("--port={port}"))
            .arg(format!("--rest_api_port={rest_port}"))
            .arg(format!("--grpc_socket_path={}", socket.display()))
            .arg(format!("--model_config_file={}", config.display()))
            .arg(format!("--session_num_per_group={SESSIONS}"))
            .env("RUST_LOG", "warn")
            .spawn()
            .expect("the server: make server");
        wait_for(rest_port);
        Self { process: Process(process), folder, socket, port, rest_port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Until something listens there.
fn wait_for(port: u16) {
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a server does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A connection for each client.
async fn connect(address: &str, clients: usize) -> Vec<Channel> {
    let endpoint = Endpoint::from_shared(address.to_string()).expect("an address");
    let mut channels = Vec::new();
    for _ in 0..clients {
        channels.push(endpoint.connect().await.expect("the server"));
    }
    channels
}

fn round(histograms: impl Iterator<Item = Histogram<u64>>, took: Duration) -> Round {
    let mut all = Histogram::<u64>::new(3).expect("3 digits");
    histograms.for_each(|one| all.add(one).expect("of the same kind"));
    Round {
        requests: all.len(),
        qps: all.len() as f64 / took.as_secs_f64(),
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
        cpu: 0.0,
    }
}

/// Waits for the clients.
async fn finished(tasks: Vec<JoinHandle<Histogram<u64>>>, begun: Instant) -> Round {
    let mut histograms = Vec::new();
    for task in tasks {
        histograms.push(task.await.expect("no panic"));
    }
    round(histograms.into_iter(), begun.elapsed())
}

fn by_threads(threads: usize, turn: Duration, work: impl Fn() + Sync) -> Round {
    let begin = Barrier::new(threads);
    let begun = Instant::now();
    let histograms: Vec<_> = std::thread::scope(|scope| {
        let run = || {
            let mut histogram = Histogram::<u64>::new(3).expect("3 digits");
            begin.wait();
            let end = Instant::now() + turn;
            loop {
                let begun = Instant::now();
                if begun >= end {
                    return histogram;
                }
                work();
                histogram.record(begun.elapsed().as_nanos() as u64).expect("it resizes");
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    round(histograms.into_iter(), begun.elapsed())
}

/// Asks by a connection for each client, so many requests at a time by each.
async fn by_rpc<Q, A>(
    channels: &[Channel],
    streams: usize,
    path: &'static str,
    request: &Q,
    turn: Duration,
    check: fn(A),
) -> Round
where
    Q: prost::Message + Clone + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let begun = Instant::now();
    let tasks: Vec<_> = channels
        .iter()
        .flat_map(|channel| std::iter::repeat_n(channel, streams))
        .map(|channel| {
            let (channel, request) = (channel.clone(), request.clone());
            tokio::spawn(async move {
                let mut client = tonic::client::Grpc::new(channel);
                let mut histogram = Histogram::<u64>::new(3).expect("3 digits");
                while begun.elapsed() < turn {
                    let begun = Instant::now();
                    client.ready().await.expect("the server");
                    let path = path.parse().expect("a path");
                    let codec = tonic_prost::ProstCodec::<Q, A>::default();
                    let request = tonic::Request::new(request.clone());
                    let answer = client.unary(request, path, codec).await.expect("an answer");
                    check(answer.into_inner());
                    histogram.record(begun.elapsed().as_nanos() as u64).expect("it resizes");
                }
                histogram
            })
        })
        .collect();
    finished(tasks, begun).await
}

/// Keeps a request open meanwhile on each of these connections that takes long.
async fn beside_slow_ones(
    channels: &[Channel],
    slow: &PredictRequest,
    asked: impl Future<Output = Round>,
) -> Round {
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = channels
        .iter()
        .map(|channel| {
            let (channel, slow, over) = (channel.clone(), slow.clone(), over.clone());
            tokio::spawn(async move {
                let mut client = tonic::client::Grpc::new(channel);
                while !over.load(Relaxed) {
                    client.ready().await.expect("the server");
                    let codec = tonic_prost::ProstCodec::<_, PredictResponse>::default();
                    let request = tonic::Request::new(slow.clone());
                    let path = PREDICT.parse().expect("a path");
                    client.unary(request, path, codec).await.expect("an answer");
                }
            })
        })
        .collect();
    let round = asked.await;
    over.store(true, Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    round
}

fn check_score(mut answer: PredictResponse) {
    let score = answer.outputs.remove("score").expect("a score");
    assert!(from_proto(score).is_ok());
}

fn check_status(answer: GetModelStatusResponse) {
    assert_eq!(answer.model_version_status.len(), 1);
}

async fn by_rest(port: u16, body: &Bytes, clients: usize, turn: Duration) -> Round {
    let begun = Instant::now();
    let failed = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (body, failed) = (body.clone(), failed.clone());
            tokio::spawn(async move {
                let stream =
                    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
                stream.set_nodelay(true).expect("an option");
                let (mut client, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .expect("HTTP");
                tokio::spawn(connection);
                let mut histogram = Histogram::<u64>::new(3).expect("3 digits");
                while begun.elapsed() < turn {
                    let begun = Instant::now();
                    let request = hyper::Request::post("/v1/models/wide:predict")
                        .header("Host", "localhost")
                        .body(Full::new(body.clone()))
                        .expect("a request");
                    let answer = client.send_request(request).await.expect("an answer");
                    let is_right = answer.status().is_success();
                    let _ = answer.into_body().collect().await.expect("a body");
                    failed.fetch_or(!is_right, Relaxed);
                    histogram.record(begun.elapsed().as_nanos() as u64).expect("it resizes");
                }
                histogram
            })
        })
        .collect();
    let round = finished(tasks, begun).await;
    assert!(!failed.load(Relaxed), "REST has refused a request");
    round
}

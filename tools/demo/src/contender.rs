//! A process that serves a model in one way, and its parent's end of it.
//!
//! The parent writes lines to the child: the seconds of a turn, then the end of input. The child
//! writes a line of JSON when it has loaded, after each turn, and at the end.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use session_group::SessionGroup;
use session_group::tensorflow::{Buffer, SessionOptions, Tensor};
use stock_session::{Step, StockSession};

use crate::Settings;
use crate::model::Signature;

/// A way to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    One,
    Independent,
    Group,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::One, Self::Independent, Self::Group];

    pub fn name(self, settings: &Settings) -> String {
        let n = settings.sessions();
        match self {
            Self::One => "1 stock session".to_string(),
            Self::Independent => format!("{n} stock sessions"),
            Self::Group => format!("session group of {n}"),
        }
    }
}

/// What a contender has shown.
#[derive(Default, Serialize, Deserialize)]
pub struct Outcome {
    pub load_seconds: f64,
    /// Requests a second, for each turn.
    pub qps: Vec<f64>,
    pub p50_us: u64,
    pub p99_us: u64,
    /// The answers to a few requests that are the same for all.
    pub answers: Vec<Answer>,
    /// In bytes, after the last turn; the parent reads it.
    #[serde(skip)]
    pub resident: u64,
}

/// A fetched tensor, in a form that can be compared.
#[derive(Serialize, Deserialize)]
pub enum Answer {
    Floats(Vec<f32>),
    Strings(Vec<Vec<u8>>),
    Bytes(Vec<u8>),
}

/// The parent's end.
pub struct Child {
    pub kind: Kind,
    process: std::process::Child,
    /// Closed to end the process.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub fn start(kind: Kind, settings: &Settings) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["contender", kind.to_possible_value().expect("has a name").get_name()])
            .arg("--model")
            .arg(&settings.model)
            .args(["--sessions", &settings.sessions().to_string()])
            .args(["--clients", &settings.clients().to_string()])
            .args(["--batch", &settings.batch.to_string()])
            .args(["--id-range", &settings.id_range.to_string()])
            .args(settings.cpuset.iter().flat_map(|cpuset| ["--cpuset", cpuset]))
            .args(settings.policy.iter().flat_map(|policy| ["--policy", policy.name()]))
            .args(settings.execution.iter().flat_map(|e| ["--execution".into(), e.to_string()]))
            .env("TF_CPP_MIN_LOG_LEVEL", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // TensorFlow greets there; errors come on standard output.
            .stderr(Stdio::null())
            .spawn()?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("no output")?);
        let mut child = Self { kind, process, input, output };
        child.expect("ready")?;
        Ok(child)
    }

    pub fn turn(&mut self, duration: Duration) -> Result<()> {
        let input = self.input.as_mut().context("finished")?;
        writeln!(input, "{}", duration.as_secs_f64())?;
        self.expect("done")
    }

    pub fn finish(mut self) -> Result<Outcome> {
        let resident = resident(self.process.id())?;
        self.input = None;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        self.process.wait()?;
        Ok(Outcome { resident, ..serde_json::from_str(&line)? })
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.trim() {
            "" => anyhow::bail!("its process ended without a message"),
            answer if answer == word => Ok(()),
            error => anyhow::bail!("{error}"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Where something went wrong before the end; a process that has ended stays so.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context(path)?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The child's end. Reports what goes wrong to the parent, as the next line that it reads.
pub fn serve(kind: Kind, settings: &Settings) -> Result<()> {
    std::panic::set_hook(Box::new(|panic| println!("{}", panic.to_string().replace('\n', " "))));
    try_serve(kind, settings).inspect_err(|error| println!("{error:#}"))
}

fn try_serve(kind: Kind, settings: &Settings) -> Result<()> {
    let start = Instant::now();
    let (server, meta_graph_def) = Server::load(kind, settings)?;
    let mut outcome = Outcome { load_seconds: start.elapsed().as_secs_f64(), ..Outcome::default() };
    let signature = Signature::read(&meta_graph_def)?;
    drop(meta_graph_def);
    let runner = Runner::new(server, &signature);

    let requests = (0..REQUESTS)
        .map(|seed| signature.request(seed, settings.batch, settings.id_range))
        .collect::<Result<Vec<_>>>()?;
    for request in requests.iter().take(ANSWERS) {
        outcome.answers.extend(runner.run(0, request).iter().map(answer));
    }
    // Every session has run before anything is measured.
    for client in 0..settings.sessions().max(settings.clients()) {
        (0..8).for_each(|i| drop(runner.run(client, &requests[i])));
    }

    println!("ready");
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    for line in std::io::stdin().lock().lines() {
        let turn = Duration::from_secs_f64(line?.parse()?);
        outcome.qps.push(measure(&runner, &requests, settings.clients(), turn, &mut latencies)?);
        println!("done");
    }
    outcome.p50_us = latencies.value_at_quantile(0.50) / 1000;
    outcome.p99_us = latencies.value_at_quantile(0.99) / 1000;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Different requests, so that not every one finds the same rows in the cache.
const REQUESTS: u64 = 512;
/// How many of them are compared between contenders.
const ANSWERS: usize = 8;

/// Each client sends one request after the other until the turn ends. Gives requests a second.
fn measure(
    runner: &Runner<'_>,
    requests: &[Vec<Tensor>],
    clients: usize,
    turn: Duration,
    latencies: &mut Histogram<u64>,
) -> Result<f64> {
    let start = Barrier::new(clients);
    let own: Vec<(Histogram<u64>, f64)> = thread::scope(|scope| {
        let client = |client: usize| {
            let mut own = Histogram::new_from(&*latencies);
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let begun = Instant::now();
                let mut sent = Instant::now();
                for i in client * 31.. {
                    drop(runner.run(client, &requests[i % requests.len()]));
                    let answered = Instant::now();
                    own.saturating_record((answered - sent).as_nanos() as u64);
                    sent = answered;
                    if answered - begun >= turn {
                        break;
                    }
                }
                (own, begun.elapsed().as_secs_f64())
            })
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        clients.into_iter().map(|client| client.join().expect("a client panicked")).collect()
    });
    let mut qps = 0.0;
    for (own, seconds) in own {
        qps += own.len() as f64 / seconds;
        latencies.add(own)?;
    }
    Ok(qps)
}

enum Server {
    Stock(Vec<StockSession>),
    Group(Box<SessionGroup>),
}

impl Server {
    fn load(kind: Kind, settings: &Settings) -> Result<(Self, Vec<u8>)> {
        let dir = settings.model.to_str().context("the model's path is not UTF-8")?;
        let options = SessionOptions::new();
        let n = settings.sessions();
        if kind == Kind::Group {
            let group_options = settings.group_options()?;
            let mut meta_graph_def = Buffer::new();
            let group = SessionGroup::load(
                &options,
                None,
                dir,
                &["serve"],
                &group_options,
                Some(&mut meta_graph_def),
            )?;
            return Ok((Self::Group(Box::new(group)), meta_graph_def.bytes().to_vec()));
        }
        let count = if kind == Kind::One { 1 } else { n };
        let (sessions, mut meta_graph_defs): (Vec<_>, Vec<_>) =
            (0..count).map(|_| StockSession::load(&options, dir)).unzip();
        Ok((Self::Stock(sessions), meta_graph_defs.swap_remove(0)))
    }
}

/// A server with what it shall compute.
struct Runner<'a> {
    server: Server,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    /// One for each stock session.
    steps: Vec<Step>,
}

impl<'a> Runner<'a> {
    fn new(server: Server, signature: &'a Signature) -> Self {
        let (inputs, outputs) = (signature.input_names(), signature.output_names());
        let steps = match &server {
            Server::Stock(sessions) => {
                sessions.iter().map(|session| session.step(&inputs, &outputs)).collect()
            }
            Server::Group(_) => Vec::new(),
        };
        Self { server, inputs, outputs, steps }
    }

    fn run(&self, client: usize, request: &[Tensor]) -> Vec<Tensor> {
        match &self.server {
            Server::Stock(sessions) => {
                let i = client % sessions.len();
                let tensors: Vec<&Tensor> = request.iter().collect();
                sessions[i].run(&self.steps[i], &tensors, &[])
            }
            Server::Group(group) => {
                let feeds: Vec<_> = std::iter::zip(self.inputs.iter().copied(), request).collect();
                group.run(&feeds, &self.outputs, &[]).unwrap_or_else(|error| panic!("{error}"))
            }
        }
    }
}

fn answer(tensor: &Tensor) -> Answer {
    if let Ok(floats) = tensor.to_vec::<f32>() {
        Answer::Floats(floats)
    } else if let Ok(strings) = tensor.to_strings() {
        Answer::Strings(strings)
    } else {
        Answer::Bytes(tensor.bytes().to_vec())
    }
}

//! The parent's end of the processes that serve. [`server`](crate::server) is the child's.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use session_group::affinity;
use session_group::cpuset::CpuSet;

use crate::clock;
use crate::contender::{Contender, Family};
use crate::gpu;
use crate::load::Measured;
use crate::onednn;
use crate::protocol::{Ready, Said, Turn};
use crate::settings::{Model, Setup, name};

/// A contender that is up: one process, or N of them.
pub struct Running {
    contender: Contender,
    pub ready: Ready,
    clients: usize,
    children: Vec<Child>,
}

impl Running {
    pub fn start(contender: Contender, model: Model, batch: u32, setup: &Setup) -> Result<Self> {
        let sessions = setup.sessions()?;
        let start = |sessions, cpu| Child::start(contender, model, batch, sessions, cpu, setup);
        let mut children = if contender.is_processes() {
            let cpus = affinity::allowed()?;
            let cpus = cpus.cpus().iter().copied().cycle().take(sessions);
            // With a GPU to feed, there is more to do than what the client's thread does.
            let pin = |cpu| (!contender.is_on_gpu()).then_some(cpu);
            cpus.map(|cpu| start(1, pin(cpu))).collect::<Result<Vec<_>>>()?
        } else {
            vec![start(sessions, None)?]
        };
        let ready = children.iter_mut().map(Child::read).collect::<Result<Vec<Ready>>>()?;
        // They load side by side; the last one counts.
        let last = ready.into_iter().max_by(|a, b| a.ready_seconds.total_cmp(&b.ready_seconds));
        Ok(Self { contender, ready: last.context("no process")?, clients: sessions, children })
    }

    /// Lets all clients send requests: in a closed loop, or so many a second in all.
    pub fn turn(&mut self, seconds: f64, rate: Option<f64>) -> Result<Measured> {
        // Until then, the line has reached every client.
        let start = clock::now() + Duration::from_millis(20);
        let turn = Turn { start, seconds, rate: rate.map(|rate| rate / self.clients as f64) };
        let line = serde_json::to_string(&turn)?;
        for child in &mut self.children {
            writeln!(child.input, "{line}")?;
        }
        let parts: Vec<_> = self.children.iter_mut().map(Child::read).collect::<Result<_>>()?;
        Ok(Measured::sum(parts))
    }

    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.children.iter().map(|child| child.process.id())
    }

    /// Resident memory in bytes. Pages of files, which processes share, count once. TensorFlow's libraries, which are
    /// linked into all processes, count only for contenders that use them.
    pub fn resident(&self) -> Result<u64> {
        let mut pids = self.pids();
        let mut sum = resident(pids.next().context("no process")?)?;
        for pid in pids {
            sum += field(pid, "smaps_rollup", "Anonymous:")?;
        }
        Ok(match self.contender.family() {
            Family::Stock | Family::Group => sum,
            Family::Onnx | Family::Openvino => sum - self.ready.resident_at_start,
        })
    }

    /// The most that has been resident, in bytes, over all processes.
    pub fn peak_resident(&self) -> Result<u64> {
        self.pids().map(|pid| field(pid, "status", "VmHWM:")).sum()
    }
}

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    field(pid, "smaps_rollup", "Rss:")
}

/// A line such as `Rss:  12 kB` of a process's file in /proc, in bytes.
fn field(pid: u32, file: &str, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).context(path)?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    fn start(
        contender: Contender,
        model: Model,
        batch: u32,
        sessions: usize,
        cpu: Option<u32>,
        setup: &Setup,
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", &name(&model), &name(&contender), &batch.to_string()])
            .args(["--sessions", &sessions.to_string()])
            .arg("--models-dir")
            .arg(&setup.models_dir)
            .arg("--venv")
            .arg(&setup.venv)
            .args(
                setup
                    .device_library
                    .iter()
                    .flat_map(|library| ["--device-library".as_ref(), library.as_os_str()]),
            )
            .env("TF_CPP_MIN_LOG_LEVEL", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Libraries greet there; errors come on standard output.
            .stderr(Stdio::null());
        gpu::prepare(contender, &mut command);
        onednn::prepare(contender, &mut command);
        if let Some(cpu) = cpu {
            let cpus = CpuSet::one(cpu);
            // SAFETY: between fork and exec, this sets and reads the affinity mask. It allocates,
            // which glibc allows in a child.
            unsafe {
                command.pre_exec(move || affinity::pin(&cpus).map_err(std::io::Error::other))
            };
        }
        let mut process = command.spawn()?;
        let input = process.stdin.take().context("no input")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        Ok(Self { process, input, output })
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            let status = self.process.wait()?;
            return Err(anyhow!("its process ended without a message, {status}"));
        }
        let said: Said<T> =
            serde_json::from_str(&line).with_context(|| format!("its process said {line:?}"))?;
        said.map_err(|error| anyhow!(error))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It serves until it is told to end, and has nothing to save.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

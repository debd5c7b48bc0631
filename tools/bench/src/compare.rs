//! Lets contenders take turns.
//!
//! All are loaded, each in a process of its own, and sleep until it is their turn. In each round
//! every contender has one turn, in a new random order, so that what changes on the machine
//! changes for all. A turn that something else disturbed is repeated.

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use session_group::affinity;

use crate::answers;
use crate::contender::Contender;
use crate::gpu;
use crate::load::{Latencies, Measured};
use crate::noise::{Sample, TOLERATED};
use crate::onednn;
use crate::process::Running;
use crate::results::{Comparison, Entry, Open, Outcome, Results, Round};
use crate::settings::{Model, Settings, name};
use crate::stats::median;

/// The share of a peak that contenders get in the open loop: of their own or of the slowest one's.
pub const OPEN_LOAD: f64 = 0.7;

pub fn compare(settings: &Settings) -> Result<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    for model in settings.models() {
        for batch in settings.batches() {
            comparisons.push(compare_one(settings, model, batch)?);
        }
    }
    Ok(comparisons)
}

fn compare_one(settings: &Settings, model: Model, batch: u32) -> Result<Comparison> {
    let contenders = settings.contenders();
    let turns = contenders.len() as u64 * (2 + 3 * u64::from(settings.rounds()));
    let bar = progress_bar(turns, format!("{} batch {batch}", name(&model)));
    let reference = Running::start(Contender::Stock, model, batch, &settings.setup)
        .with_context(|| format!("{}: {}", name(&model), name(&Contender::Stock)))?
        .ready
        .answers;

    let mut lanes: Vec<Lane> = Vec::new();
    for &contender in &contenders {
        bar.set_message(format!("loading {}", name(&contender)));
        let memory = || contender.is_on_gpu().then(gpu::memory)?.ok();
        let before = memory();
        let running = start(contender, model, batch, settings, &reference);
        // Others that are loaded sleep meanwhile.
        let gpu_bytes = before.zip(memory()).map(|(b, after)| after.saturating_sub(b));
        lanes.push(Lane::new(contender, running, gpu_bytes));
        bar.inc(1);
    }

    let seconds = settings.seconds()?;
    let cpus = affinity::allowed()?.cpus().to_vec();
    let pids = lanes.iter().filter_map(|lane| lane.running.as_ref().ok());
    let pids = pids.flat_map(Running::pids).chain([std::process::id()]).collect();
    let watch = Watch { cpus, pids, redo: settings.redo() };
    let mut rng = StdRng::seed_from_u64(1);
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    for round in 0..=settings.rounds() {
        order.shuffle(&mut rng);
        for &i in &order {
            bar.set_message(format!("closed loop: {}", name(&lanes[i].contender)));
            lanes[i].closed_turn(seconds, round, &watch);
            bar.inc(1);
        }
    }
    set_rates(&mut lanes);
    for _ in 0..settings.rounds() {
        for load in [Load::Own, Load::Same] {
            order.shuffle(&mut rng);
            for &i in &order {
                bar.set_message(format!("open loop: {}", name(&lanes[i].contender)));
                lanes[i].open_turn(load, seconds, &watch);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let entries = lanes.into_iter().map(|lane| lane.finish(&reference)).collect::<Result<_>>()?;
    Ok(Comparison { model: name(&model), title: model.title().into(), batch, entries })
}

fn start(
    contender: Contender,
    model: Model,
    batch: u32,
    settings: &Settings,
    reference: &[Vec<f32>],
) -> Result<Running> {
    let running = Running::start(contender, model, batch, &settings.setup)?;
    let agree = answers::all_agree(&running.ready.answers, reference);
    ensure!(agree, "its answers differ from those of a stock session");
    ensure!(
        !contender.is_without_onednn() || running.ready.onednn == Some(false),
        "TensorFlow uses oneDNN although {}=0",
        onednn::VARIABLE
    );
    Ok(running)
}

/// How many requests a second a contender gets in the open loop.
#[derive(Clone, Copy)]
enum Load {
    /// By its own peak.
    Own,
    /// By the slowest one's peak: the same for all.
    Same,
}

/// Says how many requests a second each contender gets, by what all have shown in the closed loop.
fn set_rates(lanes: &mut [Lane]) {
    let slowest = lanes.iter().filter_map(Lane::peak).fold(f64::INFINITY, f64::min);
    for lane in lanes {
        if let Some(peak) = lane.peak() {
            lane.own.rate = OPEN_LOAD * peak;
            lane.same.rate = OPEN_LOAD * slowest;
        }
    }
}

/// A contender's measurements under one load.
struct OpenLoop {
    rate: f64,
    latencies: Latencies,
    rounds: Vec<Round>,
}

impl OpenLoop {
    fn new() -> Self {
        Self { rate: 0.0, latencies: Latencies::new(), rounds: Vec::new() }
    }

    fn finish(self) -> Open {
        Open {
            rate: self.rate,
            requests: self.latencies.requests(),
            p50_us: self.latencies.quantile(0.50),
            p99_us: self.latencies.quantile(0.99),
            p999_us: self.latencies.quantile(0.999),
            rounds: self.rounds,
        }
    }
}

/// A contender with its measurements, or why it can't go on.
struct Lane {
    contender: Contender,
    running: Result<Running>,
    gpu_bytes: Option<u64>,
    closed: Vec<Round>,
    own: OpenLoop,
    same: OpenLoop,
}

impl Lane {
    fn new(contender: Contender, running: Result<Running>, gpu_bytes: Option<u64>) -> Self {
        let (own, same) = (OpenLoop::new(), OpenLoop::new());
        Self { contender, running, gpu_bytes, closed: Vec::new(), own, same }
    }

    /// Requests a second in the closed loop; `None` where it can't go on.
    fn peak(&self) -> Option<f64> {
        let peaks: Vec<f64> = self.closed.iter().map(|round| round.qps).collect();
        self.running.is_ok().then(|| median(&peaks))
    }

    /// Round 0 is to get warm.
    fn closed_turn(&mut self, seconds: f64, round: u32, watch: &Watch) {
        let Ok(running) = &mut self.running else { return };
        let result = if round == 0 {
            running.turn(seconds, None).map(drop)
        } else {
            watch.turn(running, seconds, None).map(|(measured, repeats, outside_load)| {
                self.closed.push(Round { qps: measured.qps, repeats, outside_load });
            })
        };
        self.fail_on(result);
    }

    fn open_turn(&mut self, load: Load, seconds: f64, watch: &Watch) {
        let Ok(running) = &mut self.running else { return };
        let open = match load {
            Load::Own => &mut self.own,
            Load::Same => &mut self.same,
        };
        let turn = watch.turn(running, seconds, Some(open.rate));
        let result = turn.and_then(|(measured, repeats, outside_load)| {
            open.rounds.push(Round { qps: measured.qps, repeats, outside_load });
            open.latencies.add(&measured)
        });
        self.fail_on(result);
    }

    fn fail_on(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.running = Err(error);
        }
    }

    fn finish(self, reference: &[Vec<f32>]) -> Result<Entry> {
        let outcome = match self.running {
            Err(error) => Outcome::Failed(format!("{error:#}")),
            Ok(running) => Outcome::Measured(Box::new(Results {
                load_seconds: running.ready.load_seconds,
                ready_seconds: running.ready.ready_seconds,
                resident_bytes: running.resident()?,
                gpu_bytes: self.gpu_bytes,
                deviation: answers::deviation(reference, &running.ready.answers),
                version: running.ready.version.clone(),
                onednn: running.ready.onednn,
                closed: self.closed,
                open_own: self.own.finish(),
                open_same: self.same.finish(),
            })),
        };
        Ok(Entry { contender: self.contender, outcome })
    }
}

/// Who watches for load from outside.
struct Watch {
    cpus: Vec<u32>,
    /// All processes of the benchmark.
    pids: Vec<u32>,
    redo: u32,
}

impl Watch {
    /// A turn without much load from outside or, if even repeating it does not give one, the quietest of them.
    /// Also returns how often it was repeated, and the load.
    fn turn(
        &self,
        running: &mut Running,
        seconds: f64,
        rate: Option<f64>,
    ) -> Result<(Measured, u32, f64)> {
        let mut quietest: Option<(Measured, f64)> = None;
        for repeats in 0..=self.redo {
            let before = Sample::take(&self.cpus, &self.pids)?;
            let measured = running.turn(seconds, rate)?;
            let after = Sample::take(&self.cpus, &self.pids)?;
            let load = before.outside_load(&after, self.cpus.len());
            if quietest.as_ref().is_none_or(|(_, least)| load < *least) {
                quietest = Some((measured, load));
            }
            if load <= TOLERATED || repeats == self.redo {
                let (measured, load) = quietest.expect("a turn was made");
                return Ok((measured, repeats, load));
            }
        }
        unreachable!("the last repeat returns")
    }
}

fn progress_bar(steps: u64, prefix: String) -> ProgressBar {
    let bar = ProgressBar::new(steps).with_prefix(prefix);
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} {elapsed}");
    bar.set_style(style.expect("a valid template"));
    bar
}

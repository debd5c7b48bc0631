//! Lets contenders take turns.
//!
//! All are loaded, each in a process of its own, and sleep until it is their turn. In each round
//! every contender has one turn, in an order that is drawn anew, so that what changes on the machine
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
use crate::load::Measured;
use crate::noise::{Sample, TOLERATED};
use crate::process::Running;
use crate::report::{Closed, Comparison, Entry, Open, Outcome};
use crate::settings::{Model, Settings, name};
use crate::stats::median;

/// The share of its own peak that a contender gets in the open loop.
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
    let turns = contenders.len() as u64 * (2 + 2 * u64::from(settings.rounds()));
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
        lanes.push(Lane { contender, running, gpu_bytes, closed: Vec::new(), open: Vec::new() });
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
    for _ in 0..settings.rounds() {
        order.shuffle(&mut rng);
        for &i in &order {
            bar.set_message(format!("open loop: {}", name(&lanes[i].contender)));
            lanes[i].open_turn(seconds, &watch);
            bar.inc(1);
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
    let answers = &running.ready.answers;
    let agree = answers.len() == reference.len()
        && answers.iter().zip(reference).all(|(a, b)| answers::agree(b, a));
    ensure!(agree, "it answers otherwise than a stock session");
    Ok(running)
}

/// A contender with what it has shown, or why it can't go on.
struct Lane {
    contender: Contender,
    running: Result<Running>,
    gpu_bytes: Option<u64>,
    closed: Vec<Closed>,
    open: Vec<Open>,
}

impl Lane {
    /// Round 0 is to get warm.
    fn closed_turn(&mut self, seconds: f64, round: u32, watch: &Watch) {
        let Ok(running) = &mut self.running else { return };
        let result = if round == 0 {
            running.turn(seconds, None).map(drop)
        } else {
            watch.turn(running, seconds, None).map(|(measured, repeats, outside_load)| {
                self.closed.push(Closed { qps: measured.qps, repeats, outside_load });
            })
        };
        self.fail_on(result);
    }

    fn open_turn(&mut self, seconds: f64, watch: &Watch) {
        let Ok(running) = &mut self.running else { return };
        let peaks: Vec<f64> = self.closed.iter().map(|turn| turn.qps).collect();
        let rate = OPEN_LOAD * median(&peaks);
        let turn = watch.turn(running, seconds, Some(rate));
        let result = turn.and_then(|(measured, repeats, outside_load)| {
            self.open.push(Open {
                rate,
                qps: measured.qps,
                p50_us: measured.quantile(0.50)?,
                p99_us: measured.quantile(0.99)?,
                repeats,
                outside_load,
            });
            Ok(())
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
            Ok(running) => Outcome::Measured {
                load_seconds: running.ready.load_seconds,
                ready_seconds: running.ready.ready_seconds,
                resident_bytes: running.resident()?,
                gpu_bytes: self.gpu_bytes,
                deviation: answers::deviation(reference, &running.ready.answers),
                version: running.ready.version.clone(),
                closed: self.closed,
                open: self.open,
            },
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
    /// A turn without much load from outside or, where that can't be had, the quietest of some.
    /// Also gives how often it was repeated, and the load.
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

//! How requests a second grow with the cores: every contender on 1, 2, 4, ... and all of them.
//!
//! [`cores`] says in which order CPUs are taken; [`report`] writes what was found, [`plot`] draws it.
//!
//! For each number of cores, all contenders are loaded anew, on as many CPUs and with as many sessions,
//! processes and clients. They take turns in a closed loop. The report is written after each model, so
//! that a run that is cut off leaves what it has.

mod cores;
mod plot;
mod report;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use session_group::affinity;
use session_group::cpuset::CpuSet;

use crate::answers;
use crate::contender::Contender;
use crate::machine::Machine;
use crate::process::Running;
use crate::settings::{Model, Setup, name};
use cores::Cores;
use report::{Curve, Point, Report, Scaled};

/// What to compare.
#[derive(Args)]
pub struct Settings {
    #[command(flatten)]
    setup: Setup,
    /// Models
    #[arg(long, value_delimiter = ',', default_values = ["wide-deep", "dlrm", "mlp-frozen", "trivial"])]
    models: Vec<Model>,
    /// Rows of a request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Contenders
    #[arg(long, value_delimiter = ',', default_values = ["stock", "stock-inline", "processes", "onnx-inline",
        "onnx-shared", "group-caller", "group-callable", "group-cpu-local", "group-round-robin",
        "group-least-loaded", "group-worker"])]
    contenders: Vec<Contender>,
    /// Numbers of CPUs [default: 1, 2, 4, ... and all]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    cpus: Vec<u16>,
    /// Turns of each contender
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a turn
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Begin nothing new after so many minutes; models at the end of the list are left out then
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Folder of the report
    #[arg(long, default_value = "target/scaling")]
    out: PathBuf,
}

/// Measures, and prints and writes the report.
pub fn compare(settings: &Settings) -> Result<()> {
    ensure!((0.01..=3600.0).contains(&settings.seconds), "--seconds must be 0.01 to 3600");
    ensure!((0.1..=1e4).contains(&settings.minutes), "--minutes must be 0.1 to 10000");
    let end = Instant::now() + Duration::from_secs_f64(60.0 * settings.minutes);
    let cores = Cores::read(&affinity::allowed()?);
    let counts = cores.counts(&settings.cpus)?;
    let mut report = Report {
        machine: Machine::read()?,
        threads_per_core: cores.threads_per_core(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        batch: settings.batch,
        rounds: settings.rounds,
        seconds: settings.seconds,
        cpus: counts.clone(),
        models: Vec::new(),
    };
    for &model in &settings.models {
        let mut scaled = Scaled::new(model, &settings.contenders);
        for &count in &counts {
            if Instant::now() > end {
                break;
            }
            eprintln!("{}: {count} of {} CPUs", name(&model), cores.len());
            let points = points(settings, model, &cores.first(count))?;
            for (curve, point) in std::iter::zip(&mut scaled.curves, points) {
                curve.points.push(point);
            }
        }
        report.models.push(scaled);
        report::write(&report, &settings.out)?;
    }
    println!("{}", report::tables(&report));
    println!("Written to {}: scaling.json, scaling.md, scaling.svg", settings.out.display());
    let failed =
        report.models.iter().flat_map(|model| &model.curves).filter(|curve| curve.failed());
    let failed = failed.count();
    ensure!(failed == 0, "{failed} contenders failed: see the report");
    Ok(())
}

/// What each contender shows on these CPUs.
fn points(settings: &Settings, model: Model, cpus: &CpuSet) -> Result<Vec<Point>> {
    // Processes and threads that start from here are confined to these CPUs, too.
    affinity::pin(cpus)?;
    let setup = settings.setup.with_sessions(cpus.len() as u16);
    let start = |&contender: &Contender| Running::start(contender, model, settings.batch, &setup);
    let mut all: Vec<Result<Running>> = thread::scope(|scope| {
        let starts = settings.contenders.iter().map(|one| scope.spawn(|| start(one)));
        let starts = starts.collect::<Vec<_>>().into_iter();
        starts.map(|start| start.join().expect("starting does not panic")).collect()
    });
    let first = all.iter().find_map(|one| one.as_ref().ok()).context("no contender starts")?;
    let reference = first.ready.answers.clone();
    for running in &mut all {
        if running
            .as_ref()
            .is_ok_and(|running| !answers::all_agree(&running.ready.answers, &reference))
        {
            *running = Err(anyhow::anyhow!("it answers otherwise than the first contender"));
        }
    }

    let mut points = vec![Point { cpus: cpus.len(), ..Point::default() }; all.len()];
    let mut order: Vec<usize> = (0..all.len()).collect();
    let mut rng = StdRng::seed_from_u64(1);
    // Round 0 is to get warm.
    for round in 0..=settings.rounds {
        order.shuffle(&mut rng);
        for &i in &order {
            let Ok(running) = &mut all[i] else { continue };
            match running.turn(settings.seconds, None) {
                Ok(_) if round == 0 => {}
                Ok(measured) => points[i].qps.push(measured.qps),
                Err(error) => all[i] = Err(error),
            }
        }
    }
    for (point, running) in std::iter::zip(&mut points, all) {
        point.failure = running.err().map(|error| format!("{error:#}"));
    }
    Ok(points)
}

impl Scaled {
    fn new(model: Model, contenders: &[Contender]) -> Self {
        let curve = |&contender: &Contender| Curve { contender, points: Vec::new() };
        Self {
            model: name(&model),
            title: model.title().into(),
            curves: contenders.iter().map(curve).collect(),
        }
    }
}

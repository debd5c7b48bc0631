//! Measures session groups against stock TensorFlow, ONNX Runtime and OpenVINO.
//!
//! In reading order: [`settings`] says what is measured; [`model`] and [`feeds`] are what is served;
//! [`contender`] has the ways to serve it, [`server`] is a process that serves in one of them, by a [`protocol`], and
//! [`load`] how its clients send requests; [`process`] starts such processes, [`compare`] lets them
//! take turns, [`noise`] watches for load from outside, [`onednn`] says with which kernels TensorFlow
//! computes, [`memory`] compares sizes, [`scaling`] numbers of cores; [`report`] writes what was found.

mod answers;
mod clock;
mod compare;
mod contender;
mod drawing;
mod feeds;
mod gpu;
mod load;
mod machine;
mod memory;
mod model;
mod noise;
mod onednn;
mod process;
mod protocol;
mod report;
mod results;
mod scaling;
mod server;
mod settings;
mod stats;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use contender::Contender;
use load::Latencies;
use process::Running;
use settings::{Model, Settings, Setup};

/// Measure session groups against stock TensorFlow, ONNX Runtime and OpenVINO.
///
/// Each contender runs in processes of its own; they take turns with as many clients as the machine
/// has CPUs and with the same requests: in a closed loop for the most requests a second, then, for
/// latencies, at 70 % of its own peak and at 70 % of the slowest one's. Writes results.json, results.md
/// and results.svg.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Measure one contender, in one turn of each kind
    One {
        model: Model,
        contender: Contender,
        batch: u32,
        /// Length of a turn
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        #[command(flatten)]
        setup: Setup,
    },
    /// Compare on a GPU: one session, groups with one stream and with many, processes
    Gpu(Settings),
    /// Compare memory and time to load: one stock session, a group of one and a group of many
    Memory(memory::Settings),
    /// Compare on 1, 2, 4, ... and all cores: requests a second, and efficiency per core
    Scaling(scaling::Settings),
    /// Serve as told on standard input; the benchmark starts itself so
    #[command(hide = true)]
    Serve {
        model: Model,
        contender: Contender,
        batch: u32,
        #[command(flatten)]
        setup: Setup,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Serve { model, contender, batch, setup }) => {
            server::serve(contender, model, batch, &setup)
        }
        Some(Command::One { model, contender, batch, seconds, setup }) => {
            one(model, contender, batch, seconds, &setup)
        }
        Some(Command::Memory(settings)) => memory::compare(&settings),
        Some(Command::Scaling(settings)) => scaling::compare(&settings),
        Some(Command::Gpu(settings)) => compared(&settings.on_gpu()),
        None => compared(&cli.settings),
    }
}

fn compared(settings: &Settings) -> Result<()> {
    let failed = report::write(compare::compare(settings)?, settings)?;
    ensure!(failed == 0, "{failed} contenders failed: see the report");
    Ok(())
}

fn one(model: Model, contender: Contender, batch: u32, seconds: f64, setup: &Setup) -> Result<()> {
    let mut running = Running::start(contender, model, batch, setup)?;
    println!("{}, ready in {:.2} s", running.ready.version, running.ready.ready_seconds);
    running.turn(seconds / 5.0, None)?;
    let peak = running.turn(seconds, None)?.qps;
    let open = running.turn(seconds, Some(compare::OPEN_LOAD * peak))?;
    println!("peak {peak:.0} requests/s, {} MB resident", running.resident()? >> 20);
    let mut latencies = Latencies::new();
    latencies.add(&open)?;
    print!("at {:.0} requests/s:", open.qps);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        match latencies.quantile(quantile) {
            Some(us) => print!(" {name} {us:.0} µs"),
            None => print!(" {name} –"),
        }
    }
    println!();
    Ok(())
}

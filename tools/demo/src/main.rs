//! Serves a SavedModel with one stock session, N stock sessions and a session group, side by side,
//! and compares them.
//!
//! In reading order: [`model`] makes requests from a model's signature, [`contender`] is a process
//! that serves them in one of the three ways, `main` runs the three by turns, [`report`] prints.

mod contender;
mod model;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use contender::{Child, Kind};
use session_group::Options;
use session_group::execution::Execution;
use session_group::policy::Policy;

/// Serve a TensorFlow SavedModel with one session, N sessions and a session group, and compare.
///
/// Each way runs in a process of its own, so that its memory can be told apart; they take turns with
/// the same clients and the same requests. Requests are random tensors of the types and shapes that
/// the model's serving signature gives.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What all contenders have in common.
#[derive(Args, Clone)]
pub struct Settings {
    /// Folder of a SavedModel
    #[arg(long, default_value = "models/build/wide_deep_large")]
    model: PathBuf,
    /// Sessions of the group, and independent sessions; default: one for each CPU, at least 2
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    sessions: Option<u16>,
    /// Client threads, each sending one request after the other; default: one for each session
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: Option<u16>,
    /// Seconds that each contender is measured, over all of its turns
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Rows of a request: the size of each dimension that the signature leaves open
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Integers of requests are drawn from 0 to this, less 1
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(1..))]
    id_range: i64,
    /// CPUs of the group's sessions, as "0-3;4-7"
    #[arg(long)]
    cpuset: Option<String>,
    /// How the group chooses a session: round_robin, thread, least_loaded or cpu_local
    #[arg(long)]
    policy: Option<Policy>,
    /// Where the group's requests run: auto, caller, worker or pool
    #[arg(long)]
    execution: Option<Execution>,
}

impl Settings {
    fn sessions(&self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        self.sessions.map_or(cpus.max(2), usize::from)
    }

    fn group_options(&self) -> session_group::Result<Options> {
        let mut options = Options::new();
        options.session_num(self.sessions());
        if let Some(cpuset) = &self.cpuset {
            options.cpuset(cpuset)?;
        }
        options.policy(self.policy.clone().unwrap_or_default());
        options.execution(self.execution.unwrap_or_default());
        Ok(options)
    }

    fn clients(&self) -> usize {
        self.clients.map_or(self.sessions(), usize::from)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Serve in one way, as told on standard input; the demo starts itself so
    #[command(hide = true)]
    Contender {
        kind: Kind,
        #[command(flatten)]
        settings: Settings,
    },
}

/// How often each contender gets its turn.
const TURNS: u32 = 3;

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Contender { kind, settings }) => contender::serve(kind, &settings),
        None => compare(&cli.settings),
    }
}

fn compare(settings: &Settings) -> Result<()> {
    ensure!(
        settings.seconds.is_finite() && settings.seconds > 0.0,
        "--seconds must be above 0, not {}",
        settings.seconds
    );
    ensure!(
        settings.model.join("saved_model.pb").exists(),
        "{} is not a SavedModel: it has no saved_model.pb (`make models` makes the default one)",
        settings.model.display()
    );
    println!(
        "{}: {} sessions, {} clients, batch {}, {} s each in {TURNS} turns",
        settings.model.display(),
        settings.sessions(),
        settings.clients(),
        settings.batch,
        settings.seconds
    );

    let steps = Kind::ALL.len() as u64 * (1 + u64::from(TURNS));
    let bar = progress_bar(steps);
    let mut children = Vec::new();
    for kind in Kind::ALL {
        announce(&bar, format!("loading: {}", kind.name(settings)));
        children.push(Child::start(kind, settings).with_context(|| kind.name(settings))?);
        bar.inc(1);
    }
    let turn = Duration::from_secs_f64(settings.seconds / f64::from(TURNS));
    for _ in 0..TURNS {
        for child in &mut children {
            announce(&bar, format!("serving: {}", child.kind.name(settings)));
            child.turn(turn).with_context(|| child.kind.name(settings))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let results = children.into_iter().map(Child::finish).collect::<Result<Vec<_>>>()?;
    report::print(&results, settings);
    Ok(())
}

fn progress_bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}");
    bar.set_style(style.expect("a valid template"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Says what is done now: beside the bar or, where there is no terminal to draw it on, in a line.
fn announce(bar: &ProgressBar, message: String) {
    if bar.is_hidden() {
        eprintln!("{}/{} {message}", bar.position(), bar.length().unwrap_or(0));
    }
    bar.set_message(message);
}

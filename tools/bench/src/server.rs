//! A process that serves a model in one way: the child's end of the [`protocol`](crate::protocol). [`process`] is
//! the parent's.
//!
//! Its client threads live as long as it does, because a group remembers which thread it gave to which session.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use session_group::affinity;
use session_group::cpuset::CpuSet;

use crate::contender::{Client, Contender, Job, Loaded};
use crate::load::{Measured, closed, open};
use crate::model::Model;
use crate::protocol::{Ready, Said, Turn};
use crate::settings::{self, Setup};
use crate::{answers, clock, feeds, gpu, onednn, process};

/// How many requests are compared between contenders.
const ANSWERS: usize = feeds::LEAST;

/// Serves until standard input ends. What goes wrong is the next line that the parent reads.
pub fn serve(
    contender: Contender,
    model: settings::Model,
    batch: u32,
    setup: &Setup,
) -> Result<()> {
    std::panic::set_hook(Box::new(|panic| say::<()>(&Err(panic.to_string()))));
    try_serve(contender, model, batch, setup)
        .inspect_err(|error| say::<()>(&Err(format!("{error:#}"))))
}

fn say<T: Serialize>(said: &Said<T>) {
    println!("{}", serde_json::to_string(said).expect("plain data"));
}

fn try_serve(
    contender: Contender,
    model: settings::Model,
    batch: u32,
    setup: &Setup,
) -> Result<()> {
    let model = Box::leak(Box::new(Model::read(&setup.models_dir.join(model.name()))?));
    let requests = feeds::requests(model, batch).leak();
    let sessions = setup.sessions()?;
    let cpus = affinity::allowed()?.cpus().to_vec().leak();
    let venv = setup.venv.clone().leak();
    let job = Job { model, requests, batch, sessions, clients: sessions, cpus, venv };

    if let Some(library) = &setup.device_library {
        gpu::load(library)?;
    }
    let resident_at_start = process::resident(std::process::id())?;
    let start = Instant::now();
    let Loaded { clients, version } = contender.load(job)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let pin = contender.runs_on_clients();
    let clients = Clients::start(clients, requests.len(), pin.then_some(&*cpus));
    let first = clients.all(Command::Answer(0))?;
    let ready_seconds = start.elapsed().as_secs_f64();
    let mut answers = vec![agreed(first)?];
    for request in 1..ANSWERS {
        answers.push(agreed(clients.all(Command::Answer(request))?)?);
    }
    let onednn = onednn::in_use(contender)?;
    say(&Ok(Ready { load_seconds, ready_seconds, answers, version, onednn, resident_at_start }));

    for line in std::io::stdin().lock().lines() {
        let turn: Turn = serde_json::from_str(&line?)?;
        let measured = clients.all(Command::Turn(turn))?.into_iter().map(|reply| match reply {
            Reply::Measured(measured) => Ok(measured),
            Reply::Answer(_) => bail!("a client answered something else"),
        });
        say(&Ok(Measured::sum(measured.collect::<Result<Vec<_>>>()?)));
    }
    Ok(())
}

/// The answer of all clients, who may use different sessions.
fn agreed(replies: Vec<Reply>) -> Result<Vec<f32>> {
    let answer = |reply| match reply {
        Reply::Answer(answer) => Ok(answer),
        Reply::Measured(_) => bail!("a client answered something else"),
    };
    let mut all = replies.into_iter().map(answer).collect::<Result<Vec<_>>>()?;
    let first = all.swap_remove(0);
    ensure!(
        all.iter().all(|other| answers::agree(&first, other)),
        "its sessions answer differently"
    );
    Ok(first)
}

#[derive(Clone, Copy)]
enum Command {
    /// Run this request once.
    Answer(usize),
    Turn(Turn),
}

enum Reply {
    Answer(Vec<f32>),
    Measured(Measured),
}

/// The client threads.
struct Clients(Vec<(Sender<Command>, Receiver<Result<Reply>>)>);

impl Clients {
    /// Starts a thread for each client, on a CPU of its own where CPUs are given.
    fn start(clients: Vec<Box<dyn Client>>, pool: usize, cpus: Option<&'static [u32]>) -> Self {
        let start = |(i, mut client): (usize, Box<dyn Client>)| {
            let (commands, to_do) = channel();
            let (done, replies) = channel();
            thread::spawn(move || {
                if let Some(cpus) = cpus
                    && let Err(error) = affinity::pin(&CpuSet::one(cpus[i % cpus.len()]))
                {
                    return drop(done.send(Err(error.into())));
                }
                clock::sleep_precisely();
                // Clients are at different places of the pool.
                let mut place = i * 31;
                for command in to_do {
                    let reply = obey(client.as_mut(), command, pool, &mut place, i as u64);
                    if done.send(reply).is_err() {
                        break;
                    }
                }
            });
            (commands, replies)
        };
        Self(clients.into_iter().enumerate().map(start).collect())
    }

    /// Gives a command to all clients at a time.
    fn all(&self, command: Command) -> Result<Vec<Reply>> {
        for (commands, _) in &self.0 {
            // One that has ended has left an error for us.
            let _ = commands.send(command);
        }
        self.0.iter().map(|(_, replies)| replies.recv().context("a client has ended")?).collect()
    }
}

fn obey(
    client: &mut dyn Client,
    command: Command,
    pool: usize,
    place: &mut usize,
    seed: u64,
) -> Result<Reply> {
    let turn = match command {
        Command::Turn(turn) => turn,
        Command::Answer(request) => {
            client.run(request)?;
            return Ok(Reply::Answer(client.answer()?));
        }
    };
    let requests = std::iter::from_fn(|| {
        *place = (*place + 1) % pool;
        Some(*place)
    });
    Ok(Reply::Measured(match turn.rate {
        None => closed::run(client, requests, turn)?,
        // Each client and each turn draws other times.
        Some(rate) => open::run(client, requests, turn, rate, turn.start.as_nanos() as u64 ^ seed)?,
    }))
}

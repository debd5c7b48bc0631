//! The group: N sessions, one set of variables.

use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tensorflow_sys as tf;

use crate::affinity;
use crate::cpuset::CpuSet;
use crate::describe;
use crate::error::{Code, Error, Result};
use crate::execution::Execution;
use crate::gate::{Entered, Gate};
use crate::metrics;
use crate::options::Options;
use crate::plan::{self, Environment, Machine, Plan, SessionPlan};
use crate::policy::{Counts, Dispatcher};
use crate::stats::{SessionStats, Snapshot};
use crate::tensorflow::devices::Devices;
use crate::tensorflow::graph::{Graph, SavedModel};
use crate::tensorflow::log;
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::{IntraOpPool, Session, Step};
use crate::tensorflow::{Buffer, SessionOptions, Tensor, version};
use crate::workers::{self, Refusal, Workers};

/// N sessions that share variables and tables. May be used by many threads at a time.
pub struct SessionGroup {
    number: u64,
    plan: Plan,
    dispatcher: Dispatcher,
    /// One lane for each session, and one for what concerns all of them.
    gate: Gate<Members>,
    stats: Box<[SessionStats]>,
    steps: Steps,
    has_graph: AtomicBool,
    /// Held while the graph changes. Why the group can't be used any more, if so.
    broken: Mutex<Option<String>>,
}

/// The sessions, with the devices that own what they share.
struct Members {
    all: Vec<Member>,
    devices: Arc<Devices>,
}

impl Drop for Members {
    /// As TensorFlow itself does: what sessions share goes while their kernels, functions and threads,
    /// to which it may refer, are still there, but closed.
    fn drop(&mut self) {
        for member in &mut self.all {
            member.workers = None;
            member.session.close();
        }
        self.devices.clear();
    }
}

/// A session with its worker threads, which end before it.
struct Member {
    workers: Option<Workers>,
    session: Session,
}

/// How requests run that bring no options of their own.
struct Steps {
    /// On the calling thread, be it the caller's or a worker.
    here: RunOptions,
    /// On the session's inter-op pool.
    pool: RunOptions,
    /// `ConfigProto.operation_timeout_in_ms`, 0 for none.
    timeout_ms: i64,
}

/// A group made from a SavedModel.
pub struct Loaded {
    /// The group, ready to run.
    pub group: SessionGroup,
    /// The serialised `MetaGraphDef` that was loaded, with its signatures.
    pub meta_graph_def: Buffer,
}

/// A request in full. [`SessionGroup::run`] makes one for the usual case.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// Feeds: a tensor and the name of the graph's tensor that it replaces, as `name:0`.
    pub inputs: &'a [(&'a str, &'a Tensor)],
    /// Fetches: names of tensors.
    pub outputs: &'a [&'a str],
    /// Targets: names of operations to run without fetching anything.
    pub targets: &'a [&'a str],
    /// How to run it. A timeout counts from now, the time in a queue included; a graph that runs
    /// under one runs on the inter-op pool, since nothing could stop it on the calling thread.
    pub options: Option<&'a RunOptions>,
    /// The session to run on, modulo the number of sessions; `None` lets the policy choose.
    pub session: Option<usize>,
}

impl SessionGroup {
    /// A group whose sessions have no graph yet.
    pub fn new(session_options: &SessionOptions, options: &Options) -> Result<Self> {
        version::check()?;
        let config = session_options.config();
        let plan = plan::plan(options, &Environment::read(), &config, &Machine::read()?)?;
        let devices = Arc::new(Devices::new(session_options)?);
        let number = next_number();
        let all = plan
            .sessions
            .iter()
            .enumerate()
            .map(|(i, session)| {
                let name = format!("sg{number}.s{i}");
                Member::new(&name, session, &plan, session_options, devices.clone())
            })
            .collect::<Result<Vec<_>>>()?;
        let members = Members { all, devices };
        let cpus: Vec<CpuSet> =
            plan.sessions.iter().filter_map(|session| session.cpus.clone()).collect();
        let mut here = RunOptions::parse(&[])?;
        here.run_on_calling_thread();
        log::info(&describe::line(number, &plan));
        Ok(Self {
            number,
            dispatcher: Dispatcher::new(&plan.policy, plan.sessions.len(), &cpus),
            stats: plan.sessions.iter().map(|_| SessionStats::new()).collect(),
            gate: Gate::new(members, plan.sessions.len() + 1),
            steps: Steps {
                here,
                pool: RunOptions::parse(&[])?,
                timeout_ms: config.operation_timeout_ms,
            },
            plan,
            has_graph: AtomicBool::new(false),
            broken: Mutex::new(None),
        })
    }

    /// A group that serves a SavedModel: reads the `MetaGraphDef` with exactly these tags, restores
    /// the variables and runs the initialisers, once for all sessions.
    pub fn load(
        session_options: &SessionOptions,
        run_options: Option<&RunOptions>,
        export_dir: &str,
        tags: &[&str],
        options: &Options,
    ) -> Result<Loaded> {
        version::check()?;
        let doing = |what: &'static str| {
            move |error: Error| {
                let message = format!("SavedModel {export_dir}: {what}: {}", error.message);
                Error::new(error.code, message)
            }
        };
        let (model, meta_graph_def) =
            SavedModel::read(export_dir, tags).map_err(doing("reading it failed"))?;
        let group = Self::new(session_options, options)?;
        group
            .change_graph(|session| session.create_from(&model))
            .map_err(doing("its graph was refused"))?;
        let run_options = run_options.unwrap_or(&group.steps.pool);
        group.enter(group.session_num())?.all[0]
            .session
            .restore(&model, run_options)
            .map_err(doing("restoring its variables or initialising it failed"))?;
        Ok(Loaded { group, meta_graph_def })
    }

    /// Gives all sessions their graph, a serialised `GraphDef`. Run its initialisers through the
    /// group, once.
    pub fn create(&self, graph_def: &[u8]) -> Result<()> {
        let graph = Graph::parse(graph_def)?;
        let _members = self.enter(self.session_num())?;
        if self.has_graph.load(Acquire) {
            return Err(Error::new(
                Code::AlreadyExists,
                "the group has a graph already: extend it, or make another group",
            ));
        }
        self.change_graph(|session| session.create(&graph))
    }

    /// Adds the nodes of a serialised `GraphDef` to the graph of all sessions.
    pub fn extend(&self, graph_def: &[u8]) -> Result<()> {
        let graph = Graph::parse(graph_def)?;
        self.change_graph(|session| session.extend(&graph))
    }

    /// Applies a change to every session. Where the first refuses it, none has changed.
    fn change_graph(&self, change: impl Fn(&Session) -> Result<()>) -> Result<()> {
        let members = self.enter(self.session_num())?;
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &*broken {
            return Err(Error::precondition(why.clone()));
        }
        for (i, member) in members.all.iter().enumerate() {
            if let Err(error) = change(&member.session) {
                if i > 0 {
                    self.has_graph.store(false, Release);
                    *broken = Some(format!(
                        "the sessions of the group have different graphs, since session {i} \
                         refused a change that others had taken ({error}): make another group"
                    ));
                }
                return Err(error);
            }
        }
        self.has_graph.store(true, Release);
        Ok(())
    }

    /// Runs the graph on the session that the policy chooses. Gives as many tensors as there are
    /// outputs, in their order.
    pub fn run(
        &self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
        targets: &[&str],
    ) -> Result<Vec<Tensor>> {
        self.run_request(&Request { inputs, outputs, targets, ..Request::default() }, None)
    }

    /// Runs a request; where asked for, also fills a buffer with a serialised `RunMetadata`.
    pub fn run_request(
        &self,
        request: &Request<'_>,
        metadata: Option<&mut Buffer>,
    ) -> Result<Vec<Tensor>> {
        let session = match request.session {
            Some(session) => session % self.session_num(),
            None => self.dispatcher.choose(self)?,
        };
        let members = self.enter(session)?;
        if !self.has_graph.load(Acquire) {
            return Err(self.no_graph());
        }
        let begun = Instant::now();
        let result = self.run_on(session, &members.all[session], request, metadata);
        self.stats[session].answered(begun, &result);
        result
    }

    fn run_on(
        &self,
        session: usize,
        member: &Member,
        request: &Request<'_>,
        metadata: Option<&mut Buffer>,
    ) -> Result<Vec<Tensor>> {
        let stats = &self.stats[session];
        let step =
            Step { inputs: request.inputs, outputs: request.outputs, targets: request.targets };
        let timeout_ms = match request.options.map_or(0, RunOptions::timeout_ms) {
            ms if ms > 0 => ms,
            _ => self.steps.timeout_ms,
        };
        let here = self.plan.execution != Execution::Pool
            && timeout_ms <= 0
            && request.options.is_none_or(RunOptions::leaves_pool_open);
        let own;
        let options = match request.options {
            None if here => &self.steps.here,
            None => &self.steps.pool,
            Some(options) if here => {
                own = options.on_calling_thread()?;
                &own
            }
            Some(options) => options,
        };
        let Some(workers) = &member.workers else {
            return stats.busy(|| member.session.run(options, &step, metadata));
        };

        let deadline = u64::try_from(timeout_ms)
            .ok()
            .filter(|&ms| ms > 0)
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let waiting = stats.waiting();
        let result = workers.run(deadline, move || {
            drop(waiting);
            let Some(deadline) = deadline else {
                return stats.busy(|| member.session.run(options, &step, metadata));
            };
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            if left == 0 {
                return Err(workers::deadline_exceeded());
            }
            let options = options.with_timeout_ms(left as i64)?;
            stats.busy(|| member.session.run(&options, &step, metadata))
        });
        result.map_err(|refusal| match refusal {
            Refusal::Full(error) => {
                stats.rejected();
                error
            }
            Refusal::Other(error) => error,
        })
    }

    /// How many sessions.
    pub fn session_num(&self) -> usize {
        self.plan.sessions.len()
    }

    /// The devices that each session sees; all see the same. The caller must free the list with
    /// `TF_DeleteDeviceList`.
    pub fn list_devices(&self) -> Result<*mut tf::TF_DeviceList> {
        self.enter(self.session_num())?.all[0].session.list_devices()
    }

    /// What a session has done so far; also after closing. `None` where there is no such session.
    pub fn stats(&self, session: usize) -> Option<Snapshot> {
        Some(self.stats.get(session)?.snapshot(self.gate.inside(session)))
    }

    /// What all sessions have done so far, in Prometheus' text exposition format; also after
    /// closing.
    pub fn metrics_text(&self) -> String {
        let sessions: Vec<_> = (0..self.session_num()).filter_map(|i| self.stats(i)).collect();
        metrics::text(self.number, &sessions)
    }

    /// What the group is, and why, as JSON; also after closing.
    pub fn describe(&self) -> String {
        describe::json(self.number, &self.plan, self.gate.is_closed()).to_string()
    }

    /// Turns new requests away, waits for those that are running, and frees sessions, threads and
    /// variables. Closing again does nothing.
    pub fn close(&self) {
        drop(self.gate.close());
    }

    fn enter(&self, lane: usize) -> Result<Entered<'_, Members>> {
        self.gate.enter(lane).ok_or_else(|| Error::precondition("the session group is closed"))
    }

    fn no_graph(&self) -> Error {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        Error::precondition(broken.clone().unwrap_or_else(|| {
            "the session group has no graph: call SessionGroup_Create or load a SavedModel before \
             running"
                .to_string()
        }))
    }
}

impl Drop for SessionGroup {
    fn drop(&mut self) {
        self.close();
    }
}

impl Counts for SessionGroup {
    fn in_flight(&self, session: usize) -> u64 {
        self.gate.inside(session)
    }

    fn queued(&self, session: usize) -> u64 {
        self.stats[session].queued()
    }
}

impl Member {
    /// Starts all threads of a session from a thread of this name, so that they inherit the name
    /// and the CPUs.
    fn new(
        name: &str,
        session: &SessionPlan,
        plan: &Plan,
        session_options: &SessionOptions,
        devices: Arc<Devices>,
    ) -> Result<Self> {
        // The caller may be pinned for a purpose of its own, so that threads must not inherit that.
        let cpus = Some(session.cpus.as_ref().unwrap_or(&plan.allowed));
        let made = affinity::on_thread(&format!("{name}-intra"), cpus, || {
            let pool = IntraOpPool::new(session_options, session.intra_op_threads)?;
            affinity::rename(&format!("{name}-inter"));
            Session::new(devices, session_options, pool, session.inter_op_threads)
        })?;
        let workers = match session.worker_threads {
            0 => None,
            n => Some(Workers::new(&format!("{name}-work"), n, cpus, plan.queue)?),
        };
        Ok(Self { workers, session: made })
    }
}

/// The number of a group in this process, which its threads' names carry.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

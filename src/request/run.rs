//! The way of a request: a session is chosen, the request enters, runs as a program or by its names, and
//! is counted.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::cpus::affinity;
use crate::error::Result;
use crate::gpu::Streams;
use crate::options::execution::Execution;
use crate::prepare::compiled::Compiled;
use crate::prepare::recent::Recent;
use crate::prepare::signature::Signature;
use crate::request::state::{GroupState, no_graph};
use crate::request::stats::{Way, WayCell};
use crate::request::tensors::{Named, RequestTensors};
use crate::sessions::set::SessionSet;
use crate::sessions::workers::{self, Refusal};
use crate::tensorflow::program::{Notes, Order, ProgramInstance, ProgramRun};
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::{NamedTensors, Session};
use crate::tensorflow::{Buffer, Tensor};

/// A request in full. [`SessionGroup::run`](crate::SessionGroup::run) makes one for the usual case.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// Feeds: a tensor and the name of the graph's tensor that it replaces, as `name:0`.
    pub inputs: &'a [(&'a str, &'a Tensor)],
    /// Fetches: names of tensors.
    pub outputs: &'a [&'a str],
    /// Targets: names of operations to run without fetching anything.
    pub targets: &'a [&'a str],
    /// How to run it. A timeout counts from now, the time in a queue included. A graph in which an
    /// operation may wait for something, or which only TensorFlow's own executor can run, runs under
    /// a timeout on the inter-op pool, because nothing could stop it on the calling thread.
    pub options: Option<&'a RunOptions>,
    /// The session to run on, modulo the number of sessions; `None` lets the policy choose.
    pub session: Option<usize>,
}

/// What a request asks for, without its tensors.
pub(crate) struct RequestSpec<'a> {
    pub signature: Signature<'a>,
    pub options: Option<&'a RunOptions>,
    pub session: Option<usize>,
    pub wants_metadata: bool,
}

impl GroupState {
    /// Runs a request. `outputs` has room for a tensor for each of its outputs and gets them all, or
    /// none; where asked for, a buffer gets a serialised `RunMetadata`.
    pub fn run_request(
        &self,
        request: &Request<'_>,
        outputs: &mut [Option<Tensor>],
        metadata: Option<&mut Buffer>,
    ) -> Result<()> {
        let &Request { inputs, outputs: fetches, targets, options, session } = request;
        let feeds: SmallVec<_> = inputs.iter().map(|&(name, _)| name).collect();
        let spec = RequestSpec {
            signature: Signature { feeds, fetches, targets },
            options,
            session,
            wants_metadata: metadata.is_some(),
        };
        let named = NamedTensors { inputs, outputs: fetches, targets };
        self.run(&spec, &mut Named { named, outputs, metadata })
    }

    /// Runs these tensors as `spec` says.
    pub fn run(&self, spec: &RequestSpec<'_>, tensors: &mut dyn RequestTensors) -> Result<()> {
        let session = self.choose(spec.session)?;
        let sessions = self.enter(session)?;
        if !sessions.has_graph() {
            return Err(no_graph());
        }
        self.stats[session].count(|way| {
            let prepares = self.runs_programs() || self.streams.is_some();
            let ready = match prepares {
                true => sessions.prepare(&spec.signature)?,
                false => {
                    sessions.check_once(&spec.signature)?;
                    None
                }
            };
            let running = RunningRequest {
                group: self,
                sessions: &sessions,
                session,
                prepared: ready.as_ref().map(|ready| (ready.compiled(), &ready.recent.order)),
                otherwise: if prepares { Way::NoRoom } else { Way::Disabled },
                options: spec.options,
                timeout_ms: self.timeout_ms(spec.options),
                wants_metadata: spec.wants_metadata,
                any_session: spec.session.is_none(),
                way,
            };
            running.run(tensors)
        })
    }

    /// Whether such requests run on the calling thread as a program that neither loops, waits nor writes. `false` where
    /// nothing is prepared for them.
    pub fn is_straight(&self, signature: &Signature<'_>) -> bool {
        if !self.runs_programs() || self.plan.execution != Execution::Caller {
            return false;
        }
        let Ok(sessions) = self.enter_for_all() else { return false };
        let Some(prepared) = sessions.prepared(signature) else { return false };
        let compiled = prepared.compiled.get().filter(|compiled| !compiled.writes());
        compiled
            .and_then(Compiled::made)
            .is_some_and(|instance| !instance.may_wait() && instance.facts().loops == 0)
    }

    /// Runs what a [`Callable`](crate::callable::Callable) has prepared.
    pub fn run_prepared(
        &self,
        recent: &Recent,
        session: Option<usize>,
        wants_metadata: bool,
        tensors: &mut dyn RequestTensors,
    ) -> Result<()> {
        let any_session = session.is_none();
        let session = self.choose(session)?;
        let sessions = self.enter(session)?;
        let pinned = sessions.pinned(recent).expect("pinned, so it stays");
        self.stats[session].count(|way| {
            let running = RunningRequest {
                group: self,
                sessions: &sessions,
                session,
                prepared: Some((pinned.compiled(), &recent.order)),
                otherwise: Way::NoRoom,
                options: None,
                timeout_ms: self.timeout_ms(None),
                wants_metadata,
                any_session,
                way,
            };
            running.run(tensors)
        })
    }

    /// Calls `f` with a session and its number, as a request that may do anything.
    pub fn run_on_session(
        &self,
        session: Option<usize>,
        f: impl FnOnce(&Session, usize) -> Result<()>,
    ) -> Result<()> {
        let session = self.choose(session)?;
        let sessions = self.enter(session)?;
        if !sessions.has_graph() {
            return Err(no_graph());
        }
        self.stats[session].count(|way| {
            let run = || {
                way.set(Way::Visit);
                let _writing = sessions.devices.writing();
                let result = f(sessions.session(session)?, session);
                if result.is_err() {
                    self.note_if_broken(session, &sessions);
                }
                result
            };
            match &self.streams {
                None => run(),
                Some(streams) => streams.alone(&sessions.devices, run),
            }
        })
    }

    /// What a request has at most, 0 for any time.
    fn timeout_ms(&self, options: Option<&RunOptions>) -> i64 {
        match options.map_or(0, RunOptions::timeout_ms) {
            ms if ms > 0 => ms,
            _ => self.defaults.timeout_ms.max(0),
        }
    }
}

/// A request that has entered a session.
#[derive(Clone, Copy)]
struct RunningRequest<'a> {
    group: &'a GroupState,
    sessions: &'a SessionSet,
    session: usize,
    /// What is known about requests with these names, and the order of this one's.
    prepared: Option<(&'a Compiled, &'a Order)>,
    /// Why not, if nothing is.
    otherwise: Way,
    options: Option<&'a RunOptions>,
    /// 0 for none.
    timeout_ms: i64,
    wants_metadata: bool,
    /// Whether the policy chose the session, and not the caller.
    any_session: bool,
    way: &'a WayCell,
}

impl RunningRequest<'_> {
    /// Runs on the calling thread, or on a worker thread of the session, if it has some.
    fn run(self, tensors: &mut dyn RequestTensors) -> Result<()> {
        let stats = &self.group.stats[self.session];
        let Some(workers) = &self.sessions.slots[self.session].workers else {
            return self.execute(tensors);
        };
        let deadline = u64::try_from(self.timeout_ms)
            .ok()
            .filter(|&ms| ms > 0)
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let waiting = stats.waiting();
        let result = workers.run(deadline, move || {
            drop(waiting);
            let timeout_ms = match deadline {
                None => 0,
                Some(at) => at.saturating_duration_since(Instant::now()).as_millis() as i64,
            };
            if deadline.is_some() && timeout_ms == 0 {
                return Err(workers::deadline_exceeded());
            }
            stats.busy(|| Self { timeout_ms, ..self }.execute(tensors))
        });
        result.map_err(|refusal| match refusal {
            Refusal::Full(error) => {
                stats.rejected();
                error
            }
            Refusal::Other(error) => error,
        })
    }

    /// Runs on the thread that calls, as far as possible: as a program, or by names.
    fn execute(&self, tensors: &mut dyn RequestTensors) -> Result<()> {
        let stats = &self.group.stats[self.session];
        // Only programs keep what they have read.
        let may_write = self.prepared.is_none_or(|(compiled, _)| compiled.writes());
        let _writing =
            (self.group.runs_programs() && may_write).then(|| self.sessions.devices.writing());
        match self.as_program() {
            Ok((instance, order)) => {
                self.way.set(Way::Program);
                let mut notes = Notes::default();
                let timeout_ms = self.timeout_ms;
                let run = ProgramRun { instance, order, timeout_ms, notes: &mut notes };
                let result = tensors.run_program(run);
                stats.noted(notes.unresolved != 0, notes.unfused != 0);
                result
            }
            Err(why) => {
                self.way.set(why);
                if !self.runs_on_this_thread() {
                    stats.on_pool();
                }
                let result = match &self.group.streams {
                    None => self.run_by_names(tensors),
                    Some(streams) => self.run_on_gpu(streams, tensors),
                };
                if result.is_err() {
                    self.group.note_if_broken(self.session, self.sessions);
                }
                result
            }
        }
    }

    /// The session's instance of the request's program or, where it can't run as one, why.
    fn as_program(&self) -> std::result::Result<(&ProgramInstance, &Order), Way> {
        if !self.group.runs_programs() {
            return Err(Way::Disabled);
        }
        let is_plain = self.options.is_none_or(RunOptions::is_plain)
            && !(self.wants_metadata && self.group.defaults.fills_metadata);
        if !is_plain {
            return Err(Way::Options);
        }
        let (compiled, order) = self.prepared.ok_or(self.otherwise)?;
        let instance = self.sessions.instance(self.session, compiled).ok_or(Way::NoProgram)?;
        match self.timeout_ms > 0 && instance.may_wait() {
            true => Err(Way::MayWait),
            false => Ok((instance, order)),
        }
    }

    /// Leaves the request to TensorFlow's session, or to one on each GPU if it may write what each has a
    /// copy of.
    fn run_on_gpu(&self, streams: &Streams, tensors: &mut dyn RequestTensors) -> Result<()> {
        let mut run = |session| {
            tensors.clear_outputs();
            Self { session, ..*self }.run_by_names(tensors)
        };
        if self.prepared.is_some_and(|(compiled, _)| !compiled.writes_on_gpu()) {
            return streams.with_others(|| run(self.session));
        }
        streams.alone(&self.sessions.devices, || match self.any_session && streams.leaders > 1 {
            // What the first leader answers stays.
            true => (0..streams.leaders).rev().try_for_each(run),
            false => run(self.session),
        })
    }

    /// Whether TensorFlow's session runs the request on the thread that calls; else on its inter-op pool.
    fn runs_on_this_thread(&self) -> bool {
        let recurses = self.prepared.is_some_and(|(compiled, _)| compiled.program.recurses());
        self.group.plan.execution != Execution::Pool
            && self.timeout_ms == 0
            && !recurses
            && self.options.is_none_or(RunOptions::leaves_pool_open)
    }

    /// Leaves the request to TensorFlow's session.
    fn run_by_names(&self, tensors: &mut dyn RequestTensors) -> Result<()> {
        let session = self.sessions.session(self.session)?;
        let defaults = &self.group.defaults;
        let on_this_thread = self.runs_on_this_thread();
        let own;
        let options = match self.options {
            None if on_this_thread => &defaults.on_this_thread,
            None if self.timeout_ms == 0 => &defaults.on_pool,
            options => {
                let options = options.unwrap_or(&defaults.on_pool);
                let mut copy = options.with_timeout_ms(self.timeout_ms)?;
                if on_this_thread {
                    copy.run_on_calling_thread();
                }
                own = copy;
                &own
            }
        };
        // The first time, the session compiles the graph, on the thread that asks for it: that takes more
        // stack than a caller may have.
        let is_first =
            self.prepared.is_some_and(|(compiled, _)| compiled.is_first_by_names(self.session));
        match is_first {
            false => tensors.run_session(session, options),
            true => affinity::on_thread(&format!("sg{}-first", self.group.number), None, || {
                tensors.run_session(session, options)
            }),
        }
    }
}

//! Running requests: the way from a call to a session and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use smallvec::SmallVec;

use crate::cpus::affinity;
use crate::error::{Error, Result};
use crate::gpu::Streams;
use crate::observe::describe;
use crate::observe::explain::{self, Explained};
use crate::options::execution::Execution;
use crate::options::optimization::Optimization;
use crate::options::policy::{Counts, Dispatcher};
use crate::plan::Plan;
use crate::prepare::recent::Recent;
use crate::prepare::signature::{Order, Signature};
use crate::process::Process;
use crate::request::callable::Callable;
use crate::request::closing::Closing;
use crate::request::stats::{SessionStats, Snapshot, Way, WayCell};
use crate::sessions::gate::{Entered, Gate};
use crate::sessions::members::{Compiled, Members};
use crate::sessions::workers::{self, Refusal};
use crate::tensorflow::log;
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::{Session, Step};
use crate::tensorflow::{Buffer, Tensor, program};

/// What a group and its callables share.
pub(crate) struct Shared {
    pub number: u64,
    /// Where its threads are.
    pub process: Process,
    pub plan: Plan,
    pub dispatcher: Dispatcher,
    /// One lane for each session, and one for what concerns all of them.
    pub gate: Gate<Members>,
    pub closing: Closing,
    pub stats: Box<[SessionStats]>,
    pub steps: Steps,
    /// Of a multi-stream group.
    pub streams: Option<Streams>,
    /// Whether a session is broken.
    pub has_broken: AtomicBool,
}

/// How requests run that bring no options of their own.
pub(crate) struct Steps {
    /// On the calling thread, be it the caller's or a worker.
    pub here: RunOptions,
    /// On the session's inter-op pool.
    pub pool: RunOptions,
    /// `ConfigProto.operation_timeout_in_ms`, 0 for none.
    pub timeout_ms: i64,
    /// Whether TensorFlow's session fills each `RunMetadata`, so that whoever wants it can't have it of
    /// a program.
    pub fills_metadata: bool,
}

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
    /// a timeout on the inter-op pool, since nothing could stop it on the calling thread.
    pub options: Option<&'a RunOptions>,
    /// The session to run on, modulo the number of sessions; `None` lets the policy choose.
    pub session: Option<usize>,
}

/// What a request asks for, but for its tensors.
pub(crate) struct Terms<'a> {
    pub signature: Signature<'a>,
    pub options: Option<&'a RunOptions>,
    pub session: Option<usize>,
    pub wants_metadata: bool,
}

/// The tensors of a request, in the types of the API that it came by. It is run on whichever thread,
/// by one at a time.
pub(crate) trait Call: Send {
    /// Runs a program with them, whose feeds and fetches are in the order that is given. A timeout of 0
    /// is none.
    fn run_callable(
        &mut self,
        callable: &program::Callable,
        order: &Order,
        timeout_ms: i64,
        notes: &mut program::Notes,
    ) -> Result<()>;
    /// Lets TensorFlow's session run them by their names.
    fn run_session(&mut self, session: &Session, options: &RunOptions) -> Result<()>;
    /// Drops what a run has given, before another.
    fn forget(&mut self);
}

/// A request with tensors of Rust and C.
struct RequestCall<'a> {
    step: Step<'a>,
    outputs: &'a mut [Option<Tensor>],
    metadata: Option<&'a mut Buffer>,
}

impl Call for RequestCall<'_> {
    fn run_callable(
        &mut self,
        callable: &program::Callable,
        order: &Order,
        timeout_ms: i64,
        notes: &mut program::Notes,
    ) -> Result<()> {
        let inputs = self.step.inputs.iter().map(|&(_, tensor)| tensor);
        callable.run(inputs, self.outputs, order, timeout_ms, notes)
    }

    fn run_session(&mut self, session: &Session, options: &RunOptions) -> Result<()> {
        session.run(options, &self.step, self.outputs, self.metadata.as_deref_mut())
    }

    fn forget(&mut self) {
        self.outputs.fill_with(|| None);
        if let Some(metadata) = self.metadata.as_deref_mut() {
            *metadata = Buffer::new();
        }
    }
}

/// What to run, and how.
#[derive(Clone, Copy)]
struct Work<'a> {
    /// What is known about requests with these names, and the order of this one's.
    prepared: Option<(&'a Compiled, &'a Order)>,
    /// Why not, if nothing is.
    otherwise: Way,
    options: Option<&'a RunOptions>,
    wants_metadata: bool,
    /// Whether the policy has chosen the session, and not the caller.
    anywhere: bool,
}

impl Shared {
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
        let terms = Terms {
            signature: Signature { feeds, fetches, targets },
            options,
            session,
            wants_metadata: metadata.is_some(),
        };
        let step = Step { inputs, outputs: fetches, targets };
        self.run(&terms, &mut RequestCall { step, outputs, metadata })
    }

    /// Runs what `call` brings, as the terms say.
    pub fn run(&self, terms: &Terms<'_>, call: &mut dyn Call) -> Result<()> {
        let session = self.choose(terms.session)?;
        let members = self.enter(session)?;
        if !members.has_graph() {
            return Err(no_graph());
        }
        self.stats[session].count(|way| {
            let &Terms { options, wants_metadata, .. } = terms;
            let prepares = self.prepares() || self.streams.is_some();
            let ready = match prepares {
                true => members.prepare(&terms.signature, session)?,
                false => {
                    members.check_once(&terms.signature)?;
                    None
                }
            };
            let prepared = ready.as_ref().map(|ready| (ready.compiled(), &ready.recent.order));
            let otherwise = if prepares { Way::NoRoom } else { Way::Disabled };
            let anywhere = terms.session.is_none();
            let work = Work { prepared, otherwise, options, wants_metadata, anywhere };
            self.run_on(session, &members, &work, way, call)
        })
    }

    /// Runs what [`callable`](Self::callable) prepared.
    pub fn run_prepared(
        &self,
        recent: &Recent,
        session: Option<usize>,
        wants_metadata: bool,
        call: &mut dyn Call,
    ) -> Result<()> {
        let anywhere = session.is_none();
        let session = self.choose(session)?;
        let members = self.enter(session)?;
        let pinned = members.pinned(recent, session).expect("pinned, so it stays");
        let prepared = Some((pinned.compiled(), &recent.order));
        let work =
            Work { prepared, otherwise: Way::NoRoom, options: None, wants_metadata, anywhere };
        self.stats[session].count(|way| self.run_on(session, &members, &work, way, call))
    }

    /// Calls `f` with a session and its number, as a request that may do anything.
    pub fn run_on_session(
        &self,
        session: Option<usize>,
        f: impl FnOnce(&Session, usize) -> Result<()>,
    ) -> Result<()> {
        let session = self.choose(session)?;
        let members = self.enter(session)?;
        if !members.has_graph() {
            return Err(no_graph());
        }
        self.stats[session].count(|way| {
            let run = || {
                way.set(Way::Visit);
                let _writing = members.devices.writing();
                let result = f(members.session(session)?, session);
                if result.is_err() {
                    self.look_after(session, &members);
                }
                result
            };
            match &self.streams {
                None => run(),
                Some(streams) => streams.alone(&members.devices, run),
            }
        })
    }

    /// The session that is asked for, modulo their number, or the one that the policy chooses.
    fn choose(&self, session: Option<usize>) -> Result<usize> {
        match session {
            Some(session) => Ok(session % self.plan.sessions.len()),
            None => self.dispatcher.choose(self).map(|chosen| self.sound(chosen)),
        }
    }

    /// The session itself, or the next one after it that is not broken.
    fn sound(&self, chosen: usize) -> usize {
        if !self.has_broken.load(Relaxed) {
            return chosen;
        }
        let n = self.stats.len();
        let mut others = (0..n).map(|i| (chosen + i) % n);
        others.find(|&session| !self.stats[session].is_broken.load(Relaxed)).unwrap_or(chosen)
    }

    /// After a failure: whether the session can still be used.
    fn look_after(&self, session: usize, members: &Members) {
        if members.all[session].is_broken() && !self.stats[session].is_broken.swap(true, Relaxed) {
            self.has_broken.store(true, Relaxed);
            log::info(&format!(
                "session group {}: an exception has left session {session} in an unknown state; \
                 requests go to the others from now on",
                self.number
            ));
        }
    }

    /// Prepares a request on all sessions.
    pub fn callable(
        self: &Arc<Self>,
        feeds: &[&str],
        fetches: &[&str],
        targets: &[&str],
    ) -> Result<Callable> {
        let members = self.enter(self.plan.sessions.len())?;
        if !members.has_graph() {
            return Err(no_graph());
        }
        // Also where it is not run as a program, this finds what is wrong with the names.
        let signature = Signature { feeds: feeds.into(), fetches, targets };
        let lane = members.all.len();
        let mut recent = None;
        if let Some(ready) = members.prepare(&signature, lane)?
            && self.prepares()
        {
            let mut is_callable = true;
            for session in 0..members.all.len() {
                let callable = members.callable(session, ready.compiled());
                // A timeout has to end what waits, which takes the session and so the names.
                is_callable &= callable
                    .is_some_and(|callable| !callable.may_wait() || self.steps.timeout_ms <= 0);
            }
            if is_callable {
                members.pin(&ready);
                recent = Some(ready.recent.clone());
            }
        }
        if recent.is_none() {
            // Then they run it by its names, for which they need their graph.
            (0..members.all.len()).try_for_each(|session| members.session(session).map(drop))?;
        }
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Ok(Callable {
            group: self.clone(),
            recent,
            feeds: owned(feeds),
            fetches: owned(fetches),
            targets: owned(targets),
        })
    }

    /// Whether requests run as programs, as far as they can.
    fn prepares(&self) -> bool {
        self.plan.optimizations.has(Optimization::SerialExecutor)
            && self.plan.execution != Execution::Pool
    }

    fn run_on(
        &self,
        session: usize,
        members: &Members,
        work: &Work<'_>,
        way: &WayCell,
        call: &mut dyn Call,
    ) -> Result<()> {
        let timeout_ms = match work.options.map_or(0, RunOptions::timeout_ms) {
            ms if ms > 0 => ms,
            _ => self.steps.timeout_ms.max(0),
        };
        let stats = &self.stats[session];
        let Some(workers) = &members.all[session].workers else {
            return self.execute(session, members, work, way, timeout_ms, call);
        };

        let deadline = u64::try_from(timeout_ms)
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
            stats.busy(|| self.execute(session, members, work, way, timeout_ms, call))
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
    fn execute(
        &self,
        session: usize,
        members: &Members,
        work: &Work<'_>,
        way: &WayCell,
        timeout_ms: i64,
        call: &mut dyn Call,
    ) -> Result<()> {
        // Only programs keep what they have read.
        let may_write = work.prepared.is_none_or(|(compiled, _)| compiled.writes());
        let _writing = (self.prepares() && may_write).then(|| members.devices.writing());
        match self.as_program(session, members, work, timeout_ms) {
            Ok((callable, order)) => {
                way.set(Way::Program);
                let mut notes = program::Notes::default();
                let result = call.run_callable(callable, order, timeout_ms, &mut notes);
                self.stats[session].noted(notes.unresolved != 0, notes.unfused != 0);
                result
            }
            Err(why) => {
                way.set(why);
                if !self.runs_here(work, timeout_ms) {
                    self.stats[session].on_pool();
                }
                let result = match &self.streams {
                    None => self.run_by_names(session, members, work, timeout_ms, call),
                    Some(streams) => {
                        self.run_on_gpu(streams, session, members, work, timeout_ms, call)
                    }
                };
                if result.is_err() {
                    self.look_after(session, members);
                }
                result
            }
        }
    }

    /// The session's instance of the request's program or, where it can't run as one, why.
    fn as_program<'a>(
        &self,
        session: usize,
        members: &'a Members,
        work: &Work<'a>,
        timeout_ms: i64,
    ) -> std::result::Result<(&'a program::Callable, &'a Order), Way> {
        if !self.prepares() {
            return Err(Way::Disabled);
        }
        let is_plain = work.options.is_none_or(RunOptions::is_plain)
            && !(work.wants_metadata && self.steps.fills_metadata);
        if !is_plain {
            return Err(Way::Options);
        }
        let (compiled, order) = work.prepared.ok_or(work.otherwise)?;
        let callable = members.callable(session, compiled).ok_or(Way::NoProgram)?;
        match timeout_ms > 0 && callable.may_wait() {
            true => Err(Way::MayWait),
            false => Ok((callable, order)),
        }
    }

    /// Leaves the request to TensorFlow's session, or to one on each GPU, if it may write what each
    /// has a copy of.
    fn run_on_gpu(
        &self,
        streams: &Streams,
        session: usize,
        members: &Members,
        work: &Work<'_>,
        timeout_ms: i64,
        call: &mut dyn Call,
    ) -> Result<()> {
        let mut run = |session| {
            call.forget();
            self.run_by_names(session, members, work, timeout_ms, call)
        };
        if work.prepared.is_some_and(|(compiled, _)| !compiled.writes_on_gpu()) {
            return streams.with_others(|| run(session));
        }
        streams.alone(&members.devices, || match work.anywhere && streams.leaders > 1 {
            // What the first leader answers stays.
            true => (0..streams.leaders).rev().try_for_each(run),
            false => run(session),
        })
    }

    /// Whether TensorFlow's session runs a request on the thread that calls; else on its inter-op pool.
    fn runs_here(&self, work: &Work<'_>, timeout_ms: i64) -> bool {
        let recurses = work.prepared.is_some_and(|(compiled, _)| compiled.program.recurses());
        self.plan.execution != Execution::Pool
            && timeout_ms == 0
            && !recurses
            && work.options.is_none_or(RunOptions::leaves_pool_open)
    }

    /// Leaves the request to TensorFlow's session.
    fn run_by_names(
        &self,
        session: usize,
        members: &Members,
        work: &Work<'_>,
        timeout_ms: i64,
        call: &mut dyn Call,
    ) -> Result<()> {
        let own_session = members.session(session)?;
        let here = self.runs_here(work, timeout_ms);
        let own;
        let options = match work.options {
            None if here => &self.steps.here,
            None if timeout_ms == 0 => &self.steps.pool,
            options => {
                let mut copy = options.unwrap_or(&self.steps.pool).with_timeout_ms(timeout_ms)?;
                if here {
                    copy.run_on_calling_thread();
                }
                own = copy;
                &own
            }
        };
        // The first time, the session compiles the graph, on the thread that asks for it.
        let is_first =
            work.prepared.is_some_and(|(compiled, _)| compiled.is_first_by_names(session));
        match is_first {
            false => call.run_session(own_session, options),
            true => affinity::on_thread(&format!("sg{}-first", self.number), None, || {
                call.run_session(own_session, options)
            }),
        }
    }

    /// What a session has done so far. `None` where there is no such session.
    pub fn snapshot(&self, session: usize) -> Option<Snapshot> {
        let mut snapshot = self.stats.get(session)?.snapshot(self.gate.inside(session));
        snapshot.stream = self.streams.as_ref().map(|streams| streams.all[session]);
        Some(snapshot)
    }

    /// On how many sessions a model is restored: the first ones.
    pub fn leaders(&self) -> usize {
        self.streams.as_ref().map_or(1, |streams| streams.leaders)
    }

    /// What each session has done so far.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        (0..self.stats.len()).filter_map(|session| self.snapshot(session)).collect()
    }

    /// What the group is, and why.
    pub fn describe(&self) -> Value {
        let streams = self.streams.as_ref().map(|streams| &*streams.all);
        describe::json(self.number, &self.plan, streams, self.gate.is_closed())
    }

    /// What is prepared, how it runs, and why so.
    pub fn explain(&self) -> Value {
        let disabled = if self.plan.execution == Execution::Pool {
            Some("the group's execution is \"pool\"")
        } else if !self.prepares() {
            Some("the optimisation \"serial_executor\" is off")
        } else {
            None
        };
        let members = self.enter(self.plan.sessions.len()).ok();
        explain::json(&Explained {
            group: self.number,
            closed: self.gate.is_closed(),
            disabled,
            members: members.as_deref(),
            sessions: &self.snapshots(),
        })
    }

    /// Keeps the sessions alive until the result is dropped.
    pub fn enter(&self, lane: usize) -> Result<Entered<'_, Members>> {
        self.check_process()?;
        self.gate.enter(lane).ok_or_else(|| Error::precondition("the session group is closed"))
    }

    /// Fails in a child that was forked since the group was made.
    pub fn check_process(&self) -> Result<()> {
        if self.process.is_this() {
            return Ok(());
        }
        Err(Error::precondition(
            "this process was forked after the session group was made, whose threads stayed behind: \
             make groups after forking, or start the child with exec",
        ))
    }
}

fn no_graph() -> Error {
    Error::precondition(
        "the session group has no graph: call SessionGroup_Create or load a SavedModel before \
         running",
    )
}

impl Counts for Shared {
    fn in_flight(&self, session: usize) -> u64 {
        self.gate.inside(session)
    }

    fn queued(&self, session: usize) -> u64 {
        self.stats[session].queued()
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;
    use crate::options::policy::Policy;
    use crate::tensorflow::SessionOptions;
    use crate::{Options, SessionGroup};

    #[test]
    fn requests_pass_a_broken_session_over() {
        let mut options = Options::new();
        options.set_session_num(3);
        let group = SessionGroup::new(&SessionOptions::new(), &options).unwrap();
        let shared = group.shared();
        let chosen = || -> Vec<_> { (0..6).map(|_| shared.choose(None).unwrap()).collect() };
        assert_eq!(chosen(), [0, 1, 2, 0, 1, 2]);
        for (broken, expected) in [(1, [0, 2, 2, 0, 2, 2]), (2, [0; 6]), (0, [0, 1, 2, 0, 1, 2])] {
            shared.stats[broken].is_broken.store(true, Relaxed);
            shared.has_broken.store(true, Relaxed);
            assert_eq!(chosen(), expected);
        }
        assert_eq!(shared.choose(Some(4)), Ok(1));
    }

    /// `make bench-overhead` prints it; the time is for people to judge.
    #[test]
    #[ignore = "measures"]
    fn dispatch_overhead() {
        for policy in [Policy::Thread, Policy::RoundRobin, Policy::LeastLoaded] {
            let mut options = Options::new();
            options.set_session_num(4).set_policy(policy.clone());
            let group = SessionGroup::new(&SessionOptions::new(), &options).unwrap();
            let shared = group.shared();
            let turn = || {
                let session = shared.dispatcher.choose(shared).unwrap();
                let members = shared.enter(session).unwrap();
                shared.stats[session].count(|_| Ok(black_box(members.all.len()))).unwrap();
            };
            let name = policy.name();
            println!("dispatch by {name}: {}", nanoseconds(turn));
        }
        let clock = nanoseconds(|| {
            black_box((Instant::now(), Instant::now()));
        });
        println!("of which the clock, looked at twice: {clock}");
    }

    /// Median, least and most of some rounds.
    fn nanoseconds(f: impl Fn()) -> String {
        const TURNS: u32 = 1_000_000;
        let mut ns: Vec<_> = (0..9)
            .map(|_| {
                let begun = Instant::now();
                (0..TURNS).for_each(|_| f());
                begun.elapsed().as_nanos() as f64 / f64::from(TURNS)
            })
            .collect();
        ns.sort_by(f64::total_cmp);
        format!("{:.0} ns ({:.0} to {:.0})", ns[4], ns[0], ns[8])
    }
}

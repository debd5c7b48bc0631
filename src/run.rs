//! Running requests: the way from a call to a session and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::cache::Signature;
use crate::callable::Callable;
use crate::error::{Error, Result};
use crate::execution::Execution;
use crate::gate::{Entered, Gate};
use crate::members::{Members, Prepared};
use crate::optimization::Optimization;
use crate::plan::Plan;
use crate::policy::{Counts, Dispatcher};
use crate::stats::SessionStats;
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::Step;
use crate::tensorflow::{Buffer, Tensor};
use crate::workers::{self, Refusal};

/// What a group and its callables share.
pub(crate) struct Shared {
    pub number: u64,
    pub plan: Plan,
    pub dispatcher: Dispatcher,
    /// One lane for each session, and one for what concerns all of them.
    pub gate: Gate<Members>,
    pub stats: Box<[SessionStats]>,
    pub steps: Steps,
}

/// How requests run that bring no options of their own.
pub(crate) struct Steps {
    /// On the calling thread, be it the caller's or a worker.
    pub here: RunOptions,
    /// On the session's inter-op pool.
    pub pool: RunOptions,
    /// `ConfigProto.operation_timeout_in_ms`, 0 for none.
    pub timeout_ms: i64,
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

/// What a request computes: names, with the program for them if there is one.
enum Work<'a> {
    Named(&'a Request<'a>, Option<&'a Prepared>),
    Prepared(&'a Prepared, &'a [&'a Tensor]),
}

impl Shared {
    /// Runs a request. `outputs` has room for a tensor for each of its outputs and gets them all, or
    /// none; where asked for, a buffer gets a serialised `RunMetadata`.
    pub fn run(
        &self,
        request: &Request<'_>,
        outputs: &mut [Option<Tensor>],
        metadata: Option<&mut Buffer>,
    ) -> Result<()> {
        let session = match request.session {
            Some(session) => session % self.plan.sessions.len(),
            None => self.dispatcher.choose(self)?,
        };
        let members = self.enter(session)?;
        if !members.has_graph() {
            return Err(no_graph());
        }
        self.stats[session].count(|| {
            let prepared = match self.prepares() {
                true => members.prepare(&signature(request))?.map(|(_, prepared)| prepared),
                false => None,
            };
            self.run_on(session, &members, &Work::Named(request, prepared), outputs, metadata)
        })
    }

    /// Runs what [`callable`](Self::callable) prepared.
    pub fn run_prepared(
        &self,
        place: usize,
        inputs: &[&Tensor],
        outputs: &mut [Option<Tensor>],
    ) -> Result<()> {
        let session = self.dispatcher.choose(self)?;
        let members = self.enter(session)?;
        let prepared = members.prepared(place).expect("stays until the group is closed");
        self.stats[session].count(|| {
            self.run_on(session, &members, &Work::Prepared(prepared, inputs), outputs, None)
        })
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
        let mut place = None;
        if let Some((found, prepared)) = members.prepare(&signature)?
            && prepared.is_callable
            && self.prepares()
        {
            let mut may_wait = false;
            for session in 0..members.all.len() {
                may_wait |= members.callable(session, prepared)?.may_wait();
            }
            // A timeout has to end what waits, which takes the session and so the names.
            place = (!may_wait || self.steps.timeout_ms <= 0).then_some(found);
        }
        if place.is_none() {
            // Then they run it by its names, for which they need their graph.
            (0..members.all.len()).try_for_each(|session| members.session(session).map(drop))?;
        }
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Ok(Callable {
            group: self.clone(),
            place,
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
        outputs: &mut [Option<Tensor>],
        metadata: Option<&mut Buffer>,
    ) -> Result<()> {
        let member = &members.all[session];
        let options = match work {
            Work::Named(request, _) => request.options,
            Work::Prepared(..) => None,
        };
        let timeout_ms = match options.map_or(0, RunOptions::timeout_ms) {
            ms if ms > 0 => ms,
            _ => self.steps.timeout_ms.max(0),
        };
        let stats = &self.stats[session];
        let Some(workers) = &member.workers else {
            return self.execute(session, members, work, timeout_ms, outputs, metadata);
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
            stats.busy(|| self.execute(session, members, work, timeout_ms, outputs, metadata))
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
        timeout_ms: i64,
        outputs: &mut [Option<Tensor>],
        metadata: Option<&mut Buffer>,
    ) -> Result<()> {
        let (prepared, is_plain) = match work {
            Work::Named(request, prepared) => {
                let is_plain = request.options.is_none_or(RunOptions::is_plain);
                (*prepared, is_plain && metadata.is_none())
            }
            Work::Prepared(prepared, _) => (Some(*prepared), true),
        };
        if let Some(prepared) = prepared.filter(|prepared| prepared.is_callable && is_plain) {
            let callable = members.callable(session, prepared)?;
            if timeout_ms == 0 || !callable.may_wait() {
                let result = match work {
                    Work::Named(request, _) => {
                        let inputs = request.inputs.iter().map(|&(_, tensor)| tensor);
                        callable.run(inputs, outputs, timeout_ms)
                    }
                    Work::Prepared(_, inputs) => {
                        callable.run(inputs.iter().copied(), outputs, timeout_ms)
                    }
                };
                if prepared.writes() {
                    members.devices.written();
                }
                return result;
            }
        }
        let Work::Named(request, _) = work else {
            unreachable!("only programs without waiting are run without names")
        };
        let result = self.run_by_names(session, members, request, timeout_ms, outputs, metadata);
        // Only programs keep what they have read.
        if self.prepares() && prepared.is_none_or(Prepared::writes) {
            members.devices.written();
        }
        result
    }

    /// Leaves the request to TensorFlow's session.
    fn run_by_names(
        &self,
        session: usize,
        members: &Members,
        request: &Request<'_>,
        timeout_ms: i64,
        outputs: &mut [Option<Tensor>],
        metadata: Option<&mut Buffer>,
    ) -> Result<()> {
        let step =
            Step { inputs: request.inputs, outputs: request.outputs, targets: request.targets };
        let here = self.plan.execution != Execution::Pool
            && timeout_ms == 0
            && request.options.is_none_or(RunOptions::leaves_pool_open);
        let own;
        let options = match request.options {
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
        members.session(session)?.run(options, &step, outputs, metadata)
    }

    /// Keeps the sessions alive until the result is dropped.
    pub fn enter(&self, lane: usize) -> Result<Entered<'_, Members>> {
        self.gate.enter(lane).ok_or_else(|| Error::precondition("the session group is closed"))
    }
}

fn signature<'a>(request: &Request<'a>) -> Signature<'a> {
    let feeds: SmallVec<_> = request.inputs.iter().map(|&(name, _)| name).collect();
    Signature { feeds, fetches: request.outputs, targets: request.targets }
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
    use crate::policy::Policy;
    use crate::tensorflow::SessionOptions;
    use crate::{Options, SessionGroup};

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
                shared.stats[session].count(|| Ok(black_box(members.all.len()))).unwrap();
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

//! The group: N sessions, one set of variables.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tensorflow_sys as tf;

use crate::cpus::affinity;
use crate::cpus::cpuset::CpuSet;
use crate::error::{Code, Error, Result};
use crate::gpu::Streams;
use crate::gpu::mps;
use crate::memory::memory_stats;
use crate::observe::{describe, explain, metrics, registry};
use crate::options::Options;
use crate::options::environment::Environment;
use crate::plan;
use crate::plan::machine::Machine;
use crate::prepare::signature::Signature;
use crate::process::Process;
use crate::request::callable::Callable;
use crate::request::closing::Closing;
use crate::request::dispatch::Dispatcher;
use crate::request::run::{Request, RequestSpec};
use crate::request::state::{GroupState, RunDefaults};
use crate::request::stats::{SessionStats, Snapshot};
use crate::request::tensors::RequestTensors;
use crate::sessions::gate::Gate;
use crate::sessions::set::SessionSet;
use crate::tensorflow::devices::Variable;
use crate::tensorflow::graph::{Graph, SavedModel};
use crate::tensorflow::large_blocks;
use crate::tensorflow::log;
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::{Device, Session};
use crate::tensorflow::{Buffer, SessionOptions, Tensor, version};

/// N sessions that share variables and tables. May be used by many threads at a time.
pub struct SessionGroup {
    state: Arc<GroupState>,
}

impl SessionGroup {
    /// A group whose sessions have no graph yet.
    pub fn new(session_options: &SessionOptions, options: &Options) -> Result<Self> {
        version::check()?;
        let config = session_options.config();
        let machine = Machine::read(options.multi_stream.then_some(session_options))?;
        let plan = plan::plan(options, &Environment::read(), &config, &machine)?;
        if plan.gpus.as_ref().is_some_and(|gpus| gpus.mps.is_some()) {
            mps::check()?;
        }
        large_blocks::set_limit(plan.kept_bytes);
        let number = next_number();
        let sessions = SessionSet::new(&format!("sg{number}"), &plan, session_options)?;
        let cpus: Vec<CpuSet> =
            plan.sessions.iter().filter_map(|session| session.cpus.clone()).collect();
        let mut on_this_thread = RunOptions::parse(&[])?;
        on_this_thread.run_on_calling_thread();
        let stream_slots = || plan.sessions.iter().filter_map(|session| session.stream_slot);
        let streams =
            plan.gpus.as_ref().map(|gpus| Streams::new(gpus, stream_slots(), &sessions.devices));
        log::info(&describe::line(number, &plan));
        let stats =
            plan.sessions.iter().map(|session| SessionStats::new(session.worker_threads > 0));
        let state = GroupState {
            number,
            process: Process::current(),
            dispatcher: Dispatcher::new(&plan.policy, plan.sessions.len(), &cpus),
            stats: stats.collect(),
            gate: Gate::new(sessions, plan.sessions.len() + 1),
            closing: Closing::new(number, plan.drain),
            defaults: RunDefaults {
                on_this_thread,
                on_pool: RunOptions::parse(&[])?,
                timeout_ms: config.operation_timeout_ms,
                fills_metadata: config.fills_metadata,
            },
            streams,
            plan,
            has_broken: AtomicBool::new(false),
        };
        let state = Arc::new(state);
        registry::add(&state);
        Ok(Self { state })
    }

    /// A group that serves a SavedModel: reads the `MetaGraphDef` with exactly these tags, restores
    /// the variables and runs the initialisers, once for all sessions. Where asked for, fills a
    /// buffer with the serialised `MetaGraphDef`, which has the signatures.
    pub fn load(
        session_options: &SessionOptions,
        run_options: Option<&RunOptions>,
        export_dir: impl AsRef<Path>,
        tags: &[&str],
        options: &Options,
        meta_graph_def: Option<&mut Buffer>,
    ) -> Result<Self> {
        version::check()?;
        let export_dir = export_dir.as_ref();
        let doing = |what: &'static str| {
            move |error: Error| {
                let message =
                    format!("SavedModel {}: {what}: {}", export_dir.display(), error.message);
                Error::new(error.code, message)
            }
        };
        let mut model = SavedModel::read(export_dir, tags, meta_graph_def)
            .map_err(doing("reading it failed"))?;
        let group = Self::new(session_options, options)?;
        let sessions = group.state.enter_for_all()?;
        sessions.add_graph(model.take_graph()).map_err(doing("its graph was refused"))?;
        let run_options = run_options.unwrap_or(&group.state.defaults.on_pool);
        let (writing, loading) = (sessions.devices.writing(), sessions.devices.loading());
        for leader in 0..group.state.leaders() {
            sessions
                .session(leader)?
                .restore(&model, run_options)
                .map_err(doing("restoring its variables or initialising it failed"))?;
        }
        drop((writing, loading));
        sessions.devices.sync()?;
        if let Some(error) = sessions.devices.spread_error() {
            log::info(&format!(
                "session group {}: Linux has not spread its tables over NUMA nodes: {error}. In a container, that needs \
                 the capability SYS_NICE or a seccomp profile that allows mbind()",
                group.state.number
            ));
        }
        drop(sessions);
        Ok(group)
    }

    /// Gives all sessions their graph, a serialised `GraphDef`. Run its initialisers through the
    /// group, once.
    pub fn create(&self, graph_def: &[u8]) -> Result<()> {
        self.add_graph(Graph::parse(graph_def)?, false)
    }

    /// Adds the nodes of a serialised `GraphDef` to the graph of all sessions.
    pub fn extend(&self, graph_def: &[u8]) -> Result<()> {
        self.add_graph(Graph::parse(graph_def)?, true)
    }

    pub(crate) fn add_graph(&self, graph: Graph, extend: bool) -> Result<()> {
        let sessions = self.state.enter_for_all()?;
        if !extend && sessions.has_graph() {
            return Err(Error::new(
                Code::AlreadyExists,
                "the group has a graph already: extend it, or make another group",
            ));
        }
        sessions.add_graph(graph)
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
        let mut outputs: Vec<Option<Tensor>> = request.outputs.iter().map(|_| None).collect();
        self.run_into(request, &mut outputs, metadata)?;
        Ok(outputs.into_iter().flatten().collect())
    }

    /// As [`run_request`](Self::run_request). `outputs` has room for a tensor for each of the
    /// request's outputs and gets them all, or none: what is in it is dropped first.
    pub fn run_into(
        &self,
        request: &Request<'_>,
        outputs: &mut [Option<Tensor>],
        mut metadata: Option<&mut Buffer>,
    ) -> Result<()> {
        outputs.fill_with(|| None);
        if let Some(metadata) = metadata.as_deref_mut() {
            *metadata = Buffer::new();
        }
        if outputs.len() != request.outputs.len() {
            return Err(Error::invalid(format!(
                "there is room for {} outputs, but the request has {}",
                outputs.len(),
                request.outputs.len()
            )));
        }
        self.state.run_request(request, outputs, metadata)
    }

    /// Prepares requests with these feeds, fetches and targets on all sessions, so that nothing is
    /// left to be done by the first of them, and names are not looked up by any.
    pub fn make_callable(
        &self,
        feeds: &[&str],
        fetches: &[&str],
        targets: &[&str],
    ) -> Result<Callable> {
        Callable::new(&self.state, feeds, fetches, targets)
    }

    /// Runs a request once on each session, on all of them at the same time, so that no later one
    /// pays for what a session does the first time. What it gives is dropped.
    pub fn warm_up(
        &self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
        targets: &[&str],
    ) -> Result<()> {
        let run = |session| {
            let session = Some(session);
            let request = Request { inputs, outputs, targets, session, ..Request::default() };
            self.run_request(&request, None).map(drop)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..self.session_num())
                .map(|session| {
                    std::thread::Builder::new().spawn_scoped(scope, move || run(session))
                })
                .collect();
            let first = run(0);
            threads.into_iter().try_fold(first, |result, thread| match thread {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| Err(Error::panicked("warming up", panic.as_ref())))
                    .and(Ok(result)),
                Err(error) => Err(affinity::failed("start a thread to warm up", &error)),
            })?
        })
    }

    /// Whether requests with these names run on the calling thread, as a program without loops and without operations
    /// that wait or write, so that only the sizes of their inputs decide how long they take. `false` before the first of
    /// them has run.
    pub fn is_straight(&self, inputs: &[&str], outputs: &[&str]) -> bool {
        let signature = Signature { feeds: inputs.into(), fetches: outputs, targets: &[] };
        self.state.is_straight(&signature)
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &GroupState {
        &self.state
    }

    /// How many sessions.
    pub fn session_num(&self) -> usize {
        self.state.plan.sessions.len()
    }

    /// The devices that each session sees; all see the same.
    pub fn list_devices(&self) -> Result<Vec<Device>> {
        self.state.enter_for_all()?.session(0)?.devices_seen()
    }

    /// The same as TensorFlow's C API has it, for a caller who frees it with `TF_DeleteDeviceList`.
    pub(crate) fn device_list(&self) -> Result<*mut tf::TF_DeviceList> {
        self.state.enter_for_all()?.session(0)?.list_devices()
    }

    /// What a session has done so far; also after closing. `None` where there is no such session.
    pub fn stats(&self, session: usize) -> Option<Snapshot> {
        self.state.snapshot(session)
    }

    /// What all sessions have done so far, and the memory of large tensors in the whole process, in
    /// Prometheus' text exposition format; also after closing.
    pub fn metrics_text(&self) -> String {
        metrics::text(&[metrics::OfGroup::new(&self.state)], &memory_stats())
    }

    /// What the group is, and why, as JSON; also after closing.
    pub fn describe(&self) -> String {
        describe::group(&self.state).to_string()
    }

    /// What the group has prepared for requests, how it runs them and why so, as JSON; also after
    /// closing, when only the counters are left.
    pub fn explain(&self) -> String {
        explain::group(&self.state).to_string()
    }

    /// Runs these tensors as `spec` says.
    pub(crate) fn run_tensors(
        &self,
        spec: &RequestSpec<'_>,
        tensors: &mut dyn RequestTensors,
    ) -> Result<()> {
        self.state.run(spec, tensors)
    }

    /// Calls `f` with a session and its number, as a request that may do anything.
    pub(crate) fn run_on_session(
        &self,
        session: Option<usize>,
        f: impl FnOnce(&Session, usize) -> Result<()>,
    ) -> Result<()> {
        self.state.run_on_session(session, f)
    }

    /// Calls `f` with a session, for what is no request.
    pub(crate) fn with_session(
        &self,
        session: usize,
        f: impl FnOnce(&Session) -> Result<()>,
    ) -> Result<()> {
        f(self.state.enter_for_all()?.session(session)?)
    }

    /// From now on variables may be written by who has looked behind the group, so that no session
    /// keeps what it has read.
    pub(crate) fn untrack(&self) -> Result<()> {
        self.state.enter_for_all()?.devices.untrack();
        Ok(())
    }

    /// Lets `write` change the value of a resource variable where it lies, without a copy of it. `false`
    /// where it is not called: there is no variable of this name, type and shape, it is not on the CPU or
    /// of a type without a fixed size, or something else refers to its memory, be it a request that
    /// reads it now or another variable. Assign a new value then. Requests that begin later see the change;
    /// which of several changes one sees that runs meanwhile is up to the caller.
    pub fn write_variable(
        &self,
        variable: &Variable<'_>,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<bool> {
        self.state.enter_for_all()?.devices.write_variable(variable, write)
    }

    /// How many bytes each of the threads that restored checkpoints has read, so far. Empty where TensorFlow's own
    /// kernel restored them.
    pub fn restored_bytes(&self) -> Result<Vec<u64>> {
        Ok(self.state.enter_for_all()?.devices.restored_bytes())
    }

    /// Turns new requests away, lets those that are running finish for the drain timeout of the options,
    /// cancels what then still runs, and frees sessions, threads and variables. Closing again does
    /// nothing. Fails in a child that was forked since; where TensorFlow reports an error of what it had
    /// still to do, which does not keep it from closing; and with `DEADLINE_EXCEEDED` where something
    /// runs on although it was cancelled: the group turns requests away, but what it has stays in memory
    /// until it is closed again after that has ended.
    pub fn close(&self) -> Result<()> {
        self.state.check_process()?;
        self.state.closing.close(&self.state.gate)
    }
}

impl Drop for SessionGroup {
    fn drop(&mut self) {
        // In a forked child, closing would wait for threads that are not there: their memory goes with
        // the process. So does what requests use that don't end.
        let is_here = self.state.check_process().is_ok();
        if !is_here || !self.state.closing.close_at_last(&self.state.gate) {
            std::mem::forget(self.state.clone());
        }
    }
}

/// The number of a group in this process, which its threads' names carry.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

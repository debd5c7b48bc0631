//! The sessions of a group, and what they share.

use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

use crate::cpus::affinity;
use crate::cpus::cpuset::CpuSet;
use crate::error::Result;
use crate::observe::explain;
use crate::options::kernels::Kernels;
use crate::options::optimization::{Optimization, Optimizations};
use crate::plan::{Plan, SessionPlan};
use crate::prepare::cache::{Cache, Found};
use crate::prepare::names;
use crate::prepare::recent::{self, Recent};
use crate::prepare::signature::{Names, Order, Signature};
use crate::prepare::slot::Inside;
use crate::sessions::workers::Workers;
use crate::tensorflow::SessionOptions;
use crate::tensorflow::devices::{Devices, Seat};
use crate::tensorflow::graph::Graph;
use crate::tensorflow::log;
use crate::tensorflow::program::{Callable, Program};
use crate::tensorflow::session::{IntraOpPool, Session};

/// The sessions, with the devices that own what they share. Dropped from the first field to the
/// last, after [`Drop::drop`].
pub(crate) struct Members {
    /// Programs, by the names in requests.
    prepared: Cache<Prepared>,
    /// Of this cache in the process.
    number: u64,
    pub all: Vec<Member>,
    compiler: Member,
    compiling: Compiling,
    /// What was created and then extended, in this order.
    graphs: RwLock<Vec<Graph>>,
    /// How many there are.
    graph_count: AtomicUsize,
    pub devices: Arc<Devices>,
    optimizations: Optimizations,
    kernels: Kernels,
    /// After [`end`](Self::end).
    is_ended: bool,
}

/// A session with its worker threads, which end before it.
pub(crate) struct Member {
    pub workers: Option<Workers>,
    session: Arc<Session>,
    /// How many of the graphs it has; changed under `changing`.
    has_graphs: AtomicUsize,
    changing: Mutex<()>,
}

/// What making a session to compile with takes.
struct Compiling {
    /// Of the group, as its threads' names begin.
    group: String,
    allowed: CpuSet,
    options: SessionOptions,
    seat: Option<Seat>,
}

/// What is known about requests with some names.
pub(crate) struct Prepared {
    names: Names,
    compiled: OnceCell<Compiled>,
}

/// A program, and each session's instance of it, made when first needed.
pub(crate) struct Compiled {
    pub program: Arc<Program>,
    pub took: Duration,
    callables: Box<[OnceCell<Callable>]>,
    /// How often a session could not make an instance.
    failures: AtomicUsize,
    /// What the first of them said.
    failure: OnceCell<String>,
    /// By session: whether TensorFlow's has run it by its names.
    named: Box<[AtomicBool]>,
}

/// A prepared request, which stays until this is dropped.
pub(crate) struct Ready<'a> {
    pub recent: Arc<Recent>,
    prepared: Inside<'a, Prepared>,
}

/// More attempts than this to make an instance of a program are not worth it.
const MOST_FAILURES: usize = 3;

impl Drop for Members {
    fn drop(&mut self) {
        if !self.is_ended {
            let _ = self.end();
        }
    }
}

impl Members {
    /// Starts all threads, the sessions' under names that begin with `name`.
    pub fn new(name: &str, plan: &Plan, session_options: &SessionOptions) -> Result<Self> {
        // One group at a time, so that none takes the threads that another was just shown.
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        affinity::check_room_for(plan.threads())?;
        let fast_memory = plan.optimizations.has(Optimization::FastMemory);
        let devices = Arc::new(match &plan.gpus {
            None => Devices::new(session_options, fast_memory)?,
            Some(gpus) => {
                let streams = (plan.sessions.len() / gpus.ids.len()) as i32;
                Devices::with_streams(session_options, fast_memory, &gpus.ids, streams)?
            }
        });
        if plan.optimizations.has(Optimization::ParallelRestore) {
            devices.restore_with(&plan.allowed)?;
        }
        let all = plan
            .sessions
            .iter()
            .enumerate()
            .map(|(i, session)| {
                let name = format!("{name}.s{i}");
                Member::new(&name, session, plan, session_options, devices.clone())
            })
            .collect::<Result<Vec<_>>>()?;
        let compiling = Compiling {
            group: name.to_string(),
            allowed: plan.allowed.clone(),
            options: session_options.try_clone()?,
            seat: plan.sessions[0].seat,
        };
        let compiler = compiling.on_thread(|| compiling.session(&devices))?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            // A lane for each session, and one for what concerns all.
            prepared: Cache::new(all.len() + 1),
            number: NEXT.fetch_add(1, Relaxed),
            all,
            compiler: Member::of(compiler, None),
            compiling,
            graphs: RwLock::default(),
            graph_count: AtomicUsize::new(0),
            devices,
            optimizations: plan.optimizations,
            kernels: plan.kernels,
            is_ended: false,
        })
    }

    /// Cancels what runs on the sessions, now and later, as far as its operations can be.
    pub fn cancel(&self) {
        for member in &self.all {
            // Whoever closes gets the error.
            let _ = member.session.close();
        }
    }

    /// Frees everything; gives the first error that TensorFlow has.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    /// As TensorFlow itself does: what sessions share goes while their kernels, functions and threads,
    /// to which it may refer, are still there, but closed.
    fn end(&mut self) -> Result<()> {
        self.is_ended = true;
        let mut result = Ok(());
        for member in &mut self.all {
            member.workers = None;
            result = result.and(member.session.close());
        }
        result = result.and(self.compiler.session.close());
        let mut sessions = self.all.iter().chain([&self.compiler]);
        if sessions.any(Member::is_broken) {
            return result;
        }
        // What failed may have left kernels behind, on memory that others will get.
        result = result.and(self.devices.sync());
        result.and(self.devices.clear())
    }

    /// Whether there is a graph.
    pub fn has_graph(&self) -> bool {
        self.graph_count.load(Acquire) > 0
    }

    /// Creates the graph, or extends it. The first session takes it at once, so that a graph that
    /// TensorFlow refuses is refused here; the others once they need it, which is never for those
    /// that run programs alone.
    pub fn add_graph(&self, graph: Graph) -> Result<()> {
        let mut graphs = self.graphs.write().unwrap_or_else(PoisonError::into_inner);
        let first = &self.all[0];
        let _changing = first.lock();
        first.catch_up(&graphs)?;
        self.devices.check(&graph)?;
        let graph = match self.optimizations.has(Optimization::SharedConstants) {
            true => graph.hide_constants(&self.devices)?,
            false => graph,
        };
        first.take(&graph, graphs.len())?;
        graphs.push(graph);
        self.graph_count.store(graphs.len(), Release);
        Ok(())
    }

    /// A session of the group, with the graph.
    pub fn session(&self, i: usize) -> Result<&Session> {
        self.up_to_date(&self.all[i])
    }

    fn up_to_date<'a>(&self, member: &'a Member) -> Result<&'a Session> {
        if member.has_graphs.load(Acquire) != self.graph_count.load(Acquire) {
            let graphs = self.graphs.read().unwrap_or_else(PoisonError::into_inner);
            let _changing = member.lock();
            member.catch_up(&graphs)?;
        }
        Ok(&member.session)
    }

    /// What is known about requests with these names, for who runs one on this session. `None` where
    /// there is no room for more.
    pub fn prepare(&self, signature: &Signature<'_>, session: usize) -> Result<Option<Ready<'_>>> {
        if let Some(recent) = recent::find(self.number, signature)
            && let Some(prepared) = self.prepared.at(recent.place, recent.number, session)
        {
            return Ok(Some(Ready { recent, prepared }));
        }
        self.check(signature)?;
        let (names, order) = Names::shared(signature);
        let make = || Prepared { names: names.clone(), compiled: OnceCell::new() };
        let Some(Found { place, value }) = self.prepared.find_or_add(&names, session, make) else {
            return Ok(None);
        };
        let number = value.number();
        if let Err(error) = value.compiled.get_or_try_init(|| self.compile(&names)) {
            // It is not to take the place of what works.
            drop(value);
            self.prepared.remove(place, number);
            return Err(error);
        }
        let recent = recent::remember(self.number, signature, (place, number), order);
        Ok(Some(Ready { recent, prepared: value }))
    }

    /// Fails where the graph lacks a name of a request that is not to be prepared.
    pub fn check_once(&self, signature: &Signature<'_>) -> Result<()> {
        if recent::find(self.number, signature).is_none() {
            self.check(signature)?;
            // Of no entry.
            recent::remember(self.number, signature, (usize::MAX, 0), Order::default());
        }
        Ok(())
    }

    fn check(&self, signature: &Signature<'_>) -> Result<()> {
        let graphs = self.graphs.read().unwrap_or_else(PoisonError::into_inner);
        names::check(signature, |node| graphs.iter().find_map(|graph| graph.outputs(node)))
    }

    /// What was pinned, for who runs it on this session.
    pub fn pinned(&self, recent: &Recent, session: usize) -> Option<Inside<'_, Prepared>> {
        self.prepared.at(recent.place, recent.number, session)
    }

    /// Keeps what is prepared until it is unpinned.
    pub fn pin(&self, ready: &Ready<'_>) {
        self.prepared.pin(ready.recent.place);
    }

    pub fn unpin(&self, place: usize) {
        self.prepared.unpin(place);
    }

    /// Calls `f` with all that was compiled and is still there.
    pub fn for_each_compiled(&self, mut f: impl FnMut(&Names, &Compiled)) {
        self.prepared.for_each(self.all.len(), |prepared| {
            if let Some(compiled) = prepared.compiled.get() {
                f(&prepared.names, compiled);
            }
        });
    }

    fn compile(&self, names: &Names) -> Result<Compiled> {
        let begun = Instant::now();
        let [feeds, fetches, targets] = names.all();
        let program = self.compiling.on_thread(|| {
            let graphs = self.graphs.read().unwrap_or_else(PoisonError::into_inner);
            if !graphs.iter().any(Graph::can_reveal) {
                let compiler = &self.compiler;
                let _changing = compiler.lock();
                compiler.catch_up(&graphs)?;
                drop(_changing);
                return Program::compile(&compiler.session, &graphs, &feeds, &fetches, &targets);
            }
            // Its copies of large constants go with it.
            let compiler = self.compiling.session(&self.devices)?;
            for (i, graph) in graphs.iter().enumerate() {
                compiler.add_revealed(graph, i > 0)?;
            }
            Program::compile(&compiler, &graphs, &feeds, &fetches, &targets)
        })?;
        if let Some(why) = program.obstacle() {
            log::info(&explain::line(&self.compiling.group, names, why));
        }
        Ok(Compiled {
            program: Arc::new(program),
            took: begun.elapsed(),
            callables: self.all.iter().map(|_| OnceCell::new()).collect(),
            failures: AtomicUsize::new(0),
            failure: OnceCell::new(),
            named: self.all.iter().map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// A session's instance of a program; `None` where it can't have one, so that TensorFlow's session
    /// has to run it.
    pub fn callable<'a>(&self, session: usize, compiled: &'a Compiled) -> Option<&'a Callable> {
        if let Some(callable) = compiled.callables[session].get() {
            return Some(callable);
        }
        if compiled.program.obstacle().is_some() || compiled.failures.load(Relaxed) >= MOST_FAILURES
        {
            return None;
        }
        let made = compiled.callables[session].get_or_try_init(|| {
            let own = self.all[session].session.clone();
            let has = |optimization| self.optimizations.has(optimization);
            Callable::new(
                own,
                compiled.program.clone(),
                has(Optimization::ResolvedReads),
                has(Optimization::FusedLookups),
                self.kernels == Kernels::Auto,
            )
        });
        made.inspect_err(|error| {
            let _ = compiled.failure.set(error.to_string());
            compiled.failures.fetch_add(1, Relaxed);
            log::info(&format!("a program's kernels can't be made: {error}"));
        })
        .ok()
    }
}

impl Compiling {
    /// Like any thread that is nobody's, the compiler's may use all CPUs of the process.
    fn on_thread<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        affinity::on_thread(&format!("{}-compile", self.group), Some(&self.allowed), f)
    }

    fn session(&self, devices: &Arc<Devices>) -> Result<Session> {
        affinity::check_room_for(2)?;
        let pool = IntraOpPool::new(&self.options, 1)?;
        Session::compiler(devices.clone(), &self.options, self.seat, pool)
    }
}

impl Ready<'_> {
    pub fn compiled(&self) -> &Compiled {
        self.prepared.compiled()
    }
}

impl Prepared {
    pub fn compiled(&self) -> &Compiled {
        self.compiled.get().expect("what is given out was compiled")
    }
}

impl Compiled {
    /// Whether running it may change a variable or a table.
    pub fn writes(&self) -> bool {
        self.program.writes()
    }

    /// Whether that may be one on a GPU.
    pub fn writes_on_gpu(&self) -> bool {
        self.program.writes_elsewhere()
    }

    /// Why sessions run it by its names, if they do.
    pub fn obstacle(&self) -> Option<&str> {
        let has_failed = self.failures.load(Relaxed) >= MOST_FAILURES;
        self.program.obstacle().or(match has_failed {
            true => self.failure.get().map(String::as_str),
            false => None,
        })
    }

    /// The instance of a session, if it has made one.
    pub fn made(&self) -> Option<&Callable> {
        self.callables.iter().find_map(OnceCell::get)
    }

    /// Whether a session runs it by its names for the first time, and so compiles it, too.
    pub fn is_first_by_names(&self, session: usize) -> bool {
        !self.named[session].load(Relaxed) && !self.named[session].swap(true, Relaxed)
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
            Session::new(devices, session_options, session.seat, pool, session.inter_op_threads)
        })?;
        let workers = match session.worker_threads {
            0 => None,
            n => Some(Workers::new(&format!("{name}-work"), n, cpus, plan.queue)?),
        };
        Ok(Self::of(made, workers))
    }

    fn of(session: Session, workers: Option<Workers>) -> Self {
        Self {
            workers,
            session: Arc::new(session),
            has_graphs: AtomicUsize::new(0),
            changing: Mutex::new(()),
        }
    }

    /// Whether an exception has left the session in an unknown state.
    pub fn is_broken(&self) -> bool {
        self.session.is_broken()
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes those of the graphs that it does not have yet. For who holds `changing`.
    fn catch_up(&self, graphs: &[Graph]) -> Result<()> {
        let has = self.has_graphs.load(Acquire);
        (has..graphs.len()).try_for_each(|i| self.take(&graphs[i], i))
    }

    /// Takes graph number `i`. For who holds `changing`.
    fn take(&self, graph: &Graph, i: usize) -> Result<()> {
        match i {
            0 => self.session.create(graph),
            _ => self.session.extend(graph),
        }?;
        self.has_graphs.store(i + 1, Release);
        Ok(())
    }
}

//! The sessions of a group, and what they share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use once_cell::sync::OnceCell;

use crate::affinity;
use crate::cache::{Cache, Signature};
use crate::error::Result;
use crate::optimization::{Optimization, Optimizations};
use crate::plan::{Plan, SessionPlan};
use crate::tensorflow::SessionOptions;
use crate::tensorflow::devices::Devices;
use crate::tensorflow::graph::Graph;
use crate::tensorflow::program::{Callable, Program};
use crate::tensorflow::session::{IntraOpPool, Session};
use crate::workers::Workers;

/// The sessions, with the devices that own what they share. Dropped from the first field to the
/// last, after [`Drop::drop`].
pub(crate) struct Members {
    /// Programs, by the names in requests.
    prepared: Cache<Prepared>,
    pub all: Vec<Member>,
    compiler: Member,
    /// What was created and then extended, in this order.
    graphs: RwLock<Vec<Graph>>,
    /// How many there are.
    graph_count: AtomicUsize,
    pub devices: Arc<Devices>,
    optimizations: Optimizations,
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

/// A program, and each session's instance of it, made when first needed.
pub(crate) struct Prepared {
    program: Arc<Program>,
    callables: Box<[OnceCell<Callable>]>,
    /// Whether sessions can run instances; else they run it by its names.
    pub is_callable: bool,
}

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
        let all = plan
            .sessions
            .iter()
            .enumerate()
            .map(|(i, session)| {
                let name = format!("{name}.s{i}");
                Member::new(&name, session, plan, session_options, devices.clone())
            })
            .collect::<Result<Vec<_>>>()?;
        // Like any thread that is nobody's, the compiler's may use all CPUs of the process.
        let compiler =
            affinity::on_thread(&format!("{name}-compile"), Some(&plan.allowed), || {
                let pool = IntraOpPool::new(session_options, 1)?;
                Session::compiler(devices.clone(), session_options, plan.sessions[0].seat, pool)
            })?;
        Ok(Self {
            prepared: Cache::new(),
            all,
            compiler: Member::of(compiler, None),
            graphs: RwLock::default(),
            graph_count: AtomicUsize::new(0),
            devices,
            optimizations: plan.optimizations,
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
        let container = format!("session_group.constants.{}", graphs.len());
        let taken = if self.optimizations.has(Optimization::SharedConstants) {
            graph.share_constants(&self.devices, &container)
        } else {
            Ok(graph)
        }
        .and_then(|graph| first.take(&graph, graphs.len()).map(|()| graph));
        match taken {
            Ok(graph) => graphs.push(graph),
            Err(error) => {
                // The graph's error says more than one of clearing up after it.
                let _ = self.devices.clear_container(&container);
                return Err(error);
            }
        }
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

    /// The program for these names, and where to find it again. `None` where there are too many
    /// already.
    pub fn prepare(&self, signature: &Signature<'_>) -> Result<Option<(usize, &Prepared)>> {
        let place = self.prepared.find_or_add(signature, || {
            let compiler = self.up_to_date(&self.compiler)?;
            // "x" is "x:0". A program gives each tensor once; TensorFlow's session knows repetitions.
            let tensor = |name: &&str| name.strip_suffix(":0").unwrap_or(name).to_string();
            let mut seen = HashSet::new();
            let fetches: Vec<&str> = signature
                .fetches
                .iter()
                .filter(|name| seen.insert(tensor(name)))
                .copied()
                .collect();
            let has_repetition = fetches.len() < signature.fetches.len();
            let program =
                Program::compile(compiler, &signature.feeds, &fetches, signature.targets)?;
            Ok(Prepared {
                is_callable: program.obstacle().is_none() && !has_repetition,
                program: Arc::new(program),
                callables: self.all.iter().map(|_| OnceCell::new()).collect(),
            })
        })?;
        Ok(place.and_then(|place| Some((place, self.prepared.at(place)?))))
    }

    /// A program that was prepared.
    pub fn prepared(&self, place: usize) -> Option<&Prepared> {
        self.prepared.at(place)
    }

    /// A session's instance of a program that has them.
    pub fn callable<'a>(&self, session: usize, prepared: &'a Prepared) -> Result<&'a Callable> {
        prepared.callables[session].get_or_try_init(|| {
            let own = self.all[session].session.clone();
            let has = |optimization| self.optimizations.has(optimization);
            Callable::new(
                own,
                prepared.program.clone(),
                has(Optimization::ResolvedReads),
                has(Optimization::FusedLookups),
            )
        })
    }
}

impl Prepared {
    /// Whether running it may change a variable or a table.
    pub fn writes(&self) -> bool {
        self.program.writes()
    }

    /// Whether that may be one on a GPU.
    pub fn writes_on_gpu(&self) -> bool {
        self.program.writes_elsewhere()
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

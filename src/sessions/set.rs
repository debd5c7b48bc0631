//! The sessions of a group, and what they share.

use std::sync::atomic::{
    AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use once_cell::sync::OnceCell;

use crate::cpus::affinity;
use crate::error::Result;
use crate::options::kernels::Kernels;
use crate::options::optimization::{Optimization, Optimizations};
use crate::plan::Plan;
use crate::prepare::cache::{Cache, Found};
use crate::prepare::compiled::{Compiled, Prepared};
use crate::prepare::names;
use crate::prepare::recent::{self, Recent};
use crate::prepare::signature::{Names, Signature};
use crate::prepare::slot::Inside;
use crate::sessions::compiler::Compiler;
use crate::sessions::session_slot::SessionSlot;
use crate::stripes;
use crate::tensorflow::SessionOptions;
use crate::tensorflow::devices::Devices;
use crate::tensorflow::graph::Graph;
use crate::tensorflow::program::{Order, ProgramInstance};
use crate::tensorflow::session::Session;

/// The sessions, with the devices that own what they share. Dropped from the first field to the
/// last, after [`Drop::drop`].
pub(crate) struct SessionSet {
    /// Programs, by the names in requests.
    prepared: Cache<Prepared>,
    /// Of this cache in the process.
    number: u64,
    pub slots: Vec<SessionSlot>,
    compiler: Compiler,
    /// What was created and then extended, in this order.
    graphs: RwLock<Vec<Arc<Graph>>>,
    /// How many there are.
    graph_count: AtomicUsize,
    /// The same graphs, for whoever must not wait while one is added or compiled: locked for a moment only.
    known_graphs: Mutex<Arc<[Arc<Graph>]>>,
    pub devices: Arc<Devices>,
    optimizations: Optimizations,
    kernels: Kernels,
    /// After [`end`](Self::end).
    is_ended: bool,
}

/// A prepared request, which stays until this is dropped.
pub(crate) struct PreparedRequest<'a> {
    pub recent: Arc<Recent>,
    prepared: Inside<'a, Prepared>,
}

impl Drop for SessionSet {
    fn drop(&mut self) {
        if !self.is_ended {
            let _ = self.end();
        }
    }
}

impl SessionSet {
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
        devices.spread_over(&plan.table_nodes)?;
        if plan.optimizations.has(Optimization::ParallelRestore) {
            devices.restore_with(&plan.allowed)?;
        }
        let slots = plan
            .sessions
            .iter()
            .enumerate()
            .map(|(i, session)| {
                let name = format!("{name}.s{i}");
                SessionSlot::new(&name, session, plan, session_options, devices.clone())
            })
            .collect::<Result<Vec<_>>>()?;
        let compiler = Compiler::new(
            name,
            &plan.allowed,
            session_options,
            plan.sessions[0].stream_slot,
            &devices,
        )?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            prepared: Cache::new(stripes::count()),
            number: NEXT.fetch_add(1, Relaxed),
            slots,
            compiler,
            graphs: RwLock::default(),
            graph_count: AtomicUsize::new(0),
            known_graphs: Mutex::new(Arc::new([])),
            devices,
            optimizations: plan.optimizations,
            kernels: plan.kernels,
            is_ended: false,
        })
    }

    /// Cancels what runs on the sessions, now and later, as far as its operations can be.
    pub fn cancel(&self) {
        for slot in &self.slots {
            // Whoever closes gets the error.
            let _ = slot.session.close();
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
        for slot in &mut self.slots {
            slot.workers = None;
            result = result.and(slot.session.close());
        }
        result = result.and(self.compiler.slot().session.close());
        let mut sessions = self.slots.iter().chain([self.compiler.slot()]);
        if sessions.any(SessionSlot::is_broken) {
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
        let first = &self.slots[0];
        let _changing = first.lock();
        first.catch_up(&graphs)?;
        self.devices.check(&graph)?;
        let graph = match self.optimizations.has(Optimization::ResourceVariables) {
            true => graph.convert_variables(&graphs)?,
            false => graph,
        };
        let graph = match self.optimizations.has(Optimization::SharedConstants) {
            true => graph.hide_constants(&self.devices)?,
            false => graph,
        };
        first.take(&graph, graphs.len())?;
        graphs.push(Arc::new(graph));
        *self.known_graphs.lock().unwrap_or_else(PoisonError::into_inner) = graphs[..].into();
        self.graph_count.store(graphs.len(), Release);
        Ok(())
    }

    /// A session of the group, with the graph.
    pub fn session(&self, i: usize) -> Result<&Session> {
        self.slots[i].with_graphs(&self.graphs, &self.graph_count)
    }

    /// What is known about requests with these names. `None` where there is no room for more.
    pub fn prepare(&self, signature: &Signature<'_>) -> Result<Option<PreparedRequest<'_>>> {
        let lane = stripes::current();
        if let Some(recent) = recent::find(self.number, signature)
            && let Some(prepared) = self.prepared.at(recent.place, recent.number, lane)
        {
            return Ok(Some(PreparedRequest { recent, prepared }));
        }
        let (names, order) = Names::shared(signature);
        let Found { place, value } = match self.prepared.find(&names, lane) {
            Some(found) => found,
            None => {
                // Before it takes the place of what works.
                self.check(signature)?;
                let make = || Prepared { names: names.clone(), compiled: OnceCell::new() };
                match self.prepared.find_or_add(&names, lane, make) {
                    Some(found) => found,
                    None => return Ok(None),
                }
            }
        };
        let number = value.number();
        if let Err(error) = value.compiled.get_or_try_init(|| self.compile(&names)) {
            // It is not to take the place of what works.
            drop(value);
            self.prepared.remove(place, number);
            return Err(error);
        }
        let recent = recent::remember(self.number, signature, (place, number), order);
        Ok(Some(PreparedRequest { recent, prepared: value }))
    }

    /// What is known about requests with these names, if anything is.
    pub fn prepared(&self, signature: &Signature<'_>) -> Option<Inside<'_, Prepared>> {
        let (names, _) = Names::shared(signature);
        self.prepared.find(&names, stripes::current()).map(|found| found.value)
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
        let graphs = self.known_graphs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        names::check(signature, |node| graphs.iter().find_map(|graph| graph.outputs(node)))
    }

    /// What was pinned.
    pub fn pinned(&self, recent: &Recent) -> Option<Inside<'_, Prepared>> {
        self.prepared.at(recent.place, recent.number, stripes::current())
    }

    /// Keeps what is prepared until it is unpinned.
    pub fn pin(&self, ready: &PreparedRequest<'_>) {
        self.prepared.pin(ready.recent.place);
    }

    pub fn unpin(&self, place: usize) {
        self.prepared.unpin(place);
    }

    /// Calls `f` with all that was compiled and is still there.
    pub fn for_each_compiled(&self, mut f: impl FnMut(&Names, &Compiled)) {
        self.prepared.for_each(stripes::current(), |prepared| {
            if let Some(compiled) = prepared.compiled.get() {
                f(&prepared.names, compiled);
            }
        });
    }

    fn compile(&self, names: &Names) -> Result<Compiled> {
        let fuse_lookups = self.optimizations.has(Optimization::FusedLookups);
        self.compiler.compile(names, &self.graphs, &self.devices, self.slots.len(), fuse_lookups)
    }

    /// A session's instance of a program; `None` where it can't have one, so that TensorFlow's session
    /// has to run it.
    pub fn instance<'a>(
        &self,
        session: usize,
        compiled: &'a Compiled,
    ) -> Option<&'a ProgramInstance> {
        compiled.instance(session, |program| {
            let has = |optimization| self.optimizations.has(optimization);
            ProgramInstance::new(
                self.slots[session].session.clone(),
                program,
                has(Optimization::ResolvedReads),
                has(Optimization::FusedLookups),
                self.kernels == Kernels::Auto,
            )
        })
    }
}

impl PreparedRequest<'_> {
    pub fn compiled(&self) -> &Compiled {
        self.prepared.compiled()
    }
}

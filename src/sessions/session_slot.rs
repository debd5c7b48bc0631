//! A session of a group, with its threads and as much of the group's graph as it has needed so far.

use std::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::cpus::affinity;
use crate::error::Result;
use crate::plan::{Plan, SessionPlan};
use crate::sessions::workers::Workers;
use crate::tensorflow::SessionOptions;
use crate::tensorflow::devices::Devices;
use crate::tensorflow::graph::Graph;
use crate::tensorflow::session::{IntraOpPool, Session};

/// A session with its worker threads, which end before it.
pub(crate) struct SessionSlot {
    pub workers: Option<Workers>,
    pub session: Arc<Session>,
    /// How many of the graphs it has; changed under `changing`.
    has_graphs: AtomicUsize,
    changing: Mutex<()>,
}

impl SessionSlot {
    /// Starts all threads of a session from a thread of this name, so that they inherit the name
    /// and the CPUs.
    pub fn new(
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
            Session::new(
                devices,
                session_options,
                session.stream_slot,
                pool,
                session.inter_op_threads,
            )
        })?;
        let workers = match session.worker_threads {
            0 => None,
            n => Some(Workers::new(&format!("{name}-work"), n, cpus, plan.queue)?),
        };
        Ok(Self::of(made, workers))
    }

    pub fn of(session: Session, workers: Option<Workers>) -> Self {
        Self {
            workers,
            session: Arc::new(session),
            has_graphs: AtomicUsize::new(0),
            changing: Mutex::new(()),
        }
    }

    /// The session, with all of `graphs`, of which there are `count`.
    pub fn with_graphs(
        &self,
        graphs: &RwLock<Vec<Arc<Graph>>>,
        count: &AtomicUsize,
    ) -> Result<&Session> {
        if self.has_graphs.load(Acquire) != count.load(Acquire) {
            let graphs = graphs.read().unwrap_or_else(PoisonError::into_inner);
            let _changing = self.lock();
            self.catch_up(&graphs)?;
        }
        Ok(&self.session)
    }

    /// Whether an exception has left the session in an unknown state.
    pub fn is_broken(&self) -> bool {
        self.session.is_broken()
    }

    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes those of the graphs that it does not have yet. For who holds `changing`.
    pub fn catch_up(&self, graphs: &[Arc<Graph>]) -> Result<()> {
        let has = self.has_graphs.load(Acquire);
        (has..graphs.len()).try_for_each(|i| self.take(&graphs[i], i))
    }

    /// Takes graph number `i`. For who holds `changing`.
    pub fn take(&self, graph: &Graph, i: usize) -> Result<()> {
        match i {
            0 => self.session.create(graph),
            _ => self.session.extend(graph),
        }?;
        self.has_graphs.store(i + 1, Release);
        Ok(())
    }
}

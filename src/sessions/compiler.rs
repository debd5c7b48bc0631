//! The session that compiles programs, and serves no requests.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crate::cpus::affinity;
use crate::cpus::cpuset::CpuSet;
use crate::error::Result;
use crate::prepare::compiled::Compiled;
use crate::prepare::obstacle;
use crate::prepare::signature::Names;
use crate::sessions::session_slot::SessionSlot;
use crate::tensorflow::SessionOptions;
use crate::tensorflow::devices::{Devices, StreamSlot};
use crate::tensorflow::graph::Graph;
use crate::tensorflow::log;
use crate::tensorflow::program::Program;
use crate::tensorflow::session::{IntraOpPool, Session};

/// Like any thread that is nobody's, the compiler's may use all CPUs of the process.
pub(crate) struct Compiler {
    slot: SessionSlot,
    maker: Maker,
}

/// What making such a session takes.
struct Maker {
    /// The group, as its threads' names begin.
    group: String,
    allowed: CpuSet,
    options: SessionOptions,
    stream_slot: Option<StreamSlot>,
}

impl Compiler {
    pub fn new(
        group: &str,
        allowed: &CpuSet,
        options: &SessionOptions,
        stream_slot: Option<StreamSlot>,
        devices: &Arc<Devices>,
    ) -> Result<Self> {
        let maker = Maker {
            group: group.to_string(),
            allowed: allowed.clone(),
            options: options.try_clone()?,
            stream_slot,
        };
        let session = maker.on_thread(|| maker.session(devices))?;
        Ok(Self { slot: SessionSlot::of(session, None), maker })
    }

    pub fn slot(&self) -> &SessionSlot {
        &self.slot
    }

    /// Compiles what requests with these names run on each of `sessions` sessions.
    pub fn compile(
        &self,
        names: &Names,
        graphs: &RwLock<Vec<Arc<Graph>>>,
        devices: &Arc<Devices>,
        sessions: usize,
        fuse_lookups: bool,
    ) -> Result<Compiled> {
        let begun = Instant::now();
        let program = self.maker.on_thread(|| {
            let graphs = graphs.read().unwrap_or_else(PoisonError::into_inner);
            let [feeds, fetches, targets] = names.all();
            let compile = |session: &Session| {
                Program::compile(session, &graphs, &feeds, &fetches, &targets, fuse_lookups)
            };
            if !graphs.iter().any(|graph| graph.can_reveal()) {
                let changing = self.slot.lock();
                self.slot.catch_up(&graphs)?;
                drop(changing);
                return compile(&self.slot.session);
            }
            // Its copies of large constants go with it.
            let session = self.maker.session(devices)?;
            for (i, graph) in graphs.iter().enumerate() {
                session.add_revealed(graph, i > 0)?;
            }
            compile(&session)
        })?;
        if let Some(why) = program.obstacle() {
            log::info(&obstacle::line(&self.maker.group, names, why));
        }
        Ok(Compiled::new(program, begun.elapsed(), sessions))
    }
}

impl Maker {
    fn on_thread<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        affinity::on_thread(&format!("{}-compile", self.group), Some(&self.allowed), f)
    }

    fn session(&self, devices: &Arc<Devices>) -> Result<Session> {
        affinity::check_room_for(2)?;
        let pool = IntraOpPool::new(&self.options, 1)?;
        Session::compiler(devices.clone(), &self.options, self.stream_slot, pool)
    }
}

//! What is prepared for requests with some names: a program, and each session's instance of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use once_cell::sync::OnceCell;

use crate::error::Result;
use crate::prepare::signature::Names;
use crate::tensorflow::log;
use crate::tensorflow::program::{Program, ProgramInstance};

/// What is known about requests with some names.
pub(crate) struct Prepared {
    pub names: Names,
    pub compiled: OnceCell<Compiled>,
}

/// A program, and each session's instance of it, made when first needed.
pub(crate) struct Compiled {
    pub program: Arc<Program>,
    pub took: Duration,
    instances: Box<[OnceCell<ProgramInstance>]>,
    /// How often a session could not make an instance.
    failures: AtomicUsize,
    /// What the first of them said.
    failure: OnceCell<String>,
    /// By session: whether TensorFlow's has run it by its names.
    named: Box<[AtomicBool]>,
}

/// More attempts than this to make an instance of a program are not worth it.
const MOST_FAILURES: usize = 3;

impl Prepared {
    pub fn compiled(&self) -> &Compiled {
        self.compiled.get().expect("what is given out was compiled")
    }
}

impl Compiled {
    pub fn new(program: Program, took: Duration, sessions: usize) -> Self {
        Self {
            program: Arc::new(program),
            took,
            instances: (0..sessions).map(|_| OnceCell::new()).collect(),
            failures: AtomicUsize::new(0),
            failure: OnceCell::new(),
            named: (0..sessions).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// A session's instance of the program, which `make` makes the first time; `None` where it can't have
    /// one, so that TensorFlow's session has to run it.
    pub fn instance(
        &self,
        session: usize,
        make: impl FnOnce(Arc<Program>) -> Result<ProgramInstance>,
    ) -> Option<&ProgramInstance> {
        if let Some(instance) = self.instances[session].get() {
            return Some(instance);
        }
        if self.program.obstacle().is_some() || self.failures.load(Relaxed) >= MOST_FAILURES {
            return None;
        }
        let made = self.instances[session].get_or_try_init(|| make(self.program.clone()));
        made.inspect_err(|error| {
            let _ = self.failure.set(error.to_string());
            self.failures.fetch_add(1, Relaxed);
            log::info(&format!("a program's kernels can't be made: {error}"));
        })
        .ok()
    }

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
    pub fn made(&self) -> Option<&ProgramInstance> {
        self.instances.iter().find_map(OnceCell::get)
    }

    /// Whether a session runs it by its names for the first time, and so compiles it, too.
    pub fn is_first_by_names(&self, session: usize) -> bool {
        !self.named[session].load(Relaxed) && !self.named[session].swap(true, Relaxed)
    }
}

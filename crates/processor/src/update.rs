//! Takes new checkpoints while the model serves: full ones into a new group that takes the place of the
//! old one, deltas into the variables of the one that serves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use session_group::{Code, Error, Result};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::delta::Delta;
use crate::served::Served;
use crate::template::Template;
use crate::versions::{Checkpoint, Version};
use crate::warmup::WarmUp;

/// What makes versions.
pub struct Maker {
    pub config: Config,
    pub template: Template,
    pub warm_up: WarmUp,
}

/// What is served, for whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was applied.
    pub version: Option<Version>,
    /// Why what is on disk is not what is served.
    pub error: Option<String>,
    pub full_updates: i64,
    pub delta_updates: i64,
}

impl Maker {
    /// A group of the version's full checkpoint and of its deltas, as far as they can be applied.
    fn make(&self, version: &Version) -> Result<Made> {
        let served = self.load(Some(&version.full.prefix))?;
        let mut made = Made {
            served,
            version: Version { deltas: Vec::new(), ..version.clone() },
            error: None,
        };
        for delta in &version.deltas {
            match Delta::read(&self.template, delta).and_then(|delta| delta.apply(&made.served)) {
                Ok(_) => made.version.deltas.push(delta.clone()),
                Err(error) => {
                    made.error = Some((delta.clone(), error));
                    break;
                }
            }
        }
        self.warm_up.run(&self.template, &made.served)?;
        Ok(made)
    }

    /// A group of a checkpoint, of the SavedModel's own if there is no checkpoint directory.
    fn load(&self, checkpoint: Option<&std::path::Path>) -> Result<Served> {
        let own = self.template.own_checkpoint();
        let checkpoint = checkpoint.or(own.as_deref());
        Ok(Served::new(self.template.load(&self.config.sessions, checkpoint)?))
    }

    /// What is served first. Waits for a checkpoint if one has to come.
    pub fn first(&self) -> Result<(Served, Report)> {
        let Some(checkpoint_dir) = &self.config.checkpoint_dir else {
            let served = self.load(None)?;
            self.warm_up.run(&self.template, &served)?;
            return Ok((served, Report::default()));
        };
        self.template.check_restores()?;
        let end = Instant::now() + self.config.init_timeout;
        let mut waits = false;
        let version = loop {
            let found = Version::newest(checkpoint_dir);
            if let Ok(Some(version)) = found {
                break version;
            }
            if Instant::now() >= end {
                let why =
                    found.err().map_or_else(String::new, |error| format!(": {}", error.message));
                return Err(Error::new(
                    Code::NotFound,
                    format!(
                        "there is no checkpoint in {} after init_timeout_minutes{why}: write one \
                         there, with its file `checkpoint`, or leave checkpoint_dir out to serve \
                         the SavedModel's own variables",
                        checkpoint_dir.display()
                    ),
                ));
            }
            if !waits {
                info!("waiting for a checkpoint in {}", checkpoint_dir.display());
                waits = true;
            }
            thread::sleep(self.config.poll.min(Duration::from_secs(1)));
        };
        let made = self.make(&version)?;
        let error = made.error.map(|(_, error)| error.message);
        Ok((made.served, Report { version: Some(made.version), error, ..Report::default() }))
    }
}

struct Made {
    served: Served,
    version: Version,
    /// Of the delta that comes next.
    error: Option<Refused>,
}

/// Looks for checkpoints until it is dropped.
pub struct Updater {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Updater {
    pub fn start(
        maker: Arc<Maker>,
        current: Arc<ArcSwap<Served>>,
        report: Arc<Mutex<Report>>,
    ) -> Result<Self> {
        let (end, ended) = bounded(0);
        let mut worker = Worker { maker, current, report, retired: Vec::new(), failed: None };
        let thread = thread::Builder::new().name("model-update".to_string());
        let thread = thread.spawn(move || worker.work(&ended)).map_err(|error| {
            Error::new(Code::ResourceExhausted, format!("no thread for updates: {error}"))
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Updater {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    maker: Arc<Maker>,
    current: Arc<ArcSwap<Served>>,
    report: Arc<Mutex<Report>>,
    /// Groups that requests may still run on.
    retired: Vec<Arc<Served>>,
    failed: Option<Failure>,
}

/// What could not be taken, and when it is tried again.
struct Failure {
    checkpoint: Checkpoint,
    again: Instant,
    pause: Duration,
}

/// A checkpoint that could not be taken.
type Refused = (Checkpoint, Error);

/// Between attempts at a version that fails: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1800));
/// Between looks whether a request still runs on an old group.
const RETIRED: Duration = Duration::from_millis(20);

impl Worker {
    fn work(&mut self, ended: &Receiver<()>) {
        let poll = self.maker.config.poll;
        let mut next = Instant::now() + poll;
        loop {
            let until = match self.retired.is_empty() {
                true => next,
                false => next.min(Instant::now() + RETIRED),
            };
            match ended.recv_deadline(until) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
            // Requests that run on one count; its memory is freed here, not by the last of them.
            self.retired.retain(|served| Arc::strong_count(served) > 1);
            if Instant::now() >= next {
                self.look();
                next = Instant::now() + poll;
            }
        }
    }

    /// Takes what is new. A panic is a failure like any other.
    fn look(&mut self) {
        let Some(checkpoint_dir) = self.maker.config.checkpoint_dir.clone() else { return };
        let looked = catch_unwind(AssertUnwindSafe(|| match Version::newest(&checkpoint_dir) {
            // There was one, so that it is being replaced.
            Ok(None) => {}
            Ok(Some(version)) => match self.take(&version) {
                Ok(true) => {
                    self.failed = None;
                    self.tell(|report| report.error = None);
                }
                Ok(false) => {}
                Err((checkpoint, error)) => self.fail(checkpoint, error),
            },
            Err(error) => self.tell_error(error.message),
        }));
        if looked.is_err() {
            self.tell_error("looking for checkpoints panicked".to_string());
        }
    }

    fn fail(&mut self, checkpoint: Checkpoint, error: Error) {
        let before = self.failed.take().filter(|failed| failed.checkpoint == checkpoint);
        let pause = match before {
            // Requests were in the way; they will not always be.
            _ if error.code == Code::Unavailable => PAUSES.0.min(Duration::from_secs(1)),
            None => PAUSES.0,
            Some(failed) => (failed.pause * 2).clamp(PAUSES.0, PAUSES.1),
        };
        self.failed = Some(Failure { checkpoint, again: Instant::now() + pause, pause });
        self.tell_error(error.message);
    }

    /// In the log, once.
    fn tell_error(&self, message: String) {
        if self.report().error.as_ref() != Some(&message) {
            warn!("the model stays as it is: {message}");
        }
        self.tell(|report| report.error = Some(message));
    }

    /// Whether a checkpoint has failed and its time has not come again.
    fn waits(&self, checkpoint: &Checkpoint) -> bool {
        let failed = self.failed.as_ref().filter(|failed| failed.checkpoint == *checkpoint);
        failed.is_some_and(|failed| Instant::now() < failed.again)
    }

    /// `false` where something has failed before, and is not tried again yet.
    fn take(&mut self, version: &Version) -> std::result::Result<bool, Refused> {
        let next = match &self.report().version {
            Some(served) if served.full == version.full => served.next(version),
            _ => None,
        };
        let Some(next) = next else {
            if self.waits(&version.full) {
                return Ok(false);
            }
            return self.replace(version).map(|()| true);
        };
        for delta in next {
            if self.waits(delta) {
                return Ok(false);
            }
            let begun = Instant::now();
            debug!("delta {}", delta.prefix.display());
            let waited = Delta::read(&self.maker.template, delta)
                .and_then(|read| read.apply(&self.current.load()))
                .map_err(|error| (delta.clone(), error))?;
            info!(
                "delta {}: applied in {:.1?}, for {waited:.1?} of which requests waited",
                delta.prefix.display(),
                begun.elapsed()
            );
            self.tell(|report| {
                report.delta_updates += 1;
                if let Some(version) = &mut report.version {
                    version.deltas.push(delta.clone());
                }
            });
        }
        Ok(true)
    }

    fn replace(&mut self, version: &Version) -> std::result::Result<(), Refused> {
        let begun = Instant::now();
        debug!("checkpoint {}", version.full.prefix.display());
        let made = self.maker.make(version).map_err(|error| (version.full.clone(), error))?;
        // From here on requests get the new one.
        self.retired.push(self.current.swap(Arc::new(made.served)));
        info!(
            "checkpoint {} with {} deltas: serves after {:.1?}",
            version.full.prefix.display(),
            made.version.deltas.len(),
            begun.elapsed()
        );
        self.tell(|report| {
            report.full_updates += 1;
            report.delta_updates += made.version.deltas.len() as i64;
            report.version = Some(made.version);
        });
        made.error.map_or(Ok(()), Err)
    }

    fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

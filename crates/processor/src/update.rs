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
use crate::versions::{Checkpoint, Folder, Version, Way};
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
    fn make(&self, version: &Version, folder: &mut Folder) -> Result<Made> {
        let mut deltas = &version.deltas[..];
        let mut failed = None;
        let mut made = loop {
            let made = self.make_of(version, deltas, folder)?;
            if !made.served.is_half_written() {
                break made;
            }
            // Once more, without the one that failed.
            deltas = &deltas[..made.version.deltas.len()];
            failed = made.error;
        };
        made.error = made.error.or(failed);
        self.warm_up.run(&self.template, &made.served)?;
        Ok(made)
    }

    fn make_of(
        &self,
        version: &Version,
        deltas: &[Checkpoint],
        folder: &mut Folder,
    ) -> Result<Made> {
        let full = &version.full;
        let served = self.load(Some(&full.prefix))?;
        if folder.written_anew([full]).is_some() {
            return Err(written_anew(full));
        }
        let mut made = Made {
            served,
            version: Version { deltas: Vec::new(), ..version.clone() },
            error: None,
        };
        for delta in deltas {
            match self.apply(delta, &made.version, &made.served, folder) {
                Ok(_) => made.version.deltas.push(delta.clone()),
                Err(error) => {
                    made.error = Some((delta.clone(), error));
                    break;
                }
            }
        }
        Ok(made)
    }

    /// Applies a delta to what is served. Says how long requests had to wait.
    fn apply(
        &self,
        delta: &Checkpoint,
        version: &Version,
        served: &Served,
        folder: &mut Folder,
    ) -> Result<Duration> {
        let read = Delta::read(&self.template, delta)?;
        // A trainer that has gone back writes the earlier ones first: if they are as they were, this one
        // follows them.
        let before = [&version.full].into_iter().chain(&version.deltas);
        if let Some(changed) = folder.written_anew(before) {
            return Err(written_anew(changed));
        }
        read.apply(served)
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
        let mut folder = Folder::new(checkpoint_dir.clone());
        let made = loop {
            let mut found = folder.newest();
            if let Ok(Some(version)) = &found {
                match self.make(version, &mut folder) {
                    // It was written anew meanwhile.
                    Err(error) if error.code == Code::Aborted => found = Err(error),
                    made => break made?,
                }
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
        let error = made.error.map(|(_, error)| error.message);
        Ok((made.served, Report { version: Some(made.version), error, ..Report::default() }))
    }
}

fn written_anew(checkpoint: &Checkpoint) -> Error {
    let name = checkpoint.prefix.display();
    Error::new(Code::Aborted, format!("checkpoint {name} was written anew meanwhile"))
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
        let folder = maker.config.checkpoint_dir.clone().map(Folder::new);
        let mut worker = Worker::new(maker, current, report, folder);
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
    folder: Option<Folder>,
    /// Deltas that are left from before the trainer went back.
    stale: Vec<Checkpoint>,
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
    fn new(
        maker: Arc<Maker>,
        current: Arc<ArcSwap<Served>>,
        report: Arc<Mutex<Report>>,
        folder: Option<Folder>,
    ) -> Self {
        let (retired, stale) = (Vec::new(), Vec::new());
        Self { maker, current, report, retired, failed: None, folder, stale }
    }

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
        let Some(mut folder) = self.folder.take() else { return };
        let looked = catch_unwind(AssertUnwindSafe(|| match folder.newest() {
            // There was one, so that it is being replaced.
            Ok(None) => {}
            Ok(Some(mut version)) => {
                self.stale.retain(Checkpoint::is_there);
                version.deltas.retain(|delta| !self.stale.contains(delta));
                match self.take(version, &mut folder) {
                    Ok(true) => {
                        self.failed = None;
                        self.tell(|report| report.error = None);
                    }
                    Ok(false) => {}
                    Err((checkpoint, error)) => self.fail(checkpoint, error),
                }
            }
            Err(error) => self.tell_error(error.message),
        }));
        self.folder = Some(folder);
        if looked.is_err() {
            self.tell_error("looking for checkpoints panicked".to_string());
        }
    }

    fn fail(&mut self, checkpoint: Checkpoint, error: Error) {
        let before = self.failed.take().filter(|failed| failed.checkpoint == checkpoint);
        let pause = match before {
            // Requests or a trainer were in the way, and will not always be; or no request is answered.
            _ if matches!(error.code, Code::Unavailable | Code::Aborted)
                || self.is_refusing(&checkpoint) =>
            {
                PAUSES.0.min(Duration::from_secs(1))
            }
            None => PAUSES.0,
            Some(failed) => (failed.pause * 2).clamp(PAUSES.0, PAUSES.1),
        };
        self.failed = Some(Failure { checkpoint, again: Instant::now() + pause, pause });
        self.tell_error(error.message);
    }

    /// In the log, once.
    fn tell_error(&self, message: String) {
        if self.report().error.as_ref() != Some(&message) {
            match self.current.load().is_half_written() {
                true => warn!("requests are refused: {message}"),
                false => warn!("the model stays as it is: {message}"),
            }
        }
        self.tell(|report| report.error = Some(message));
    }

    /// Whether a checkpoint has failed and its time has not come again.
    fn waits(&self, checkpoint: &Checkpoint) -> bool {
        let failed = self.failed.as_ref().filter(|failed| failed.checkpoint == *checkpoint);
        failed.is_some_and(|failed| Instant::now() < failed.again)
    }

    /// Whether no request is answered until this full checkpoint is loaded.
    fn is_refusing(&self, checkpoint: &Checkpoint) -> bool {
        let is_full = |version: &Version| version.full.prefix == checkpoint.prefix;
        self.current.load().is_half_written() && self.report().version.as_ref().is_some_and(is_full)
    }

    /// `false` where something has failed before, and is not tried again yet.
    fn take(
        &mut self,
        mut version: Version,
        folder: &mut Folder,
    ) -> std::result::Result<bool, Refused> {
        let Some(mut served) = self.report().version else { return Ok(false) };
        let next = match served.way(&version) {
            Way::Again { .. } | Way::Full if self.waits(&version.full) => return Ok(false),
            Way::Again { why, stale } => {
                let full = version.full.prefix.display();
                info!("{why}: {full} is loaded again, and the deltas that follow it now");
                for delta in &stale {
                    info!(
                        "delta {} is older than that, and left out until it is written anew",
                        delta.prefix.display()
                    );
                }
                version.deltas.retain(|delta| !stale.contains(delta));
                self.stale.extend(stale);
                return self.replace(&version, folder).map(|()| true);
            }
            Way::Full => return self.replace(&version, folder).map(|()| true),
            Way::Deltas(_) if self.current.load().is_half_written() => {
                return self.load_again(version, folder);
            }
            Way::Deltas(next) => next.to_vec(),
        };
        for delta in &next {
            if self.waits(delta) {
                return Ok(false);
            }
            let begun = Instant::now();
            debug!("delta {}", delta.prefix.display());
            let applied = self.maker.apply(delta, &served, &self.current.load(), folder);
            let waited = match applied {
                Ok(waited) => waited,
                Err(error) if self.current.load().is_half_written() => {
                    self.fail(delta.clone(), error);
                    return self.load_again(version, folder);
                }
                Err(error) => return Err((delta.clone(), error)),
            };
            served.deltas.push(delta.clone());
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

    /// After a delta that has failed half-way, which comes again when its time has come.
    fn load_again(
        &mut self,
        mut version: Version,
        folder: &mut Folder,
    ) -> std::result::Result<bool, Refused> {
        if self.waits(&version.full) {
            return Ok(false);
        }
        let all = version.deltas.len();
        let can_come = version.deltas.iter().position(|delta| self.waits(delta));
        version.deltas.truncate(can_come.unwrap_or(all));
        info!("{} is loaded again", version.full.prefix.display());
        self.replace(&version, folder)?;
        Ok(version.deltas.len() == all)
    }

    fn replace(
        &mut self,
        version: &Version,
        folder: &mut Folder,
    ) -> std::result::Result<(), Refused> {
        let begun = Instant::now();
        debug!("checkpoint {}", version.full.prefix.display());
        let made =
            self.maker.make(version, folder).map_err(|error| (version.full.clone(), error))?;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::Ordering::Relaxed;

    use prost::Message;

    use super::*;
    use crate::delta::faults;
    use crate::predict::Step;
    use crate::proto::eas::{ArrayDataType, ArrayProto, ArrayShape, PredictRequest};

    /// A model of y = a x + b with its checkpoints: a full one of b = 2, and a delta of b = 3.
    struct Model {
        folder: PathBuf,
        worker: Worker,
    }

    impl Model {
        fn new(folder: PathBuf) -> Self {
            let config = format!(
                "{{\"savedmodel_dir\": {:?}, \"checkpoint_dir\": {folder:?}}}",
                models().join("half_plus")
            );
            let config = Config::parse(&config, None).unwrap();
            let template = Template::read(&config.savedmodel_dir).unwrap();
            let warm_up = WarmUp::new(&config.signature_name, None).unwrap();
            let maker = Arc::new(Maker { config, template, warm_up });
            let (served, report) = maker.first().unwrap();
            let current = Arc::new(ArcSwap::from_pointee(served));
            let report = Arc::new(Mutex::new(report));
            let looking = Some(Folder::new(folder.clone()));
            Self { folder, worker: Worker::new(maker, current, report, looking) }
        }

        /// b, or why it is not told.
        fn b(&self) -> Result<f32> {
            let x = ArrayProto {
                dtype: ArrayDataType::DtFloat as i32,
                array_shape: Some(ArrayShape { dim: vec![1] }),
                float_val: vec![0.0],
                ..ArrayProto::default()
            };
            let inputs = [("x".to_string(), x)].into();
            let request = PredictRequest { inputs, ..PredictRequest::default() };
            let template = &self.worker.maker.template;
            let step = Step::parse(template, "serving_default", &request.encode_to_vec())?;
            let outputs = self.worker.current.load().run(&step, None)?.outputs;
            Ok(outputs["y"].float_val[0])
        }

        /// Looks, as if all pauses were over.
        fn look(&mut self) -> Report {
            self.worker.failed = None;
            self.worker.look();
            self.worker.report()
        }
    }

    impl Drop for Model {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    fn models() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/build")
    }

    /// The variables of a model as a checkpoint.
    fn checkpoint(model: &str, prefix: &Path) {
        fs::create_dir_all(prefix.parent().unwrap()).unwrap();
        for end in ["data-00000-of-00001", "index"] {
            let from = models().join(model).join(format!("variables/variables.{end}"));
            fs::copy(from, format!("{}.{end}", prefix.display())).unwrap();
        }
    }

    /// A folder with the full checkpoint; where the delta belongs.
    fn folder(name: &str) -> (PathBuf, PathBuf) {
        let folder =
            std::env::temp_dir().join(format!("processor_update.{name}.{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        checkpoint("half_plus", &folder.join("m-1"));
        fs::write(folder.join("checkpoint"), "model_checkpoint_path: \"m-1\"").unwrap();
        let delta = folder.join(".incremental_checkpoint/d-2");
        (folder, delta)
    }

    /// Each failure of a write is one on purpose, so that these tests don't run at the same time.
    #[test]
    fn a_delta_that_fails_half_way() {
        for panics in [false, true] {
            faults::PANICS.store(panics, Relaxed);
            is_not_served();
            refuses_requests_until_the_model_is_loaded_again();
            is_left_out_at_the_start();
        }
    }

    fn is_not_served() {
        let (folder, delta) = folder("served");
        let mut model = Model::new(folder);
        assert_eq!(model.b(), Ok(2.0));
        checkpoint("half_plus_three", &delta);
        // Each of the two variables.
        for written in [0, 1] {
            faults::LEFT.store(written, Relaxed);
            let before = model.worker.report().full_updates;
            let report = model.look();
            assert_eq!(report.full_updates, before + 1);
            let error = report.error.unwrap();
            assert!(error.contains("d-2: ") && error.contains("it failed half-way"), "{error}");
            assert!(report.version.unwrap().deltas.is_empty());
            assert_eq!(model.b(), Ok(2.0));
            // It is not tried again at once.
            model.worker.look();
            assert_eq!(model.worker.report().full_updates, before + 1);
        }
        faults::LEFT.store(-1, Relaxed);
        let report = model.look();
        assert_eq!((report.error, report.delta_updates), (None, 1));
        assert_eq!(model.b(), Ok(3.0));
    }

    fn refuses_requests_until_the_model_is_loaded_again() {
        let (folder, delta) = folder("refuses");
        let mut model = Model::new(folder.clone());
        checkpoint("half_plus_three", &delta);
        let data = folder.join("m-1.data-00000-of-00001");
        fs::rename(&data, folder.join("away")).unwrap();
        faults::LEFT.store(1, Relaxed);
        for _ in 0..2 {
            let report = model.look();
            assert!(
                report.error.unwrap().contains("m-1"),
                "the full checkpoint is the problem now"
            );
            let error = model.b().unwrap_err();
            assert_eq!(error.code, Code::Unavailable);
            assert!(error.message.contains("failed half-way"), "{}", error.message);
            let failed = model.worker.failed.as_ref().unwrap();
            assert!(failed.pause <= Duration::from_secs(1), "it is tried again soon");
        }
        fs::rename(folder.join("away"), &data).unwrap();
        faults::LEFT.store(-1, Relaxed);
        let report = model.look();
        assert_eq!((report.error, report.full_updates, report.delta_updates), (None, 1, 1));
        assert_eq!(model.b(), Ok(3.0));
    }

    fn is_left_out_at_the_start() {
        let (folder, delta) = folder("start");
        checkpoint("half_plus_three", &delta);
        faults::LEFT.store(1, Relaxed);
        let mut model = Model::new(folder);
        assert_eq!(model.b(), Ok(2.0));
        assert!(model.worker.report().error.unwrap().contains("it failed half-way"));
        faults::LEFT.store(-1, Relaxed);
        model.look();
        assert_eq!(model.b(), Ok(3.0));
    }
}

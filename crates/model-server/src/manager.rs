//! Which versions are loaded: looks for them, loads new ones before it unloads old ones, tries again, and
//! frees what no request uses any more. One thread decides; loading and unloading have threads of their own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use session_group::{Code, Error, Result};
use session_group_serving::paths::check_local;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::catalog::Catalog;
use crate::files::Files;
use crate::proto::SessionGroupConfig;
use crate::proto::serving::model_version_status::State;
use crate::proto::serving::{ModelConfig, ModelServerConfig, model_server_config::Config};
use crate::servable::Servable;
use crate::versions;

/// Loads a version from its folder.
pub type Load = dyn Fn(&ModelConfig, i64, &Path) -> Result<Servable> + Send + Sync;

/// Says what is wrong with the settings of a model, which no retry mends.
pub type Check = dyn Fn(&ModelConfig) -> Result<()> + Send + Sync;

/// How models are looked after.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Between looks for new versions; `None`: no further look.
    pub poll: Option<Duration>,
    pub retries: u32,
    pub retry_interval: Duration,
    /// Whether a new label may name a version that does not serve yet.
    pub allows_labels_ahead: bool,
    /// Whether the last version that serves stays when its folder is gone.
    pub keeps_last: bool,
}

/// What a configuration waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitFor {
    /// Every model serves
    All,
    /// Every model was tried once, and one serves
    Any,
}

/// Looks after the models until it is dropped, which unloads them.
pub struct Manager {
    messages: Sender<Message>,
    check: Arc<Check>,
    /// Disconnected once everything is unloaded.
    ended: Receiver<()>,
}

enum Message {
    Apply(Vec<ModelConfig>, WaitFor, oneshot::Sender<Result<()>>),
    /// A try has failed, and another will follow.
    Tried(String, i64, Error),
    Loaded(String, i64, Source, Result<Box<Servable>>),
    Unloaded(String, i64),
    End,
}

impl Manager {
    pub fn new(
        catalog: Arc<Catalog>,
        retry: RetryPolicy,
        check: Arc<Check>,
        load: Arc<Load>,
    ) -> std::io::Result<Self> {
        let (messages, received) = unbounded();
        let worker = Worker {
            catalog,
            retry,
            load,
            messages: messages.clone(),
            models: BTreeMap::new(),
            waiting: Vec::new(),
            is_ending: false,
        };
        let (ends, ended) = unbounded();
        thread::Builder::new().name("manager".into()).spawn(move || {
            worker.work(&received);
            drop(ends);
        })?;
        Ok(Self { messages, check, ended })
    }

    /// Replaces the models by those of the configuration, and waits until those that are new or changed serve, or
    /// have failed.
    pub async fn apply(&self, config: &ModelServerConfig, wait_for: WaitFor) -> Result<()> {
        let models = checked(config)?;
        for (i, model) in models.iter().enumerate() {
            // Making sessions takes a while: only once for all models that have the same.
            if !models[..i].iter().any(|other| other.session_group == model.session_group) {
                (self.check)(model)?;
            }
        }
        let (reply, replied) = oneshot::channel();
        let ending = || Error::new(Code::Unavailable, "the server is ending");
        self.messages.send(Message::Apply(models, wait_for, reply)).map_err(|_| ending())?;
        replied.await.map_err(|_| ending())?
    }

    /// Unloads everything. Says whether that was done in time: what loads meanwhile can't be interrupted.
    pub fn end(&self, patience: Duration) -> bool {
        let _ = self.messages.send(Message::End);
        self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

/// The models of a configuration that can be served.
pub(crate) fn checked(config: &ModelServerConfig) -> Result<Vec<ModelConfig>> {
    /// Values of the deprecated `model_type`.
    const UNSPECIFIED: i32 = 0;
    const TENSORFLOW: i32 = 1;
    let list = match &config.config {
        None => return Ok(Vec::new()),
        Some(Config::ModelConfigList(list)) => &list.config,
        Some(Config::CustomModelConfig(_)) => {
            return Err(Error::invalid(
                "custom_model_config is not supported: list models in model_config_list",
            ));
        }
    };
    let mut names = BTreeSet::new();
    for model in list {
        let name = &model.name;
        if !names.insert(name) {
            return Err(Error::invalid(format!(
                "Illegal to list model {name} multiple times in config list"
            )));
        }
        check_local(Path::new(&model.base_path)).map_err(|error| {
            Error::new(error.code, format!("model {name}: base_path {}", error.message))
        })?;
        if !Path::new(&model.base_path).is_absolute() {
            return Err(Error::invalid(format!(
                "Expected model {name} to have an absolute path or URI; got base_path()={}",
                model.base_path
            )));
        }
        #[allow(deprecated)]
        let model_type = model.model_type;
        match (model_type, model.model_platform.as_str()) {
            (UNSPECIFIED, "tensorflow") | (TENSORFLOW, "") => {}
            (UNSPECIFIED, "") => {
                return Err(Error::invalid(
                    "Illegal setting neither ModelServerConfig::model_type (deprecated) nor \
                     ModelServerConfig::model_platform.",
                ));
            }
            (UNSPECIFIED, platform) => {
                return Err(Error::invalid(format!(
                    "Model {name} requests unsupported platform {platform}"
                )));
            }
            (other, "") => {
                return Err(Error::invalid(format!(
                    "ModelServerConfig::model_type choice {other} not supported."
                )));
            }
            _ => {
                return Err(Error::invalid(
                    "Illegal setting both ModelServerConfig::model_type (deprecated) and \
                     ModelServerConfig::model_platform.",
                ));
            }
        }
        if model.logging_config.is_some() {
            return Err(Error::invalid(format!(
                "model {name} has a logging_config, but requests are not logged with their tensors: leave \
                 it out"
            )));
        }
    }
    Ok(list.clone())
}

struct Worker {
    catalog: Arc<Catalog>,
    retry: RetryPolicy,
    load: Arc<Load>,
    messages: Sender<Message>,
    models: BTreeMap<String, Model>,
    /// Who waits for new models.
    waiting: Vec<Waiting>,
    is_ending: bool,
}

struct Model {
    config: ModelConfig,
    /// Versions that shall be served, with their folders.
    wanted: BTreeMap<i64, PathBuf>,
    versions: BTreeMap<i64, Version>,
    /// What was last said about its folder, so as not to say it each time.
    said: Option<String>,
    /// Whether the next look compares the files of versions that serve with those they were loaded from.
    compares_files: bool,
    /// Held by the version that is being read: two at a time would need the memory of both.
    turn: Arc<Mutex<()>>,
}

enum Version {
    Loading(Progress),
    Serving(Serving),
    Unloading,
    /// Tried again when its folder has been away or its files have changed.
    Failed(Error, Source),
}

/// A version that serves, and what is to take its place.
struct Serving {
    servable: Arc<Servable>,
    source: Source,
    /// What can't be loaded in its place, and why.
    refused: Option<(Source, Error)>,
    /// The same version from another folder, with other sessions or other files.
    replacement: Replacement,
}

enum Replacement {
    None,
    Wanted,
    Loading(Progress),
}

/// A load that is under way.
#[derive(Default)]
struct Progress {
    /// Until it is set, it is tried again.
    is_given_up: Arc<AtomicBool>,
    has_failed_once: bool,
}

/// What a version is loaded from.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    path: PathBuf,
    sessions: Option<SessionGroupConfig>,
    files: Files,
}

struct Waiting {
    models: BTreeSet<String>,
    wait_for: WaitFor,
    /// Until it is sent.
    reply: Option<oneshot::Sender<Result<()>>>,
    since: Instant,
}

/// What has become of a model.
enum Outcome {
    Serves,
    /// It can't be served as it is.
    Failed(String),
    /// It was tried without success, and is tried again.
    Tried,
    Unknown,
}

/// Between lines that say what is waited for.
const REMIND: Duration = Duration::from_secs(10);

impl Worker {
    fn work(mut self, messages: &Receiver<Message>) {
        let mut next_poll = Some(Instant::now());
        loop {
            let now = Instant::now();
            if next_poll.is_some_and(|at| at <= now) {
                self.poll();
                next_poll = self.retry.poll.map(|period| now + period);
            }
            self.models.iter_mut().for_each(|(name, model)| {
                model.act(name, &self.catalog, &self.retry, &self.load, &self.messages);
            });
            self.models.retain(|_, model| !model.versions.is_empty() || !model.is_removed());
            self.answer();
            if self.is_ending && self.models.is_empty() {
                return;
            }
            let until = next_poll.unwrap_or(now + REMIND).min(now + REMIND);
            match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Apply(models, wait_for, reply)) => {
                    self.apply(models, wait_for, reply);
                    // With no period, it is looked once for what is new.
                    next_poll = Some(Instant::now());
                }
                Ok(Message::Tried(name, version, error)) => self.tried(&name, version, error),
                Ok(Message::Loaded(name, version, source, result)) => {
                    self.loaded(&name, version, source, result);
                    // The next look at the folders forgets what was refused.
                    self.answer();
                }
                Ok(Message::Unloaded(name, version)) => {
                    self.catalog.report(&name, version, State::End, Ok(()));
                    if let Some(model) = self.models.get_mut(&name) {
                        model.versions.remove(&version);
                    }
                }
                Ok(Message::End) => {
                    self.is_ending = true;
                    self.waiting.clear();
                    self.models.values_mut().for_each(Model::remove);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn apply(
        &mut self,
        configs: Vec<ModelConfig>,
        wait_for: WaitFor,
        reply: oneshot::Sender<Result<()>>,
    ) {
        if self.is_ending {
            return;
        }
        if let Err(error) = self.check_labels(&configs) {
            let _ = reply.send(Err(error));
            return;
        }
        let names: BTreeSet<_> = configs.iter().map(|config| config.name.clone()).collect();
        // What is known to be broken is not waited for again.
        let is_broken = |config: &&ModelConfig| {
            self.models.get(&config.name).is_some_and(|model| {
                model.config == **config && matches!(model.outcome(), Outcome::Failed(_))
            })
        };
        let awaited = configs.iter().filter(|config| !is_broken(config));
        let awaited = awaited.map(|config| config.name.clone()).collect();
        for (name, model) in &mut self.models {
            if !names.contains(name) {
                info!("removing model {name}");
                model.remove();
            }
        }
        for config in configs {
            info!("(re-)adding model {} at {}", config.name, config.base_path);
            match self.models.get_mut(&config.name) {
                Some(model) => {
                    model.config = config;
                    model.compares_files = true;
                }
                None => {
                    self.models.insert(config.name.clone(), Model::new(config));
                }
            }
        }
        self.waiting.push(Waiting {
            models: awaited,
            wait_for,
            reply: Some(reply),
            since: Instant::now(),
        });
    }

    /// Refuses labels of models that serve for versions that neither do nor will, before anything is changed.
    fn check_labels(&self, configs: &[ModelConfig]) -> Result<()> {
        let decided = configs.iter().filter(|config| {
            self.models.get(&config.name).is_some_and(|model| !model.is_undecided())
        });
        for config in decided {
            let found = versions::list(Path::new(&config.base_path)).unwrap_or_default();
            let wanted = versions::wanted(found, config.model_version_policy.as_ref());
            let labels = config.version_labels.clone().into_iter();
            let labels = labels.filter(|(_, version)| !wanted.contains_key(version)).collect();
            let others = ModelConfig { version_labels: labels, ..config.clone() };
            check_labels(&others, &self.catalog, self.retry.allows_labels_ahead)?;
        }
        Ok(())
    }

    /// Looks for versions. A folder that can't be read leaves a model as it is.
    fn poll(&mut self) {
        for (name, model) in &mut self.models {
            if model.is_removed() {
                continue;
            }
            let base = Path::new(&model.config.base_path);
            let said = match versions::list(base) {
                Err(error) => Some(format!("model {name}: can't read {}: {error}", base.display())),
                Ok(found) => {
                    let is_empty = found.is_empty();
                    // As a folder of network storage may list for a moment.
                    if !(is_empty && self.retry.keeps_last) {
                        let policy = model.config.model_version_policy.as_ref();
                        model.wanted = versions::wanted(found, policy);
                    }
                    (is_empty || model.wanted.is_empty()).then(|| {
                        format!(
                            "No versions of servable {name} found under base path {}. Did you forget to \
                             name your leaf directory as a number (eg. '/1/')?",
                            base.display()
                        )
                    })
                }
            };
            if let Some(text) = said.as_ref().filter(|_| said != model.said) {
                warn!("{text}");
            }
            model.said = said;
            model.compare();
        }
    }

    fn tried(&mut self, name: &str, version: i64, error: Error) {
        let Some(model) = self.models.get_mut(name) else { return };
        match model.versions.get_mut(&version) {
            Some(Version::Loading(progress)) => {
                progress.has_failed_once = true;
                self.catalog.report(name, version, State::Loading, Err(error));
            }
            Some(Version::Serving(Serving {
                replacement: Replacement::Loading(progress), ..
            })) => progress.has_failed_once = true,
            _ => {}
        }
    }

    fn loaded(&mut self, name: &str, version: i64, source: Source, result: Result<Box<Servable>>) {
        let Some(model) = self.models.get_mut(name) else { return };
        let state = model.versions.get_mut(&version);
        let servable = match (result, state) {
            // It was unloaded while another was loaded in its place.
            (Ok(servable), Some(Version::Unloading)) => return free(Arc::from(servable), || ()),
            (Err(_), Some(Version::Unloading)) => return,
            (Err(error), Some(Version::Serving(serving))) => {
                error!("model {name} goes on with version {version} as it was loaded before");
                serving.replacement = Replacement::None;
                serving.refused = Some((source, error));
                return;
            }
            (Err(error), _) => {
                self.catalog.report(name, version, State::End, Err(error.clone()));
                model.versions.insert(version, Version::Failed(error, source));
                return;
            }
            (Ok(servable), _) => Arc::from(servable),
        };
        self.catalog.publish(&servable);
        info!("serving version {version} of model {name}, on {} sessions", servable.session_num());
        let (refused, replacement) = (None, Replacement::None);
        let serving = Version::Serving(Serving { servable, source, refused, replacement });
        if let Some(Version::Serving(old)) = model.versions.insert(version, serving) {
            free(old.servable, || ());
        }
    }

    /// Answers those whose models serve, or have failed.
    fn answer(&mut self) {
        let (models, catalog) = (&self.models, &self.catalog);
        let ahead = self.retry.allows_labels_ahead;
        self.waiting.retain_mut(|waiting| {
            let (mut serving, mut failed, mut undecided) = (0, Vec::new(), Vec::new());
            let mut is_tried = true;
            for name in &waiting.models {
                let outcome = match models.get(name) {
                    Some(model) if !model.is_removed() => model.outcome(),
                    // By another configuration.
                    _ => {
                        Outcome::Failed(format!("{{name: {name}}} due to error: it was removed, "))
                    }
                };
                match outcome {
                    Outcome::Serves => serving += 1,
                    Outcome::Failed(why) => failed.push(why),
                    Outcome::Tried => undecided.push(name.as_str()),
                    Outcome::Unknown => {
                        undecided.push(name);
                        is_tried = false;
                    }
                }
            }
            let any = waiting.wait_for == WaitFor::Any && serving > 0;
            if !undecided.is_empty() {
                if let Some(reply) = waiting.reply.take_if(|_| any && is_tried) {
                    warn!("serving without {}, which can't be loaded yet", undecided.join(", "));
                    let _ = reply.send(Ok(()));
                }
                if waiting.since.elapsed() > REMIND {
                    info!("waiting for a version of {} to serve", undecided.join(", "));
                    waiting.since = Instant::now();
                }
                return true;
            }
            let labelled = label(models, catalog, ahead);
            let result = match failed.len() {
                0 => labelled,
                n => Err(Error::new(
                    Code::Unknown,
                    format!("{n} model(s) did not become available: {{{}}}", failed.concat()),
                )),
            };
            let result = match result {
                Err(error) if any => {
                    warn!("{error}");
                    Ok(())
                }
                result => result,
            };
            if let Some(reply) = waiting.reply.take() {
                let _ = reply.send(result);
            }
            false
        });
    }
}

/// Gives versions the labels that the configuration has for them. A model whose labels can't be given keeps those
/// that it has.
fn label(models: &BTreeMap<String, Model>, catalog: &Catalog, ahead: bool) -> Result<()> {
    let mut labels = HashMap::new();
    let mut result = Ok(());
    for (name, model) in models.iter().filter(|(_, model)| !model.is_removed()) {
        let given = match check_labels(&model.config, catalog, ahead) {
            Ok(()) => model.config.version_labels.clone(),
            Err(error) => {
                result = result.and(Err(error));
                catalog.labels(name)
            }
        };
        labels.insert(name.clone(), given);
    }
    catalog.set_labels(labels);
    result
}

/// Whether each label's version serves, or may be named before it does.
fn check_labels(config: &ModelConfig, catalog: &Catalog, ahead: bool) -> Result<()> {
    let name = &config.name;
    for (label, &version) in &config.version_labels {
        let is_moved = catalog.labelled(name, label).is_some_and(|before| before != version);
        if !catalog.serves(name, version) && (!ahead || is_moved) {
            return Err(Error::precondition(format!(
                "Request to assign label to version {version} of model {name}, which is not currently \
                 available for inference"
            )));
        }
    }
    Ok(())
}

impl Model {
    fn new(config: ModelConfig) -> Self {
        Self {
            config,
            wanted: BTreeMap::new(),
            versions: BTreeMap::new(),
            said: None,
            compares_files: false,
            turn: Arc::default(),
        }
    }

    /// Its versions are unloaded from now on.
    fn remove(&mut self) {
        self.config = ModelConfig::default();
        self.wanted.clear();
    }

    fn is_removed(&self) -> bool {
        self.config.name.is_empty()
    }

    /// Whether it is not known yet whether it serves.
    fn is_undecided(&self) -> bool {
        self.is_removed() || matches!(self.outcome(), Outcome::Unknown | Outcome::Tried)
    }

    /// What has become of it, as it is configured now.
    fn outcome(&self) -> Outcome {
        let is_undecided = |version: &i64| {
            let state = self.versions.get(version);
            self.wanted.contains_key(version)
                && matches!(state, None | Some(Version::Loading(_) | Version::Unloading))
        };
        let failed = |number: &i64, error: &Error| {
            let name = &self.config.name;
            Outcome::Failed(format!("{{name: {name} version: {number}}} due to error: {error}, "))
        };
        if self.compares_files || self.config.version_labels.values().any(is_undecided) {
            return Outcome::Unknown;
        }
        let is_elsewhere = |version: &Version| matches!(version, Version::Serving(serving) if !self.is_of(&serving.source));
        if let Some(said) = self.said.as_ref().filter(|_| self.versions.values().any(is_elsewhere))
        {
            return Outcome::Failed(format!(
                "{{name: {}}} due to error: {said}, ",
                self.config.name
            ));
        }
        let mut is_tried = self.said.is_some();
        let (mut serves, mut is_replaced, mut why) = (false, false, None);
        for (number, version) in self.versions.iter().rev() {
            match version {
                Version::Serving(serving) => match (&serving.replacement, &serving.refused) {
                    (Replacement::None, Some((source, error))) if self.is_of(source) => {
                        return failed(number, error);
                    }
                    (Replacement::None, _) => serves |= self.is_of(&serving.source),
                    (Replacement::Wanted, _) => is_replaced = true,
                    (Replacement::Loading(progress), _) => {
                        is_replaced = true;
                        is_tried |= progress.has_failed_once;
                    }
                },
                Version::Failed(error, _) => why = why.or_else(|| Some(failed(number, error))),
                Version::Loading(progress) => is_tried |= progress.has_failed_once,
                Version::Unloading => {}
            }
        }
        match why {
            _ if is_replaced && is_tried => Outcome::Tried,
            _ if is_replaced => Outcome::Unknown,
            _ if serves => Outcome::Serves,
            // Else another of its versions may serve yet.
            Some(failed) if !self.wanted.keys().any(is_undecided) => failed,
            _ if is_tried => Outcome::Tried,
            _ => Outcome::Unknown,
        }
    }

    /// Whether this is what the configuration asks for.
    fn is_of(&self, source: &Source) -> bool {
        source.sessions == self.config.session_group
            && source.path.parent() == Some(Path::new(&self.config.base_path))
    }

    /// Finds out which versions are to be loaded in place of what serves or has failed.
    fn compare(&mut self) {
        let sessions = &self.config.session_group;
        let (wanted, compares_files) = (&self.wanted, self.compares_files);
        self.versions.retain(|number, version| {
            let Some(path) = wanted.get(number) else { return true };
            match version {
                Version::Failed(_, source) => *source == Source::of(path, sessions),
                Version::Serving(serving) => {
                    let files = match compares_files {
                        true => Files::of(path),
                        false => serving.source.files.clone(),
                    };
                    let source = Source { path: path.clone(), sessions: sessions.clone(), files };
                    let refused = serving.refused.as_ref().map(|(refused, _)| refused);
                    let is_loading = matches!(serving.replacement, Replacement::Loading(_));
                    if !is_loading && source == serving.source {
                        serving.replacement = Replacement::None;
                        serving.refused = None;
                    } else if !is_loading && (compares_files || Some(&source) != refused) {
                        serving.replacement = Replacement::Wanted;
                    }
                    true
                }
                _ => true,
            }
        });
        self.compares_files = false;
    }

    /// Begins to load and to unload what can be now. The last version that serves stays until a wanted
    /// one does.
    fn act(
        &mut self,
        name: &str,
        catalog: &Arc<Catalog>,
        retry: &RetryPolicy,
        load: &Arc<Load>,
        messages: &Sender<Message>,
    ) {
        let wanted = &self.wanted;
        self.versions.retain(|version, state| {
            let is_wanted = wanted.contains_key(version);
            match state {
                Version::Loading(progress)
                | Version::Serving(Serving {
                    replacement: Replacement::Loading(progress), ..
                }) => progress.is_given_up.store(!is_wanted, Relaxed),
                _ => {}
            }
            is_wanted || !matches!(state, Version::Failed(..))
        });

        let serving = |version: &Version| matches!(version, Version::Serving(_));
        loop {
            let all = self.versions.iter().filter(|(_, version)| serving(version));
            let (kept, old): (Vec<_>, Vec<_>) =
                all.map(|(number, _)| *number).partition(|number| wanted.contains_key(number));
            let Some(&oldest) = old.first() else { break };
            let goes = self.is_removed() || (wanted.is_empty() && !retry.keeps_last);
            if !(goes || !kept.is_empty() || old.len() > 1) {
                break;
            }
            if let Some(Version::Serving(serving)) =
                self.versions.insert(oldest, Version::Unloading)
            {
                unload(serving.servable, catalog, messages.clone());
            }
        }

        // One at a time, but one that has failed keeps no other waiting until its last try.
        let is_first_try = |version: &Version| match version {
            Version::Loading(progress)
            | Version::Serving(Serving { replacement: Replacement::Loading(progress), .. }) => {
                !progress.has_failed_once
            }
            _ => false,
        };
        if self.versions.values().any(is_first_try) {
            return;
        }
        let next = wanted.iter().rev().find_map(|(number, path)| match self.versions.get(number) {
            None | Some(Version::Serving(Serving { replacement: Replacement::Wanted, .. })) => {
                Some((*number, path.clone()))
            }
            _ => None,
        });
        let Some((number, path)) = next else { return };
        let progress = Progress::default();
        let mut attempt = Attempt {
            config: self.config.clone(),
            number,
            source: Source::of(&path, &self.config.session_group),
            retry: *retry,
            load: load.clone(),
            turn: self.turn.clone(),
            is_given_up: progress.is_given_up.clone(),
            messages: messages.clone(),
        };
        match self.versions.get_mut(&number) {
            Some(Version::Serving(serving)) => serving.replacement = Replacement::Loading(progress),
            _ => {
                self.versions.insert(number, Version::Loading(progress));
                catalog.report(name, number, State::Loading, Ok(()));
            }
        }
        let failed = Error::new(Code::Internal, "it could not be loaded: see the log");
        let loaded = Message::Loaded(name.to_string(), number, attempt.source.clone(), Err(failed));
        let mut done = Done(messages.clone(), Some(loaded));
        start("load", move || {
            let result = attempt.load().map(Box::new);
            let Attempt { config, source, .. } = attempt;
            done.set(Message::Loaded(config.name, number, source, result));
        });
    }
}

impl Source {
    fn of(path: &Path, sessions: &Option<SessionGroupConfig>) -> Self {
        Self { path: path.to_path_buf(), sessions: sessions.clone(), files: Files::of(path) }
    }
}

/// A version that is to be loaded.
struct Attempt {
    config: ModelConfig,
    number: i64,
    source: Source,
    retry: RetryPolicy,
    load: Arc<Load>,
    turn: Arc<Mutex<()>>,
    is_given_up: Arc<AtomicBool>,
    messages: Sender<Message>,
}

/// Between looks whether the files of a version that could not be loaded have changed.
const LOOK: Duration = Duration::from_secs(1);

impl Attempt {
    fn load(&mut self) -> Result<Servable> {
        let (name, number) = (self.config.name.clone(), self.number);
        let mut tries = 0;
        loop {
            let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            info!("loading version {number} of model {name} from {}", self.source.path.display());
            let error = match (self.load)(&self.config, number, &self.source.path) {
                Ok(servable) => return Ok(servable),
                Err(error) => error,
            };
            drop(turn);
            error!("loading version {number} of model {name} failed: {error}");
            tries += 1;
            if tries > self.retry.retries || is_final(error.code) {
                return Err(error);
            }
            let _ = self.messages.send(Message::Tried(name.clone(), number, error.clone()));
            if !self.waits() {
                return Err(error);
            }
        }
    }

    /// Waits for the time of the next try, or for other files. `false` if it was given up.
    fn waits(&mut self) -> bool {
        let until = Instant::now() + self.retry.retry_interval;
        let mut look = Instant::now() + LOOK;
        while Instant::now() < until {
            if self.is_given_up.load(Relaxed) {
                return false;
            }
            if Instant::now() > look {
                let files = Files::of(&self.source.path);
                if files != self.source.files {
                    break;
                }
                look = Instant::now() + LOOK;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.source.files = Files::of(&self.source.path);
        true
    }
}

/// Whether trying again gives the same error as long as files and settings are the same.
fn is_final(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::Unimplemented | Code::AlreadyExists)
}

/// Frees a version once no request uses it.
fn unload(servable: Arc<Servable>, catalog: &Arc<Catalog>, messages: Sender<Message>) {
    let (name, version) = (servable.name.clone(), servable.version);
    catalog.withdraw(&name, version);
    info!("unloading version {version} of model {name}");
    let done = Done(messages, Some(Message::Unloaded(name, version)));
    free(servable, move || drop(done));
}

/// Drops what requests may still use, on a thread of its own, so that no request has to.
fn free(servable: Arc<Servable>, then: impl FnOnce() + Send + 'static) {
    start("unload", move || {
        while Arc::strong_count(&servable) > 1 {
            thread::sleep(Duration::from_millis(5));
        }
        drop(servable);
        then();
    });
}

/// Sends its message when it is dropped: also where a thread can't be started, or panics.
struct Done(Sender<Message>, Option<Message>);

impl Done {
    fn set(&mut self, message: Message) {
        self.1 = Some(message);
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(message) = self.1.take() {
            let _ = self.0.send(message);
        }
    }
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_string()).spawn(body) {
        error!("can't start a thread: {error}");
    }
}

#[cfg(test)]
mod tests {
    use session_group::Options;
    use session_group::tensorflow::SessionOptions;
    use tokio::runtime::Builder;

    use super::*;
    use crate::metrics::Metrics;
    use crate::proto::serving::ModelConfigList;
    use crate::servable::Sessions;

    #[test]
    fn a_reload_that_fails_says_so_although_folders_are_looked_at_meanwhile() {
        let base = std::env::temp_dir().join(format!("manager.{}", std::process::id()));
        std::fs::create_dir_all(base.join("1")).unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/build/half_plus");
        let is_broken = Arc::new(AtomicBool::new(false));
        let breaks = is_broken.clone();
        let load = move |config: &ModelConfig, version, _: &Path| {
            if breaks.load(Relaxed) {
                return Err(Error::invalid("broken"));
            }
            let mut options = Options::new();
            options.session_num(1);
            let session_options = SessionOptions::new();
            let sessions = Sessions { session_options, options, tags: vec!["serve".to_string()] };
            let metrics = Metrics::default();
            Servable::load(&config.name, version, &model, &sessions, None, None, &metrics)
        };
        let retry = RetryPolicy {
            // All the time.
            poll: Some(Duration::ZERO),
            retries: 0,
            retry_interval: Duration::ZERO,
            allows_labels_ahead: false,
            keeps_last: true,
        };
        let manager =
            Manager::new(Arc::default(), retry, Arc::new(|_| Ok(())), Arc::new(load)).unwrap();
        let config = ModelConfig {
            name: "half".to_string(),
            base_path: base.display().to_string(),
            model_platform: "tensorflow".to_string(),
            ..ModelConfig::default()
        };
        let list = Config::ModelConfigList(ModelConfigList { config: vec![config] });
        let config = ModelServerConfig { config: Some(list) };
        let runtime = Builder::new_current_thread().build().unwrap();
        let apply = || runtime.block_on(manager.apply(&config, WaitFor::All));
        apply().unwrap();
        is_broken.store(true, Relaxed);
        for number in 0..5 {
            std::fs::write(base.join("1/file"), number.to_string()).unwrap();
            let message = apply().unwrap_err().message;
            assert!(message.contains("broken"), "{message}");
        }
        is_broken.store(false, Relaxed);
        std::fs::write(base.join("1/file"), "right").unwrap();
        apply().unwrap();
        assert!(manager.end(Duration::from_secs(10)));
        std::fs::remove_dir_all(base).unwrap();
    }
}

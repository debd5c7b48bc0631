//! Which versions are loaded: looks for them, loads new ones before it unloads old ones, tries again, and
//! frees what no request uses any more. One thread decides; loading and unloading have threads of their own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use session_group::{Code, Error, Result};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::catalog::Catalog;
use crate::proto::serving::model_version_status::State;
use crate::proto::serving::{ModelConfig, ModelServerConfig, model_server_config::Config};
use crate::servable::Servable;
use crate::versions;

/// Loads a version from its folder.
pub type Load = dyn Fn(&ModelConfig, i64, &Path) -> Result<Servable> + Send + Sync;

/// How models are looked after.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Between looks for new versions; `None`: no further look.
    pub poll: Option<Duration>,
    pub retries: u32,
    pub retry_interval: Duration,
    /// Whether a new label may name a version that does not serve yet.
    pub allows_labels_ahead: bool,
}

/// Looks after the models until it is dropped, which unloads them.
pub struct Manager {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Apply(Vec<ModelConfig>, oneshot::Sender<Result<()>>),
    Loaded(String, i64, Result<Servable>),
    Unloaded(String, i64),
    End,
}

impl Manager {
    pub fn new(
        catalog: Arc<Catalog>,
        retry: RetryPolicy,
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
        let thread =
            thread::Builder::new().name("manager".into()).spawn(move || worker.work(&received))?;
        Ok(Self { messages, thread: Some(thread) })
    }

    /// Replaces the models by those of the configuration, and waits until each new one serves, or has failed.
    pub async fn apply(&self, config: &ModelServerConfig) -> Result<()> {
        let models = checked(config)?;
        let (reply, replied) = oneshot::channel();
        let ending = || Error::new(Code::Unavailable, "the server is ending");
        self.messages.send(Message::Apply(models, reply)).map_err(|_| ending())?;
        replied.await.map_err(|_| ending())?
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The models of a configuration that can be served.
fn checked(config: &ModelServerConfig) -> Result<Vec<ModelConfig>> {
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
        if !Path::new(&model.base_path).is_absolute() {
            return Err(Error::invalid(format!(
                "Expected model {name} to have an absolute path or URI; got base_path()={}",
                model.base_path
            )));
        }
        #[allow(deprecated)]
        let is_old = model.model_type != 0;
        match (is_old, model.model_platform.as_str()) {
            (true, "") | (false, "tensorflow") => {}
            (true, _) => {
                return Err(Error::invalid(
                    "Illegal setting both ModelServerConfig::model_type (deprecated) and \
                     ModelServerConfig::model_platform.",
                ));
            }
            (false, "") => {
                return Err(Error::invalid(
                    "Illegal setting neither ModelServerConfig::model_type (deprecated) nor \
                     ModelServerConfig::model_platform.",
                ));
            }
            (false, platform) => {
                return Err(Error::invalid(format!(
                    "Model {name} requests unsupported platform {platform}"
                )));
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
}

enum Version {
    /// Until the flag is set, it is tried again.
    Loading(Arc<AtomicBool>),
    Serving(Arc<Servable>),
    Unloading,
    /// Not tried again before its folder has been away.
    Failed(Error),
}

struct Waiting {
    models: BTreeSet<String>,
    /// Until it is sent.
    reply: Option<oneshot::Sender<Result<()>>>,
    since: Instant,
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
                Ok(Message::Apply(models, reply)) => {
                    self.apply(models, reply);
                    // With no period, it is looked once for what is new.
                    next_poll = Some(Instant::now());
                }
                Ok(Message::Loaded(name, version, result)) => self.loaded(&name, version, result),
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

    fn apply(&mut self, configs: Vec<ModelConfig>, reply: oneshot::Sender<Result<()>>) {
        if self.is_ending {
            return;
        }
        if let Err(error) = self.check_labels(&configs) {
            let _ = reply.send(Err(error));
            return;
        }
        let names: BTreeSet<_> = configs.iter().map(|config| config.name.clone()).collect();
        let is_new = |name: &&String| self.models.get(*name).is_none_or(Model::is_undecided);
        let new = names.iter().filter(is_new).cloned().collect();
        for (name, model) in &mut self.models {
            if !names.contains(name) {
                info!("removing model {name}");
                model.remove();
            }
        }
        for config in configs {
            info!("(re-)adding model {} at {}", config.name, config.base_path);
            match self.models.get_mut(&config.name) {
                Some(model) => model.config = config,
                None => {
                    self.models.insert(config.name.clone(), Model::new(config));
                }
            }
        }
        self.waiting.push(Waiting { models: new, reply: Some(reply), since: Instant::now() });
    }

    /// Refuses labels of models that serve for versions that don't, before anything is changed.
    fn check_labels(&self, configs: &[ModelConfig]) -> Result<()> {
        let decided = configs.iter().filter(|config| {
            self.models.get(&config.name).is_some_and(|model| !model.is_undecided())
        });
        for config in decided {
            check_labels(config, &self.catalog, self.retry.allows_labels_ahead)?;
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
                    model.wanted =
                        versions::wanted(found, model.config.model_version_policy.as_ref());
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
        }
    }

    fn loaded(&mut self, name: &str, version: i64, result: Result<Servable>) {
        let Some(model) = self.models.get_mut(name) else { return };
        match result {
            Ok(servable) => {
                let servable = Arc::new(servable);
                self.catalog.publish(&servable);
                info!(
                    "serving version {version} of model {name}, on {} sessions",
                    servable.session_num()
                );
                model.versions.insert(version, Version::Serving(servable));
            }
            Err(error) => {
                self.catalog.report(name, version, State::End, Err(error.clone()));
                model.versions.insert(version, Version::Failed(error));
            }
        }
    }

    /// Answers those whose models serve, or have failed.
    fn answer(&mut self) {
        let (models, catalog) = (&self.models, &self.catalog);
        let ahead = self.retry.allows_labels_ahead;
        self.waiting.retain_mut(|waiting| {
            let state = |name: &String| match models.get(name) {
                Some(model) if !model.is_removed() => model.outcome(),
                // By another configuration.
                _ => Some(Err(format!("{{name: {name}}} due to error: it was removed, "))),
            };
            let undecided: Vec<_> =
                waiting.models.iter().filter(|name| state(name).is_none()).cloned().collect();
            if !undecided.is_empty() {
                if waiting.since.elapsed() > REMIND {
                    info!("waiting for a version of {} to serve", undecided.join(", "));
                    waiting.since = Instant::now();
                }
                return true;
            }
            let failed: Vec<_> =
                waiting.models.iter().filter_map(|name| state(name)?.err()).collect();
            let result = match failed.len() {
                0 => label(models, catalog, ahead),
                n => Err(Error::new(
                    Code::Unknown,
                    format!("{n} model(s) did not become available: {{{}}}", failed.concat()),
                )),
            };
            if let Some(reply) = waiting.reply.take() {
                let _ = reply.send(result);
            }
            false
        });
    }
}

/// Gives versions the labels that the configuration has for them.
fn label(models: &BTreeMap<String, Model>, catalog: &Catalog, ahead: bool) -> Result<()> {
    let mut labels = HashMap::new();
    for (name, model) in models {
        if model.is_removed() {
            continue;
        }
        check_labels(&model.config, catalog, ahead)?;
        labels.insert(name.clone(), model.config.version_labels.clone());
    }
    catalog.set_labels(labels);
    Ok(())
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
        Self { config, wanted: BTreeMap::new(), versions: BTreeMap::new(), said: None }
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
        self.is_removed() || self.outcome().is_none()
    }

    /// Whether it serves, or why not; `None` as long as that is not known.
    fn outcome(&self) -> Option<std::result::Result<(), String>> {
        let is_serving = |version: &Version| matches!(version, Version::Serving(_));
        let is_undecided = |version: &i64| {
            let state = self.versions.get(version);
            self.wanted.contains_key(version)
                && matches!(state, None | Some(Version::Loading(_) | Version::Unloading))
        };
        if self.config.version_labels.values().any(is_undecided) {
            return None;
        }
        if self.versions.values().any(is_serving) {
            return Some(Ok(()));
        }
        self.versions.iter().rev().find_map(|(number, version)| match version {
            Version::Failed(error) => Some(Err(format!(
                "{{name: {} version: {number}}} due to error: {error}, ",
                self.config.name
            ))),
            _ => None,
        })
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
            if let Version::Loading(is_given_up) = state {
                is_given_up.store(!is_wanted, Relaxed);
            }
            is_wanted || !matches!(state, Version::Failed(_))
        });

        let serving = |version: &Version| matches!(version, Version::Serving(_));
        loop {
            let all = self.versions.iter().filter(|(_, version)| serving(version));
            let (kept, old): (Vec<_>, Vec<_>) =
                all.map(|(number, _)| *number).partition(|number| wanted.contains_key(number));
            let Some(&oldest) = old.first() else { break };
            if !(wanted.is_empty() || !kept.is_empty() || old.len() > 1) {
                break;
            }
            if let Some(Version::Serving(servable)) =
                self.versions.insert(oldest, Version::Unloading)
            {
                unload(servable, catalog, messages.clone());
            }
        }

        let is_loading =
            self.versions.values().any(|version| matches!(version, Version::Loading(_)));
        let mut new = wanted.iter().rev().filter(|(number, _)| !self.versions.contains_key(number));
        if let Some((&number, path)) = new.next().filter(|_| !is_loading) {
            let is_given_up = Arc::new(AtomicBool::new(false));
            self.versions.insert(number, Version::Loading(is_given_up.clone()));
            catalog.report(name, number, State::Loading, Ok(()));
            let attempt = Attempt {
                config: self.config.clone(),
                number,
                path: path.clone(),
                retry: *retry,
                load: load.clone(),
                is_given_up,
            };
            let failed = Error::new(Code::Internal, "it could not be loaded: see the log");
            let loaded = Message::Loaded(name.to_string(), number, Err(failed));
            let mut done = Done(messages.clone(), Some(loaded));
            start("load", move || {
                let result = attempt.load();
                done.set(Message::Loaded(attempt.config.name.clone(), number, result));
            });
        }
    }
}

/// A version that is to be loaded.
struct Attempt {
    config: ModelConfig,
    number: i64,
    path: PathBuf,
    retry: RetryPolicy,
    load: Arc<Load>,
    is_given_up: Arc<AtomicBool>,
}

impl Attempt {
    fn load(&self) -> Result<Servable> {
        let name = &self.config.name;
        let mut tries = 0;
        loop {
            info!("loading version {} of model {name} from {}", self.number, self.path.display());
            let error = match (self.load)(&self.config, self.number, &self.path) {
                Ok(servable) => return Ok(servable),
                Err(error) => error,
            };
            error!("loading version {} of model {name} failed: {error}", self.number);
            let until = Instant::now() + self.retry.retry_interval;
            tries += 1;
            if tries > self.retry.retries {
                return Err(error);
            }
            while Instant::now() < until {
                if self.is_given_up.load(Relaxed) {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Frees a version once no request uses it, which then does not have to.
fn unload(servable: Arc<Servable>, catalog: &Arc<Catalog>, messages: Sender<Message>) {
    let (name, version) = (servable.name.clone(), servable.version);
    catalog.withdraw(&name, version);
    info!("unloading version {version} of model {name}");
    let done = Done(messages, Some(Message::Unloaded(name, version)));
    start("unload", move || {
        while Arc::strong_count(&servable) > 1 {
            thread::sleep(Duration::from_millis(5));
        }
        drop(servable);
        drop(done);
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

//! Loads versions: makes their sessions, warms them up, and lets their requests run in batches.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use prost::Message;
use session_group::tensorflow::SessionOptions;
use session_group::{Error, SessionGroup};
use session_group_serving::operations;
use session_group_serving::sessions::GroupSettings;
use session_group_serving::timeline::{Timelines, TraceSchedule};
use tracing::info;

use crate::batching::{Batching, Scheduler};
use crate::config;
use crate::flags::{CUSTOM_OPERATIONS, Flags};
use crate::manager::{Check, Load};
use crate::metrics::Metrics;
use crate::predict::ResponseFormat;
use crate::proto::read_text;
use crate::proto::serving::{BatchingParameters, ModelConfig};
use crate::servable::{Servable, Sessions};
use crate::warmup::{ask, warm_up};

/// What all versions of all models have in common.
struct Loader {
    group_settings: GroupSettings,
    /// A serialised `ConfigProto`.
    session_config: Vec<u8>,
    tags: Vec<String>,
    format: ResponseFormat,
    /// How often each request that warms up runs on each session; `None` to run none.
    warm_up_iterations: Option<u32>,
    batches: Option<Batches>,
    schedule: Option<TraceSchedule>,
    metrics: Arc<Metrics>,
}

/// How versions get into batches.
struct Batches {
    scheduler: Scheduler,
    /// `None` where each version brings its own parameters.
    for_all: Option<Batching>,
}

/// What checks models and loads their versions, as the command line says.
pub fn new(flags: &Flags, metrics: Arc<Metrics>) -> Result<(Arc<Check>, Arc<Load>)> {
    let models = &flags.models;
    operations::load(&models.custom_op_libraries).context(CUSTOM_OPERATIONS)?;
    let bundle = config::bundle(flags)?;
    let loader = Arc::new(Loader {
        group_settings: config::group_settings(flags)?,
        session_config: bundle.session_config.unwrap_or_default().encode_to_vec(),
        tags: bundle.saved_model_tags,
        format: config::response_format(flags),
        warm_up_iterations: models
            .enable_model_warmup
            .then_some(models.num_request_iterations_for_warmup),
        batches: Batches::new(flags, &metrics)?,
        schedule: config::trace_schedule(flags)?,
        metrics,
    });
    let checks = loader.clone();
    let check = Arc::new(move |model: &ModelConfig| checks.check(model));
    let load = Arc::new(move |model: &ModelConfig, version, path: &Path| {
        let begun = Instant::now();
        let loaded = loader.load(model, version, path);
        let loaded = loaded.map_err(|error| operations::explained(error, CUSTOM_OPERATIONS));
        let status = if loaded.is_ok() { "success" } else { "fail" };
        loader.metrics.loads.with_label_values(&[model.base_path.as_str(), status]).inc();
        if loaded.is_ok() {
            info!("model {} version {version}: loaded in {:.1?}", model.name, begun.elapsed());
        }
        loaded
    });
    Ok((check, load))
}

impl Batches {
    fn new(flags: &Flags, metrics: &Arc<Metrics>) -> Result<Option<Self>> {
        let flags = &flags.batching;
        if !flags.enable_batching {
            return Ok(None);
        }
        let parameters = match &flags.batching_parameters_file {
            Some(file) => read_text(file, "tensorflow.serving.BatchingParameters")?,
            None => BatchingParameters::default(),
        };
        let for_all = Batching::new(&parameters)?;
        let threads = match parameters.num_batch_threads {
            None => std::thread::available_parallelism().map_or(1, usize::from),
            Some(threads) => usize::try_from(threads).unwrap_or(0),
        };
        Ok(Some(Self {
            scheduler: Scheduler::new(threads, metrics.clone())?,
            for_all: (!flags.enable_per_model_batching_parameters).then_some(for_all),
        }))
    }

    /// The parameters of the version in this folder; `None` where its requests run alone.
    fn of_version(&self, path: &Path) -> session_group::Result<Option<Batching>> {
        match &self.for_all {
            Some(for_all) => Ok(Some(for_all.clone())),
            None => Batching::of_version(path),
        }
    }
}

impl Loader {
    /// How to make the sessions of a model.
    fn sessions(&self, model: &ModelConfig) -> session_group::Result<Sessions> {
        let mut session_options = SessionOptions::new();
        session_options.set_config(&self.session_config)?;
        let own = model.session_group.clone().unwrap_or_default();
        let options = config::group_options(&self.group_settings, &own)?;
        Ok(Sessions { session_options, options, tags: self.tags.clone() })
    }

    /// Whether this machine can have the sessions of a model, with their cpuset and threads. If not, loading it
    /// would fail each time.
    fn check(&self, model: &ModelConfig) -> session_group::Result<()> {
        let named = |error: Error| {
            Error::new(error.code, format!("model {}: {}", model.name, error.message))
        };
        let sessions = self.sessions(model).map_err(named)?;
        if self.group_settings.multi_stream {
            // Making them takes memory of GPUs.
            return Ok(());
        }
        SessionGroup::new(&sessions.session_options, &sessions.options).map(drop).map_err(named)
    }

    fn load(
        &self,
        model: &ModelConfig,
        version: i64,
        path: &Path,
    ) -> session_group::Result<Servable> {
        let mut sessions = self.sessions(model)?;
        let labels = [("model_name", model.name.as_str()), ("version", &version.to_string())];
        sessions.options.labels(&labels)?;
        let timelines = match &self.schedule {
            Some(schedule) => Some(Arc::new(Timelines::new(schedule.clone(), &model.name)?)),
            None => None,
        };
        let batching = match &self.batches {
            Some(batches) => batches.of_version(path)?,
            None => None,
        };
        let name = &model.name;
        let metrics = &self.metrics;
        let servable =
            Servable::load(name, version, path, &sessions, timelines, batching, metrics)?;
        if let Some(iterations) = self.warm_up_iterations {
            let begun = Instant::now();
            let warm = warm_up(&servable, path, iterations, self.format);
            let code = warm.as_ref().err().map(|error| error.code);
            self.metrics.warmed_up(&model.base_path, code, begun.elapsed());
            let records = warm?;
            info!("model {} version {version}: {records} warm-up requests", model.name);
            if records == 0 {
                ask(&servable)?;
            }
        }
        Ok(servable.warmed_up(self.batches.as_ref().map(|batches| &batches.scheduler)))
    }
}

//! A model that `initialize` has made.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prost::Message;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use session_group::{Error, Result};
use session_group_serving::operations;
use session_group_serving::timeline::Timelines;
use tracing::info;

use crate::config::Config;
use crate::predict::Step;
use crate::proto::eas::ServingModelInfo;
use crate::served::Served;
use crate::template::Template;
use crate::update::{Maker, Report, Updater};
use crate::warmup::WarmUp;

/// A model that serves.
pub struct Model {
    /// Dropped first: it uses the rest.
    updater: Mutex<Option<Updater>>,
    maker: Arc<Maker>,
    current: Arc<ArcSwap<Served>>,
    report: Arc<Mutex<Report>>,
    timelines: Option<Timelines>,
    signature_json: String,
    /// As many threads as sessions, for requests that come several at a time, and the process that has
    /// them.
    pool: OnceLock<(u32, ThreadPool)>,
}

/// Where it is said which libraries have operations that TensorFlow lacks.
const OPERATIONS: &str = "model_config's custom_op_libraries";

impl Model {
    /// `entry` is the folder of the warm-up file, if that has none.
    pub fn new(entry: &str, config: &str) -> Result<Self> {
        let schedulable_cpus = std::env::var("SCHEDULABLE_CPUS").ok();
        let config = Config::parse(config, schedulable_cpus.as_deref())?;
        operations::load(&config.custom_op_libraries)
            .map_err(|error| Error::new(error.code, format!("{OPERATIONS}: {}", error.message)))?;
        Self::serve(entry, config).map_err(|error| operations::explained(error, OPERATIONS))
    }

    fn serve(entry: &str, config: Config) -> Result<Self> {
        let template = Template::read(&config.savedmodel_dir)?;
        let signature_json = template.signature(&config.signature_name)?.json();
        let file = config.warmup_file_name.as_ref().map(|name| Path::new(entry).join(name));
        let warm_up = WarmUp::new(&config.signature_name, file.as_deref())?;
        let folder = config.savedmodel_dir.file_name().unwrap_or_default().to_string_lossy();
        let timelines =
            config.timelines.clone().map(|choice| Timelines::new(choice, &folder)).transpose()?;
        let maker = Arc::new(Maker { config, template, warm_up });
        let (served, report) = maker.first()?;
        info!("{} serves", maker.config.savedmodel_dir.display());
        let current = Arc::new(ArcSwap::from_pointee(served));
        let report = Arc::new(Mutex::new(report));
        let updater = match maker.config.checkpoint_dir {
            Some(_) => Some(Updater::start(maker.clone(), current.clone(), report.clone())?),
            None => None,
        };
        let pool = OnceLock::new();
        let updater = Mutex::new(updater);
        Ok(Self { updater, maker, current, report, timelines, signature_json, pool })
    }

    /// Answers a serialised `PredictRequest` by a serialised `PredictResponse`, for which `place` gives
    /// the room.
    pub fn predict<T>(&self, request: &[u8], place: impl FnOnce(usize) -> Result<T>) -> Result<T>
    where
        T: AsMut<[u8]>,
    {
        let signature = &self.maker.config.signature_name;
        let step = Step::parse(&self.maker.template, signature, request)?;
        let response = self.current.load().run(&step, self.timelines.as_ref())?;
        encode(&response, place)
    }

    /// Does something for each, on as many threads as there are sessions.
    pub fn for_each<T: Send>(&self, all: Vec<T>, work: impl Fn(T) + Send + Sync) {
        if all.len() < 2 {
            return all.into_iter().for_each(work);
        }
        let pool = self.pool.get().or_else(|| {
            let threads = self.current.load().group().session_num();
            let name = |i| format!("batch-process{i}");
            let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
            pool.ok().map(|pool| self.pool.get_or_init(|| (std::process::id(), pool)))
        });
        match pool {
            // A child that was forked has none of its threads.
            Some((process, pool)) if *process == std::process::id() => {
                pool.install(|| all.into_par_iter().for_each(work))
            }
            // No more threads are to be had.
            _ => all.into_iter().for_each(work),
        }
    }

    /// How long requests may go on once no more are taken.
    pub fn drain(&self) -> Duration {
        self.maker.config.drain
    }

    /// Ends requests; an error where one goes on.
    pub fn cancel(&self) -> Result<()> {
        self.current.load().group().close()
    }

    /// Ends updates; waits for one that is under way.
    pub fn end_updates(&self) {
        drop(self.updater.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The configured signature, as JSON.
    pub fn signature_json(&self) -> &str {
        &self.signature_json
    }

    /// A serialised `ServingModelInfo`.
    pub fn info<T: AsMut<[u8]>>(&self, place: impl FnOnce(usize) -> Result<T>) -> Result<T> {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut info = ServingModelInfo {
            model_path: path(&self.maker.config.savedmodel_dir),
            update_error: report.error.unwrap_or_default(),
            full_updates: report.full_updates,
            delta_updates: report.delta_updates,
            ..ServingModelInfo::default()
        };
        if let Some(version) = report.version {
            info.model_path = path(&version.last().prefix);
            info.full_checkpoint = path(&version.full.prefix);
            info.deltas = version.deltas.iter().map(|delta| path(&delta.prefix)).collect();
        }
        encode(&info, place)
    }
}

fn encode<T: AsMut<[u8]>>(
    message: &impl Message,
    place: impl FnOnce(usize) -> Result<T>,
) -> Result<T> {
    let mut to = place(message.encoded_len())?;
    message.encode(&mut to.as_mut()).expect("there is room for its length");
    Ok(to)
}

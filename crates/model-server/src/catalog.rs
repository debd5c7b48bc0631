//! What is served now, as requests see it, and what has become of each version, as clients may ask.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use session_group::{Code, Error, Result};

use crate::proto::serving::model_spec::VersionChoice;
use crate::proto::serving::model_version_status::State;
use crate::proto::serving::{GetModelStatusResponse, ModelSpec, ModelVersionStatus, StatusProto};
use crate::servable::Servable;

/// May be used by many threads at a time. Looking a servable up takes no lock.
#[derive(Default)]
pub struct Catalog {
    serving: ArcSwap<Serving>,
    /// The newest of what is known, by model and version, the latest version first.
    statuses: Mutex<BTreeMap<String, OfVersions>>,
}

/// So many versions of a model that are gone are remembered, the latest ones.
const MOST_GONE: usize = 32;

type OfVersions = BTreeMap<Reverse<i64>, (State, StatusProto)>;

/// One state of what is served.
#[derive(Clone, Default)]
struct Serving {
    models: HashMap<String, BTreeMap<i64, Arc<Servable>>>,
    /// Versions by label, by model; `None` before any configuration was applied.
    labels: Option<HashMap<String, BTreeMap<String, i64>>>,
}

impl Catalog {
    /// The version that a request names, or the latest that serves.
    pub fn find(&self, spec: Option<&ModelSpec>) -> Result<Arc<Servable>> {
        let spec = spec.ok_or_else(|| Error::invalid("Missing ModelSpec"))?;
        let name = &spec.name;
        if name.is_empty() {
            return Err(Error::invalid("ModelSpec has no name specified."));
        }
        let serving = self.serving.load();
        let version = match &spec.version_choice {
            None => None,
            Some(VersionChoice::Version(version)) => Some(*version),
            Some(VersionChoice::VersionLabel(label)) => Some(serving.version_of(name, label)?),
        };
        let versions = serving.models.get(name);
        let found = versions.and_then(|versions| match version {
            Some(version) => versions.get(&version),
            None => versions.last_key_value().map(|(_, servable)| servable),
        });
        found.cloned().ok_or_else(|| {
            let wanted = match version {
                Some(version) => format!("Specific({name}, {version})"),
                None => format!("Latest({name})"),
            };
            let message = format!("Servable not found for request: {wanted}");
            Error::new(Code::NotFound, message)
        })
    }

    /// From now on requests find it.
    pub fn publish(&self, servable: &Arc<Servable>) {
        self.change(|serving| {
            let versions = serving.models.entry(servable.name.clone()).or_default();
            versions.insert(servable.version, servable.clone());
        });
        self.report(&servable.name, servable.version, State::Available, Ok(()));
    }

    /// From now on requests don't find it; those that have found it before go on.
    pub fn withdraw(&self, name: &str, version: i64) {
        self.report(name, version, State::Unloading, Ok(()));
        self.change(|serving| {
            if let Some(versions) = serving.models.get_mut(name) {
                versions.remove(&version);
            }
        });
    }

    /// Replaces all labels.
    pub fn set_labels(&self, labels: HashMap<String, BTreeMap<String, i64>>) {
        self.change(|serving| serving.labels = Some(labels.clone()));
    }

    /// All labels of a model, with their versions.
    pub fn labels(&self, name: &str) -> BTreeMap<String, i64> {
        let serving = self.serving.load();
        serving.labels.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default()
    }

    /// The version that has this label now.
    pub fn labelled(&self, name: &str, label: &str) -> Option<i64> {
        self.serving.load().version_of(name, label).ok()
    }

    /// Whether requests find this version.
    pub fn serves(&self, name: &str, version: i64) -> bool {
        let serving = self.serving.load();
        serving.models.get(name).is_some_and(|versions| versions.contains_key(&version))
    }

    /// The versions of a model that requests find.
    pub fn versions(&self, name: &str) -> Vec<i64> {
        let serving = self.serving.load();
        serving.models.get(name).into_iter().flatten().map(|(version, _)| *version).collect()
    }

    /// Whether there was ever a version of this model.
    pub fn knows(&self, name: &str) -> bool {
        let is_served = self.serving.load().models.contains_key(name);
        is_served || {
            let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
            statuses.contains_key(name)
        }
    }

    /// Records what has become of a version.
    pub fn report(&self, name: &str, version: i64, state: State, result: Result<()>) {
        let status = match result {
            Ok(()) => StatusProto::default(),
            Err(error) => {
                StatusProto { error_code: error.code as i32, error_message: error.message }
            }
        };
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = statuses.entry(name.to_string()).or_default();
        versions.insert(Reverse(version), (state, status));
        let gone = versions.iter().filter(|(_, (state, _))| *state == State::End);
        if let Some(oldest) = gone.map(|(version, _)| *version).nth(MOST_GONE) {
            versions.remove(&oldest);
        }
    }

    /// What has become of the versions of a model, or of the one that is named; the latest first.
    pub fn statuses(&self, spec: &ModelSpec) -> Result<GetModelStatusResponse> {
        let name = &spec.name;
        let version = match &spec.version_choice {
            Some(VersionChoice::Version(version)) => Some(*version),
            Some(VersionChoice::VersionLabel(label)) => {
                Some(self.serving.load().version_of(name, label)?)
            }
            None => None,
        };
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let of_model = statuses.get(name).into_iter().flatten();
        let model_version_status: Vec<_> = of_model
            .filter(|(known, _)| version.is_none_or(|version| known.0 == version))
            .map(status)
            .collect();
        if model_version_status.is_empty() {
            let message = match version {
                Some(version) => format!("Could not find version {version} of model {name}"),
                None => format!("Could not find any versions of model {name}"),
            };
            return Err(Error::new(Code::NotFound, message));
        }
        Ok(GetModelStatusResponse { model_version_status })
    }

    /// What has become of the versions of all models.
    pub fn all_statuses(&self) -> Vec<(String, Vec<ModelVersionStatus>)> {
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.iter().map(|(name, of)| (name.clone(), of.iter().map(status).collect())).collect()
    }

    fn change(&self, change: impl Fn(&mut Serving)) {
        self.serving.rcu(|serving| {
            let mut changed = Serving::clone(serving);
            change(&mut changed);
            changed
        });
    }
}

fn status(
    (version, (state, status)): (&Reverse<i64>, &(State, StatusProto)),
) -> ModelVersionStatus {
    ModelVersionStatus { version: version.0, state: *state as i32, status: Some(status.clone()) }
}

impl Serving {
    fn version_of(&self, name: &str, label: &str) -> Result<i64> {
        let labels = self.labels.as_ref().ok_or_else(|| {
            Error::new(Code::Unavailable, format!("Model labels does not init yet.{label}"))
        })?;
        labels
            .get(name)
            .and_then(|labels| labels.get(label))
            .copied()
            .ok_or_else(|| Error::invalid(format!("Unrecognized servable version label: {label}")))
    }
}

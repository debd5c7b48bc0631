//! A SavedModel as it is on disk: what each version of it is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prost::Message;
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::SavedModel;
use session_group::tensorflow::{Buffer, Tensor};
use session_group::{Code, Error, Request, Result, SessionGroup};
use session_group_serving::tensorflow;
use tracing::warn;

use crate::config::Sessions;
use crate::graph::{self, Part, Restored};
use crate::proto::model::collection::Kind;
use crate::proto::model::{AssetFile, Graph, MetaGraph};
use crate::signature::{Signature, shortened};

/// A SavedModel, read once.
pub struct Template {
    folder: PathBuf,
    graph_def: Vec<u8>,
    restore: Option<Restore>,
    /// Names of tensors, and the paths of files to feed them.
    assets: Vec<(String, Tensor)>,
    init_op: Option<String>,
    /// By their names; an error where requests can't have what they need.
    signatures: BTreeMap<String, Result<Signature>>,
    /// By their names in checkpoints.
    pub variables: BTreeMap<String, Vec<Part>>,
    /// Names of what else checkpoints restore.
    pub others: BTreeSet<String>,
}

struct Restore {
    /// The tensor to feed the checkpoint's prefix to.
    filename: String,
    op: String,
}

const TAGS: [&str; 1] = ["serve"];
const INIT_OP: &str = "__saved_model_init_op";

impl Template {
    pub fn read(folder: &Path) -> Result<Self> {
        let doing = |what: &str, error: Error| {
            let message = format!("SavedModel {}: {what}: {}", folder.display(), error.message);
            Error::new(error.code, message)
        };
        let path = folder.to_str().ok_or_else(|| Error::invalid("savedmodel_dir is not UTF-8"))?;
        let mut buffer = Buffer::new();
        drop(
            SavedModel::read(path, &TAGS, Some(&mut buffer))
                .map_err(|error| doing("reading it failed", error))?,
        );
        let unread = |error: prost::DecodeError| {
            doing("reading it failed", Error::new(Code::DataLoss, error.to_string()))
        };
        let meta = MetaGraph::decode(buffer.bytes()).map_err(unread)?;
        drop(buffer);
        let parsed = Graph::decode(meta.graph_def.as_slice()).map_err(unread)?;
        let saver = meta.saver_def.clone().unwrap_or_default();
        let restore = (!saver.restore_op_name.is_empty()).then(|| Restore {
            filename: saver.filename_tensor_name,
            op: operation(&saver.restore_op_name).to_string(),
        });
        let restored = match &restore {
            Some(restore) => graph::restored(&parsed, &restore.op)
                .map_err(|error| doing("what its restore operation restores", error))?,
            None => Restored::default(),
        };
        let assets = assets(&meta, folder).map_err(|error| doing("its assets", error))?;
        let init_op = init_op(&meta);
        let signatures = meta
            .signature_def
            .iter()
            .filter(|(name, _)| !name.starts_with("__"))
            .map(|(name, def)| {
                let of = |error: Error| {
                    let message = format!("signature {name:?} can't be served: {}", error.message);
                    warn!("{message}");
                    Error::new(error.code, message)
                };
                (name.clone(), Signature::new(name, def).map_err(of))
            })
            .collect();
        // Serialised messages one after the other are one, with the nodes of both.
        let mut graph_def = meta.graph_def;
        restored.nodes.encode(&mut graph_def).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            graph_def,
            restore,
            assets,
            init_op,
            signatures,
            variables: restored.variables,
            others: restored.others,
        })
    }

    pub fn signature(&self, name: &str) -> Result<&Signature> {
        let found = self.signatures.get(name).ok_or_else(|| {
            let known: Vec<_> = self.signatures.keys().map(String::as_str).collect();
            Error::invalid(format!(
                "there is no signature {:?}: the model has {}",
                shortened(name),
                known.join(", ")
            ))
        })?;
        found.as_ref().map_err(Error::clone)
    }

    /// The checkpoint that lies in the SavedModel itself, if it has variables.
    pub fn own_checkpoint(&self) -> Option<PathBuf> {
        let prefix = self.folder.join("variables/variables");
        prefix.with_extension("index").exists().then_some(prefix)
    }

    /// Whether it can be restored from checkpoints.
    pub fn check_restores(&self) -> Result<()> {
        if !self.variables.is_empty() || !self.others.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "SavedModel {} restores no variables, so that no checkpoint can be served: export it with \
             variables, or leave checkpoint_dir out",
            self.folder.display()
        )))
    }

    /// A group with the variables of a checkpoint, initialised.
    pub fn load(&self, sessions: &Sessions, checkpoint: Option<&Path>) -> Result<SessionGroup> {
        let group = SessionGroup::new(&sessions.session_options()?, &sessions.options()?)?;
        group.create(&self.graph_def)?;
        let options = on_this_thread()?;
        let assets: Vec<(&str, &Tensor)> =
            self.assets.iter().map(|(name, path)| (name.as_str(), path)).collect();
        if let (Some(checkpoint), Some(restore)) = (checkpoint, &self.restore) {
            let prefix = Tensor::from_strings(&[], &[checkpoint.as_os_str().as_encoded_bytes()])?;
            let mut feeds = assets.clone();
            feeds.push((&restore.filename, &prefix));
            run(&group, &feeds, &restore.op, &options).map_err(|error| {
                let message = format!("checkpoint {}: {}", checkpoint.display(), error.message);
                Error::new(error.code, message)
            })?;
        }
        if let Some(init_op) = &self.init_op {
            run(&group, &assets, init_op, &options).map_err(|error| {
                Error::new(error.code, format!("initialising the model: {}", error.message))
            })?;
        }
        Ok(group)
    }
}

fn run(
    group: &SessionGroup,
    inputs: &[(&str, &Tensor)],
    target: &str,
    options: &RunOptions,
) -> Result<()> {
    let request =
        Request { inputs, targets: &[target], options: Some(options), ..Request::default() };
    group.run_request(&request, None).map(drop)
}

/// So that it takes no thread from requests.
fn on_this_thread() -> Result<RunOptions> {
    let options = tensorflow::RunOptions { inter_op_thread_pool: -1, ..Default::default() };
    RunOptions::parse(&options.encode_to_vec())
}

/// The operation of a tensor's name, or of its own.
fn operation(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// As TensorFlow finds it: by a signature of its own, or in collections of TensorFlow 1.
fn init_op(meta: &MetaGraph) -> Option<String> {
    let by_signature = meta.signature_def.get(INIT_OP).and_then(|signature| {
        session_group_serving::signature::tensor_name(signature.outputs.get(INIT_OP)?).ok()
    });
    let collections =
        ["saved_model_main_op", "legacy_init_op"].iter().find_map(|name| {
            match meta.collection_def.get(*name)?.kind.as_ref()? {
                Kind::NodeList(nodes) => nodes.value.first().map(String::as_str),
                Kind::AnyList(_) => None,
            }
        });
    by_signature.or(collections).map(|name| operation(name).to_string())
}

fn assets(meta: &MetaGraph, folder: &Path) -> Result<Vec<(String, Tensor)>> {
    let mut files = meta.asset_file_def.clone();
    if files.is_empty() {
        let collection = meta.collection_def.get("saved_model_assets");
        if let Some(Kind::AnyList(list)) = collection.and_then(|assets| assets.kind.as_ref()) {
            for any in &list.value {
                let file = AssetFile::decode(any.value.as_slice());
                files.push(file.map_err(|error| Error::new(Code::DataLoss, error.to_string()))?);
            }
        }
    }
    let feed = |file: AssetFile| {
        let info = file.tensor_info.unwrap_or_default();
        let name = session_group_serving::signature::tensor_name(&info)?.to_string();
        let path = folder.join("assets").join(file.filename);
        Ok((name, Tensor::from_strings(&[], &[path.as_os_str().as_encoded_bytes()])?))
    };
    files.into_iter().map(feed).collect()
}

//! Delta checkpoints: new values of some variables, or of some of their rows.
//!
//! All that can fail or take long is done before requests are kept waiting. What is left is copying
//! the values into the variables' own memory, which no request reads meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use session_group::tensorflow::Tensor;
use session_group::{Error, Request, Result, SessionGroup};
use session_group_serving::signature::proto_name;
use tensorflow_sys::{TF_INT32, TF_INT64, TF_STRING, TF_TensorData};
use tracing::debug;

use crate::bundle::Bundle;
use crate::graph::Variable;
use crate::served::{Alone, Served};
use crate::template::Template;
use crate::versions::Checkpoint;

/// As DeepRec names a variable's rows that have changed, and where they are.
const KEYS: &str = "-sparse_incr_keys";
const VALUES: &str = "-sparse_incr_values";

/// A delta, read into memory.
pub struct Delta<'a> {
    prefix: PathBuf,
    changes: Vec<Change<'a>>,
}

struct Change<'a> {
    key: &'a str,
    variable: &'a Variable,
    new: New,
}

enum New {
    Whole(Tensor),
    Rows { indices: Vec<i64>, values: Tensor },
}

impl<'a> Delta<'a> {
    /// Reads all of it.
    pub fn read(template: &'a Template, checkpoint: &Checkpoint) -> Result<Self> {
        let mut delta = Self { prefix: checkpoint.prefix.clone(), changes: Vec::new() };
        delta.changes = delta.changes_of(&template.variables).map_err(|error| delta.of(error))?;
        Ok(delta)
    }

    fn of(&self, error: Error) -> Error {
        Error::new(error.code, format!("delta {}: {}", self.prefix.display(), error.message))
    }

    fn changes_of(&self, variables: &'a BTreeMap<String, Variable>) -> Result<Vec<Change<'a>>> {
        let bundle = Bundle::open(&self.prefix)?;
        let keys = bundle.keys();
        let mut changes = Vec::new();
        for key in &keys {
            let name = key.strip_suffix(KEYS).unwrap_or(key);
            // Others, such as those of optimisers, are not of the model.
            let Some((name, variable)) = variables.get_key_value(name) else { continue };
            let new = match key.ends_with(KEYS) {
                false => New::Whole(bundle.tensor(key)?),
                true => New::Rows {
                    indices: indices(&bundle.tensor(key)?)?,
                    values: bundle.tensor(&format!("{name}{VALUES}"))?,
                },
            };
            if variable.is_slice {
                return Err(Error::invalid(format!(
                    "{name} is restored into a partitioned variable: use a full checkpoint"
                )));
            }
            changes.push(Change { key: name, variable, new });
        }
        if changes.is_empty() {
            return Err(Error::invalid(format!(
                "it has none of the model's variables: it has {}; the model has {}",
                some(keys.iter()),
                some(variables.keys())
            )));
        }
        let both = changes.iter().find(|change| {
            matches!(change.new, New::Rows { .. }) && keys.iter().any(|key| key == change.key)
        });
        if let Some(change) = both {
            return Err(Error::invalid(format!("{} is there as a whole and by rows", change.key)));
        }
        Ok(changes)
    }

    /// Applies it, between requests. Says how long they had to wait. If it fails, nothing has changed.
    pub fn apply(&self, served: &Served) -> Result<Duration> {
        self.apply_to(served).map_err(|error| self.of(error))
    }

    fn apply_to(&self, served: &Served) -> Result<Duration> {
        // What is prepared the first time is prepared now.
        {
            let _unchanged = served.unchanged();
            self.check(&self.current(served.group())?)?;
        }
        let begun = Instant::now();
        let alone = served.alone();
        let (current, again) = (self.current(alone.group)?, self.current(alone.group)?);
        self.check(&current)?;
        // A read that copies, as from a GPU, can't be in one place twice.
        let is_variable: Vec<bool> = current
            .iter()
            .zip(again)
            .map(|(one, other)| {
                one.bytes().as_ptr() == other.bytes().as_ptr() && one.dtype() != TF_STRING as i32
            })
            .collect();
        let (mut written, mut assigned) = (Vec::new(), Vec::new());
        for ((change, current), is_variable) in self.changes.iter().zip(current).zip(is_variable) {
            if is_variable { &mut written } else { &mut assigned }.push((change, current));
        }
        assign(&alone, &assigned)?;
        debug!("written in place: {}, assigned: {}", written.len(), assigned.len());
        written.into_iter().for_each(|(change, current)| write(change, current, &alone));
        Ok(begun.elapsed())
    }

    /// The variables' values.
    fn current(&self, group: &SessionGroup) -> Result<Vec<Tensor>> {
        let outputs: Vec<_> =
            self.changes.iter().map(|change| change.variable.read.as_str()).collect();
        group.run_request(&Request { outputs: &outputs, ..Request::default() }, None)
    }

    fn check(&self, current: &[Tensor]) -> Result<()> {
        self.changes.iter().zip(current).try_for_each(|(change, current)| {
            change.check(current).map_err(|what| Error::invalid(format!("{} {what}", change.key)))
        })
    }
}

impl Change<'_> {
    fn check(&self, current: &Tensor) -> std::result::Result<(), String> {
        let (dtype, dims) = (current.dtype(), current.dims());
        let new = match &self.new {
            New::Whole(new) => new,
            New::Rows { values, .. } => values,
        };
        if new.dtype() != dtype {
            return Err(format!(
                "is {} in the delta, and {} in the model",
                proto_name(new.dtype()),
                proto_name(dtype)
            ));
        }
        match &self.new {
            New::Whole(new) if new.dims() != dims => {
                Err(format!("has shape {:?} in the delta, and {dims:?} in the model", new.dims()))
            }
            New::Whole(_) => Ok(()),
            New::Rows { .. } if dtype == TF_STRING as i32 => {
                Err("is a variable of strings, which have no rows to change".to_string())
            }
            New::Rows { indices, values } => {
                let Some((&rows, row)) = dims.split_first() else {
                    return Err("is a scalar, which has no rows to change".to_string());
                };
                let expected: Vec<i64> =
                    [indices.len() as i64].into_iter().chain(row.iter().copied()).collect();
                if values.dims() != expected {
                    return Err(format!(
                        "has {} rows to change by values of shape {:?}, instead of {expected:?}",
                        indices.len(),
                        values.dims()
                    ));
                }
                match indices.iter().find(|&&index| index < 0 || index >= rows) {
                    Some(index) => Err(format!("has {rows} rows, and no row {index} to change")),
                    None => Ok(()),
                }
            }
        }
    }

    /// Writes the new values, which have been checked, over those of a variable of these dimensions.
    fn write(&self, bytes: &mut [u8], dims: &[i64]) {
        match &self.new {
            New::Whole(new) => bytes.copy_from_slice(new.bytes()),
            New::Rows { indices, values } => {
                let row = bytes.len() / (dims[0].max(1) as usize);
                if row == 0 {
                    return;
                }
                for (&index, value) in indices.iter().zip(values.bytes().chunks_exact(row)) {
                    bytes[index as usize * row..][..row].copy_from_slice(value);
                }
            }
        }
    }

    /// The whole new value.
    fn whole(&self, current: &Tensor) -> Result<Tensor> {
        match &self.new {
            New::Whole(new) => Tensor::from_bytes(new.dtype(), &new.dims(), new.bytes()),
            New::Rows { .. } => {
                let dims = current.dims();
                Tensor::from_fill(current.dtype(), &dims, |bytes| {
                    bytes.copy_from_slice(current.bytes());
                    self.write(bytes, &dims);
                })
            }
        }
    }
}

/// Gives variables whose memory can't be written to new values, all or none.
fn assign(alone: &Alone<'_>, changes: &[(&Change<'_>, Tensor)]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut values = Vec::with_capacity(changes.len());
    for (change, current) in changes {
        values.push(match &change.new {
            New::Whole(new) if new.dtype() == TF_STRING as i32 => {
                Tensor::from_strings(&new.dims(), &new.strings()?)?
            }
            _ => change.whole(current)?,
        });
    }
    let targets: Vec<_> =
        changes.iter().map(|(change, _)| change.variable.assign.as_str()).collect();
    let run = |values: Vec<&Tensor>| {
        let names = changes.iter().map(|(change, _)| change.variable.value.as_str());
        let inputs: Vec<_> = names.zip(values).collect();
        let request = Request { inputs: &inputs, targets: &targets, ..Request::default() };
        alone.group.run_request(&request, None).map(drop)
    };
    run(values.iter().collect()).inspect_err(|_| {
        // Some of them may be assigned.
        let _ = run(changes.iter().map(|(_, current)| current).collect());
    })
}

/// Writes new values, which have been checked, into the memory of a variable, of which `value` is a tensor.
fn write(change: &Change<'_>, value: Tensor, _alone: &Alone<'_>) {
    let (dims, length) = (value.dims(), value.bytes().len());
    if length == 0 {
        return;
    }
    // SAFETY: the tensor keeps the memory, of this length, alive. Whoever is alone with the group knows
    // that no kernel reads or writes it: requests hold the lock for reading while they run and until their
    // outputs are copied, and nothing else runs. There is no other slice over it.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(TF_TensorData(value.as_ptr()).cast(), length) };
    change.write(bytes, &dims);
}

fn indices(keys: &Tensor) -> Result<Vec<i64>> {
    if keys.dims().len() != 1 {
        return Err(Error::invalid(format!(
            "{KEYS} has shape {:?}, not one dimension",
            keys.dims()
        )));
    }
    match keys.dtype() {
        dtype if dtype == TF_INT64 as i32 => keys.to_vec(),
        dtype if dtype == TF_INT32 as i32 => {
            Ok(keys.to_vec::<i32>()?.into_iter().map(i64::from).collect())
        }
        _ => Err(Error::invalid(format!("{KEYS} is {}, not DT_INT64", proto_name(keys.dtype())))),
    }
}

/// The first few of the names.
fn some<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names.take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    if text.is_empty() { "none".to_string() } else { text }
}

//! Delta checkpoints: new values of some variables, or of some of their rows.
//!
//! All that can fail or take long is done before requests are kept waiting. What is left is copying
//! the values into the variables' own memory, which no request reads meanwhile. Variables whose memory
//! is not theirs alone, or not the CPU's, are assigned new values.
//!
//! Should even that fail half-way, no request sees the variables any more, and the model is loaded again.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use session_group::tensorflow::Tensor;
use session_group::tensorflow::Variable;
use session_group::{Code, Error, Request, Result, SessionGroup};
use session_group_serving::signature::proto_name;
use tensorflow_sys::{TF_INT32, TF_INT64, TF_STRING};
use tracing::{debug, info};

use crate::bundle::Bundle;
use crate::graph::{self, Part};
use crate::served::{ExclusiveAccess, Served};
use crate::slices::{self, Slice};
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
    /// What messages call it.
    key: String,
    variable: &'a graph::Variable,
    new: New,
}

enum New {
    Whole(Tensor),
    Rows { indices: Vec<i64>, values: Tensor },
}

impl<'a> Delta<'a> {
    /// Reads all of it. Fails if it is not what it was when it was found.
    pub fn read(template: &'a Template, checkpoint: &Checkpoint) -> Result<Self> {
        let mut delta = Self { prefix: checkpoint.prefix.clone(), changes: Vec::new() };
        let bundle = Bundle::open(&delta.prefix).map_err(|error| delta.of(error))?;
        if bundle.digest() != checkpoint.digest {
            let error = Error::new(Code::Aborted, "it was written anew while it was read");
            return Err(delta.of(error));
        }
        delta.changes = delta.changes_of(&bundle, template).map_err(|error| delta.of(error))?;
        Ok(delta)
    }

    fn of(&self, error: Error) -> Error {
        Error::new(error.code, format!("delta {}: {}", self.prefix.display(), error.message))
    }

    fn changes_of(&self, bundle: &Bundle, template: &'a Template) -> Result<Vec<Change<'a>>> {
        let (mut changes, mut others) = (Vec::new(), Vec::new());
        // Operations that assign the variables that are changed.
        let (mut changed, mut has_any) = (HashSet::new(), false);
        for key in bundle.keys() {
            let (name, is_rows) = match (key.strip_suffix(KEYS), key.strip_suffix(VALUES)) {
                (Some(name), _) => (name, true),
                // They are read with their keys.
                (_, Some(name)) if bundle.has(&format!("{name}{KEYS}")) => continue,
                (_, Some(name)) if template.variables.contains_key(name) => {
                    return Err(Error::invalid(format!("it has no tensor {name}{KEYS}")));
                }
                _ => (key.as_str(), false),
            };
            if template.others.contains(name) {
                return Err(Error::invalid(format!(
                    "{name} is not simply assigned to a variable when it is restored, but put into a \
                     table or several variables, or changed before: use a full checkpoint"
                )));
            }
            let Some(parts) = template.variables.get(name) else {
                others.push(key);
                continue;
            };
            if is_rows && bundle.has(name) {
                return Err(Error::invalid(format!("{name} is there as a whole and by rows")));
            }
            let new = match is_rows {
                false => New::Whole(bundle.tensor(key)?),
                true => New::Rows {
                    indices: indices(&bundle.tensor(key)?)?,
                    values: bundle.tensor(&format!("{name}{VALUES}"))?,
                },
            };
            has_any = true;
            for (key, variable, new) in divided(name, new, parts)? {
                if !changed.insert(variable.assign.as_str()) {
                    let message = format!("{name} is there as a whole and by its parts");
                    return Err(Error::invalid(message));
                }
                changes.push(Change { key, variable, new });
            }
        }
        if !has_any {
            return Err(Error::invalid(format!(
                "it has none of the model's variables: it has {}; the model has {}",
                some(others.into_iter()),
                some(template.variables.keys())
            )));
        }
        if !others.is_empty() {
            // Such as those of optimisers.
            info!("{}: not of the model: {}", self.prefix.display(), some(others.into_iter()));
        }
        Ok(changes)
    }

    /// Applies it, between requests. Says how long they had to wait. If it fails, nothing has changed, unless
    /// what is served says that it is half-written.
    pub fn apply(&self, served: &Served) -> Result<Duration> {
        self.apply_to(served).map_err(|error| {
            let error = self.of(error);
            match served.is_half_written() {
                true => Error::new(
                    error.code,
                    format!("{}: it failed half-way, so that the full checkpoint has to be loaded again", error.message),
                ),
                false => error,
            }
        })
    }

    fn apply_to(&self, served: &Served) -> Result<Duration> {
        // What is prepared the first time is prepared now.
        let shapes = {
            let _unchanged = served.unchanged();
            let current = current(&self.changes, served.group())?;
            self.check(&current)?;
            current.iter().map(Tensor::dims).collect::<Vec<_>>()
        };
        let begun = Instant::now();
        let alone = served.exclusive()?;
        // Which can't be written where they are: others share their memory, or it is not the CPU's.
        let mut assigned = Vec::new();
        let mut written = Vec::new();
        for (change, dims) in self.changes.iter().zip(&shapes) {
            match change.write(&alone, dims, false)? {
                true => written.push((change, dims)),
                false => assigned.push(change),
            }
        }
        debug!("written in place: {}, assigned: {}", written.len(), assigned.len());
        alone.set_half_written(true);
        let done = catch_unwind(AssertUnwindSafe(|| write(&alone, &assigned, &written)));
        let (done, is_whole) = done.unwrap_or_else(|_| {
            (Err(Error::new(Code::Internal, "writing its values panicked")), false)
        });
        alone.set_half_written(!is_whole);
        done?;
        Ok(begun.elapsed())
    }

    fn check(&self, current: &[Tensor]) -> Result<()> {
        self.changes.iter().zip(current).try_for_each(|(change, current)| change.check(current))
    }
}

/// A new value by the variables that it goes into: for each, what messages call it, and its part.
fn divided<'a>(
    name: &str,
    new: New,
    parts: &'a [Part],
) -> Result<Vec<(String, &'a graph::Variable, New)>> {
    if let [Part { variable, slice: None }] = parts {
        return Ok(vec![(name.to_string(), variable, new)]);
    }
    let mut all = Vec::new();
    for Part { variable, slice } in parts {
        let Some(slice) = slice else { continue };
        if let Some(what) = new.misfit(&slice.full) {
            return Err(Error::invalid(format!("{name} {what}")));
        }
        // Of some rows, there may be none in a part.
        if let Some(part) = new.of_slice(slice)? {
            all.push((variable.name.clone(), variable, part));
        }
    }
    Ok(all)
}

/// The variables' values.
fn current<'a>(
    changes: impl IntoIterator<Item = &'a Change<'a>>,
    group: &SessionGroup,
) -> Result<Vec<Tensor>> {
    let outputs: Vec<_> = changes.into_iter().map(|change| change.variable.read.as_str()).collect();
    if outputs.is_empty() {
        return Ok(Vec::new());
    }
    group.run_request(&Request { outputs: &outputs, ..Request::default() }, None)
}

impl New {
    /// Why it is none for a variable of this shape.
    fn misfit(&self, dims: &[i64]) -> Option<String> {
        let (indices, new) = match self {
            Self::Whole(new) if new.dims() == dims => return None,
            Self::Whole(new) => {
                let own = new.dims();
                return Some(format!("has shape {own:?} in the delta, and {dims:?} in the model"));
            }
            Self::Rows { values, .. } if values.dtype().number() == TF_STRING as i32 => {
                return Some("is a variable of strings, which have no rows to change".to_string());
            }
            Self::Rows { indices, values } => (indices, values),
        };
        let Some((&rows, row)) = dims.split_first() else {
            return Some("is a scalar, which has no rows to change".to_string());
        };
        let changed = indices.len();
        let expected: Vec<i64> = [changed as i64].into_iter().chain(row.iter().copied()).collect();
        if new.dims() != expected {
            let given = new.dims();
            return Some(format!(
                "has {changed} rows to change by values of shape {given:?}, instead of {expected:?}"
            ));
        }
        let wrong = indices.iter().find(|&&index| index < 0 || index >= rows)?;
        Some(format!("has {rows} rows, and no row {wrong} to change"))
    }

    /// What of it is for a slice of the variable, which it fits; `None` where no row is.
    fn of_slice(&self, slice: &Slice) -> Result<Option<Self>> {
        let (indices, values) = match self {
            Self::Whole(new) => return slices::cut(new, slice).map(|part| Some(Self::Whole(part))),
            Self::Rows { indices, values } => (indices, values),
        };
        let (first, count) = slice.rows().unwrap_or((0, 0));
        let rows = first..first + count;
        let own: Vec<usize> = (0..indices.len()).filter(|&i| rows.contains(&indices[i])).collect();
        if own.is_empty() {
            return Ok(None);
        }
        let indices = own.iter().map(|&i| indices[i] - first).collect();
        let values = slices::cut_rows(values, &own, &slice.of_row())?;
        Ok(Some(Self::Rows { indices, values }))
    }
}

impl Change<'_> {
    fn check(&self, current: &Tensor) -> Result<()> {
        self.misfit(current)
            .map_or(Ok(()), |what| Err(Error::invalid(format!("{} {what}", self.key))))
    }

    /// Why the new value is none for a variable of this one.
    fn misfit(&self, current: &Tensor) -> Option<String> {
        let dtype = current.dtype().number();
        let (New::Whole(new) | New::Rows { values: new, .. }) = &self.new;
        if new.dtype().number() != dtype {
            let (own, models) = (proto_name(new.dtype().number()), proto_name(dtype));
            return Some(format!("is {own} in the delta, and {models} in the model"));
        }
        self.new.misfit(&current.dims())
    }

    /// Writes the new value over that of the variable, where it is; `false` where that can't be. Without
    /// `really`, only says whether it could.
    fn write(&self, alone: &ExclusiveAccess<'_>, dims: &[i64], really: bool) -> Result<bool> {
        let Some((container, name)) = &self.variable.resource else { return Ok(false) };
        let (New::Whole(new) | New::Rows { values: new, .. }) = &self.new;
        let variable = Variable { container, name, dtype: new.dtype(), dims };
        #[cfg(test)]
        faults::meet(really)?;
        alone.group.write_variable(&variable, |bytes| {
            if really {
                self.overwrite(bytes, dims);
            }
        })
    }

    /// Writes the new values, which have been checked, over those of a variable of these dimensions.
    fn overwrite(&self, bytes: &mut [u8], dims: &[i64]) {
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
            New::Whole(new) if new.dtype().number() == TF_STRING as i32 => {
                Tensor::from_strings(&new.dims(), &new.strings()?)
            }
            New::Whole(new) => Tensor::from_bytes(new.dtype().number(), &new.dims(), new.bytes()),
            New::Rows { .. } => {
                let dims = current.dims();
                Tensor::from_fill(current.dtype().number(), &dims, |bytes| {
                    bytes.copy_from_slice(current.bytes());
                    self.overwrite(bytes, &dims);
                })
            }
        }
    }
}

/// Writes all, what has to be assigned first. Also says whether the variables have all or none of it.
fn write(
    alone: &ExclusiveAccess<'_>,
    assigned: &[&Change<'_>],
    in_place: &[(&Change<'_>, &Vec<i64>)],
) -> (Result<()>, bool) {
    let (done, is_whole) = assign(alone, assigned);
    if done.is_err() {
        return (done, is_whole);
    }
    let mut all = in_place.iter().map(|(change, dims)| match change.write(alone, dims, true)? {
        true => Ok(()),
        false => assign(alone, &[*change]).0,
    });
    let done = all.try_for_each(|one| one);
    let is_whole = done.is_ok();
    (done, is_whole)
}

/// Gives variables whose memory can't be written to new values. Also says whether all or none have them.
fn assign(alone: &ExclusiveAccess<'_>, changes: &[&Change<'_>]) -> (Result<()>, bool) {
    if changes.is_empty() {
        return (Ok(()), true);
    }
    let (new, old) = match values(alone, changes) {
        Ok(values) => values,
        Err(error) => return (Err(error), true),
    };
    let targets: Vec<_> = changes.iter().map(|change| change.variable.assign.as_str()).collect();
    let run = |values: &[Tensor]| {
        let names = changes.iter().map(|change| change.variable.value.as_str());
        let inputs: Vec<_> = names.zip(values).collect();
        let request = Request { inputs: &inputs, targets: &targets, ..Request::default() };
        alone.group.run_request(&request, None).map(drop)
    };
    match run(&new) {
        Ok(()) => (Ok(()), true),
        // Some of them may be assigned.
        Err(error) => (Err(error), run(&old).is_ok()),
    }
}

/// The new values of variables, and the old ones.
fn values(
    alone: &ExclusiveAccess<'_>,
    changes: &[&Change<'_>],
) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let old = current(changes.iter().copied(), alone.group)?;
    let new = changes.iter().zip(&old).map(|(change, old)| {
        change.check(old)?;
        change.whole(old)
    });
    Ok((new.collect::<Result<_>>()?, old))
}

fn indices(keys: &Tensor) -> Result<Vec<i64>> {
    if keys.dims().len() != 1 {
        return Err(Error::invalid(format!(
            "{KEYS} has shape {:?}, not one dimension",
            keys.dims()
        )));
    }
    match keys.dtype().number() {
        dtype if dtype == TF_INT64 as i32 => keys.to_vec(),
        dtype if dtype == TF_INT32 as i32 => {
            Ok(keys.to_vec::<i32>()?.into_iter().map(i64::from).collect())
        }
        _ => Err(Error::invalid(format!(
            "{KEYS} is {}, not DT_INT64",
            proto_name(keys.dtype().number())
        ))),
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

/// Failures of writing, which nothing else can cause on purpose.
#[cfg(test)]
pub mod faults {
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

    use session_group::{Code, Error, Result};

    /// How many writes succeed before all fail; negative: all succeed.
    pub static LEFT: AtomicI64 = AtomicI64::new(-1);
    /// Whether they panic.
    pub static PANICS: AtomicBool = AtomicBool::new(false);

    pub fn meet(really: bool) -> Result<()> {
        let left = LEFT.load(Relaxed);
        if !really || left < 0 {
            return Ok(());
        }
        if left == 0 {
            assert!(!PANICS.load(Relaxed), "a panic on purpose");
            return Err(Error::new(Code::ResourceExhausted, "a failure on purpose"));
        }
        LEFT.store(left - 1, Relaxed);
        Ok(())
    }
}

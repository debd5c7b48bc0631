//! How batches are made: TensorFlow Serving's parameters, checked.

use std::path::Path;
use std::time::Duration;

use session_group::{Error, Result};

use crate::proto::serving::BatchingParameters;

/// How large batches get, and how long a batch waits for more requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a request.
    pub max_request: usize,
    /// Rows of a batch.
    pub max_batch: usize,
    /// Whether a request may be spread over batches.
    pub splits: bool,
    pub timeout: Duration,
    pub max_enqueued: usize,
    pub allowed: Vec<usize>,
    pub pads: bool,
}

impl Batching {
    pub fn new(parameters: &BatchingParameters) -> Result<Self> {
        const DEFAULT_SIZE: i64 = 1000;
        let max_batch_size = parameters.max_batch_size.unwrap_or(DEFAULT_SIZE);
        let splits = parameters.enable_large_batch_splitting.unwrap_or(false);
        let (max_batch, limit) = match splits {
            false => (max_batch_size, "max_batch_size"),
            true => (
                parameters.max_execution_batch_size.unwrap_or(DEFAULT_SIZE),
                "max_execution_batch_size",
            ),
        };
        let timeout = parameters.batch_timeout_micros.unwrap_or(0);
        let max_enqueued = parameters.max_enqueued_batches.unwrap_or(10);
        for (name, value, least) in [
            ("max_batch_size must be positive", max_batch_size, 1),
            ("max_execution_batch_size must be positive", max_batch, 1),
            ("batch_timeout_micros must be non-negative", timeout, 0),
            ("max_enqueued_batches must be non-negative", max_enqueued, 0),
        ] {
            if value < least {
                return Err(Error::invalid(format!("{name}; was {value}")));
            }
        }
        if max_batch > max_batch_size {
            return Err(Error::invalid(format!(
                "max_batch_size is {max_batch_size}, but must be greater than or equal to max_execution_batch_size, \
                 which is {max_batch}"
            )));
        }
        let allowed = &parameters.allowed_batch_sizes;
        if let Some(&last) = allowed.last().filter(|&&last| last != max_batch) {
            return Err(Error::invalid(format!(
                "Last entry in allowed_batch_sizes must match {limit}; last entry was {last}; expected {max_batch}"
            )));
        }
        if let Some(wrong) = allowed.iter().find(|&&size| size < 1) {
            return Err(Error::invalid(format!(
                "allowed_batch_sizes has {wrong}, which is below 1"
            )));
        }
        Ok(Self {
            max_request: max_batch_size as usize,
            max_batch: max_batch as usize,
            splits,
            timeout: Duration::from_micros(timeout as u64),
            // Enough for one request.
            max_enqueued: (max_enqueued as usize)
                .max((max_batch_size as usize).div_ceil(max_batch as usize)),
            allowed: allowed.iter().map(|&size| size as usize).collect(),
            pads: parameters.pad_variable_length_inputs,
        })
    }

    /// The version's own parameters, if its folder has them.
    pub fn of_version(path: &Path) -> Result<Option<Self>> {
        let file = path.join("batching_params.pbtxt");
        match file.exists() {
            false => Ok(None),
            true => crate::proto::read_text(&file, "tensorflow.serving.BatchingParameters")
                .and_then(|parameters| Self::new(&parameters))
                .map(Some),
        }
    }

    /// How many rows a batch of `rows` runs with: the next allowed size.
    pub fn rounded(&self, rows: usize) -> usize {
        self.allowed.iter().copied().find(|&size| size >= rows).unwrap_or(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(change: impl FnOnce(&mut BatchingParameters)) -> std::result::Result<Batching, String> {
        let mut parameters = BatchingParameters { max_batch_size: Some(8), ..Default::default() };
        change(&mut parameters);
        Batching::new(&parameters).map_err(|error| error.message)
    }

    #[test]
    fn requests_are_split_where_asked_for() {
        let whole = new(|_| {}).unwrap();
        assert_eq!((whole.max_request, whole.max_batch, whole.splits), (8, 8, false));
        // Without splitting, it is not looked at.
        let same = new(|parameters| parameters.max_execution_batch_size = Some(3)).unwrap();
        assert_eq!(same, whole);
        let split = |most, allowed: &[i64]| {
            new(|parameters| {
                parameters.enable_large_batch_splitting = Some(true);
                parameters.max_execution_batch_size = Some(most);
                parameters.max_enqueued_batches = Some(1);
                parameters.allowed_batch_sizes = allowed.to_vec();
            })
        };
        let three = split(3, &[1, 3]).unwrap();
        assert_eq!((three.max_request, three.max_batch, three.max_enqueued), (8, 3, 3));
        assert!(split(9, &[]).unwrap_err().contains("max_batch_size is 8, but must be greater"));
        assert!(split(0, &[]).unwrap_err().contains("max_execution_batch_size must be positive"));
        let message = split(3, &[8]).unwrap_err();
        assert!(
            message.contains("must match max_execution_batch_size; last entry was 8; expected 3")
        );
    }
}

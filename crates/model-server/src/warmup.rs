//! Requests that come with a version, to run before it serves.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use prost::Message;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};
use session_group_serving::checksum::masked;
use session_group_serving::operations::lacking;
use session_group_serving::signature::{default_input, tensor_name, zeros};
use tracing::{info, warn};

use crate::examples::{classify, multi_inference, regress};
use crate::predict::{ResponseFormat, predict};
use crate::proto::serving::PredictionLog;
use crate::proto::serving::prediction_log::LogType;
use crate::servable::Servable;
use crate::turns::at_once;

/// Where they are, in a version's folder.
const FILE: &str = "assets.extra/tf_serving_warmup_requests";
const MOST_RECORDS: usize = 1000;

/// Runs them on each session, `iterations` times. Says how many there are.
pub fn warm_up(
    servable: &Servable,
    folder: &Path,
    iterations: u32,
    format: ResponseFormat,
) -> Result<usize> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(0);
    }
    let file = File::open(&path)
        .map_err(|error| Error::new(Code::Internal, format!("{}: {error}", path.display())))?;
    let mut records = Records(BufReader::new(file));
    let mut number = 0;
    while let Some(record) = records.next().map_err(|what| {
        let message = format!(
            "{what} in {}. Please verify your warmup data is in TFRecord format.",
            path.display()
        );
        Error::new(Code::DataLoss, message)
    })? {
        number += 1;
        if number > MOST_RECORDS {
            return Err(Error::invalid(format!(
                "Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {}",
                path.display()
            )));
        }
        let log = PredictionLog::decode(record.as_slice()).map_err(|error| {
            Error::invalid(format!(
                "Failed to parse warmup record: number {number} from {}: {error}",
                path.display()
            ))
        })?;
        for _ in 0..iterations.max(1) {
            run(servable, log.clone(), format).map_err(|error| {
                let message = format!("warm-up request {number}: {}", error.message);
                Error::new(error.code, message)
            })?;
        }
    }
    Ok(number)
}

/// Asks a version for an answer to a request of zeros, so that what is wrong with it shows before it serves. The
/// request is made up, so that a failure only goes to the log, unless it would be that of any request.
pub fn ask(servable: &Servable) -> Result<()> {
    let (name, version) = (&servable.name, servable.version);
    match made_up(servable)
        .and_then(|(inputs, outputs)| at_once(servable.run(inputs, &outputs, false, None)))
    {
        Ok(_) => info!("model {name} version {version}: answers a request of zeros"),
        Err(error) if lacking(&error).is_some() => return Err(error),
        Err(error) => warn!(
            "model {name} version {version} does not answer a request of zeros, which may not fit it: {error}; \
             put requests that do into {FILE}"
        ),
    }
    Ok(())
}

/// Tensors by name, and names of tensors.
type FeedsAndFetches<'a> = (Vec<(&'a str, Tensor)>, Vec<&'a str>);

/// A request to the default signature, or to the first there is.
fn made_up(servable: &Servable) -> Result<FeedsAndFetches<'_>> {
    let signatures = &servable.signatures;
    let signature = servable.signature("").1.or_else(|| signatures.values().next());
    let signature = signature.ok_or_else(|| Error::invalid("it has no signature"))?;
    let input = |(alias, info): (&String, _)| -> Result<_> {
        let default = default_input(signature, alias);
        Ok((tensor_name(info)?, default.unwrap_or_else(|| zeros(info))?))
    };
    let inputs = signature.inputs.iter().map(input).collect::<Result<_>>()?;
    let outputs = signature.outputs.values().map(tensor_name).collect::<Result<_>>()?;
    Ok((inputs, outputs))
}

fn run(servable: &Servable, log: PredictionLog, format: ResponseFormat) -> Result<()> {
    match log.log_type {
        Some(LogType::PredictLog(log)) => {
            at_once(predict(servable, log.request.unwrap_or_default(), None, format)).map(drop)
        }
        Some(LogType::ClassifyLog(log)) => {
            at_once(classify(servable, log.request.unwrap_or_default(), None, format)).map(drop)
        }
        Some(LogType::RegressLog(log)) => {
            at_once(regress(servable, log.request.unwrap_or_default(), None, format)).map(drop)
        }
        Some(LogType::MultiInferenceLog(log)) => {
            // They may be of a model of another name.
            let mut request = log.request.unwrap_or_default();
            for task in &mut request.tasks {
                task.model_spec.get_or_insert_default().name = servable.name.clone();
            }
            at_once(multi_inference(servable, request, None, format)).map(drop)
        }
        Some(LogType::SessionRunLog(_)) => unsupported("session_run_log"),
        Some(LogType::PredictStreamedLog(_)) => unsupported("predict_streamed_log"),
        None => Ok(()),
    }
}

fn unsupported(log: &str) -> Result<()> {
    Err(Error::new(Code::Unimplemented, format!("Unsupported log_type for warmup: {log}")))
}

/// A TFRecord file: for each record its length (8 bytes), a checksum of that (4), its bytes, and a
/// checksum of these (4).
struct Records<R>(R);

impl<R: Read> Records<R> {
    fn next(&mut self) -> std::result::Result<Option<Vec<u8>>, String> {
        let mut length = [0; 8];
        let got = read_up_to(&mut self.0, &mut length)?;
        if got == 0 {
            return Ok(None);
        }
        if got < length.len() {
            return Err("truncated record".to_string());
        }
        self.check(&length)?;
        let size = u64::from_le_bytes(length);
        let mut record = Vec::new();
        let read = (&mut self.0).take(size).read_to_end(&mut record);
        if read.map_err(|error| error.to_string())? as u64 != size {
            return Err("truncated record".to_string());
        }
        self.check(&record)?;
        Ok(Some(record))
    }

    fn check(&mut self, bytes: &[u8]) -> std::result::Result<(), String> {
        let mut stored = [0; 4];
        if read_up_to(&mut self.0, &mut stored)? < stored.len() {
            return Err("truncated record".to_string());
        }
        match u32::from_le_bytes(stored) == masked(crc32c::crc32c(bytes)) {
            true => Ok(()),
            false => Err("corrupted record".to_string()),
        }
    }
}

/// As many bytes as there are.
fn read_up_to(from: &mut impl Read, mut to: &mut [u8]) -> std::result::Result<usize, String> {
    let all = to.len();
    while !to.is_empty() {
        match from.read(to).map_err(|error| error.to_string())? {
            0 => break,
            n => to = &mut to[n..],
        }
    }
    Ok(all - to.len())
}

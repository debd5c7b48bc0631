//! The request that each session runs before a version serves.

use std::fs;
use std::path::Path;

use session_group::{Code, Error, Result};

use crate::predict::Step;
use crate::served::Served;
use crate::template::Template;

/// What to run.
pub struct WarmUp {
    signature: String,
    /// A serialised `PredictRequest`, and where it came from.
    request: Option<(String, Vec<u8>)>,
}

impl WarmUp {
    /// By the file, or else by what the signature takes.
    pub fn new(signature: &str, file: Option<&Path>) -> Result<Self> {
        let read = |file: &Path| {
            let name = file.display().to_string();
            match fs::read(file) {
                Ok(bytes) => Ok((name, bytes)),
                Err(error) => {
                    Err(Error::new(Code::NotFound, format!("warmup_file_name: {name}: {error}")))
                }
            }
        };
        Ok(Self { signature: signature.to_string(), request: file.map(read).transpose()? })
    }

    /// Runs it once on each session.
    pub fn run(&self, template: &Template, served: &Served) -> Result<()> {
        let (what, step) = match &self.request {
            Some((file, bytes)) => (file.as_str(), Step::parse(template, &self.signature, bytes)),
            None => (
                "with zeros and empty strings, for want of a warmup_file_name",
                Step::zeros(template, &self.signature),
            ),
        };
        step.and_then(|step| served.warm_up(&step)).map_err(|error| {
            Error::new(error.code, format!("warming up, {what}: {}", error.message))
        })
    }
}

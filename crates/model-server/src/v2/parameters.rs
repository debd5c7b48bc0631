//! What the parameters of requests, inputs and outputs mean. Those that would change the answer are refused if this
//! server does not have what they ask for; others are ignored, as clients expect.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use session_group::{Code, Error, Result};

use crate::proto::inference::InferParameter;
use crate::proto::inference::infer_parameter::ParameterChoice;

#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
}

#[derive(Debug, Default)]
pub struct Parameters(pub BTreeMap<String, Parameter>);

/// What those of a request ask for.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    /// Empty for the default signature.
    pub signature_name: String,
    pub timeout: Option<Duration>,
    /// Whether outputs come as bytes that say nothing about it themselves.
    pub binary_output: bool,
}

impl Asked {
    /// Until when a request that begins then is to be answered, by its own timeout and by its client.
    pub fn deadline(&self, begun: Instant, of_client: Option<Instant>) -> Option<Instant> {
        let own = self.timeout.and_then(|timeout| begun.checked_add(timeout));
        own.into_iter().chain(of_client).min()
    }
}

impl Parameters {
    pub fn of_message(message: BTreeMap<String, InferParameter>) -> Self {
        let read = |(name, value): (String, InferParameter)| {
            let value = match value.parameter_choice? {
                ParameterChoice::BoolParam(value) => Parameter::Bool(value),
                ParameterChoice::Int64Param(value) => Parameter::Integer(value.into()),
                ParameterChoice::Uint64Param(value) => Parameter::Integer(value.into()),
                ParameterChoice::DoubleParam(value) => Parameter::Float(value),
                ParameterChoice::StringParam(value) => Parameter::Text(value),
            };
            Some((name, value))
        };
        Self(message.into_iter().filter_map(read).collect())
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Parameter::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(Error::invalid(format!("parameter {name} must be true or false"))),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let wrong =
            || Error::invalid(format!("parameter {name} must be a whole number, 0 or more"));
        match self.0.get(name) {
            None => Ok(None),
            Some(Parameter::Integer(value)) => (*value).try_into().map(Some).map_err(|_| wrong()),
            Some(_) => Err(wrong()),
        }
    }

    /// Of a request.
    pub fn asked(&self) -> Result<Asked> {
        for name in ["sequence_id", "sequence_start", "sequence_end"] {
            self.refuse(name, "sequences of requests: send each request by itself")?;
        }
        let signature_name = match self.0.get("signature_name") {
            None => String::new(),
            Some(Parameter::Text(name)) => name.clone(),
            Some(_) => return Err(Error::invalid("parameter signature_name must be a string")),
        };
        let micros = self.number("timeout")?.filter(|&micros| micros > 0);
        Ok(Asked {
            signature_name,
            timeout: micros.map(Duration::from_micros),
            binary_output: self.flag("binary_data_output")?.unwrap_or(false),
        })
    }

    /// Of an input.
    pub fn check_input(&self) -> Result<()> {
        self.refuse("shared_memory_region", SHARED_MEMORY)
    }

    /// Of an output.
    pub fn check_output(&self) -> Result<()> {
        self.refuse("shared_memory_region", SHARED_MEMORY)?;
        self.refuse("classification", "classifications: ask for the output itself")
    }

    /// Refuses a parameter that asks for something.
    fn refuse(&self, name: &str, what: &str) -> Result<()> {
        match self.0.get(name) {
            None | Some(Parameter::Bool(false) | Parameter::Integer(0)) => Ok(()),
            Some(Parameter::Text(text)) if text.is_empty() => Ok(()),
            Some(_) => Err(Error::new(
                Code::Unimplemented,
                format!("parameter {name}: this server has no {what}"),
            )),
        }
    }
}

pub const SHARED_MEMORY: &str = "shared memory: send tensors in the request";

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(list: &[(&str, Parameter)]) -> Parameters {
        Parameters(list.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
    }

    #[test]
    fn parameters_that_ask_for_what_there_is_not_are_refused() {
        use Parameter::{Bool, Integer, Text};
        let nothing =
            [("sequence_id", Integer(0)), ("sequence_start", Bool(false)), ("mine", Bool(true))];
        assert_eq!(parameters(&nothing).asked(), Ok(Asked::default()));
        for (name, value) in [
            ("sequence_id", Integer(7)),
            ("sequence_id", Text("a".into())),
            ("sequence_end", Bool(true)),
            ("timeout", Integer(-1)),
            ("timeout", Text("1".into())),
            ("signature_name", Integer(1)),
            ("binary_data_output", Integer(1)),
        ] {
            let message = parameters(&[(name, value)]).asked().unwrap_err().message;
            assert!(message.contains(name), "{message}");
        }
        let all = [
            ("timeout", Integer(1_500_000)),
            ("signature_name", Text("s".into())),
            ("binary_data_output", Bool(true)),
        ];
        let asked = parameters(&all).asked().unwrap();
        assert_eq!((asked.timeout, asked.binary_output), (Some(Duration::from_millis(1500)), true));
        assert_eq!(asked.signature_name, "s");
        assert_eq!(parameters(&[("timeout", Integer(0))]).asked().unwrap().timeout, None);
        let shared = parameters(&[("shared_memory_region", Text("r".into()))]);
        assert!(shared.check_input().is_err() && shared.check_output().is_err());
        assert!(parameters(&[("classification", Integer(3))]).check_output().is_err());
    }
}

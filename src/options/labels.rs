//! What a group is called beside its number, by whoever makes it.

use std::fmt::Write;

use crate::error::{Error, Result};

/// Names and values, as labels of Prometheus: the metrics have them, and the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<(String, String)>);

impl Labels {
    pub fn new(labels: &[(&str, &str)]) -> Result<Self> {
        /// Those that the metrics have of themselves.
        const TAKEN: [&str; 9] = [
            "group",
            "session",
            "code",
            "way",
            "le",
            "gpu",
            "virtual_device",
            "stream_group",
            "leader",
        ];
        for (i, (name, _)) in labels.iter().enumerate() {
            let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
            let is_name = name.starts_with(is_letter)
                && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
            if !is_name {
                return Err(Error::invalid(format!(
                    "the label {name:?} is no name: use letters, digits and underscores"
                )));
            }
            if TAKEN.contains(name) || labels[..i].iter().any(|(other, _)| other == name) {
                return Err(Error::invalid(format!(
                    "the label {name:?} is taken: choose another name"
                )));
            }
        }
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Ok(Self(labels.iter().map(owned).collect()))
    }

    /// For a sample that has other labels before these.
    pub fn of_sample(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(text, ",{name}=\"{value}\"");
        }
        text
    }

    /// For the log, after the group's number.
    pub fn of_line(&self) -> String {
        match self.0.is_empty() {
            true => String::new(),
            false => {
                let all = self.0.iter().map(|(name, value)| format!("{name} {value}"));
                format!(" ({})", all.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_written_as_prometheus_and_people_read_them() {
        assert_eq!(Labels::default().of_sample() + &Labels::default().of_line(), "");
        let labels = Labels::new(&[("model_name", "a\"b\\c\nd"), ("version", "7")]).unwrap();
        assert_eq!(labels.of_sample(), r#",model_name="a\"b\\c\nd",version="7""#);
        let labels = Labels::new(&[("model_name", "ranker"), ("version", "7")]).unwrap();
        assert_eq!(labels.of_line(), " (model_name ranker, version 7)");
    }

    #[test]
    fn names_that_make_no_label_are_refused() {
        for wrong in ["", "7", "a-b", "ä", "session", "le"] {
            assert!(Labels::new(&[(wrong, "x")]).is_err(), "{wrong}");
        }
        assert!(Labels::new(&[("a", "x"), ("a", "y")]).is_err());
    }
}

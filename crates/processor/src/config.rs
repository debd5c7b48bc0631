//! `model_config`, the JSON text that a processor is made from.

use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use serde::Deserialize;
use serde_aux::prelude::serde_introspect;
use serde_json::{Map, Value};
use session_group::execution::Execution;
use session_group::policy::Policy;
use session_group::tensorflow::SessionOptions;
use session_group::{Code, Error, Options, Result};
use session_group_serving::sessions::{self, GroupSettings};
use session_group_serving::signature::DEFAULT_SIGNATURE;
use session_group_serving::text::beginning;
use session_group_serving::timeline::{TraceSchedule, TraceSettings};
use tracing::warn;

/// The text, key by key; docs/processor.md explains each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    session_num: Option<usize>,
    select_session_policy: Option<String>,
    execution: Option<String>,
    use_per_session_threads: Option<bool>,
    cpusets: Option<String>,
    gpu_ids_list: Option<Value>,
    use_multi_stream: Option<bool>,
    enable_inline_execute: Option<bool>,
    inter_op_parallelism_threads: Option<i32>,
    intra_op_parallelism_threads: Option<i32>,
    init_timeout_minutes: Option<i64>,
    drain_timeout_ms: Option<u64>,
    signature_name: Option<String>,
    serialize_protocol: Option<String>,
    savedmodel_dir: Option<PathBuf>,
    checkpoint_dir: Option<PathBuf>,
    checkpoint_poll_interval_ms: Option<u64>,
    model_store_type: Option<String>,
    feature_store_type: Option<String>,
    warmup_file_name: Option<String>,
    custom_op_libraries: Option<Vec<PathBuf>>,
    timeline_start_step: Option<i64>,
    timeline_interval_step: Option<i64>,
    timeline_trace_count: Option<i64>,
    timeline_path: Option<PathBuf>,
    shard_embedding: Option<bool>,
    ev_storage_type: Option<i64>,
    // Accepted without effect.
    use_per_session_stream: Option<Value>,
    omp_num_threads: Option<Value>,
    kmp_blocktime: Option<Value>,
    model_update_inter_threads: Option<Value>,
    model_update_intra_threads: Option<Value>,
    read_thread_num: Option<Value>,
    update_thread_num: Option<Value>,
    lock_timeout: Option<Value>,
    redis_url: Option<Value>,
    redis_password: Option<Value>,
    oss_endpoint: Option<Value>,
    oss_access_id: Option<Value>,
    oss_access_key: Option<Value>,
    embedding_names: Option<Value>,
    shard_instance_count: Option<Value>,
    id_type: Option<Value>,
    ev_storage_path: Option<Value>,
    ev_storage_size: Option<Value>,
}

/// A processor's configuration.
#[derive(Debug)]
pub struct Config {
    pub savedmodel_dir: PathBuf,
    /// Where full checkpoints and deltas appear; without it, the SavedModel's variables stay.
    pub checkpoint_dir: Option<PathBuf>,
    /// Between looks for checkpoints.
    pub poll: Duration,
    /// How long to wait for the first of them.
    pub init_timeout: Duration,
    /// How long session_group_processor_destroy() lets requests finish.
    pub drain: Duration,
    /// The signature of requests that name none.
    pub signature_name: String,
    pub warmup_file_name: Option<String>,
    /// Loaded before the model.
    pub custom_op_libraries: Vec<PathBuf>,
    pub timelines: Option<TraceSchedule>,
    pub sessions: Sessions,
}

/// The sessions of each of its groups.
#[derive(Debug)]
pub struct Sessions {
    group: GroupSettings,
    inter_op_threads: i32,
    intra_op_threads: i32,
}

const DEFAULT_POLL: Duration = Duration::from_secs(10);
/// The default that DeepRec documents.
const DEFAULT_INIT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

impl Config {
    /// Reads the text. `schedulable_cpus` is the environment variable of that name.
    pub fn parse(text: &str, schedulable_cpus: Option<&str>) -> Result<Self> {
        let json = without_comments(text)?;
        let value: Value = serde_json::from_str(&json).map_err(|error| {
            Error::invalid(format!("model_config is not JSON: {error}: {:?}", beginning(text, 80)))
        })?;
        let Value::Object(object) = value else {
            return Err(wrong("is not an object: give {\"savedmodel_dir\": \"...\"}"));
        };
        check_keys(&object)?;
        let text: Text = serde_path_to_error::deserialize(Value::Object(object))
            .map_err(|error| wrong(format!("{}: {}", error.path(), error.inner())))?;
        text.check_stores()?;
        text.warn_of_keys_without_effect();
        text.config(schedulable_cpus)
    }
}

/// JSON with blanks for comments, of C's or of C++'s kind, which DeepRec's parser takes. All else stays where
/// it is, so that messages about it name the right place.
fn without_comments(text: &str) -> Result<String> {
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_comment = rest.starts_with("//") || rest.starts_with("/*");
        let length = match c {
            '"' => string_length(rest),
            '/' if rest.starts_with("//") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            '/' if is_comment => match rest[2..].find("*/") {
                Some(end) => 2 + end + 2,
                None => {
                    let line = json.matches('\n').count() + 1;
                    return Err(wrong(format!(
                        "has a comment that begins in line {line} and does not end: end it with */"
                    )));
                }
            },
            _ => c.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        match is_comment {
            true => json.extend(part.bytes().map(|byte| match byte {
                b'\n' => '\n',
                _ => ' ',
            })),
            false => json.push_str(part),
        }
        rest = after;
    }
    Ok(json)
}

/// Of the string that a text begins with, quotes included; of all of it where the string does not end.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// Refuses unknown keys, because most of them are misspelt.
fn check_keys(object: &Map<String, Value>) -> Result<()> {
    let known = serde_introspect::<Text>();
    let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let nearest = known
        .iter()
        .map(|&known| (strsim::jaro_winkler(unknown, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Err(wrong(match nearest {
        Some((likeness, known)) if likeness > 0.8 => {
            format!("has an unknown key {unknown:?}: did you mean {known:?}?")
        }
        _ => format!("has an unknown key {unknown:?}: known are {}", known.join(", ")),
    }))
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("model_config {what}"))
}

fn deeprec_alone(what: impl std::fmt::Display) -> Error {
    Error::new(
        Code::Unimplemented,
        format!("model_config {what}, which only DeepRec's own TensorFlow has"),
    )
}

impl Text {
    /// Refuses what needs services and kernels that stock TensorFlow lacks.
    fn check_stores(&self) -> Result<()> {
        match self.serialize_protocol.as_deref() {
            None | Some("protobuf") => {}
            Some(other) => {
                return Err(wrong(format!("serialize_protocol is {other:?}: use \"protobuf\"")));
            }
        }
        match self.model_store_type.as_deref() {
            None | Some("local") => {}
            Some(other @ ("oss" | "hdfs")) => {
                return Err(deeprec_alone(format!(
                    "asks for the model store {other:?}: mount it, or copy models to a local \
                     folder, and use \"local\" instead of a store"
                )));
            }
            Some(other) => {
                return Err(wrong(format!("model_store_type is {other:?}: use \"local\"")));
            }
        }
        match self.feature_store_type.as_deref() {
            None | Some("local" | "memory") => {}
            Some(other @ ("redis" | "cluster_redis")) => {
                return Err(deeprec_alone(format!(
                    "asks for the feature store {other:?}: use \"local\", with all embeddings as \
                     variables in memory, instead of a store"
                )));
            }
            Some(other) => {
                return Err(wrong(format!("feature_store_type is {other:?}: use \"local\"")));
            }
        }
        if self.shard_embedding == Some(true) {
            return Err(deeprec_alone("asks for shard_embedding, sharded EmbeddingVariables"));
        }
        if self.ev_storage_type.is_some_and(|storage| storage != 0) {
            return Err(deeprec_alone("asks for ev_storage_type, storage of EmbeddingVariables"));
        }
        let paths = [
            ("savedmodel_dir", &self.savedmodel_dir),
            ("checkpoint_dir", &self.checkpoint_dir),
            ("timeline_path", &self.timeline_path),
        ];
        for (key, path) in paths {
            if path.as_ref().is_some_and(|path| path.to_string_lossy().contains("://")) {
                return Err(deeprec_alone(format!(
                    "has a {key} in a remote store: use a local folder instead of a store"
                )));
            }
        }
        Ok(())
    }

    fn warn_of_keys_without_effect(&self) {
        let reasons = [
            (
                "TensorFlow's wheel has no OpenMP",
                vec![
                    ("omp_num_threads", &self.omp_num_threads),
                    ("kmp_blocktime", &self.kmp_blocktime),
                ],
            ),
            (
                "updates run on a thread of their own, not on those of sessions",
                vec![
                    ("model_update_inter_threads", &self.model_update_inter_threads),
                    ("model_update_intra_threads", &self.model_update_intra_threads),
                ],
            ),
            (
                "all variables are in memory, and models in local folders",
                vec![
                    ("read_thread_num", &self.read_thread_num),
                    ("update_thread_num", &self.update_thread_num),
                    ("lock_timeout", &self.lock_timeout),
                    ("redis_url", &self.redis_url),
                    ("redis_password", &self.redis_password),
                    ("oss_endpoint", &self.oss_endpoint),
                    ("oss_access_id", &self.oss_access_id),
                    ("oss_access_key", &self.oss_access_key),
                ],
            ),
            (
                "stock TensorFlow has no EmbeddingVariables",
                vec![
                    ("embedding_names", &self.embedding_names),
                    ("shard_instance_count", &self.shard_instance_count),
                    ("id_type", &self.id_type),
                    ("ev_storage_path", &self.ev_storage_path),
                    ("ev_storage_size", &self.ev_storage_size),
                ],
            ),
            (
                "use_multi_stream gives each session a stream",
                vec![("use_per_session_stream", &self.use_per_session_stream)],
            ),
        ];
        for (why, keys) in reasons {
            let given: Vec<_> =
                keys.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| *key).collect();
            if !given.is_empty() {
                warn!("model_config: {} has no effect: {why}", given.join(", "));
            }
        }
    }

    fn config(self, schedulable_cpus: Option<&str>) -> Result<Config> {
        let timelines = self.timelines()?;
        let named = |name: Option<String>, key: &str| match name {
            Some(name) if name.is_empty() => {
                Err(wrong(format!("has an empty {key}: give a value, or leave it out")))
            }
            name => Ok(name),
        };
        let signature_name = named(self.signature_name.clone(), "signature_name")?;
        let warmup_file_name = self.warmup_file_name.clone().filter(|name| !name.is_empty());
        let poll = match self.checkpoint_poll_interval_ms {
            Some(0) => return Err(wrong("checkpoint_poll_interval_ms is 0: use 1 or more")),
            interval => interval.map_or(DEFAULT_POLL, Duration::from_millis),
        };
        // DeepRec ignores it and waits without end.
        let init_timeout = match self.init_timeout_minutes {
            Some(minutes @ 0..) => Duration::from_secs(minutes.min(1 << 20) as u64 * 60),
            _ => DEFAULT_INIT_TIMEOUT,
        };
        let sessions = self.sessions(schedulable_cpus)?;
        let present = |path: &PathBuf| !path.as_os_str().is_empty();
        Ok(Config {
            savedmodel_dir: self.savedmodel_dir.filter(present).ok_or_else(|| {
                wrong("has no savedmodel_dir: give the folder that holds saved_model.pb")
            })?,
            checkpoint_dir: self.checkpoint_dir.filter(present),
            poll,
            init_timeout,
            drain: self.drain_timeout_ms.map_or(DEFAULT_DRAIN, Duration::from_millis),
            signature_name: signature_name.unwrap_or_else(|| DEFAULT_SIGNATURE.to_string()),
            warmup_file_name,
            custom_op_libraries: self.custom_op_libraries.unwrap_or_default(),
            timelines,
            sessions,
        })
    }

    fn sessions(&self, schedulable_cpus: Option<&str>) -> Result<Sessions> {
        let default_threads = match schedulable_cpus {
            None => 0,
            Some(cpus) => match cpus.trim().parse::<i32>() {
                Ok(cpus @ 1..) => (cpus / 2).max(1),
                _ => {
                    return Err(Error::invalid(format!(
                        "SCHEDULABLE_CPUS is {cpus:?} in the environment: set it to a number of \
                         CPUs, or unset it"
                    )));
                }
            },
        };
        let threads = |given: Option<i32>, key: &str| match given {
            Some(threads) if threads < 0 => {
                Err(wrong(format!("{key} is {threads}: use 0, for as many as fit, or more")))
            }
            threads => Ok(threads.unwrap_or(default_threads)),
        };
        if self.use_per_session_threads == Some(false) && self.session_num.unwrap_or(1) > 1 {
            warn!(
                "model_config: use_per_session_threads=false has no effect: each session has threads of its own"
            );
        }
        let execution = match (&self.execution, self.enable_inline_execute) {
            (Some(execution), _) => execution.parse().map_err(|error: Error| {
                wrong(format!("execution is {execution:?}: {}", error.message))
            })?,
            (None, Some(true)) => Execution::Caller,
            (None, _) => Execution::Auto,
        };
        let policy = match self.select_session_policy.as_deref() {
            None | Some("MOD") => Policy::Thread,
            Some("RR") => Policy::RoundRobin,
            Some(other) => other.parse().map_err(|error: Error| {
                wrong(format!(
                    "select_session_policy is {other:?}: use \"MOD\", \"RR\" or one of ours: {}",
                    error.message
                ))
            })?,
        };
        Ok(Sessions {
            group: GroupSettings {
                session_num: Some(self.session_num.unwrap_or(1)),
                cpuset: self.cpusets.clone().filter(|cpusets| !cpusets.is_empty()),
                policy: Some(policy),
                execution: Some(execution),
                kernels: None,
                multi_stream: self.use_multi_stream == Some(true),
                gpu_ids: self.gpu_ids_list.as_ref().map(gpu_ids).transpose()?.unwrap_or_default(),
            },
            inter_op_threads: threads(
                self.inter_op_parallelism_threads,
                "inter_op_parallelism_threads",
            )?,
            intra_op_threads: threads(
                self.intra_op_parallelism_threads,
                "intra_op_parallelism_threads",
            )?,
        })
    }

    fn timelines(&self) -> Result<Option<TraceSchedule>> {
        let settings = TraceSettings {
            start_step: self.timeline_start_step,
            interval_step: self.timeline_interval_step,
            trace_count: self.timeline_trace_count,
            path: self.timeline_path.clone(),
        };
        settings.schedule("").map_err(|error| wrong(error.message))
    }
}

/// Reads `"0,1"`, DeepRec's form, or `[0, 1]`.
fn gpu_ids(value: &Value) -> Result<Vec<usize>> {
    let ids: Option<Vec<usize>> = match value {
        Value::String(list) => sessions::gpu_ids(list).ok(),
        other => serde_json::from_value(other.clone()).ok(),
    };
    ids.ok_or_else(|| wrong(format!("gpu_ids_list is {value}: use numbers of GPUs, as \"0,1\"")))
}

impl Sessions {
    /// The options of a group.
    pub fn options(&self) -> Result<Options> {
        let mut options = self.group.options()?;
        // Closing need not wait: a group is closed when no request uses it any more, or to end those that do.
        options.drain_timeout(std::time::Duration::ZERO);
        Ok(options)
    }

    /// The options of its sessions.
    pub fn session_options(&self) -> Result<SessionOptions> {
        let mut options = SessionOptions::new();
        let config = sessions::session_config(self.intra_op_threads, self.inter_op_threads);
        options.set_config(&config.encode_to_vec())?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, None)
    }

    fn with(more: &str) -> Result<Config> {
        parse(&format!(r#"{{"savedmodel_dir": "/m"{more}}}"#))
    }

    fn policy(config: &Config) -> &str {
        config.sessions.group.policy.as_ref().map_or("none", Policy::name)
    }

    #[test]
    fn defaults() {
        let config = with("").unwrap();
        assert_eq!(config.signature_name, "serving_default");
        assert_eq!(config.sessions.group.session_num, Some(1));
        assert_eq!(policy(&config), "thread");
        assert!(config.checkpoint_dir.is_none() && config.timelines.is_none());
        let eight = |text| Config::parse(text, Some("8")).unwrap().sessions;
        let sessions = eight(r#"{"savedmodel_dir": "/m", "inter_op_parallelism_threads": 3}"#);
        assert_eq!((sessions.inter_op_threads, sessions.intra_op_threads), (3, 4));
    }

    /// The configuration of DeepRec's own example of a program.
    #[test]
    fn a_configuration_of_deeprec() {
        let config = parse(
            r#"{
                "omp_num_threads": 4, "kmp_blocktime": 0, "feature_store_type": "memory",
                "serialize_protocol": "protobuf", "inter_op_parallelism_threads": 10,
                "intra_op_parallelism_threads": 10, "init_timeout_minutes": 1,
                "signature_name": "serving_default", "read_thread_num": 3, "update_thread_num": 2,
                "model_store_type": "local", "checkpoint_dir": "/tmp/checkpoint/",
                "savedmodel_dir": "/tmp/saved_model/", "session_num": 2,
                "select_session_policy": "RR", "use_per_session_threads": true,
                "cpusets": "0;1", "gpu_ids_list": "0,1", "model_update_inter_threads": 4
            }"#,
        )
        .unwrap();
        assert_eq!(policy(&config), "round_robin");
        assert_eq!(config.sessions.group.gpu_ids, [0, 1]);
        assert_eq!(config.checkpoint_dir, Some(PathBuf::from("/tmp/checkpoint/")));
    }

    #[test]
    fn comments_are_blanks() {
        let name = |text: &str| parse(text).map(|config| config.signature_name);
        for text in [
            "// first\n{\"savedmodel_dir\": \"/m\", // of the model\r\n\"signature_name\": \"s\"} // last",
            "/* first */{\"savedmodel_dir\"/**/:/* \" */\"/m\", /* {\n // } */ \"signature_name\": \"s\"}/***/",
            "{\"savedmodel_dir\": \"/m\", //\"signature_name\": \"t\",\n\"signature_name\": \"s\"}\n//",
            "{\"savedmodel_dir\": \"/m\", /* ümläut // */ \"signature_name\": /*/ \"t\", /*/ \"s\"}",
        ] {
            assert_eq!(name(text).unwrap(), "s", "{text}");
        }
        // In strings they are text, behind escaped quotes, too.
        for text in ["//s", "/*s*/", r#"a\"//s"#, r"\\", r#"\\\"/*"#] {
            let config = with(&format!(", \"signature_name\": \"{text}\" // \"t\"\n")).unwrap();
            let expected: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(config.signature_name, expected);
        }
        let fails = |text: &str, says: &str| {
            let message = parse(text).map(|_| ()).expect_err(text).message;
            assert!(message.contains(says), "{says:?} in {message:?}");
        };
        fails(
            "{\n\"savedmodel_dir\": \"/m\" /* no end }",
            "a comment that begins in line 2 and does not end",
        );
        fails("{} /*/", "begins in line 1 and does not end");
        fails("{\"savedmodel_dir\": /m}", "not JSON: expected value at line 1 column 20");
        // It parts what it stands between, and what is behind it is where it was.
        fails("{\"session_num\": 1/**/2}", "not JSON: expected `,` or `}` at line 1 column 22");
        fails("/* a\nb */ {\"savedmodel_dir\"}", "at line 2 column 23");
        fails("{\"savedmodel_dir\": \"/m // }", "not JSON: EOF while parsing a string");
        fails("/", "not JSON");
    }

    #[test]
    fn mistakes_are_told() {
        let says = |result: Result<Config>, says: &str| {
            let message = result.map(|_| ()).expect_err(says).message;
            assert!(message.contains(says), "{says:?} in {message:?}");
        };
        says(parse("{"), "not JSON");
        says(parse("[]"), "not an object");
        says(parse("{}"), "no savedmodel_dir");
        says(with(r#", "sesion_num": 2"#), r#""sesion_num": did you mean "session_num"?"#);
        says(with(r#", "zzz": 2"#), "known are session_num, select");
        says(with(r#", "session_num": "two""#), "session_num: invalid type");
        says(with(r#", "select_session_policy": "LRU""#), r#""LRU": use "MOD", "RR""#);
        says(with(r#", "execution": "x""#), "auto, caller, worker, pool");
        says(with(r#", "model_store_type": "oss""#), "DeepRec");
        says(with(r#", "feature_store_type": "redis""#), "DeepRec");
        says(with(r#", "shard_embedding": true"#), "DeepRec");
        says(with(r#", "ev_storage_type": 11"#), "DeepRec");
        says(with(r#", "checkpoint_dir": "oss://a/b""#), "checkpoint_dir in a remote store");
        says(with(r#", "serialize_protocol": "flatbuffer""#), r#"use "protobuf""#);
        says(with(r#", "gpu_ids_list": "0;1""#), "gpu_ids_list");
        says(with(r#", "signature_name": """#), "empty signature_name");
        says(with(r#", "intra_op_parallelism_threads": -1"#), "is -1");
        says(with(r#", "timeline_start_step": 1"#), "without timeline_path");
        says(with(r#", "timeline_path": "/t""#), "needs timeline_start_step");
        says(with(r#", "checkpoint_poll_interval_ms": 0"#), "use 1 or more");
        says(Config::parse(r#"{"savedmodel_dir": "/m"}"#, Some("many")), "SCHEDULABLE_CPUS");
    }
}

//! What operators write: the server's files and lists of arguments, the processor's JSON, and the file that names a
//! trainer's checkpoints. Taken, or refused with a message.
//!
//! The first character says what the rest is.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::FromArgMatches;
use libfuzzer_sys::fuzz_target;
use serving_processor::config::Config;
use serving_processor::versions::Folder;
use session_group_fuzz::folder;
use session_group_server::batching::Batching;
use session_group_server::connections::Grpc;
use session_group_server::flags::Flags;
use session_group_server::proto::serving::{BatchingParameters, MonitoringConfig};
use session_group_server::proto::{SessionGroupConfig, read_text};
use session_group_server::{config, fuzzing, grpc_arguments, tls};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| folder("configuration"));
/// Where trainers name their checkpoints; and where the server's files are.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.join("checkpoint"));
static NO_FLAGS: LazyLock<Flags> = LazyLock::new(|| {
    let matches = Flags::command_line().get_matches_from(["server"]);
    Flags::from_arg_matches(&matches).expect("no flags are needed")
});

fn says_why<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

/// The models, and the options of each model's group.
fn models(flags: &mut Flags, file: &Path) {
    use session_group_server::proto::serving::model_server_config::Config::ModelConfigList;
    flags.models.model_config_file = Some(file.into());
    let Some(models) = says_why(config::models(flags)) else { return };
    says_why(fuzzing::check(&models));
    let Some(ModelConfigList(list)) = models.config else { return };
    let settings = config::group_settings(flags).expect("none is set");
    for model in list.config {
        let own: SessionGroupConfig = model.session_group.unwrap_or_default();
        says_why(config::group_options(&settings, &own));
    }
}

fn arguments(text: &str) {
    let routes = tonic::service::Routes::default();
    let mut grpc = Grpc::new(routes, None, std::time::Duration::from_secs(1));
    says_why(grpc_arguments::apply(text, &mut grpc));
    says_why(grpc_arguments::largest_request(text));
}

fn batching(file: &Path) {
    let read = read_text::<BatchingParameters>(file, "tensorflow.serving.BatchingParameters");
    let Some(batching) = says_why(read).and_then(|read| says_why(Batching::new(&read))) else {
        return;
    };
    assert!(batching.max_batch > 0 && batching.max_request >= batching.max_batch);
    if let Some(&last) = batching.allowed.last() {
        assert_eq!(last, batching.max_batch);
    }
}

fuzz_target!(|text: &str| {
    let Some(first) = text.chars().next() else { return };
    let text = &text[first.len_utf8()..];
    std::fs::write(&*FILE, text).expect("a temporary file");
    let (mut flags, file) = (NO_FLAGS.clone(), &*FILE);
    match u32::from(first) % 8 {
        0 => models(&mut flags, file),
        1 => batching(file),
        2 => drop(says_why(read_text::<MonitoringConfig>(
            file,
            "tensorflow.serving.MonitoringConfig",
        ))),
        3 => drop(says_why(tls::acceptor(file))),
        4 => {
            flags.sessions.platform_config_file = Some(file.into());
            says_why(config::bundle(&flags));
        }
        5 => {
            flags.sessions.tensorflow_session_config_file = Some(file.into());
            says_why(config::bundle(&flags));
        }
        6 => {
            arguments(text);
            says_why(Folder::new(FOLDER.clone()).newest());
        }
        _ => {
            if let Some(config) = says_why(Config::parse(text, Some("8"))) {
                says_why(config.sessions.options());
                says_why(config.sessions.session_options());
            }
        }
    }
});

//! GraphDefs changed field by field: the group takes them and runs them, or says why not.
//!
//! Graphs are programs, and stock TensorFlow ends the process for some that it can't run.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Options, Request, SessionGroup};
use session_group_fuzz::{models, stock, wire};

struct Setting {
    session_options: SessionOptions,
    options: Options,
    run_options: RunOptions,
    feeds: Vec<(&'static str, Tensor)>,
}

static SETTING: LazyLock<Setting> = LazyLock::new(|| {
    let mut session_options = SessionOptions::new();
    session_options.set_config(&models::CONFIG).expect("a ConfigProto");
    let mut options = Options::new();
    options.session_num(2);
    let mut run_options = RunOptions::parse(&[]).expect("defaults");
    run_options.set_timeout_ms(50);
    let feeds = vec![
        ("x", Tensor::from_slice(&[], &[1f32]).expect("a tensor")),
        ("ids", Tensor::from_slice(&[2], &[1i32, 7]).expect("a tensor")),
        ("word", Tensor::from_strings(&[2], &["a", "c"]).expect("a tensor")),
        ("delta", Tensor::from_slice(&[], &[2f32]).expect("a tensor")),
    ];
    Setting { session_options, options, run_options, feeds }
});

/// What the test models have, each alone, with what it needs.
const REQUESTS: [(&[usize], &[&str], &[&str]); 9] = [
    (&[], &[], &["initialize"]),
    (&[], &["v"], &[]),
    (&[0], &[], &["assign"]),
    (&[1], &["rows"], &[]),
    (&[0, 1], &[], &["scatter"]),
    (&[2], &["y"], &[]),
    (&[3], &[], &["increase"]),
    (&[0], &["y"], &[]),
    (&[], &["missing", "v"], &["late"]),
];

fuzz_target!(|graph_def: &[u8]| {
    let setting = &*SETTING;
    let inputs = |feeds: &[usize]| -> Vec<_> {
        feeds.iter().map(|&i| (setting.feeds[i].0, &setting.feeds[i].1)).collect()
    };
    if stock::is_asked_for() {
        let inputs = REQUESTS.map(|(feeds, _, _)| inputs(feeds));
        let steps: Vec<stock::Step<'_>> = std::iter::zip(&inputs, REQUESTS)
            .map(|(inputs, (_, outputs, targets))| (&inputs[..], outputs, targets))
            .collect();
        return stock::run_graph_def(&setting.session_options, graph_def, &steps);
    }
    let group = SessionGroup::new(&setting.session_options, &setting.options).expect("a group");
    let is_graph = group.create(graph_def).is_ok();
    for (feeds, outputs, targets) in REQUESTS {
        let inputs = inputs(feeds);
        for session in [0, 1] {
            let request = Request {
                inputs: &inputs,
                outputs,
                targets,
                options: Some(&setting.run_options),
                session: Some(session),
            };
            match group.run_request(&request, None) {
                Ok(fetched) => assert!(is_graph && fetched.len() == outputs.len()),
                Err(error) => assert!(!error.message.is_empty()),
            }
        }
    }
    group.close().expect("a group can be closed");
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    wire::mutate(data, size, max_size, seed)
});

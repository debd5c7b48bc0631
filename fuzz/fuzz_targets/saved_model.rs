//! SavedModels of which one file is changed: loaded and run, or refused with a status.
//!
//! The first byte chooses the file, the rest is what is in it.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use session_group::tensorflow::{Buffer, SessionOptions, Tensor};
use session_group::{Options, SessionGroup};
use session_group_fuzz::{models, stock, wire};

const MODEL: &str = "tf1_saved_model";
const FILES: [&str; 3] =
    ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"];

/// A copy of the model, for this process to change.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("session_group_fuzz.{}", std::process::id()));
    std::fs::create_dir_all(dir.join("variables")).expect("a temporary folder");
    for file in FILES {
        restore(&dir, file);
    }
    dir
});

fn restore(dir: &Path, file: &str) {
    std::fs::copy(models::path(MODEL).join(file), dir.join(file)).expect("a copy of the model");
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let file = FILES[*which as usize % FILES.len()];
    std::fs::write(DIR.join(file), bytes).expect("the temporary folder can be written");
    let mut session_options = SessionOptions::new();
    session_options.set_config(&models::CONFIG).expect("a ConfigProto");
    let mut options = Options::new();
    options.session_num(2);
    let mut meta_graph_def = Buffer::new();
    let dir = DIR.to_str().expect("UTF-8");
    let word = Tensor::from_strings(&[1], &["b"]).expect("a tensor");
    let n = Tensor::from_slice(&[], &[3i32]).expect("a tensor");
    let (inputs, outputs) = ([("word:0", &word), ("n:0", &n)], ["y:0"]);
    if stock::is_asked_for() {
        return stock::run_saved_model(&session_options, dir, (&inputs, &outputs, &[]));
    }
    let tags = ["serve"];
    let loaded =
        SessionGroup::load(&session_options, None, dir, &tags, &options, Some(&mut meta_graph_def));
    match loaded {
        Ok(group) => match group.run(&inputs, &outputs, &[]) {
            Ok(fetched) => assert_eq!(fetched.len(), 1),
            Err(error) => assert!(!error.message.is_empty()),
        },
        Err(error) => assert!(error.message.contains(dir), "{error}"),
    }
    restore(&DIR, file);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match data.split_first_mut() {
        Some((which, rest)) if size > 1 && max_size > 1 && (*which as usize).is_multiple_of(3) => {
            1 + wire::mutate(rest, size - 1, max_size - 1, seed)
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
});

//! Session targets: options, or an error that quotes the target.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_group::target;

fuzz_target!(|text: &str| {
    if let Err(error) = target::parse(text) {
        let quoted = format!("{text:?}");
        assert!(error.message.contains(&quoted), "{error}");
    }
});

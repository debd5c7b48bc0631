//! The grammar of SESSION_GROUP_CPUSET: what is accepted means what it says, what is not is an error that
//! names the entry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_group::cpuset::Cpusets;

fuzz_target!(|text: &str| {
    match text.parse::<Cpusets>() {
        Ok(sets) => {
            assert_eq!(sets.entries().len(), text.split(';').count());
            let written = sets.to_string();
            assert_eq!(written.parse::<Cpusets>().as_ref(), Ok(&sets), "{written}");
            for set in sets.entries() {
                assert!(set.cpus().is_sorted_by(|a, b| a < b) && set.len() > 0);
            }
        }
        Err(error) => assert!(error.message.contains("entry "), "{error}"),
    }
});

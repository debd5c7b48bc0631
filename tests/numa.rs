//! Where the memory lies that all sessions read, as the system says. Tests look at the whole process, and so run one
//! after the other.

mod common;

use std::fs;
use std::sync::{Mutex, PoisonError};

use common::{Numbers, feeds, load, options, wide_deep_request};
use session_group::optimization::Optimization;
use session_group::{Options, SessionGroup};

static ALONE: Mutex<()> = Mutex::new(());

const MIB: u64 = 1 << 20;

/// Bytes of this process that are spread, and over which nodes.
fn spread() -> (u64, Vec<String>) {
    let (mut bytes, mut nodes) = (0, Vec::new());
    for line in fs::read_to_string("/proc/self/numa_maps").unwrap().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(list) = words[1].strip_prefix("interleave:") else { continue };
        let number = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.parse().ok());
        bytes += number("anon=").unwrap_or(0) * number("kernelpagesize_kB=").unwrap_or(4) * 1024;
        nodes.push(list.to_string());
    }
    nodes.sort();
    nodes.dedup();
    (bytes, nodes)
}

/// The nodes that the group says, as the system writes them.
fn table_nodes(group: &SessionGroup) -> Vec<String> {
    let described: serde_json::Value = serde_json::from_str(&group.describe()).unwrap();
    let nodes = described["table_nodes"].as_array().unwrap();
    nodes.iter().map(ToString::to_string).collect()
}

fn without(optimization: Optimization) -> Options {
    let mut options = options(2);
    options.optimization(optimization, false);
    options
}

#[test]
fn variables_and_constants_are_spread_over_the_nodes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // 324 MiB of variables, in one test by TensorFlow's own kernel; as many of constants.
    let groups = [
        ("wide_deep_large", options(2)),
        ("wide_deep_large", without(Optimization::ParallelRestore)),
        ("frozen_large", options(2)),
    ];
    for (model, options) in groups {
        assert_eq!(spread().0, 0, "{model}");
        let group = load(model, &options);
        let (bytes, over) = spread();
        assert!(bytes > 300 * MIB && bytes < 400 * MIB, "{model}: {bytes}");
        if let [node] = &table_nodes(&group)[..] {
            assert_eq!(over, std::slice::from_ref(node), "{model}");
        }
        if model == "wide_deep_large" {
            let request = wide_deep_request(&mut Numbers(1), 32);
            for _ in 0..4 {
                group.run(&feeds(&request), &["StatefulPartitionedCall:0"], &[]).unwrap();
            }
            // Nothing of a request's own.
            assert_eq!(spread().0, bytes);
        }
        group.close().unwrap();
    }
    assert_eq!(spread().0, 0);
}

#[test]
fn they_lie_as_they_come_where_that_is_asked_for() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for off in [Optimization::InterleavedTables, Optimization::FastMemory] {
        let group = load("wide_deep_large", &without(off));
        assert!(table_nodes(&group).is_empty());
        assert_eq!(spread().0, 0, "{off}");
    }
}

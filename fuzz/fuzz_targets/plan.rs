//! Options, environment, ConfigProto and machine: a plan that keeps to all of them, or an error.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use session_group::Options;
use session_group::cpuset::CpuSet;
use session_group::environment::Environment;
use session_group::fuzzing;
use session_group::topology::{Node, Topology};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Of each node, how many CPUs each core has.
    nodes: Vec<Vec<u8>>,
    target: &'a str,
    session_num: Option<i32>,
    cpuset: Option<&'a str>,
    environment: [Option<String>; 5],
    intra_op_threads: i32,
    inter_op_threads: i32,
    operation_timeout_ms: i64,
    gpus: Option<i32>,
    /// In thousandths of a CPU.
    quota: Option<u16>,
}

fuzz_target!(|input: Input<'_>| {
    let mut next = 0;
    let mut core = |cpus: u8| {
        let first = next;
        next += 1 + u32::from(cpus % 4);
        CpuSet::new(first..next).expect("not empty")
    };
    let nodes: Vec<Node> = input
        .nodes
        .iter()
        .take(8)
        .enumerate()
        .map(|(number, cores)| Node {
            number: number as u32,
            cores: cores.iter().take(64).map(|&cpus| core(cpus)).collect(),
        })
        .filter(|node: &Node| !node.cores.is_empty())
        .collect();
    let Some(allowed) = CpuSet::new(0..next) else {
        return;
    };
    let mut options = session_group::target::parse(input.target).unwrap_or_else(|_| Options::new());
    if let Some(session_num) = input.session_num {
        options.session_num(session_num as usize);
    }
    if let Some(cpuset) = input.cpuset {
        let _ = options.cpuset(cpuset).map(drop);
    }
    let [cpuset, affinity, mps, contexts, kept_bytes] = input.environment;
    let environment = Environment { cpuset, affinity, mps, contexts, kept_bytes };
    let quota = input.quota.map(|thousandths| f64::from(thousandths.max(1)) / 1000.0);
    let topology = Topology { nodes };
    let machine = fuzzing::Machine { allowed, topology, gpus: input.gpus, quota };
    let threads = [input.intra_op_threads, input.inter_op_threads];
    match fuzzing::plan(&options, &environment, threads, input.operation_timeout_ms, &machine) {
        Ok(sessions) => {
            assert!((1..=1024).contains(&sessions.len()));
            for session in sessions {
                assert!(session.threads.iter().all(|threads| (0..=1024).contains(threads)));
                let cpus = session.cpus.iter().flat_map(|set| set.cpus());
                assert!({ cpus }.all(|cpu| machine.allowed.contains(*cpu)));
            }
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
});

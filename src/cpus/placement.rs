//! Which cores each session gets: pure, from the topology and the number of sessions.
//!
//! Each session gets whole physical cores; the numbers of cores differ by at most one; every CPU is
//! used; and as many sessions as possible have all their cores on one NUMA node.

use crate::cpus::cpuset::CpuSet;
use crate::cpus::topology::Topology;
use crate::error::{Error, Result};

/// One set of CPUs for each session, in ascending order of their first CPUs.
pub fn assign(topology: &Topology, sessions: usize) -> Result<Vec<CpuSet>> {
    let cores = topology.cores();
    if sessions == 0 {
        return Err(Error::invalid("there is no session to place"));
    }
    if sessions > cores {
        return Err(Error::invalid(format!(
            "session_num is {sessions}, but this process may use {cores} physical cores: with \
             thread pool affinity, make at most one session for each core, or allow more CPUs"
        )));
    }
    let blocks = Blocks::new(cores, sessions);
    let inside = most_inside(topology, &blocks);

    let mut placed = Vec::with_capacity(sessions);
    let mut left: Vec<&CpuSet> = Vec::new();
    for (node, inside) in topology.nodes.iter().zip(&inside) {
        let mut cores = node.cores.iter();
        for size in inside.sizes(&blocks) {
            placed.push(merge(cores.by_ref().take(size)));
        }
        left.extend(cores);
    }
    // Sessions that fit on no node share what the nodes have left, neighbours first.
    let used = inside.iter().fold(Inside::default(), |sum, inside| sum.plus(inside));
    let rest = Inside { large: blocks.large - used.large, small: blocks.small - used.small };
    let mut left = left.into_iter();
    for size in rest.sizes(&blocks) {
        placed.push(merge(left.by_ref().take(size)));
    }
    placed.sort_by_key(|set| set.cpus()[0]);
    Ok(placed)
}

fn merge<'a>(cores: impl Iterator<Item = &'a CpuSet>) -> CpuSet {
    CpuSet::new(cores.flat_map(|core| core.cpus().to_vec())).expect("a session has a core")
}

/// How the cores are cut: `small` sessions of `size` cores, and `large` ones of one more.
struct Blocks {
    size: usize,
    small: usize,
    large: usize,
}

impl Blocks {
    fn new(cores: usize, sessions: usize) -> Self {
        let large = cores % sessions;
        Self { size: cores / sessions, small: sessions - large, large }
    }
}

/// How many sessions of either size lie wholly inside a node.
#[derive(Clone, Copy, Default)]
struct Inside {
    large: usize,
    small: usize,
}

impl Inside {
    fn plus(self, other: &Self) -> Self {
        Self { large: self.large + other.large, small: self.small + other.small }
    }

    fn sizes(&self, blocks: &Blocks) -> impl Iterator<Item = usize> {
        let large = std::iter::repeat_n(blocks.size + 1, self.large);
        large.chain(std::iter::repeat_n(blocks.size, self.small))
    }
}

/// How many sessions to put inside each node so that most are inside one: a knapsack, solved node by
/// node. For each number of large sessions used so far, it keeps the way that has most small ones.
fn most_inside(topology: &Topology, blocks: &Blocks) -> Vec<Inside> {
    let mut best: Vec<Option<(Inside, Vec<Inside>)>> = vec![None; blocks.large + 1];
    best[0] = Some((Inside::default(), Vec::new()));
    for node in &topology.nodes {
        let mut next = vec![None; blocks.large + 1];
        for (used, ways) in best.iter().flatten() {
            let most_large = (node.cores.len() / (blocks.size + 1)).min(blocks.large - used.large);
            for large in 0..=most_large {
                let small = (node.cores.len() - large * (blocks.size + 1)) / blocks.size;
                let here = Inside { large, small: small.min(blocks.small - used.small) };
                let sum = used.plus(&here);
                let slot: &mut Option<(Inside, Vec<Inside>)> = &mut next[sum.large];
                if slot.as_ref().is_none_or(|(other, _)| other.small < sum.small) {
                    let mut ways = ways.clone();
                    ways.push(here);
                    *slot = Some((sum, ways));
                }
            }
        }
        best = next;
    }
    let most = best.into_iter().flatten().max_by_key(|(used, _)| used.large + used.small);
    most.map(|(_, ways)| ways).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::cpus::topology::Node;

    /// Cores for each node, their siblings numbered as Linux does: first one of every core, then
    /// the second.
    fn machine(cores_of_nodes: &[usize], smt: usize) -> Topology {
        let total: usize = cores_of_nodes.iter().sum();
        let mut first = 0;
        let mut nodes = Vec::new();
        for (number, &n) in cores_of_nodes.iter().enumerate() {
            let core = |i: usize| CpuSet::new((0..smt).map(|s| (i + s * total) as u32)).unwrap();
            let cores = (first..first + n).map(core).collect();
            nodes.push(Node { number: number as u32, cores });
            first += n;
        }
        Topology { nodes }
    }

    /// What must be true of any placement.
    fn check(topology: &Topology, sessions: usize) -> Vec<CpuSet> {
        let placed = assign(topology, sessions).unwrap();
        assert_eq!(placed.len(), sessions);
        let cores: Vec<&CpuSet> = topology.nodes.iter().flat_map(|node| &node.cores).collect();
        let mut used = HashSet::new();
        let mut sizes = Vec::new();
        for set in &placed {
            for cpu in set.cpus() {
                assert!(used.insert(*cpu), "CPU {cpu} is used twice");
            }
            let whole: Vec<_> = cores
                .iter()
                .filter(|core| core.cpus().iter().all(|&cpu| set.contains(cpu)))
                .collect();
            let cpus: usize = whole.iter().map(|core| core.len()).sum();
            assert_eq!(cpus, set.len(), "{set} is not made of whole cores");
            sizes.push(whole.len());
        }
        let all: usize = cores.iter().map(|core| core.len()).sum();
        assert_eq!(used.len(), all, "every CPU is used");
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        placed
    }

    fn on_one_node(topology: &Topology, placed: &[CpuSet]) -> usize {
        placed.iter().filter(|set| topology.nodes_of(set).len() == 1).count()
    }

    fn shown(placed: &[CpuSet]) -> Vec<String> {
        placed.iter().map(CpuSet::to_string).collect()
    }

    #[test]
    fn machines_from_laptop_to_rack() {
        let machines = [
            machine(&[1], 1),
            machine(&[2], 1),              // a small virtual machine
            machine(&[4], 2),              // a desktop
            machine(&[16], 2),             // an EPYC 7302P in one node
            machine(&[24, 24], 2),         // two Xeon 8160
            machine(&[64, 64], 2),         // two EPYC 7742, one node each
            machine(&[16; 8], 2),          // the same in four nodes each
            machine(&[10, 10, 10, 10], 2), // four Xeon E7-4870
            machine(&[80, 80], 1),         // two Ampere Altra
            machine(&[7, 5], 2),           // a restricted mask
            machine(&[3, 4, 1], 1),
            machine(&[31, 2, 17], 2),
        ];
        for topology in &machines {
            for sessions in 1..=topology.cores() {
                check(topology, sessions);
            }
        }
    }

    #[test]
    fn sessions_that_divide_the_nodes_lie_inside_them() {
        for (topology, sessions) in [
            (machine(&[64, 64], 2), 2),
            (machine(&[64, 64], 2), 16),
            (machine(&[16; 8], 2), 8),
            (machine(&[16; 8], 2), 32),
            (machine(&[24, 24], 2), 6),
            (machine(&[3, 4], 1), 2), // the larger session on the larger node, which comes second
            (machine(&[4, 3], 1), 2),
        ] {
            let placed = check(&topology, sessions);
            assert_eq!(on_one_node(&topology, &placed), sessions, "{:?}", shown(&placed));
        }
    }

    #[test]
    fn no_more_sessions_than_need_be_straddle_nodes() {
        // Blocks of 4 on nodes of 6: one on each, and one on what is left of both.
        let topology = machine(&[6, 6], 1);
        let placed = check(&topology, 3);
        assert_eq!(shown(&placed), ["0-3", "4-5,10-11", "6-9"]);
    }

    /// The most sessions that can lie inside nodes, by trying all ways to fill them.
    fn brute_force(nodes: &[usize], size: usize, small: usize, large: usize) -> usize {
        let Some((&cores, rest)) = nodes.split_first() else { return 0 };
        let mut most = 0;
        for l in 0..=large.min(cores / (size + 1)) {
            for s in 0..=small.min((cores - l * (size + 1)) / size) {
                most = most.max(l + s + brute_force(rest, size, small - s, large - l));
            }
        }
        most
    }

    #[test]
    fn as_many_sessions_as_possible_lie_inside_nodes() {
        for nodes in
            [&[5, 6][..], &[3, 4], &[7, 5], &[4, 4, 3], &[9, 2, 5, 8], &[1, 1, 6], &[13, 11]]
        {
            let topology = machine(nodes, 2);
            for sessions in 1..=topology.cores() {
                let Blocks { size, small, large } = Blocks::new(topology.cores(), sessions);
                let inside = on_one_node(&topology, &check(&topology, sessions));
                // Sessions on what nodes have left may by luck lie inside one, too.
                assert!(inside >= brute_force(nodes, size, small, large), "{nodes:?} {sessions}");
            }
        }
    }

    #[test]
    fn siblings_stay_together() {
        assert_eq!(shown(&check(&machine(&[4], 2), 2)), ["0-1,4-5", "2-3,6-7"]);
        assert_eq!(shown(&check(&machine(&[4], 2), 3)), ["0-1,4-5", "2,6", "3,7"]);
    }

    #[test]
    fn holes_hybrid_cores_and_single_siblings() {
        // Two performance cores with two threads each, four efficient ones, and CPU 5 offline.
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        let cores = ["0-1", "2-3", "4", "6", "7", "8"].map(set).to_vec();
        let topology = Topology { nodes: vec![Node { number: 0, cores }] };
        for sessions in 1..=6 {
            check(&topology, sessions);
        }
        assert_eq!(shown(&check(&topology, 3)), ["0-3", "4,6", "7-8"]);
    }

    #[test]
    fn more_sessions_than_cores_is_an_error_that_says_so() {
        assert!(assign(&machine(&[4], 2), 0).is_err());
        let error = assign(&machine(&[4], 2), 5).unwrap_err();
        assert!(error.message.contains("session_num is 5"), "{error}");
        assert!(error.message.contains("4 physical cores"), "{error}");
    }
}

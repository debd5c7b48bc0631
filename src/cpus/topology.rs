//! What the machine has: CPUs, the physical cores they belong to, and NUMA nodes. Only reads; what
//! to do with it is for [`placement`](crate::cpus::placement) to decide.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::cpus::affinity;
use crate::cpus::cpuset::CpuSet;
use crate::error::{Error, Result};

/// The cores that this process may use, by NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// In ascending order of their numbers; none without a core.
    pub nodes: Vec<Node>,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Linux' number of the node; 0 on a machine without NUMA.
    pub number: u32,
    /// In ascending order of their first CPUs.
    pub cores: Vec<CpuSet>,
}

impl Topology {
    /// This machine, as far as the process may use it. Linux leaves CPUs that are offline, or
    /// outside of the cgroup's cpuset (v1 or v2), out of affinity masks, so `allowed` has none.
    pub fn read(allowed: &CpuSet) -> Result<Self> {
        Self::read_from(Path::new("/sys/devices/system"), allowed)
    }

    fn read_from(root: &Path, allowed: &CpuSet) -> Result<Self> {
        let node_of = read_nodes(&root.join("node"))?;
        let mut nodes: BTreeMap<u32, Vec<CpuSet>> = BTreeMap::new();
        for &cpu in allowed.cpus() {
            let siblings = siblings(root, cpu)?;
            let core = CpuSet::new(siblings.into_iter().filter(|&cpu| allowed.contains(cpu)));
            // Each core once, when its first CPU comes up.
            let core = core.unwrap_or_else(|| CpuSet::one(cpu));
            if core.cpus()[0] == cpu {
                nodes.entry(node_of.get(&cpu).copied().unwrap_or(0)).or_default().push(core);
            }
        }
        let nodes = nodes.into_iter().map(|(number, cores)| Node { number, cores }).collect();
        Ok(Self { nodes })
    }

    /// The nodes that hold any of these CPUs.
    pub fn nodes_of(&self, cpus: &CpuSet) -> Vec<u32> {
        let holds =
            |node: &&Node| node.cores.iter().flat_map(CpuSet::cpus).any(|&c| cpus.contains(c));
        self.nodes.iter().filter(holds).map(|node| node.number).collect()
    }

    /// How many cores.
    pub fn cores(&self) -> usize {
        self.nodes.iter().map(|node| node.cores.len()).sum()
    }
}

/// The CPUs that this process may use: those of the calling thread and those of the main thread,
/// since either may have been pinned for a purpose of its own.
pub fn allowed() -> Result<CpuSet> {
    let own = affinity::allowed()?;
    let main = affinity::allowed_to(std::process::id())?;
    Ok(own.union(&main))
}

/// The CPUs of the core that this one belongs to; only itself where Linux does not say, as in some
/// containers.
fn siblings(root: &Path, cpu: u32) -> Result<Vec<u32>> {
    let dir = root.join(format!("cpu/cpu{cpu}/topology"));
    for name in ["core_cpus_list", "thread_siblings_list"] {
        if let Some(list) = read_list(&dir.join(name))? {
            return Ok(list);
        }
    }
    Ok(vec![cpu])
}

/// The node of each CPU; none where Linux has no NUMA.
fn read_nodes(dir: &Path) -> Result<BTreeMap<u32, u32>> {
    let mut node_of = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(node_of);
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        let Some(number) = number else { continue };
        for cpu in read_list(&entry.path().join("cpulist"))?.unwrap_or_default() {
            node_of.insert(cpu, number);
        }
    }
    Ok(node_of)
}

/// Where Linux does not say, or a container does not let it.
const UNSAID: [ErrorKind; 3] =
    [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::NotADirectory];

/// A list as Linux writes it, "0-3,8"; the grammar of a cpuset's entry. `None` where there is none.
fn read_list(path: &Path) -> Result<Option<Vec<u32>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if UNSAID.contains(&error.kind()) => return Ok(None),
        Err(error) => return Err(affinity::failed(&format!("read {}", path.display()), &error)),
    };
    if text.trim().is_empty() {
        return Ok(Some(Vec::new())); // A node with memory, but without CPUs.
    }
    text.trim().parse().map(|set: CpuSet| Some(set.cpus().to_vec())).map_err(|error: Error| {
        Error::new(crate::Code::Internal, format!("{}: {}", path.display(), error.message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A /sys/devices/system as Linux lays it out, in a folder that is removed when dropped.
    struct Sys(std::path::PathBuf);

    impl Sys {
        fn new(name: &str) -> Self {
            let unique = format!("session_group_{name}_{}", std::process::id());
            Self(std::env::temp_dir().join(unique))
        }

        fn file(&self, path: &str, text: &str) -> &Self {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn read(&self, allowed: &str) -> Result<Topology> {
            Topology::read_from(&self.0, &allowed.parse().unwrap())
        }
    }

    impl Drop for Sys {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn shown(topology: &Topology) -> Vec<(u32, Vec<String>)> {
        let cores = |node: &Node| node.cores.iter().map(CpuSet::to_string).collect();
        topology.nodes.iter().map(|node| (node.number, cores(node))).collect()
    }

    fn cores(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn siblings_and_nodes_are_read_as_linux_writes_them() {
        let sys = Sys::new("smt");
        sys.file("node/node0/cpulist", "0-1,4-5\n").file("node/node1/cpulist", "2-3,6-7\n");
        sys.file("node/possible", "0-1\n").file("node/node2/cpulist", "\n");
        for (cpu, list) in
            ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"].iter().enumerate()
        {
            sys.file(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{list}\n"));
        }
        let whole = sys.read("0-7").unwrap();
        assert_eq!(shown(&whole), [(0, cores(&["0,4", "1,5"])), (1, cores(&["2,6", "3,7"]))]);
        assert_eq!(whole.nodes_of(&"1,6".parse().unwrap()), [0, 1]);
        assert_eq!(whole.nodes_of(&"7".parse().unwrap()), [1]);
        // One sibling of the first core, none of node 1 but a single CPU.
        let part = sys.read("1,4-5,7").unwrap();
        assert_eq!(shown(&part), [(0, cores(&["1,5", "4"])), (1, cores(&["7"]))]);
    }

    #[test]
    fn a_machine_that_says_nothing_has_one_node_of_single_cpus() {
        let topology = Sys::new("bare").read("0,2").unwrap();
        assert_eq!(shown(&topology), [(0, cores(&["0", "2"]))]);
    }

    #[test]
    fn a_cpu_in_no_node_counts_to_the_first() {
        let sys = Sys::new("nowhere");
        sys.file("node/node0/cpulist", "0\n").file("node/node1/cpulist", "1\n");
        let topology = sys.read("0-2").unwrap();
        assert_eq!(shown(&topology), [(0, cores(&["0", "2"])), (1, cores(&["1"]))]);
    }

    #[test]
    fn what_can_not_be_understood_is_an_error_that_names_the_file() {
        let sys = Sys::new("broken");
        sys.file("cpu/cpu0/topology/core_cpus_list", "zero\n");
        assert!(sys.read("0").unwrap_err().message.contains("core_cpus_list"));
    }

    #[test]
    fn this_machine_can_be_read_and_every_allowed_cpu_is_in_one_core() {
        let allowed = allowed().unwrap();
        let topology = Topology::read(&allowed).unwrap();
        let mut cpus: Vec<u32> = topology
            .nodes
            .iter()
            .flat_map(|node| &node.cores)
            .flat_map(|core| core.cpus().to_vec())
            .collect();
        cpus.sort_unstable();
        assert_eq!(cpus, allowed.cpus());
    }
}

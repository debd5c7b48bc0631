//! In which order CPUs are taken: one of each core, then the second hardware threads of the cores.

use std::fs;

use anyhow::{Result, ensure};
use session_group::cpuset::CpuSet;

/// CPUs with their place among the hardware threads of their core, in the order in which they are taken.
pub struct Cores(Vec<(usize, u32)>);

impl Cores {
    /// Of these CPUs. Where the kernel does not say which ones share a core, none do.
    pub fn read(allowed: &CpuSet) -> Self {
        let place = |cpu: u32| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            let siblings = fs::read_to_string(path).ok();
            let siblings = siblings.and_then(|text| text.trim().parse::<CpuSet>().ok());
            let place = siblings.and_then(|all| all.cpus().iter().position(|&one| one == cpu));
            (place.unwrap_or(0), cpu)
        };
        let mut cpus: Vec<_> = allowed.cpus().iter().map(|&cpu| place(cpu)).collect();
        cpus.sort_unstable();
        Self(cpus)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The most that a core has.
    pub fn threads_per_core(&self) -> usize {
        self.0.last().map_or(1, |(place, _)| place + 1)
    }

    /// The numbers of CPUs to measure: those wanted or, where none are, 1, 2, 4, ..., all cores, all CPUs.
    pub fn counts(&self, wanted: &[u16]) -> Result<Vec<usize>> {
        let all = self.len();
        let mut counts: Vec<usize> = wanted.iter().map(|&count| usize::from(count)).collect();
        if let Some(count) = counts.iter().find(|&&count| count > all) {
            ensure!(false, "--cpus {count}: the benchmark may use {all} CPUs");
        }
        if counts.is_empty() {
            let doubling = std::iter::successors(Some(1), |count| Some(count * 2));
            counts.extend(doubling.take_while(|&count| count < all));
            counts.push(self.0.iter().filter(|(place, _)| *place == 0).count());
            counts.push(all);
        }
        counts.sort_unstable();
        counts.dedup();
        Ok(counts)
    }

    /// The first ones.
    pub fn first(&self, count: usize) -> CpuSet {
        CpuSet::new(self.0.iter().take(count).map(|(_, cpu)| *cpu)).expect("at least one CPU")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_come_before_their_second_threads() {
        let mut cpus = vec![(0, 0), (1, 1), (0, 2), (1, 3), (0, 4), (1, 5)];
        cpus.sort_unstable();
        let cores = Cores(cpus);
        assert_eq!(cores.first(4).cpus(), [0, 1, 2, 4]);
        assert_eq!(cores.counts(&[]).unwrap(), [1, 2, 3, 4, 6]);
        assert_eq!(cores.counts(&[6, 2]).unwrap(), [2, 6]);
        assert!(cores.counts(&[7]).is_err());
        assert_eq!(cores.threads_per_core(), 2);
    }
}

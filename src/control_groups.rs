//! What the control groups of this process allow it: memory, and a quota of CPU time.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory: the least limit of all groups around this process.
pub(crate) fn memory() -> Option<u64> {
    memory_in(&own(), Path::new(ROOT))
}

/// How many CPUs' time: the least quota of all groups around this process.
pub(crate) fn cpus() -> Option<f64> {
    cpus_in(&own(), Path::new(ROOT))
}

const ROOT: &str = "/sys/fs/cgroup";

fn own() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

fn memory_in(groups: &str, root: &Path) -> Option<u64> {
    let limit = |folder: &Folder| match folder {
        Folder::V1(path) => read(&path.join("memory.limit_in_bytes"))?.parse().ok(),
        // "max" where there is no limit
        Folder::V2(path) => read(&path.join("memory.max"))?.parse().ok(),
    };
    folders(groups, root, "memory").iter().filter_map(limit).min()
}

fn cpus_in(groups: &str, root: &Path) -> Option<f64> {
    let quota = |folder: &Folder| {
        let (quota, period) = match folder {
            // -1 where there is no quota
            Folder::V1(path) => {
                (read(&path.join("cpu.cfs_quota_us"))?, read(&path.join("cpu.cfs_period_us"))?)
            }
            // "max 100000" where there is no quota
            Folder::V2(path) => {
                let text = read(&path.join("cpu.max"))?;
                let (quota, period) = text.split_once(' ')?;
                (quota.to_string(), period.to_string())
            }
        };
        let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    };
    folders(groups, root, "cpu").iter().filter_map(quota).min_by(f64::total_cmp)
}

fn read(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_string())
}

enum Folder {
    V1(PathBuf),
    V2(PathBuf),
}

/// The folders of the groups that `/proc/self/cgroup` names for a controller, and of those around them.
fn folders(groups: &str, root: &Path, controller: &str) -> Vec<Folder> {
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let around = Path::new(group).ancestors();
        if controllers.is_empty() {
            return Some(around.map(|group| Folder::V2(root.join(group))).collect::<Vec<_>>());
        }
        let v1 = root.join(controller);
        let is_of = controllers.split(',').any(|one| one == controller);
        is_of.then(|| around.map(|group| Folder::V1(v1.join(group))).collect())
    };
    groups.lines().filter_map(of_line).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups in a folder that goes with this.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("{name}_{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_least_memory_around_a_group_counts() {
        let root = Root::new(
            "session_group_memory",
            &[
                ("memory.max", "max\n"),
                ("pod/memory.max", "1000\n"),
                ("pod/container/memory.max", "2000\n"),
                ("memory/old/memory.limit_in_bytes", "3000\n"),
            ],
        );
        assert_eq!(memory_in("0::/pod/container\n", &root.0), Some(1000));
        assert_eq!(memory_in("5:cpu:/x\n4:memory:/old\n0::/\n", &root.0), Some(3000));
        assert_eq!(memory_in("0::/\n", &root.0), None);
        assert_eq!(memory_in("", &root.0), None);
    }

    #[test]
    fn the_least_quota_around_a_group_counts() {
        let root = Root::new(
            "session_group_quota",
            &[
                ("cpu.max", "max 100000\n"),
                ("pod/cpu.max", "250000 100000\n"),
                ("pod/container/cpu.max", "max 100000\n"),
                ("odd/cpu.max", "0 0\n"),
                ("cpu/old/cpu.cfs_quota_us", "50000\n"),
                ("cpu/old/cpu.cfs_period_us", "100000\n"),
                ("cpu/free/cpu.cfs_quota_us", "-1\n"),
                ("cpu/free/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(cpus_in("0::/pod/container\n", &root.0), Some(2.5));
        assert_eq!(cpus_in("2:cpuacct,cpu:/old\n", &root.0), Some(0.5));
        for none in ["0::/odd\n", "2:cpu:/free\n", "2:cpuset:/old\n", "0::/\n", "nonsense", ""] {
            assert_eq!(cpus_in(none, &root.0), None, "{none}");
        }
    }
}

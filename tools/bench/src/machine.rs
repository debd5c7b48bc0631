//! The machine that was measured.

use std::fs;

use anyhow::Result;
use serde::Serialize;
use session_group::affinity;

#[derive(Serialize)]
pub struct Machine {
    /// The day, in UTC.
    pub date: String,
    pub cpu: String,
    /// CPUs that the benchmark may use.
    pub cpus: usize,
    pub memory_bytes: u64,
    pub kernel: String,
}

impl Machine {
    pub fn read() -> Result<Self> {
        let now = jiff::Timestamp::now().to_string();
        Ok(Self {
            date: now.split('T').next().unwrap_or(&now).to_string(),
            cpu: value(&fs::read_to_string("/proc/cpuinfo")?, "model name").unwrap_or_default(),
            cpus: affinity::allowed()?.len(),
            memory_bytes: value(&fs::read_to_string("/proc/meminfo")?, "MemTotal")
                .and_then(|total| total.strip_suffix(" kB")?.parse::<u64>().ok())
                .map_or(0, |kib| kib * 1024),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_string(),
        })
    }
}

#[cfg(test)]
impl Machine {
    /// For tests of reports.
    pub fn example() -> Self {
        Self {
            date: "2026-01-31".into(),
            cpu: "CPU".into(),
            cpus: 2,
            memory_bytes: 8_000_000_000,
            kernel: "6.1".into(),
        }
    }
}

/// The first value of a key in lines of `key: value`.
fn value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_proc_files() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nMemTotal:   12 kB\n";
        assert_eq!(value(text, "model name").unwrap(), "A CPU: fast");
        assert_eq!(value(text, "MemTotal").unwrap(), "12 kB");
        assert_eq!(value(text, "flags"), None);
    }
}

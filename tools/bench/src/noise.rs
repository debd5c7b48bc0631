//! Load from outside: what others did with our CPUs during a turn.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Where others take a larger share of a turn's CPU time, the turn is disturbed.
pub const TOLERATED: f64 = 0.05;

/// What has been used up to now, in clock ticks.
pub struct Sample {
    at: Instant,
    machine: Ticks,
    own: u64,
}

#[derive(Debug, Default, PartialEq)]
struct Ticks {
    busy: u64,
    /// By other virtual machines.
    stolen: u64,
}

impl Sample {
    /// Looks at these CPUs and at our own processes.
    pub fn take(cpus: &[u32], processes: &[u32]) -> Result<Self> {
        let cpus: HashSet<u32> = cpus.iter().copied().collect();
        let mut own = 0;
        for pid in processes {
            let path = format!("/proc/{pid}/stat");
            let text = fs::read_to_string(&path).with_context(|| path.clone())?;
            own += process_ticks(&text).context(path)?;
        }
        let machine = machine_ticks(&fs::read_to_string("/proc/stat")?, &cpus);
        Ok(Self { at: Instant::now(), machine, own })
    }

    /// The share of the CPUs' time since then that went to others.
    pub fn outside_load(&self, now: &Self, cpus: usize) -> f64 {
        // SAFETY: no precondition.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        outside_load(self, now, cpus, per_second)
    }
}

fn outside_load(then: &Sample, now: &Sample, cpus: usize, ticks_per_second: f64) -> f64 {
    let elapsed: Duration = now.at - then.at;
    let busy = (now.machine.busy - then.machine.busy) as f64;
    let own = now.own.saturating_sub(then.own) as f64;
    let stolen = (now.machine.stolen - then.machine.stolen) as f64;
    // Both are counted in whole ticks, so the difference may be a little below 0.
    ((busy - own).max(0.0) + stolen) / (elapsed.as_secs_f64() * ticks_per_second * cpus as f64)
}

/// Of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal of each CPU.
fn machine_ticks(stat: &str, cpus: &HashSet<u32>) -> Ticks {
    let mut ticks = Ticks::default();
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let number = words.next().and_then(|name| name.strip_prefix("cpu"));
        let Some(Ok(cpu)) = number.map(str::parse::<u32>) else { continue };
        if !cpus.contains(&cpu) {
            continue;
        }
        let fields: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let field = |i: usize| fields.get(i).copied().unwrap_or(0);
        ticks.busy += [0, 1, 2, 5, 6].map(field).iter().sum::<u64>();
        ticks.stolen += field(7);
    }
    ticks
}

/// Of `/proc/PID/stat`: the time in user and in kernel mode.
fn process_ticks(stat: &str) -> Option<u64> {
    // The second field is a name, which may have spaces and parentheses in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  300 0 100 900 0 0 0 9 0 0\n\
        cpu0 100 1 50 300 7 2 3 4 0 0\n\
        cpu1 200 0 50 600 0 0 0 5 0 0\n\
        intr 12345 0 0\n";

    #[test]
    fn busy_and_stolen_time_of_the_cpus_that_we_use() {
        assert_eq!(machine_ticks(STAT, &[0].into()), Ticks { busy: 156, stolen: 4 });
        assert_eq!(machine_ticks(STAT, &[0, 1].into()), Ticks { busy: 406, stolen: 9 });
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 70 30 0 0 20 0 1 0 5";
        assert_eq!(process_ticks(stat), Some(100));
        assert_eq!(process_ticks("nonsense"), None);
    }

    #[test]
    fn what_is_not_ours_is_others() {
        let at = Instant::now();
        let sample = |ms, busy, stolen, own| Sample {
            at: at + Duration::from_millis(ms),
            machine: Ticks { busy, stolen },
            own,
        };
        // Two CPUs for a second: 200 ticks, of which 10 went to others and 10 were stolen.
        let load = outside_load(&sample(0, 0, 0, 0), &sample(1000, 170, 10, 160), 2, 100.0);
        assert!((load - 0.1).abs() < 1e-9);
        let none = outside_load(&sample(0, 0, 0, 0), &sample(1000, 170, 0, 172), 2, 100.0);
        assert_eq!(none, 0.0);
    }
}

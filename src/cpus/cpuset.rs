//! Which CPUs each session may use: the grammar of `SESSION_GROUP_CPUSET`.
//!
//! Sessions are separated by `;`, the items of a session by `,`; an item is a CPU `N` or a range
//! `A-B`. Spaces and tabs may stand between any two of these. `"2-4;5-7"` gives three CPUs to each
//! of two sessions.
//!
//! This module only knows the text. Whether a CPU exists and may be used is for
//! [`affinity`](crate::cpus::affinity) to say.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The highest CPU number that is accepted. Far above what Linux can be built for, and low enough
/// that a mistyped range does not fill the memory.
pub const MAX_CPU: u32 = 65_535;

/// A set of CPUs, in ascending order, without repetition, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CpuSet(Vec<u32>);

/// One [`CpuSet`] for each session of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpusets(Vec<CpuSet>);

impl CpuSet {
    /// The set of these CPUs; `None` where there are none.
    pub fn new(cpus: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        (!cpus.is_empty()).then_some(Self(cpus))
    }

    /// The set of one CPU.
    pub fn one(cpu: u32) -> Self {
        Self(vec![cpu])
    }

    /// The CPUs of either.
    pub fn union(&self, other: &Self) -> Self {
        let either: BTreeSet<u32> = self.0.iter().chain(&other.0).copied().collect();
        Self(either.into_iter().collect())
    }

    /// The CPUs, in ascending order.
    pub fn cpus(&self) -> &[u32] {
        &self.0
    }

    /// How many CPUs.
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the CPU is in the set.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }
}

impl fmt::Display for CpuSet {
    /// As Linux writes it, `0-3,8`; this is also the grammar of an entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match run {
                [only] => write!(f, "{comma}{only}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = Error;

    /// One entry of the grammar.
    fn from_str(text: &str) -> Result<Self> {
        parse_entry(text).map_err(|why| Error::invalid(format!("{text:?}: {why}")))
    }
}

impl Cpusets {
    /// One entry for each session.
    pub fn new(entries: Vec<CpuSet>) -> Self {
        Self(entries)
    }

    /// The entries, one for each session.
    pub fn entries(&self) -> &[CpuSet] {
        &self.0
    }
}

impl fmt::Display for Cpusets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.0.iter().enumerate() {
            write!(f, "{}{entry}", if i > 0 { ";" } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Cpusets {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split(';')
            .enumerate()
            .map(|(i, entry)| parse_entry(entry).map_err(|why| in_entry(text, i, entry, &why)))
            .collect::<Result<_>>()
            .map(Self)
    }
}

fn in_entry(text: &str, index: usize, entry: &str, why: &str) -> Error {
    Error::invalid(format!("cpuset {text:?}, entry {index} ({:?}): {why}", entry.trim()))
}

fn parse_entry(entry: &str) -> std::result::Result<CpuSet, String> {
    if trim(entry).is_empty() {
        return Err("is empty: each session needs at least one CPU".to_string());
    }
    let mut cpus = BTreeSet::new();
    for item in entry.split(',') {
        for cpu in parse_item(trim(item))? {
            if !cpus.insert(cpu) {
                return Err(format!("names CPU {cpu} more than once"));
            }
        }
    }
    Ok(CpuSet(cpus.into_iter().collect()))
}

fn parse_item(item: &str) -> std::result::Result<std::ops::RangeInclusive<u32>, String> {
    if item.is_empty() {
        return Err("has an empty item: write N or A-B between commas".to_string());
    }
    let Some((first, last)) = item.split_once('-') else {
        let cpu = parse_cpu(item)?;
        return Ok(cpu..=cpu);
    };
    let (first, last) = (parse_cpu(trim(first))?, parse_cpu(trim(last))?);
    if first > last {
        return Err(format!("has the reversed range {item:?}: write {last}-{first}"));
    }
    Ok(first..=last)
}

fn parse_cpu(text: &str) -> std::result::Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is not a CPU number"));
    }
    match text.parse() {
        Ok(cpu) if cpu <= MAX_CPU => Ok(cpu),
        _ => Err(format!("CPU {text} is beyond {MAX_CPU}")),
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Vec<Vec<u32>> {
        let sets: Cpusets = text.parse().unwrap();
        sets.entries().iter().map(|set| set.cpus().to_vec()).collect()
    }

    #[test]
    fn the_documented_forms() {
        assert_eq!(cpus("2-4;5-7"), [[2, 3, 4], [5, 6, 7]]);
        assert_eq!(cpus("2,3,4;5,6,7"), [[2, 3, 4], [5, 6, 7]]);
        assert_eq!(cpus("0;1"), [[0], [1]]);
        assert_eq!(cpus("0-1,4;2-3,5"), [[0, 1, 4], [2, 3, 5]]);
        assert_eq!(cpus("2"), [[2]]);
        assert_eq!(cpus(" 1 - 3 , 5 ;\t7 "), [vec![1, 2, 3, 5], vec![7]]);
        assert_eq!(cpus("5,1-3"), [[1, 2, 3, 5]]);
        assert_eq!(cpus("3-3"), [[3]]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, entry, why) in [
            ("", "entry 0", "is empty"),
            ("0;", "entry 1", "is empty"),
            (";0", "entry 0", "is empty"),
            ("0; ;1", "entry 1", "is empty"),
            ("0,;1", "entry 0", "empty item"),
            (",0", "entry 0", "empty item"),
            ("a;1", "entry 0", "\"a\" is not a CPU number"),
            ("1;2-x", "entry 1", "\"x\" is not a CPU number"),
            ("-1", "entry 0", "\"\" is not a CPU number"),
            ("+1", "entry 0", "\"+1\" is not a CPU number"),
            ("1-", "entry 0", "\"\" is not a CPU number"),
            ("1-2-3", "entry 0", "\"2-3\" is not a CPU number"),
            ("1 2", "entry 0", "\"1 2\" is not a CPU number"),
            ("0x1", "entry 0", "\"0x1\" is not a CPU number"),
            ("\u{661}", "entry 0", "is not a CPU number"),
            ("4-2", "entry 0", "write 2-4"),
            ("0;1,2,1", "entry 1", "names CPU 1 more than once"),
            ("0-3,2", "entry 0", "names CPU 2 more than once"),
            ("65536", "entry 0", "beyond 65535"),
            ("0-99999999999999999999", "entry 0", "beyond 65535"),
        ] {
            let error = text.parse::<Cpusets>().unwrap_err();
            assert!(error.message.contains(entry), "{text:?}: {error}");
            assert!(error.message.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn display_is_shortest_and_parses_back() {
        for (text, shortest) in [("4,3,2;7", "2-4;7"), ("1,2,4,6-8", "1-2,4,6-8"), ("0;0", "0;0")] {
            let sets: Cpusets = text.parse().unwrap();
            assert_eq!(sets.to_string(), shortest);
            assert_eq!(shortest.parse::<Cpusets>().unwrap(), sets);
        }
    }

    mod properties {
        use proptest::collection::{btree_set, vec};
        use proptest::prelude::*;

        use super::*;

        fn any_cpusets() -> impl Strategy<Value = Cpusets> {
            let entry = prop_oneof![btree_set(0..12u32, 1..8), btree_set(0..=MAX_CPU, 1..8)];
            vec(entry.prop_map(|cpus| CpuSet::new(cpus).unwrap()), 1..6).prop_map(Cpusets::new)
        }

        proptest! {
            #[test]
            fn what_is_written_reads_as_the_same(sets in any_cpusets()) {
                prop_assert_eq!(sets.to_string().parse::<Cpusets>().unwrap(), sets);
            }

            #[test]
            fn order_and_spaces_do_not_matter(sets in any_cpusets(), seed: u64) {
                let pad = |i: usize| [" ", "", "\t", "  "][(seed >> (i % 60)) as usize % 4];
                let entry = |set: &CpuSet| {
                    let items = set.cpus().iter().rev().enumerate();
                    items.map(|(i, cpu)| format!("{}{cpu}{}", pad(i), pad(i + 7))).collect::<Vec<_>>()
                };
                let entries = sets.entries().iter().map(|set| entry(set).join(","));
                let text = entries.collect::<Vec<_>>().join(";");
                prop_assert_eq!(text.parse::<Cpusets>().unwrap(), sets);
            }

            #[test]
            fn anything_else_is_an_error_that_names_an_entry(text in "[-0-9,; a\u{e9}]{0,24}") {
                match text.parse::<Cpusets>() {
                    // What is accepted is in the grammar: it means what it says when written anew.
                    Ok(sets) => prop_assert_eq!(sets.to_string().parse::<Cpusets>().unwrap(), sets),
                    Err(error) => {
                        prop_assert_eq!(error.code, crate::Code::InvalidArgument);
                        prop_assert!(error.message.contains("entry "), "{}", error);
                    }
                }
            }

            #[test]
            fn no_text_panics(text in any::<String>()) {
                let _ = text.parse::<Cpusets>();
            }

            #[test]
            fn a_broken_entry_is_the_one_that_is_named(sets in any_cpusets(), at: prop::sample::Index) {
                let mut entries: Vec<String> = sets.entries().iter().map(CpuSet::to_string).collect();
                let at = at.index(entries.len());
                entries[at].push_str(",x");
                let error = entries.join(";").parse::<Cpusets>().unwrap_err();
                let expected = format!("entry {at} ");
                prop_assert!(error.message.contains(&expected), "{}", error);
            }
        }
    }
}

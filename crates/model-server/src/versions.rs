//! Versions of a model in the file system, and which of them shall be served.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::proto::serving::file_system_storage_path_source_config::ServableVersionPolicy;
use crate::proto::serving::file_system_storage_path_source_config::servable_version_policy::PolicyChoice;

/// The folders in `base` that are named by a number.
pub fn list(base: &Path) -> io::Result<BTreeMap<i64, PathBuf>> {
    let mut names: Vec<_> =
        fs::read_dir(base)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    // Of names of the same number, as 7 and 007, the last one counts.
    names.sort();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.trim().parse::<i64>().ok();
    Ok(names.into_iter().filter_map(|path| Some((number(&path)?, path))).collect())
}

/// Those of the versions that the policy wants: without one, the latest.
pub fn wanted(
    mut versions: BTreeMap<i64, PathBuf>,
    policy: Option<&ServableVersionPolicy>,
) -> BTreeMap<i64, PathBuf> {
    match policy.and_then(|policy| policy.policy_choice.as_ref()) {
        Some(PolicyChoice::All(_)) => versions,
        Some(PolicyChoice::Specific(specific)) => {
            versions.retain(|version, _| specific.versions.contains(version));
            versions
        }
        latest => {
            let number = match latest {
                Some(PolicyChoice::Latest(latest)) => latest.num_versions.max(1),
                _ => 1,
            };
            versions.into_iter().rev().take(number as usize).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::serving::file_system_storage_path_source_config::servable_version_policy::{
        All, Latest, Specific,
    };

    #[test]
    fn folders_named_by_numbers_are_versions() {
        let base =
            std::env::temp_dir().join(format!("session_group_versions.{}", std::process::id()));
        for name in ["1", "007", "7", "12", "v3", "1.tmp", ".4", "99999999999999999999"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        let versions = list(&base).unwrap();
        assert_eq!(versions.keys().copied().collect::<Vec<_>>(), [1, 7, 12]);
        assert_eq!(versions[&7], base.join("7"));
        fs::remove_dir_all(&base).unwrap();
        assert!(list(&base).is_err());
    }

    #[test]
    fn the_policy_chooses() {
        let of = |choice: Option<PolicyChoice>| {
            let versions = [1, 2, 5, 9].map(|version| (version, PathBuf::new())).into();
            let policy = choice.map(|choice| ServableVersionPolicy { policy_choice: Some(choice) });
            wanted(versions, policy.as_ref()).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(of(None), [9]);
        assert_eq!(of(Some(PolicyChoice::Latest(Latest { num_versions: 0 }))), [9]);
        assert_eq!(of(Some(PolicyChoice::Latest(Latest { num_versions: 3 }))), [2, 5, 9]);
        assert_eq!(of(Some(PolicyChoice::All(All {}))), [1, 2, 5, 9]);
        assert_eq!(of(Some(PolicyChoice::Specific(Specific { versions: vec![2, 4] }))), [2]);
    }
}

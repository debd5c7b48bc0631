//! All groups of the process, for those who hold none: a group that a session target has made is
//! known to nobody but TensorFlow.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use crate::metrics;
use crate::run::Shared;

/// In the order in which they were made.
static GROUPS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

pub(crate) fn add(group: &Arc<Shared>) {
    let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    groups.retain(|group| group.strong_count() > 0);
    groups.push(Arc::downgrade(group));
}

/// Those that are not closed.
fn open() -> Vec<Arc<Shared>> {
    let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    groups.iter().filter_map(Weak::upgrade).filter(|group| !group.gate.is_closed()).collect()
}

/// What the open groups are, as a JSON array of what [`SessionGroup::describe`] gives.
///
/// [`SessionGroup::describe`]: crate::SessionGroup::describe
pub fn describe_all() -> String {
    open().iter().map(|group| group.describe()).collect::<Value>().to_string()
}

/// What the sessions of the open groups have done so far, as [`SessionGroup::metrics_text`].
///
/// [`SessionGroup::metrics_text`]: crate::SessionGroup::metrics_text
pub fn metrics_text_of_all() -> String {
    let groups: Vec<_> = open().iter().map(|group| (group.number, group.snapshots())).collect();
    metrics::text(&groups)
}

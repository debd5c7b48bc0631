//! All groups of the process, for those who hold none: a group that a session target has made is
//! known to nobody but TensorFlow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::memory::memory_stats;
use crate::observe::{describe, explain, metrics};
use crate::process;
use crate::request::state::GroupState;

/// In the order in which they were made.
static GROUPS: Mutex<Vec<Weak<GroupState>>> = Mutex::new(Vec::new());

/// `None` in a forked child where the lock belongs to a thread that stayed behind.
fn lock() -> Option<MutexGuard<'static, Vec<Weak<GroupState>>>> {
    const PATIENCE: Duration = Duration::from_secs(1);
    if !process::is_child() {
        return Some(GROUPS.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match GROUPS.try_lock() {
            Ok(groups) => return Some(groups),
            Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() > end => return None,
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
}

pub(crate) fn add(group: &Arc<GroupState>) {
    if let Some(mut groups) = lock() {
        groups.retain(|group| group.strong_count() > 0);
        groups.push(Arc::downgrade(group));
    }
}

/// Those that are not closed.
fn open() -> Vec<Arc<GroupState>> {
    let groups = lock();
    let groups = groups.iter().flat_map(|groups| groups.iter());
    groups.filter_map(Weak::upgrade).filter(|group| !group.gate.is_closed()).collect()
}

/// What the open groups are, as a JSON array of what [`SessionGroup::describe`] gives.
///
/// [`SessionGroup::describe`]: crate::SessionGroup::describe
pub fn describe_all() -> String {
    open().iter().map(|group| describe::group(group)).collect::<Value>().to_string()
}

/// What the open groups have prepared, as a JSON array of what [`SessionGroup::explain`] gives.
///
/// [`SessionGroup::explain`]: crate::SessionGroup::explain
pub fn explain_all() -> String {
    open().iter().map(|group| explain::group(group)).collect::<Value>().to_string()
}

/// What the sessions of the open groups have done so far, as [`SessionGroup::metrics_text`].
///
/// [`SessionGroup::metrics_text`]: crate::SessionGroup::metrics_text
pub fn metrics_text_of_all() -> String {
    let groups: Vec<_> = open().iter().map(|group| metrics::OfGroup::new(group)).collect();
    metrics::text(&groups, &memory_stats())
}

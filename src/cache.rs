//! What has been prepared for requests, found by the names of their feeds, fetches and targets.
//!
//! A hash table that only grows, so that looking up takes no lock: a slot is written once, and read
//! by whoever comes later. Like TensorFlow's own sessions it keeps what it has seen, but a bounded
//! number: beyond it, names are left to these.

use std::hash::{Hash, Hasher};
use std::sync::PoisonError;

use rustc_hash::FxHasher;
use smallvec::SmallVec;

use crate::error::Result;
use crate::sync::{Mutex, OnceLock};

/// How many slots a group has; a power of two.
const SLOTS: usize = 1024;

/// The names in a request, in its order.
#[derive(Hash)]
pub(crate) struct Signature<'a> {
    pub feeds: SmallVec<[&'a str; 32]>,
    pub fetches: &'a [&'a str],
    pub targets: &'a [&'a str],
}

struct Names([Box<[Box<str>]>; 3]);

pub(crate) struct Cache<T> {
    slots: Box<[OnceLock<(Names, T)>]>,
    /// How many slots are taken; held while another one is.
    taken: Mutex<usize>,
}

impl<T> Cache<T> {
    pub fn new() -> Self {
        Self::with_slots(SLOTS)
    }

    /// `slots` is a power of two.
    pub fn with_slots(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| OnceLock::new()).collect(), taken: Mutex::new(0) }
    }

    /// How many entries there may be: leaves free slots, at which searches end.
    fn most(&self) -> usize {
        self.slots.len() * 3 / 4
    }

    fn find(&self, signature: &Signature<'_>) -> Option<usize> {
        self.probe(signature).ok()
    }

    /// The entry at a place that was found.
    pub fn at(&self, place: usize) -> Option<&T> {
        self.slots.get(place)?.get().map(|(_, value)| value)
    }

    /// Where the entry for these names is, for [`at`](Self::at); where there is none, adds what
    /// `make` gives. `None` where there is no room for more.
    pub fn find_or_add(
        &self,
        signature: &Signature<'_>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Option<usize>> {
        if let Some(place) = self.find(signature) {
            return Ok(Some(place));
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match self.probe(signature) {
            Ok(place) => Ok(Some(place)),
            Err(_) if *taken >= self.most() => Ok(None),
            Err(free) => {
                let entry = (Names::of(signature), make()?);
                // Free, since slots are taken under the lock only.
                let _ = self.slots[free].set(entry);
                *taken += 1;
                Ok(Some(free))
            }
        }
    }

    /// The place of the entry or, as the error, the free one where it would be.
    fn probe(&self, signature: &Signature<'_>) -> std::result::Result<usize, usize> {
        let mut hasher = FxHasher::default();
        signature.hash(&mut hasher);
        let last = self.slots.len() - 1;
        let mut place = hasher.finish() as usize & last;
        loop {
            match self.slots[place].get() {
                None => return Err(place),
                Some((names, _)) if names.are(signature) => return Ok(place),
                Some(_) => place = (place + 1) & last,
            }
        }
    }
}

impl Names {
    fn of(signature: &Signature<'_>) -> Self {
        Self(
            [&signature.feeds, signature.fetches, signature.targets]
                .map(|names: &[&str]| names.iter().map(|&name| name.into()).collect()),
        )
    }

    fn are(&self, signature: &Signature<'_>) -> bool {
        let same = |own: &[Box<str>], names: &[&str]| {
            own.len() == names.len()
                && std::iter::zip(own, names).all(|(own, &name)| **own == *name)
        };
        same(&self.0[0], &signature.feeds)
            && same(&self.0[1], signature.fetches)
            && same(&self.0[2], signature.targets)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use smallvec::smallvec;

    use super::*;
    use crate::error::Error;

    fn signature<'a>(feed: &'a str, fetches: &'a [&'a str]) -> Signature<'a> {
        Signature { feeds: smallvec![feed], fetches, targets: &[] }
    }

    #[test]
    fn an_entry_is_made_once_by_many_threads() {
        let cache = Cache::new();
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for i in 0..200 {
                        let name = format!("x{i}:0");
                        let place = cache
                            .find_or_add(&signature(&name, &["y:0"]), || {
                                made.fetch_add(1, Ordering::Relaxed);
                                Ok(i)
                            })
                            .unwrap();
                        assert_eq!(cache.at(place.unwrap()), Some(&i));
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 200);
    }

    #[test]
    fn names_count_by_kind_and_order() {
        let cache = Cache::new();
        let all = [
            signature("a", &["b"]),
            signature("a", &["b", "c"]),
            signature("a", &["c", "b"]),
            signature("b", &["a"]),
            Signature { feeds: smallvec!["a", "b"], fetches: &[], targets: &[] },
            Signature { feeds: smallvec!["a"], fetches: &[], targets: &["b"] },
            Signature { feeds: smallvec![], fetches: &["a"], targets: &["b"] },
        ];
        for (i, signature) in all.iter().enumerate() {
            assert!(cache.find(signature).is_none());
            cache.find_or_add(signature, || Ok(i)).unwrap().unwrap();
        }
        for (i, signature) in all.iter().enumerate() {
            assert_eq!(cache.at(cache.find(signature).unwrap()), Some(&i));
        }
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let cache = Cache::new();
        let signature = signature("x", &["nowhere:0"]);
        assert!(cache.find_or_add(&signature, || Err(Error::invalid("no"))).is_err());
        assert!(cache.find(&signature).is_none());
        assert!(cache.find_or_add(&signature, || Ok(7)).unwrap().is_some());
    }

    #[test]
    fn a_full_cache_keeps_what_it_has() {
        let cache = Cache::new();
        let names: Vec<String> = (0..SLOTS).map(|i| format!("x{i}")).collect();
        let added = |name: &String| cache.find_or_add(&signature(name, &[]), || Ok(())).unwrap();
        assert_eq!(names.iter().filter(|name| added(name).is_some()).count(), cache.most());
        assert!(cache.find(&signature(&names[0], &[])).is_some());
        assert!(cache.find(&signature(&names[SLOTS - 1], &[])).is_none());
    }
}

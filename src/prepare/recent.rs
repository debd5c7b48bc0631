//! Where the calling thread has found the programs of its requests, so that it finds them again without
//! a lock, and without writing to memory that others read.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;

use crate::prepare::signature::{Names, Signature};
use crate::tensorflow::program::Order;

/// How many each thread remembers; a power of two.
const PLACES: usize = 64;

/// Where the program for some names is.
pub(crate) struct Recent {
    /// The cache, the place in it, and the number of the entry that was there.
    pub cache: u64,
    pub place: usize,
    pub number: u64,
    pub order: Order,
    names: Names,
}

thread_local! {
    static RECENT: RefCell<Vec<Option<Arc<Recent>>>> = RefCell::default();
}

/// What this thread has [`remember`]ed for these names and this cache.
pub(crate) fn find(cache: u64, signature: &Signature<'_>) -> Option<Arc<Recent>> {
    // Where the thread ends, there is nothing any more.
    let found = RECENT.try_with(|recent| recent.borrow().get(place(cache, signature))?.clone());
    let recent = found.ok()??;
    (recent.cache == cache && recent.names.are(signature)).then_some(recent)
}

/// Remembers an entry, in place of another one.
pub(crate) fn remember(
    cache: u64,
    signature: &Signature<'_>,
    (place_in_cache, number): (usize, u64),
    order: Order,
) -> Arc<Recent> {
    let names = Names::of(signature);
    let remembered = Arc::new(Recent { cache, place: place_in_cache, number, order, names });
    // Without memory of its own, where the thread ends, it is found in the usual way.
    let _ = RECENT.try_with(|recent| {
        let mut recent = recent.borrow_mut();
        if recent.is_empty() {
            recent.resize(PLACES, None);
        }
        recent[place(cache, signature)] = Some(remembered.clone());
    });
    remembered
}

fn place(cache: u64, signature: &Signature<'_>) -> usize {
    let mut hasher = FxHasher::default();
    cache.hash(&mut hasher);
    signature.hash(&mut hasher);
    // The upper bits are the better ones.
    (hasher.finish() >> 40) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn each_cache_and_thread_has_its_own() {
        let signature = Signature { feeds: smallvec!["x"], fetches: &["y"], targets: &[] };
        assert!(find(1, &signature).is_none());
        remember(1, &signature, (7, 3), Order::default());
        let found = find(1, &signature).unwrap();
        assert_eq!((found.place, found.number), (7, 3));
        assert!(find(2, &signature).is_none());
        let other = Signature { fetches: &["z"], ..signature.clone() };
        assert!(find(1, &other).is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(find(1, &signature).is_none()));
        });
    }
}

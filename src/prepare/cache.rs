//! What has been prepared for requests, found by the names of their feeds, fetches and targets.
//!
//! It keeps a bounded number of entries, and takes one out that was not used lately when another one
//! comes; what is pinned stays, and does not count. The lock is held to look names up, never while
//! an entry is made or dropped. Threads remember where they have found what ([`recent`](crate::prepare::recent)),
//! so that few requests need it.

use std::collections::HashMap;
use std::sync::PoisonError;

use crate::prepare::signature::Names;
use crate::prepare::slot::{Inside, Slot};
use crate::sync::{Mutex, MutexGuard, OnceLock};

/// How many entries a group keeps that are not pinned.
const MOST: usize = 768;
/// Slots come in chunks, so that they stay where they are.
const CHUNK: usize = 64;
const CHUNKS: usize = 1024;

type Chunk<T> = Box<[Slot<T>]>;

pub(crate) struct Cache<T> {
    lanes: usize,
    most: usize,
    /// How many slots a chunk has.
    chunk: usize,
    chunks: Box<[OnceLock<Chunk<T>>]>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    places: HashMap<Names, usize>,
    entries: Vec<Entry>,
    free: Vec<usize>,
    pinned: usize,
    /// Where the search for an entry to take out goes on.
    hand: usize,
}

#[derive(Default)]
struct Entry {
    names: Option<Names>,
    pins: usize,
}

/// An entry, and where it is.
pub(crate) struct Found<'a, T> {
    pub place: usize,
    pub value: Inside<'a, T>,
}

impl<T> Cache<T> {
    /// For users that enter by so many lanes.
    pub fn new(lanes: usize) -> Self {
        Self::with_most(lanes, MOST)
    }

    pub fn with_most(lanes: usize, most: usize) -> Self {
        Self::with_room(lanes, most, CHUNKS, CHUNK)
    }

    /// With room for entries, pinned ones included, in so many chunks of so many.
    pub fn with_room(lanes: usize, most: usize, chunks: usize, chunk: usize) -> Self {
        let chunks = (0..chunks).map(|_| OnceLock::new()).collect();
        Self { lanes, most, chunk, chunks, index: Mutex::new(Index::default()) }
    }

    /// The entry at a place that was found, if it is still that one.
    pub fn at(&self, place: usize, number: u64, lane: usize) -> Option<Inside<'_, T>> {
        self.slot(place)?.enter(lane).filter(|value| value.number() == number)
    }

    /// The entry for these names, if there is one.
    pub fn find(&self, names: &Names, lane: usize) -> Option<Found<'_, T>> {
        let index = self.lock();
        self.enter(*index.places.get(names)?, lane)
    }

    /// The entry for these names; where there is none, adds what `make` gives. `None` where there is
    /// no room, since all entries are in use.
    pub fn find_or_add(
        &self,
        names: &Names,
        lane: usize,
        make: impl FnOnce() -> T,
    ) -> Option<Found<'_, T>> {
        // Dropped after the lock.
        let mut dropped = None;
        let mut index = self.lock();
        if let Some(&place) = index.places.get(names) {
            return self.enter(place, lane);
        }
        if index.entries.len() - index.free.len() - index.pinned >= self.most {
            dropped = Some(self.take_one_out(&mut index)?);
        }
        let place = match index.free.pop() {
            Some(place) => place,
            None if index.entries.len() < self.chunk * self.chunks.len() => {
                index.entries.push(Entry::default());
                index.entries.len() - 1
            }
            None => return None,
        };
        let slot = self.slot_for(place);
        slot.put(make());
        index.entries[place].names = Some(names.clone());
        index.places.insert(names.clone(), place);
        let value = slot.enter(lane)?;
        // What comes once is the first to go.
        slot.was_used();
        drop(index);
        drop(dropped);
        Some(Found { place, value })
    }

    /// Takes an entry out, unless it is in use: whoever finds it later makes it anew.
    pub fn remove(&self, place: usize, number: u64) {
        let mut index = self.lock();
        let Some(slot) = self.slot(place) else { return };
        if index.entries[place].pins > 0
            || slot.enter(0).is_none_or(|value| value.number() != number)
        {
            return;
        }
        let value = slot.try_take();
        if value.is_some() {
            index.forget(place);
        }
        drop(index);
        drop(value);
    }

    /// Keeps an entry that the caller is inside of until it is unpinned.
    pub fn pin(&self, place: usize) {
        let mut index = self.lock();
        index.entries[place].pins += 1;
        if index.entries[place].pins == 1 {
            index.pinned += 1;
        }
    }

    pub fn unpin(&self, place: usize) {
        let mut index = self.lock();
        index.entries[place].pins -= 1;
        if index.entries[place].pins == 0 {
            index.pinned -= 1;
        }
    }

    /// Calls `f` with each entry.
    pub fn for_each(&self, lane: usize, mut f: impl FnMut(&T)) {
        let n = self.lock().entries.len();
        for place in 0..n {
            if let Some(value) = self.slot(place).and_then(|slot| slot.enter(lane)) {
                f(&value);
            }
        }
    }

    /// Each entry gets a second chance: it goes where it was not used since the last search.
    fn take_one_out(&self, index: &mut Index) -> Option<T> {
        for _ in 0..2 * index.entries.len() {
            let place = index.hand;
            index.hand = (index.hand + 1) % index.entries.len();
            let entry = &index.entries[place];
            if entry.names.is_none() || entry.pins > 0 {
                continue;
            }
            let slot = self.slot(place)?;
            if slot.was_used() {
                continue;
            }
            if let Some(value) = slot.try_take() {
                index.forget(place);
                return Some(value);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, place: usize, lane: usize) -> Option<Found<'_, T>> {
        Some(Found { place, value: self.slot(place)?.enter(lane)? })
    }

    fn slot(&self, place: usize) -> Option<&Slot<T>> {
        Some(&self.chunks.get(place / self.chunk)?.get()?[place % self.chunk])
    }

    /// Under the lock.
    fn slot_for(&self, place: usize) -> &Slot<T> {
        let chunk = &self.chunks[place / self.chunk];
        if chunk.get().is_none() {
            let _ = chunk.set((0..self.chunk).map(|_| Slot::new(self.lanes)).collect());
        }
        self.slot(place).expect("its chunk is there")
    }
}

impl Index {
    fn forget(&mut self, place: usize) {
        if let Some(names) = self.entries[place].names.take() {
            self.places.remove(&names);
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use smallvec::smallvec;

    use super::*;
    use crate::prepare::signature::Signature;

    fn names(feed: &str) -> Names {
        Names::of(&Signature { feeds: smallvec![feed], fetches: &[], targets: &[] })
    }

    #[test]
    fn an_entry_is_made_once_by_many_threads() {
        let cache = Cache::new(8);
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for lane in 0..8 {
                let (cache, made) = (&cache, &made);
                scope.spawn(move || {
                    for i in 0..200 {
                        let make = || {
                            made.fetch_add(1, Ordering::Relaxed);
                            i
                        };
                        let found = cache.find_or_add(&names(&i.to_string()), lane, make).unwrap();
                        assert_eq!(*found.value, i);
                        let again = cache.at(found.place, found.value.number(), lane).unwrap();
                        assert_eq!(*again, i);
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 200);
    }

    #[test]
    fn what_is_used_stays_and_the_number_of_entries_is_bounded() {
        let cache = Cache::with_most(1, 10);
        let alive = Arc::new(());
        let add = |name: &str| {
            let make = || (name.to_string(), alive.clone());
            let found = cache.find_or_add(&names(name), 0, make).unwrap();
            assert_eq!(found.value.0, name);
            (found.place, found.value.number())
        };
        let (place, number) = add("good");
        for i in 0..1000 {
            add(&i.to_string());
            assert!(cache.at(place, number, 0).is_some(), "used all the time, yet gone");
            assert!(Arc::strong_count(&alive) <= 11);
        }
        drop(cache);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn what_somebody_is_inside_of_or_has_pinned_stays() {
        let cache = Cache::with_most(1, 2);
        let inside = cache.find_or_add(&names("inside"), 0, || 1).unwrap();
        let pinned = cache.find_or_add(&names("pinned"), 0, || 2).unwrap();
        let (place, number) = (pinned.place, pinned.value.number());
        cache.pin(place);
        drop(pinned);
        let other = cache.find_or_add(&names("other"), 0, || 3).unwrap();
        // Both that are not pinned are in use.
        assert!(cache.find_or_add(&names("more"), 0, || 4).is_none());
        drop(other);
        assert!(cache.find_or_add(&names("more"), 0, || 4).is_some());
        assert_eq!(*inside.value, 1);
        assert_eq!(*cache.at(place, number, 0).unwrap(), 2);
        cache.unpin(place);
        drop(inside);
        for i in 0..10 {
            cache.find_or_add(&names(&i.to_string()), 0, || 5).unwrap();
        }
        assert!(cache.at(place, number, 0).is_none());
    }

    #[test]
    fn what_is_removed_is_made_anew() {
        let cache = Cache::new(1);
        let found = cache.find_or_add(&names("x"), 0, || 1).unwrap();
        let (place, number) = (found.place, found.value.number());
        // Not while it is in use.
        cache.remove(place, number);
        assert!(cache.at(place, number, 0).is_some());
        drop(found);
        cache.remove(place, number);
        assert!(cache.at(place, number, 0).is_none());
        let again = cache.find_or_add(&names("x"), 0, || 2).unwrap();
        assert_eq!((*again.value, again.place), (2, place));
        assert!(again.value.number() > number);
    }
}

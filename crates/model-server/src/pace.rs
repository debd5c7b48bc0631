//! Which requests are so short that they are computed on the thread that has read them, because handing them to another
//! one would take longer. Each serving thread finds out for itself, so that none writes what others read.
//!
//! A request counts as short if those like it have run as a straight program ([`SessionGroup::is_straight`]) within the
//! limit, in proportion to its size. Of one that runs in a batch, only what is done before and after that counts. One
//! that takes far longer has others like it go to other threads for a while.
//!
//! [`SessionGroup::is_straight`]: session_group::SessionGroup::is_straight

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::servable::Servable;
use crate::stopwatch::FAR;

/// What a request is like, and how large it is.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    key: u64,
    bytes: usize,
}

/// What is known about requests of a kind.
#[derive(Default)]
struct Pace {
    manner: Manner,
    /// Moving averages.
    seconds: f64,
    bytes: f64,
    /// How many in a row did not take far too long, and how many it takes to be short.
    row: u32,
    needed: u32,
}

/// More kinds than this are not worth remembering: a client may make up any number of filters.
const MOST_KINDS: usize = 1024;
const MOST_NEEDED: u32 = 1 << 16;
/// After so many in a row, half as many will do the next time.
const FORGIVEN: u32 = 1024;

/// How a request is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As a straight program.
    Straight,
    /// In batches, on their threads.
    Batched,
    /// In a way that may take any time.
    #[default]
    Other,
}

/// What a thread has run since somebody wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Nobody wants to.
    Unasked,
    Nothing,
    All(Manner),
}

thread_local! {
    static PACES: RefCell<HashMap<u64, Pace>> = RefCell::default();
    static SEEN: Cell<Seen> = const { Cell::new(Seen::Unasked) };
}

impl Kind {
    /// Requests to a version by a call, for a signature and some of its outputs.
    pub fn new(
        servable: &Servable,
        api: &str,
        signature: &str,
        outputs: &[&str],
        bytes: usize,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        (servable.number, api, signature, outputs).hash(&mut hasher);
        Self { key: hasher.finish(), bytes }
    }

    /// Whether it is to be computed here.
    pub fn is_short(self, limit: Duration) -> bool {
        self.quick(limit) == Some(Manner::Straight)
    }

    /// How such requests run, if they take little of a thread.
    pub fn quick(self, limit: Duration) -> Option<Manner> {
        PACES.with_borrow(|paces| {
            let pace = paces.get(&self.key)?;
            pace.is_quick(self.bytes, limit).then_some(pace.manner)
        })
    }

    /// Whether it is known that such requests run straight.
    pub fn is_straight(self) -> bool {
        PACES.with_borrow(|paces| {
            paces.get(&self.key).is_some_and(|pace| pace.manner == Manner::Straight)
        })
    }

    /// Such a request took so long on this thread, which had its CPU.
    pub fn took_here(self, time: Duration, limit: Duration) {
        self.learn(|pace| pace.took_here(self.bytes, time, limit));
    }

    /// Such a request took so much of a CPU, on any threads. How long it took there depends on what else ran. `manner`
    /// where that was observed.
    pub fn took_cpu(self, cpu: Duration, limit: Duration, manner: Option<Manner>) {
        self.learn(|pace| pace.took_cpu(self.bytes, cpu, limit, manner));
    }

    fn learn(self, learn: impl FnOnce(&mut Pace)) {
        PACES.with_borrow_mut(|paces| {
            if paces.len() >= MOST_KINDS && !paces.contains_key(&self.key) {
                paces.clear();
            }
            learn(paces.entry(self.key).or_default());
        });
    }
}

impl Pace {
    fn is_quick(&self, bytes: usize, limit: Duration) -> bool {
        let times = (bytes as f64 / self.bytes).max(1.0);
        self.row > self.needed && self.seconds * times <= limit.as_secs_f64()
    }

    fn took_here(&mut self, bytes: usize, time: Duration, limit: Duration) {
        self.average(bytes, time);
        // Else it waits for something that takes no CPU of this thread.
        match self.seconds <= limit.as_secs_f64() {
            true => self.count(time, limit),
            false => self.go_elsewhere(),
        }
    }

    fn took_cpu(&mut self, bytes: usize, cpu: Duration, limit: Duration, manner: Option<Manner>) {
        self.manner = manner.unwrap_or(self.manner);
        self.average(bytes, cpu);
        self.count(cpu, limit);
    }

    fn average(&mut self, bytes: usize, time: Duration) {
        let (seconds, bytes) = (time.as_secs_f64(), bytes.max(1) as f64);
        if self.bytes == 0.0 {
            (self.seconds, self.bytes) = (seconds, bytes);
        }
        self.seconds += (seconds - self.seconds) / 8.0;
        self.bytes += (bytes - self.bytes) / 8.0;
    }

    fn count(&mut self, time: Duration, limit: Duration) {
        if time > FAR * limit {
            return self.go_elsewhere();
        }
        self.row = self.row.saturating_add(1);
        if self.row >= self.needed + FORGIVEN {
            self.needed /= 2;
            self.row = self.needed + 1;
        }
    }

    fn go_elsewhere(&mut self) {
        self.row = 0;
        self.needed = (4 * self.needed + 4).min(MOST_NEEDED);
    }
}

/// Calls `run`, and says how it had something run.
pub fn observed<T>(run: impl FnOnce() -> T) -> (T, Option<Manner>) {
    SEEN.set(Seen::Nothing);
    let result = run();
    let manner = match SEEN.replace(Seen::Unasked) {
        Seen::All(manner) => manner,
        Seen::Unasked | Seen::Nothing => Manner::Other,
    };
    (result, Some(manner))
}

/// This thread has had something run. How is only found out if somebody wants to know.
pub fn has_run(manner: impl FnOnce() -> Manner) {
    let all = match SEEN.get() {
        Seen::Unasked | Seen::All(Manner::Other) => return,
        Seen::Nothing => manner(),
        Seen::All(before) if before == manner() => return,
        Seen::All(_) => Manner::Other,
    };
    SEEN.set(Seen::All(all));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(1);

    fn kind(key: u64, bytes: usize) -> Kind {
        Kind { key, bytes }
    }

    const STRAIGHT: Option<Manner> = Some(Manner::Straight);

    fn took(kind: Kind, micros: u64, manner: Option<Manner>) {
        kind.took_cpu(Duration::from_micros(micros), LIMIT, manner);
    }

    #[test]
    fn a_kind_is_short_once_it_has_run_straight_within_the_limit() {
        let (short, long, winding) = (kind(1, 100), kind(2, 100), kind(3, 100));
        assert!(!short.is_short(LIMIT));
        took(short, 20, STRAIGHT);
        took(long, 2000, STRAIGHT);
        took(winding, 20, Some(Manner::Other));
        assert!(short.is_short(LIMIT) && !long.is_short(LIMIT) && !winding.is_short(LIMIT));
        // In proportion to its size.
        assert!(kind(1, 4000).is_short(LIMIT) && !kind(1, 6000).is_short(LIMIT));
        assert!(kind(1, 1).is_short(LIMIT));
        assert!(!short.is_short(Duration::ZERO));
        assert_eq!(long.quick(LIMIT), None);
        assert_eq!(winding.quick(LIMIT), Some(Manner::Other));
        took(winding, 20, Some(Manner::Batched));
        assert_eq!(winding.quick(LIMIT), Some(Manner::Batched));
    }

    #[test]
    fn far_too_long_a_run_has_others_go_elsewhere_for_a_while() {
        let one = kind(4, 100);
        let shorts = |n| (0..n).for_each(|_| took(one, 20, None));
        took(one, 20, STRAIGHT);
        took(one, 5000, None);
        assert!(!one.is_short(LIMIT));
        shorts(4);
        assert!(!one.is_short(LIMIT));
        shorts(8);
        assert!(one.is_short(LIMIT));
        // More and more often the second time.
        took(one, 5000, None);
        shorts(15);
        assert!(!one.is_short(LIMIT));
        shorts(10);
        assert!(one.is_short(LIMIT));
        // And it is forgotten in the end.
        shorts(3 * FORGIVEN);
        took(one, 5000, None);
        shorts(20);
        assert!(one.is_short(LIMIT));
    }

    #[test]
    fn what_waits_on_its_connections_thread_goes_elsewhere() {
        let one = kind(5, 100);
        let waits = || one.took_here(Duration::from_millis(2), LIMIT);
        took(one, 20, STRAIGHT);
        assert!(one.is_short(LIMIT));
        (0..8).for_each(|_| waits());
        assert!(!one.is_short(LIMIT));
        // Where it takes little CPU; each time for longer.
        let shorts = |most| {
            (1..=most).find(|_| {
                took(one, 20, None);
                one.is_short(LIMIT)
            })
        };
        let first = shorts(1000).unwrap();
        (0..8).for_each(|_| waits());
        assert!(shorts(100_000).unwrap() > 2 * first);
    }

    #[test]
    fn no_number_of_kinds_takes_more_and_more_memory() {
        (0..10 * MOST_KINDS as u64).for_each(|key| took(kind(key, 1), 1, STRAIGHT));
        assert!(PACES.with_borrow(HashMap::len) <= MOST_KINDS);
    }

    #[test]
    fn what_runs_is_observed() {
        use Manner::{Batched, Other, Straight};
        has_run(|| panic!("nobody wants to know"));
        assert_eq!(observed(|| ()).1, Some(Other));
        for (all, manner) in [
            ([Straight, Straight], Straight),
            ([Batched, Batched], Batched),
            ([Straight, Other], Other),
            ([Other, Straight], Other),
            ([Straight, Batched], Other),
        ] {
            assert_eq!(observed(|| all.map(|one| has_run(|| one))).1, Some(manner));
        }
        has_run(|| panic!("nobody wants to know"));
    }
}

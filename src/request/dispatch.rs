//! A policy at work: choosing a session for each request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cpus::cpuset::CpuSet;
use crate::error::{Error, Result};
use crate::options::policy::{Choose, Load, Policy};

/// How busy the sessions are, as a policy asks for it.
pub(crate) trait Counts {
    fn in_flight(&self, session: usize) -> u64;
    fn queued(&self, session: usize) -> u64;
}

/// A policy at work in a group.
pub(crate) struct Dispatcher {
    sessions: usize,
    rule: Rule,
    callers: Callers,
}

enum Rule {
    RoundRobin(RoundRobin),
    Thread,
    LeastLoaded,
    CpuLocal { sessions_of_cpu: Vec<Vec<usize>>, elsewhere: RoundRobin },
    Custom(Arc<dyn Choose>),
}

/// Sessions up to this many are all looked at for the least loaded one.
const LOOK_AT_ALL: usize = 8;

impl Dispatcher {
    /// `cpus` has one set for each session, or is empty where sessions have no CPUs of their own.
    pub fn new(policy: &Policy, sessions: usize, cpus: &[CpuSet]) -> Self {
        let rule = match policy {
            Policy::RoundRobin => Rule::RoundRobin(RoundRobin::default()),
            // The plan has chosen for `Auto`.
            Policy::Thread | Policy::Auto => Rule::Thread,
            Policy::LeastLoaded => Rule::LeastLoaded,
            Policy::CpuLocal => Rule::CpuLocal {
                sessions_of_cpu: sessions_of_cpu(cpus),
                elsewhere: RoundRobin::default(),
            },
            Policy::Custom(choose) => Rule::Custom(choose.clone()),
        };
        Self { sessions, rule, callers: Callers::new() }
    }

    /// The session for a request of the calling thread.
    pub fn choose(&self, counts: &impl Counts) -> Result<usize> {
        let n = self.sessions;
        Ok(match &self.rule {
            Rule::RoundRobin(turn) => turn.next(n),
            Rule::Thread => self.callers.number() % n,
            Rule::LeastLoaded => least_loaded(n, counts),
            Rule::CpuLocal { sessions_of_cpu, elsewhere } => {
                match current_cpu().and_then(|cpu| sessions_of_cpu.get(cpu)).map(Vec::as_slice) {
                    None | Some([]) => elsewhere.next(n),
                    Some([only]) => *only,
                    Some(several) => several[self.callers.number() % several.len()],
                }
            }
            Rule::Custom(choose) => {
                let _asking = Asking::begin(self.callers.dispatcher)?;
                custom(choose.as_ref(), n, counts)?
            }
        })
    }
}

#[derive(Default)]
struct RoundRobin(AtomicU64);

impl RoundRobin {
    fn next(&self, n: usize) -> usize {
        // Unsigned, so that it can't turn negative. Where it wraps, after 2^64 requests, the order
        // may skip ahead once.
        (self.0.fetch_add(1, Relaxed) % n as u64) as usize
    }
}

fn sessions_of_cpu(cpus: &[CpuSet]) -> Vec<Vec<usize>> {
    let highest = cpus.iter().flat_map(CpuSet::cpus).max().map_or(0, |&cpu| cpu as usize);
    (0..=highest)
        .map(|cpu| (0..cpus.len()).filter(|&i| cpus[i].contains(cpu as u32)).collect())
        .collect()
}

fn current_cpu() -> Option<usize> {
    // SAFETY: no precondition.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// Numbers the threads that call a dispatcher, in the order of their first calls, so that N threads
/// spread evenly over N sessions, whatever threads other groups have.
struct Callers {
    dispatcher: u64,
    next: AtomicU64,
}

/// Of how many dispatchers a thread remembers its number. Beyond, it gets a new one.
const REMEMBERED: usize = 32;

impl Callers {
    fn new() -> Self {
        static DISPATCHERS: AtomicU64 = AtomicU64::new(0);
        Self { dispatcher: DISPATCHERS.fetch_add(1, Relaxed), next: AtomicU64::new(0) }
    }

    fn number(&self) -> usize {
        thread_local!(static NUMBERS: RefCell<VecDeque<(u64, usize)>> = RefCell::default());
        // A thread that ends may still call from a destructor, when this is gone: it has no number.
        let number = NUMBERS.try_with(|numbers| {
            let mut numbers = numbers.borrow_mut();
            if let Some((_, number)) = numbers.iter().find(|(id, _)| *id == self.dispatcher) {
                return *number;
            }
            let number = self.next.fetch_add(1, Relaxed) as usize;
            numbers.truncate(REMEMBERED - 1);
            numbers.push_front((self.dispatcher, number));
            number
        });
        number.unwrap_or(0)
    }
}

fn least_loaded(n: usize, counts: &impl Counts) -> usize {
    if n > LOOK_AT_ALL {
        let (a, b) = (random() as usize % n, random() as usize % n);
        return if counts.in_flight(b) < counts.in_flight(a) { b } else { a };
    }
    // Starts at a random session, so that equally loaded ones take turns.
    let start = random() as usize % n;
    (0..n).map(|i| (start + i) % n).min_by_key(|&i| counts.in_flight(i)).unwrap_or(0)
}

/// A thread-local xorshift generator: choosing needs no more than that different threads and
/// requests differ.
fn random() -> u32 {
    thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            // Its address tells a thread's variable from those of other threads.
            x = (std::ptr::from_ref(state) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        (x >> 32) as u32
    })
}

/// A policy of the user's own that this thread asks now. If it were asked by itself, and so on, the
/// stack would overflow.
struct Asking;

thread_local!(static ASKED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) });

impl Asking {
    fn begin(dispatcher: u64) -> Result<Self> {
        // A thread that ends may still call from a destructor, when this is gone; it can't be told.
        ASKED
            .try_with(|asked| {
                let mut asked = asked.borrow_mut();
                if asked.contains(&dispatcher) {
                    return Err(Error::precondition(
                        "the policy function has sent a request to its own group, whose session it \
                         would have to choose: name a session, with SessionGroup_RunOn()",
                    ));
                }
                asked.push(dispatcher);
                Ok(())
            })
            .unwrap_or(Ok(()))
            .map(|()| Self)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = ASKED.try_with(|asked| asked.borrow_mut().pop());
    }
}

fn custom(choose: &dyn Choose, n: usize, counts: &impl Counts) -> Result<usize> {
    let in_flight: Vec<i64> = (0..n).map(|i| counts.in_flight(i) as i64).collect();
    let queued: Vec<i64> = (0..n).map(|i| counts.queued(i) as i64).collect();
    let chosen = choose.choose(&Load { in_flight: &in_flight, queued: &queued })?;
    usize::try_from(chosen).ok().filter(|&i| i < n).ok_or_else(|| {
        Error::invalid(format!(
            "the custom policy chose session {chosen}, but the group has {n}: it must return 0 to {}",
            n - 1
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::policy::NAMED;

    struct Fixed(Vec<u64>);

    impl Counts for Fixed {
        fn in_flight(&self, session: usize) -> u64 {
            self.0[session]
        }
        fn queued(&self, session: usize) -> u64 {
            self.0[session] / 2
        }
    }

    fn idle(n: usize) -> Fixed {
        Fixed(vec![0; n])
    }

    fn dispatcher(policy: Policy, n: usize) -> Dispatcher {
        Dispatcher::new(&policy, n, &[])
    }

    #[test]
    fn round_robin_takes_turns() {
        let d = dispatcher(Policy::RoundRobin, 3);
        let chosen: Vec<_> = (0..7).map(|_| d.choose(&idle(3)).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn round_robin_stays_in_range_where_its_counter_wraps() {
        let turn = RoundRobin(AtomicU64::new(u64::MAX - 1));
        for _ in 0..4 {
            assert!(turn.next(3) < 3);
        }
    }

    #[test]
    fn a_thread_stays_with_its_session_and_threads_spread() {
        let d = dispatcher(Policy::Thread, 2);
        let of_thread = || {
            let first = d.choose(&idle(2)).unwrap();
            assert!((0..100).all(|_| d.choose(&idle(2)).unwrap() == first));
            first
        };
        let used: std::collections::HashSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(of_thread)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(used.len(), 2);
    }

    #[test]
    fn threads_of_other_groups_do_not_count() {
        // Threads that are made by turns for two groups still spread over the sessions of each.
        let groups = [dispatcher(Policy::Thread, 2), dispatcher(Policy::Thread, 2)];
        let chosen: Vec<usize> = (0..8)
            .map(|i| {
                let choose = || groups[i % 2].choose(&idle(2)).unwrap();
                std::thread::scope(|scope| scope.spawn(choose).join().unwrap())
            })
            .collect();
        assert_eq!(chosen, [0, 0, 1, 1, 0, 0, 1, 1]);
    }

    #[test]
    fn least_loaded_finds_the_idle_session() {
        let d = dispatcher(Policy::LeastLoaded, 4);
        assert!((0..100).all(|_| d.choose(&Fixed(vec![3, 1, 0, 2])).unwrap() == 2));
        let tied: std::collections::HashSet<_> =
            (0..100).map(|_| d.choose(&Fixed(vec![3, 1, 1, 2])).unwrap()).collect();
        assert_eq!(tied, [1, 2].into());
    }

    #[test]
    fn least_loaded_of_many_avoids_the_busiest() {
        let mut load = vec![1; 32];
        load[5] = 100;
        let d = dispatcher(Policy::LeastLoaded, 32);
        let busiest = (0..10_000).filter(|_| d.choose(&Fixed(load.clone())).unwrap() == 5).count();
        // Only where both choices are the busiest: 1 in 1024.
        assert!(busiest < 100, "{busiest}");
    }

    #[test]
    fn cpu_local_follows_the_cpu() {
        let allowed = crate::cpus::affinity::allowed().unwrap();
        let sets: Vec<CpuSet> =
            allowed.cpus().iter().map(|&cpu| CpuSet::new([cpu]).unwrap()).collect();
        let d = Dispatcher::new(&Policy::CpuLocal, sets.len(), &sets);
        for (i, set) in sets.iter().enumerate() {
            let chosen = crate::cpus::affinity::on_thread("test", Some(set), || {
                (0..100).map(|_| d.choose(&idle(sets.len()))).collect::<Result<Vec<_>>>()
            });
            assert_eq!(chosen.unwrap(), vec![i; 100]);
        }
    }

    #[test]
    fn cpu_local_falls_back_to_taking_turns() {
        let nowhere = [CpuSet::new([60_000]).unwrap(), CpuSet::new([60_001]).unwrap()];
        let d = Dispatcher::new(&Policy::CpuLocal, 2, &nowhere);
        let chosen: Vec<_> = (0..4).map(|_| d.choose(&idle(2)).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 0, 1]);
    }

    struct Returns(i32);

    impl Choose for Returns {
        fn choose(&self, load: &Load<'_>) -> Result<i32> {
            assert_eq!((load.in_flight, load.queued), (&[4, 6][..], &[2, 3][..]));
            Ok(self.0)
        }
    }

    #[test]
    fn a_custom_policy_sees_the_load_and_may_not_choose_nonsense() {
        let choose =
            |i| dispatcher(Policy::Custom(Arc::new(Returns(i))), 2).choose(&Fixed(vec![4, 6]));
        assert_eq!(choose(1), Ok(1));
        for nonsense in [-1, 2, i32::MIN, i32::MAX] {
            let error = choose(nonsense).unwrap_err();
            assert!(error.message.contains(&nonsense.to_string()), "{error}");
            assert!(error.message.contains("must return 0 to 1"), "{error}");
        }
    }

    #[test]
    fn threads_beyond_any_number_still_get_a_session() {
        let d = dispatcher(Policy::Thread, 3);
        d.callers.next.store(u64::MAX - 1, Relaxed);
        for _ in 0..4 {
            let chosen = std::thread::scope(|scope| scope.spawn(|| d.choose(&idle(3))).join());
            assert!(chosen.unwrap().unwrap() < 3);
        }
    }

    /// 2^33 dispatches of each policy, four times what fits into an i32: `make dispatches`.
    #[test]
    #[ignore = "takes minutes"]
    fn dispatches_beyond_32_bits() {
        const THREADS: u64 = 2;
        const SESSIONS: usize = 3;
        struct Idle;
        impl Counts for Idle {
            fn in_flight(&self, _: usize) -> u64 {
                0
            }
            fn queued(&self, _: usize) -> u64 {
                0
            }
        }
        struct ByTurns(AtomicU64);
        impl Choose for ByTurns {
            fn choose(&self, load: &Load<'_>) -> Result<i32> {
                Ok((self.0.fetch_add(1, Relaxed) % load.in_flight.len() as u64) as i32)
            }
        }
        let log2 = std::env::var("DISPATCHES_LOG2").map_or(33, |text| text.parse().unwrap());
        let dispatches = 1u64 << log2;
        let cpus: Vec<CpuSet> = {
            let allowed = crate::cpus::affinity::allowed().unwrap();
            let cpus = allowed.cpus().iter().cycle().take(SESSIONS);
            cpus.map(|&cpu| CpuSet::one(cpu)).collect()
        };
        let own = Policy::Custom(Arc::new(ByTurns(AtomicU64::new(0))));
        let policies = NAMED.map(|(_, policy)| policy).into_iter().chain([own]);
        for policy in policies {
            let dispatcher = Dispatcher::new(&policy, SESSIONS, &cpus);
            let begun = std::time::Instant::now();
            let count = || {
                let mut chosen = [0u64; SESSIONS];
                for _ in 0..dispatches / THREADS {
                    // Out of range, this panics.
                    chosen[dispatcher.choose(&Idle).unwrap()] += 1;
                }
                chosen
            };
            let chosen = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .fold([0; SESSIONS], |sum, chosen| std::array::from_fn(|i| sum[i] + chosen[i]))
            });
            assert_eq!(chosen.iter().sum::<u64>(), dispatches);
            let name = policy.name();
            println!("{name}: {chosen:?} in {:.0} s", begun.elapsed().as_secs_f64());
            let spread = chosen.iter().max().unwrap() - chosen.iter().min().unwrap();
            match policy {
                Policy::RoundRobin | Policy::Custom(_) => assert!(spread <= 1, "{name}"),
                Policy::LeastLoaded => assert!(spread < dispatches / 100, "{name}"),
                // As the threads, and the CPUs that they run on, happen to be.
                Policy::Thread | Policy::CpuLocal | Policy::Auto => {}
            }
        }
    }
}

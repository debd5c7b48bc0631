//! What the sessions of a group have done: counters and latencies, one set for each session.
//!
//! Whoever answers a request counts it in its session's own set, with atomic additions. What each usual
//! request adds to is there for each stripe of threads, so that threads don't slow each other down by
//! counting, whichever sessions they use.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use histogram::{AtomicHistogram, Config, Histogram};
use once_cell::sync::OnceCell;

use crate::error::{Code, Error, Result};
use crate::gpu::Stream;
use crate::{memory, stripes};

/// Latencies are kept in nanoseconds to 1/64 of their value (2^-6), up to 2^42 ns, more than an hour.
const PRECISION: u8 = 6;
const RANGE: u8 = 42;

/// How many `TF_Code`s there are, `TF_OK` included.
pub const CODES: usize = 17;

/// How a request ran. The first reason counts: one with a trace is `run_options`, also where there is no
/// program for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[non_exhaustive]
pub enum Way {
    /// As a program.
    Program,
    /// By its names, on TensorFlow's session: there is no program for it.
    /// [`SessionGroup::explain`](crate::SessionGroup::explain) says why.
    NoProgram,
    /// By its names, because of its `RunOptions`, such as a trace.
    Options,
    /// By its names, because it has a timeout and an operation that may wait.
    MayWait,
    /// By its names, because too many other signatures were in use at that moment.
    NoRoom,
    /// By its names, because the group runs no programs: its execution is `pool`, or `serial_executor`
    /// is off.
    Disabled,
    /// On TensorFlow's session, for what only that can do: partial runs, thread pools of the caller.
    Visit,
    /// Not at all: a name is unknown, the queue was full, or the time was over before it began.
    NotRun,
}

impl Way {
    /// All of them, by their numbers.
    pub const ALL: [Self; WAYS] = [
        Self::Program,
        Self::NoProgram,
        Self::Options,
        Self::MayWait,
        Self::NoRoom,
        Self::Disabled,
        Self::Visit,
        Self::NotRun,
    ];

    /// For JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::NoProgram => "no_program",
            Self::Options => "run_options",
            Self::MayWait => "may_wait",
            Self::NoRoom => "no_room",
            Self::Disabled => "disabled",
            Self::Visit => "visit",
            Self::NotRun => "not_run",
        }
    }
}

/// How many [`Way`]s there are.
pub const WAYS: usize = 8;

/// The counters of one session.
#[repr(align(128))]
pub(crate) struct SessionStats {
    /// By stripe, where a thread of it has counted.
    usual: Box<[OnceCell<Box<Usual>>]>,
    /// Latencies of all others.
    unusual: AtomicHistogram,
    /// How many others there are, by their way and the `TF_Code` of their answer. Answers and ways are
    /// sums over the same numbers, so that they agree at any moment.
    others: [[AtomicU64; CODES]; WAYS],
    /// Those that were refused since the queue was full; counted among the answers, too.
    rejected: AtomicU64,
    queued: AtomicU64,
    /// Where requests wait in a queue; else they are busy from the call to the answer.
    has_queue: bool,
    /// Latencies of all others, summed up.
    unusual_ns: AtomicU64,
    /// By their names, on the inter-op pool.
    on_pool: AtomicU64,
    /// As programs that had to read a variable in TensorFlow's way.
    unresolved: AtomicU64,
    /// As programs that had to gather rows one table after the other.
    unfused: AtomicU64,
    /// Whether requests go to other sessions, where there is one.
    pub is_broken: AtomicBool,
}

/// What threads of one stripe have counted: the usual requests, which run as programs and succeed.
#[repr(align(128))]
struct Usual {
    /// How many there are says the histogram itself, which spares each of them an addition.
    latencies: AtomicHistogram,
    /// Summed up.
    latency_ns: AtomicU64,
    /// Of all requests.
    busy_ns: AtomicU64,
}

/// The counters of one session at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Requests answered, by the `TF_Code` of the answer; number 0 is `TF_OK`.
    pub answers: [u64; CODES],
    /// Requests that were refused since the queue was full. They are among the answers, with
    /// `RESOURCE_EXHAUSTED`.
    pub rejected: u64,
    /// Requests given to the session and not answered yet.
    pub in_flight: u64,
    /// Those of them that wait for a worker thread.
    pub queued: u64,
    /// Requests answered, by the way in which they ran: [`ran`](Self::ran) takes a [`Way`]. Their sum is
    /// that of the answers.
    pub ways: [u64; WAYS],
    /// Requests that ran by their names on the session's inter-op pool, rather than on one thread.
    pub on_pool: u64,
    /// Requests that ran as programs and had to read a variable in TensorFlow's way, because it had no
    /// value yet or could not be kept.
    pub unresolved: u64,
    /// Requests that ran as programs and gathered rows one table after the other, because an index was
    /// out of range or a shape unforeseen.
    pub unfused: u64,
    /// How long threads have run requests on the session, summed up; not the time in the queue.
    pub busy: Duration,
    /// How long requests took from the call to the answer, summed up.
    pub latency: Duration,
    /// Of a session of a multi-stream group.
    pub stream: Option<Stream>,
    histogram: Histogram,
}

impl SessionStats {
    pub fn new(has_queue: bool) -> Self {
        Self {
            usual: (0..stripes::count()).map(|_| OnceCell::new()).collect(),
            unusual: AtomicHistogram::with_config(&config()),
            others: Default::default(),
            rejected: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            has_queue,
            unusual_ns: AtomicU64::new(0),
            on_pool: AtomicU64::new(0),
            unresolved: AtomicU64::new(0),
            unfused: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        }
    }

    /// Runs a request, which says in which way it runs, and counts it.
    pub fn count<T>(&self, request: impl FnOnce(&WayCell) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let way = WayCell::new();
        let result = request(&way);
        self.answered(begun, way.get(), &result);
        result
    }

    /// Counts a request that ran on the inter-op pool.
    pub fn on_pool(&self) {
        self.on_pool.fetch_add(1, Relaxed);
    }

    /// Counts what was unusual about a program's run.
    pub fn noted(&self, unresolved: bool, unfused: bool) {
        if unresolved {
            self.unresolved.fetch_add(1, Relaxed);
        }
        if unfused {
            self.unfused.fetch_add(1, Relaxed);
        }
    }

    /// Counts a request that was answered now.
    pub fn answered<T>(&self, begun: Instant, way: Way, result: &Result<T>) {
        let code = result.as_ref().err().map_or(0, |error| error.code as usize);
        let (latencies, sum) = if code == 0 && way == Way::Program {
            let usual = self.usual();
            (&usual.latencies, &usual.latency_ns)
        } else {
            self.others[way as usize][code].fetch_add(1, Relaxed);
            (&self.unusual, &self.unusual_ns)
        };
        let now = Instant::now();
        let ns = nanoseconds(now.duration_since(begun));
        sum.fetch_add(ns, Relaxed);
        // The only error is a value out of range, which the minimum excludes.
        let _ = latencies.increment(ns.min((1 << RANGE) - 1));
        memory::release_unused_if_due(now);
    }

    /// Counts a request that the queue had no room for.
    pub fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    /// Counts a request as waiting until the result is dropped.
    pub fn waiting(&self) -> Waiting<'_> {
        self.queued.fetch_add(1, Relaxed);
        Waiting(&self.queued)
    }

    /// Runs `f` after the queue and counts the time as busy.
    pub fn busy<T>(&self, f: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let value = f();
        self.usual().busy_ns.fetch_add(nanoseconds(begun.elapsed()), Relaxed);
        value
    }

    /// Those of the calling thread's stripe.
    fn usual(&self) -> &Usual {
        self.usual[stripes::current()].get_or_init(|| Box::new(Usual::new()))
    }

    pub fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    pub fn snapshot(&self, in_flight: u64) -> Snapshot {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let mut histogram = self.unusual.load();
        let (mut latency_ns, mut busy_ns, mut count) = (load(&self.unusual_ns), 0_u64, 0);
        for usual in self.usual.iter().filter_map(OnceCell::get) {
            let latencies = usual.latencies.load();
            count += latencies.iter().map(|bucket| bucket.count()).sum::<u64>();
            histogram = histogram.wrapping_add(&latencies).expect("of one shape");
            latency_ns = latency_ns.wrapping_add(load(&usual.latency_ns));
            busy_ns = busy_ns.wrapping_add(load(&usual.busy_ns));
        }
        let (mut answers, mut ways) = ([0; CODES], [0; WAYS]);
        (answers[0], ways[Way::Program as usize]) = (count, count);
        for (way, codes) in self.others.iter().enumerate() {
            for (code, counter) in codes.iter().enumerate() {
                let count = load(counter);
                answers[code] += count;
                ways[way] += count;
            }
        }
        let latency = Duration::from_nanos(latency_ns);
        Snapshot {
            answers,
            rejected: load(&self.rejected),
            in_flight,
            queued: self.queued(),
            busy: if self.has_queue { Duration::from_nanos(busy_ns) } else { latency },
            latency,
            ways,
            on_pool: load(&self.on_pool),
            unresolved: load(&self.unresolved),
            unfused: load(&self.unfused),
            stream: None,
            histogram,
        }
    }
}

impl Usual {
    fn new() -> Self {
        Self {
            latencies: AtomicHistogram::with_config(&config()),
            latency_ns: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
        }
    }
}

fn config() -> Config {
    Config::new(PRECISION, RANGE).expect("constants that fit")
}

/// The way of a request that is under way, perhaps on another thread.
pub(crate) struct WayCell(AtomicUsize);

impl WayCell {
    fn new() -> Self {
        Self(AtomicUsize::new(Way::NotRun as usize))
    }

    pub fn set(&self, way: Way) {
        self.0.store(way as usize, Relaxed);
    }

    fn get(&self) -> Way {
        Way::ALL[self.0.load(Relaxed)]
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A request that waits in a queue.
pub(crate) struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Snapshot {
    /// Requests answered, whatever the answer.
    pub fn runs(&self) -> u64 {
        self.answers.iter().sum()
    }

    /// Requests that ran in this way.
    pub fn ran(&self, way: Way) -> u64 {
        self.ways[way as usize]
    }

    /// Requests answered with this error.
    pub fn errors(&self, code: Code) -> u64 {
        self.answers[code as usize]
    }

    /// The latency that a share of 0 to 1 of the requests did not exceed, to 1/64 of its value; zero
    /// before the first answer.
    pub fn latency_quantile(&self, quantile: f64) -> Result<Duration> {
        let bucket = self
            .histogram
            .quantile_bucket(quantile)
            .map_err(|_| Error::invalid(format!("{quantile} is not a quantile: give 0 to 1")))?;
        Ok(bucket.map_or(Duration::ZERO, |bucket| Duration::from_nanos(bucket.end())))
    }

    /// For each power of two from 2^10 ns (1 µs) to 2^34 ns (17 s): how many requests took less.
    /// Buckets begin at powers of two, so that the counts are exact.
    pub(crate) fn below_powers_of_two(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut buckets = self.histogram.iter().peekable();
        let mut sum = 0;
        (10..=34).map(move |power| {
            let bound = 1u64 << power;
            while let Some(bucket) = buckets.next_if(|bucket| bucket.end() < bound) {
                sum += bucket.count();
            }
            (Duration::from_nanos(bound), sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_code() {
        let stats = SessionStats::new(false);
        let begun = Instant::now();
        for _ in 0..3 {
            stats.answered(begun, Way::Program, &Ok(()));
        }
        stats.answered(begun, Way::NoProgram, &Err::<(), _>(Error::invalid("")));
        let snapshot = stats.snapshot(5);
        assert_eq!((snapshot.runs(), snapshot.answers[0], snapshot.in_flight), (4, 3, 5));
        assert_eq!(snapshot.errors(Code::InvalidArgument), 1);
        assert_eq!(snapshot.errors(Code::Unauthenticated), 0);
    }

    #[test]
    fn ways_and_answers_are_two_sums_over_the_same_requests() {
        let stats = SessionStats::new(false);
        for (i, way) in Way::ALL.into_iter().enumerate() {
            assert_eq!(way as usize, i);
            for n in 0..=i {
                let result = if n % 2 == 0 { Ok(()) } else { Err(Error::invalid("")) };
                stats.answered(Instant::now(), way, &result);
            }
        }
        let snapshot = stats.snapshot(0);
        for (i, way) in Way::ALL.into_iter().enumerate() {
            assert_eq!(snapshot.ran(way), i as u64 + 1, "{}", way.name());
        }
        assert_eq!((snapshot.answers[0], snapshot.errors(Code::InvalidArgument)), (20, 16));
        assert_eq!(snapshot.below_powers_of_two().last().unwrap().1, 36);
    }

    /// A metric that goes down is taken for a restart.
    #[test]
    fn counters_agree_and_never_go_down_while_others_count() {
        let stats = SessionStats::new(false);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let (stats, done) = (&stats, &done);
                scope.spawn(move || {
                    for i in 0.. {
                        if done.load(Relaxed) {
                            break;
                        }
                        // Every other one is usual.
                        let way = if i % 2 == 0 { Way::Program } else { Way::ALL[i / 2 % WAYS] };
                        let result = if i % 3 == 1 { Err(Error::invalid("")) } else { Ok(()) };
                        stats.answered(Instant::now(), way, &result);
                    }
                });
            }
            let mut last = stats.snapshot(0);
            while last.ways.iter().any(|&ran| ran < 60_000) {
                let now = stats.snapshot(0);
                let agree = now.ways.iter().sum::<u64>() == now.runs();
                let grew = |before: &[u64], after: &[u64]| {
                    std::iter::zip(before, after).all(|(before, after)| before <= after)
                };
                let grew = grew(&last.ways, &now.ways) && grew(&last.answers, &now.answers);
                if !agree || !grew {
                    // Not before the others end, for which the scope waits.
                    done.store(true, Relaxed);
                    panic!("{last:?}, then {now:?}");
                }
                last = now;
            }
            done.store(true, Relaxed);
        });
    }

    #[test]
    fn quantiles_are_within_their_precision() {
        let stats = SessionStats::new(false);
        for ms in 1..=100 {
            let begun = Instant::now() - Duration::from_millis(ms);
            stats.answered(begun, Way::Program, &Ok(()));
        }
        let snapshot = stats.snapshot(0);
        for (quantile, ms) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let got = snapshot.latency_quantile(quantile).unwrap().as_secs_f64() * 1e3;
            assert!((ms..ms * 1.1).contains(&got), "{quantile}: {got} ms");
        }
        assert!(snapshot.latency_quantile(1.5).is_err());
        assert!(snapshot.latency_quantile(f64::NAN).is_err());
        let below: Vec<_> = snapshot.below_powers_of_two().collect();
        // 2^25 ns = 33.6 ms
        assert_eq!(below[15], (Duration::from_nanos(1 << 25), 33));
        assert_eq!(below[24].1, 100);
    }

    #[test]
    fn nothing_counted_is_zero() {
        let snapshot = SessionStats::new(false).snapshot(0);
        assert_eq!(snapshot.latency_quantile(0.99).unwrap(), Duration::ZERO);
        assert!(snapshot.below_powers_of_two().all(|(_, count)| count == 0));
    }

    #[test]
    fn the_longest_latencies_are_kept() {
        let stats = SessionStats::new(false);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10_000));
        if let Some(begun) = long_ago {
            stats.answered(begun, Way::Program, &Ok(()));
            assert!(stats.snapshot(0).latency_quantile(1.0).unwrap() > Duration::from_secs(4_000));
        }
    }

    /// After 2^33 answers, and where sums wrap.
    #[test]
    fn counters_beyond_32_bits_and_64_are_read() {
        const MANY: u64 = 1 << 33;
        let stats = SessionStats::new(true);
        stats.answered(Instant::now(), Way::NotRun, &Err::<(), _>(Error::invalid("")));
        let others = &stats.others[Way::NotRun as usize];
        others[Code::InvalidArgument as usize].fetch_add(MANY, Relaxed);
        stats.rejected.store(MANY, Relaxed);
        stats.queued.store(MANY, Relaxed);
        stats.usual().latency_ns.store(u64::MAX - 1, Relaxed);
        stats.usual().busy_ns.store(u64::MAX, Relaxed);
        stats.busy(|| std::thread::sleep(Duration::from_micros(1)));
        stats.answered(Instant::now(), Way::Program, &Ok(()));
        let snapshot = stats.snapshot(MANY);
        assert_eq!(snapshot.errors(Code::InvalidArgument), MANY + 1);
        assert!(snapshot.runs() > MANY);
        assert_eq!((snapshot.rejected, snapshot.queued, snapshot.in_flight), (MANY, MANY, MANY));
        assert!(
            snapshot.latency < Duration::from_secs(1) && snapshot.busy < Duration::from_secs(1)
        );
        let labels = crate::options::labels::Labels::default();
        let group =
            crate::observe::metrics::OfGroup { number: 0, labels, sessions: vec![snapshot] };
        let text = crate::observe::metrics::text(&[group], &crate::memory::memory_stats());
        assert!(text.contains(&MANY.to_string()), "{text}");
    }

    #[test]
    fn no_cache_line_is_shared() {
        let stats = [SessionStats::new(false), SessionStats::new(false)];
        assert_eq!(std::ptr::from_ref(&stats[0]) as usize % 128, 0);
        assert_eq!(size_of::<SessionStats>() % 128, 0);
        assert_eq!(size_of::<Usual>() % 128, 0);
    }
}

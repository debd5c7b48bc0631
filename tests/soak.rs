//! A long time of everything at once: 64 clients send right and wrong requests, small and huge ones,
//! with and without timeouts, to groups of all kinds that are replaced and closed meanwhile; others
//! wait for a queue and are cancelled. Every request gets one answer, the right one or a status that it
//! may get; what the groups have counted is what the clients have seen; and nothing is left of a
//! group: memory, threads, descriptors.
//!
//!     make soak MINUTES=60

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use common::{Case, Numbers, cases, feeds, proc_entries, resident, same, wide_deep_request};
use session_group::callable::Callable;
use session_group::execution::Execution;
use session_group::optimization::Optimization;
use session_group::policy::{Choose, Load, Policy};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Request, SessionGroup};

const CLIENTS: u64 = 64;
const SLOTS: usize = 4;
/// How many groups a phase has, the same in each. After it, all are closed, and what is left is looked at.
const GROUPS: usize = 60;
/// How many requests a client sends to a group before it looks whether there is another one.
const REQUESTS: usize = 8;
/// How many phases there are at least, however few minutes.
const LEAST_PHASES: usize = 6;
/// After how many resident memory is looked at, too.
const PHASES_FOR_RESIDENT: usize = 18;
/// How many per cent memory may have grown by, once everything has happened for the first time.
const GROWTH: f64 = 1.0;

/// A group with what clients know of it.
struct Served {
    case: usize,
    group: SessionGroup,
    callable: Callable,
    /// Whether it may be full.
    has_small_queue: bool,
    /// Whether requests run as programs, so that they may be late: stock TensorFlow leaks some 700
    /// bytes for each run that its own timeout ends.
    may_be_late: bool,
    /// Requests that it has answered, for whatever it was but that it is closed.
    answered: AtomicU64,
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    right: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    full: AtomicU64,
    cancelled: AtomicU64,
    closed: AtomicU64,
}

/// The right answers.
struct Models {
    cases: Vec<Case>,
    answers: Vec<Vec<Vec<Tensor>>>,
}

#[test]
#[ignore = "takes as long as it is told to: make soak"]
fn soak() {
    let minutes: f64 = std::env::var("MINUTES").map_or(5.0, |text| text.parse().expect("a number"));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut cases = cases();
    cases[0].requests.push(wide_deep_request(&mut Numbers(2), 3_000));
    let answers = cases.iter().map(Case::stock_answers).collect();
    let models = Models { cases, answers };

    println!(
        "minute  requests  right  refused  late  full  cancelled  closed     MB  in use  threads  descriptors"
    );
    let begun = Instant::now();
    let mut left: Vec<Left> = Vec::new();
    for phase in 0.. {
        let seen = load(&models, phase);
        left.push(Left::now());
        let last = &left[left.len() - 1];
        let Seen { right, refused, late, full, cancelled, closed } = &seen;
        let counts = [right, refused, late, full, cancelled, closed].map(|n| n.load(Relaxed));
        let [right, refused, late, full, cancelled, closed] = counts;
        println!(
            "{:6.1} {:9} {right:6} {refused:8} {late:5} {full:5} {cancelled:10} {closed:7} {:6.1} {:7.2} {:8} {:12}",
            begun.elapsed().as_secs_f64() / 60.0,
            counts.iter().sum::<u64>(),
            last.resident as f64 / 1e6,
            last.in_use as f64 / 1e6,
            last.threads,
            last.descriptors,
        );
        // Fewer phases could not tell what grows.
        if Instant::now() >= end && left.len() >= LEAST_PHASES {
            break;
        }
    }
    // Not everything has happened in the first phases, and memory that is free comes and goes.
    let third = left.len() / 3;
    let (middle, last) = (&left[third..2 * third], &left[2 * third..]);
    for left in &left[third..] {
        let first = &middle[0];
        assert_eq!((left.threads, left.descriptors), (first.threads, first.descriptors));
    }
    let growth = |of: fn(&Left) -> f64| (median(last, of) / median(middle, of) - 1.0) * 100.0;
    let (in_use, resident) =
        (growth(|left| left.in_use as f64), growth(|left| left.resident as f64));
    println!(
        "From the second to the last third, what is in use has grown by {in_use:.2} %, and what is \
         resident, free pieces included, by {resident:.2} %."
    );
    assert!(in_use <= GROWTH, "memory in use has grown by {in_use:.2} %");
    // Many arenas have more pieces of free memory at times than at others, and a few phases, too.
    let has_one_arena = std::env::var_os("MALLOC_ARENA_MAX").is_some_and(|arenas| arenas == "1");
    if has_one_arena && left.len() >= PHASES_FOR_RESIDENT {
        assert!(resident <= GROWTH, "resident memory has grown by {resident:.2} %");
    }
}

fn median(left: &[Left], of: fn(&Left) -> f64) -> f64 {
    let mut values: Vec<f64> = left.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Ends the clients, also where the one who drops it panics.
struct EndsClients<'a>(&'a AtomicBool);

impl Drop for EndsClients<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Lets clients send requests while groups come and go; gives what they saw.
fn load(models: &Models, phase: u64) -> Seen {
    let mut numbers = Numbers(100);
    let slots: Vec<_> =
        (0..SLOTS).map(|_| RwLock::new(Arc::new(serve(models, &mut numbers)))).collect();
    let (seen, over) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ends_clients = EndsClients(&over);
        for client in 0..CLIENTS {
            let (slots, seen, over) = (&slots, &seen, &over);
            scope.spawn(move || {
                let mut numbers = Numbers(phase * CLIENTS + client);
                while !over.load(Relaxed) {
                    let slot = numbers.next() as usize % SLOTS;
                    let served = slots[slot].read().unwrap().clone();
                    for _ in 0..REQUESTS {
                        request(models, &served, seen, &mut numbers);
                    }
                }
            });
        }
        for i in SLOTS..GROUPS {
            if i.is_multiple_of(8) {
                cancel(&seen, &mut numbers);
            }
            std::thread::sleep(Duration::from_millis(50 + numbers.next() % 200));
            let new = Arc::new(serve(models, &mut numbers));
            let slot = &slots[numbers.next() as usize % SLOTS];
            let old = std::mem::replace(&mut *slot.write().unwrap(), new);
            // Some are closed under their clients, some when the last of these lets go.
            if numbers.next().is_multiple_of(2) {
                old.group.close().unwrap();
                check_counts(&old);
            }
        }
    });
    for slot in slots {
        let served = slot.into_inner().unwrap();
        served.group.close().unwrap();
        check_counts(&served);
    }
    seen
}

/// Requests that wait for room in a queue, until it is closed: each is answered once, by having had room
/// or by being cancelled.
fn cancel(seen: &Seen, numbers: &mut Numbers) {
    const WAITING: u64 = 6;
    let mut options = common::options(1 + numbers.next() as usize % 3);
    options.execution([Execution::Caller, Execution::Pool][numbers.next() as usize % 2]);
    let group = common::create("waits", &options);
    let answered = AtomicU64::new(0);
    let ask = |inputs: &[(&str, &Tensor)], outputs: &[&str], targets: &[&str]| {
        answered.fetch_add(1, Relaxed);
        group.run(inputs, outputs, targets)
    };
    let x = Tensor::from_slice(&[], &[1f32]).unwrap();
    let had_room = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WAITING {
            scope.spawn(|| match ask(&[("x", &x)], &[], &["put"]) {
                Ok(_) => {
                    had_room.fetch_add(1, Relaxed);
                    seen.right.fetch_add(1, Relaxed)
                }
                Err(Error { code: Code::Cancelled, .. }) => seen.cancelled.fetch_add(1, Relaxed),
                Err(error) => panic!("waiting for room: {error}"),
            });
        }
        // The first that has room makes way for another one.
        ask(&[], &["got"], &[]).unwrap();
        std::thread::sleep(Duration::from_millis(numbers.next() % 20));
        ask(&[], &[], &["end"]).unwrap();
        seen.right.fetch_add(2, Relaxed);
    });
    assert!((1..=2).contains(&had_room.into_inner()), "a queue of one has had room for more");
    group.close().unwrap();
    check_runs(&group, &answered);
}

/// Of a group that is closed, so that nobody counts any more. Clients count a moment after it does.
fn check_counts(served: &Served) {
    check_runs(&served.group, &served.answered);
}

fn check_runs(group: &SessionGroup, answered: &AtomicU64) {
    let runs = (0..group.session_num())
        .map(|session| group.stats(session).unwrap())
        .inspect(|stats| assert_eq!((stats.in_flight, stats.queued), (0, 0)))
        .map(|stats| stats.runs())
        .sum::<u64>();
    let patience = Instant::now() + Duration::from_secs(10);
    while answered.load(Relaxed) != runs && Instant::now() < patience {
        std::thread::yield_now();
    }
    assert_eq!(answered.load(Relaxed), runs, "requests were lost, or answered twice");
}

/// A group of some kind.
fn serve(models: &Models, numbers: &mut Numbers) -> Served {
    let case = numbers.next() as usize % models.cases.len();
    let sessions = 1 + numbers.next() as usize % 3;
    let mut options = common::options(sessions);
    let execution = [Execution::Auto, Execution::Caller, Execution::Worker, Execution::Pool]
        [numbers.next() as usize % 4];
    options.execution(execution);
    match numbers.next() % 4 {
        0 => options.policy(Policy::Thread),
        1 => options.policy(Policy::LeastLoaded),
        2 => options.policy(Policy::Custom(Arc::new(Busiest))),
        _ => &mut options,
    };
    if numbers.next().is_multiple_of(4) {
        let cpu = session_group::topology::allowed().unwrap().cpus()[0];
        options.cpuset(&vec![cpu.to_string(); sessions].join(";")).unwrap();
        if numbers.next().is_multiple_of(2) {
            options.policy(Policy::CpuLocal);
        }
    }
    let has_small_queue = numbers.next().is_multiple_of(3);
    if has_small_queue {
        options.queue(2, numbers.next().is_multiple_of(2)).worker_threads(1);
    }
    let mut runs_programs = !matches!(execution, Execution::Pool);
    for optimization in Optimization::all() {
        let enabled = !numbers.next().is_multiple_of(4);
        runs_programs &= enabled || optimization != Optimization::SerialExecutor;
        options.optimization(optimization, enabled);
    }
    let may_be_late = runs_programs && ["wide_deep", "lookups"].contains(&models.cases[case].name);
    let group = models.cases[case].group(&options);
    let feeds: Vec<&str> = models.cases[case].requests[0].iter().map(|(name, _)| *name).collect();
    let callable = group.make_callable(&feeds, models.cases[case].outputs, &[]).unwrap();
    Served { case, group, callable, has_small_queue, may_be_late, answered: AtomicU64::new(0) }
}

/// A policy that is as bad as can be, but answers.
struct Busiest;

impl Choose for Busiest {
    fn choose(&self, load: &Load<'_>) -> session_group::Result<i32> {
        let most = load.in_flight.iter().enumerate().max_by_key(|(_, n)| **n);
        Ok(most.map_or(0, |(session, _)| session as i32))
    }
}

/// Sends one request and looks at its answer.
fn request(models: &Models, served: &Served, seen: &Seen, numbers: &mut Numbers) {
    let case = &models.cases[served.case];
    let i = numbers.next() as usize % case.requests.len();
    let inputs = feeds(&case.requests[i]);
    let ask = |inputs: &[(&str, &Tensor)], outputs: &[&str], options, session| {
        let request = Request { inputs, outputs, options, session, ..Request::default() };
        served.group.run_request(&request, None)
    };
    let timeout_ms = match [0, 0, 1, 5, 60_000][numbers.next() as usize % 5] {
        ms if served.may_be_late => ms,
        _ => 0,
    };
    let mut options = RunOptions::parse(&[]).unwrap();
    options.set_timeout_ms(timeout_ms);
    let session = Some(numbers.next() as usize).filter(|n| n % 2 == 0);
    let mut is_wrong = true;
    let result = match numbers.next() % 20 {
        0 => ask(&[("nobody:0", inputs[0].1)], case.outputs, None, session),
        1 => ask(&inputs, &["nothing:0"], None, session),
        2 => {
            let other = Tensor::from_slice(&[1], &[1u8]).unwrap();
            ask(&[&[(inputs[0].0, &other)], &inputs[1..]].concat(), case.outputs, None, session)
        }
        3 => ask(&[], case.outputs, None, session),
        4..10 => {
            is_wrong = false;
            let tensors: Vec<&Tensor> = inputs.iter().map(|(_, tensor)| *tensor).collect();
            served.callable.run(&tensors)
        }
        _ => {
            is_wrong = false;
            let options = Some(&options).filter(|_| timeout_ms > 0);
            ask(&inputs, case.outputs, options, session)
        }
    };
    let count = |counter: &AtomicU64| counter.fetch_add(1, Relaxed);
    let is_closed = matches!(&result, Err(error)
        if error.code == Code::FailedPrecondition && error.message.contains("is closed"));
    if !is_closed {
        count(&served.answered);
    }
    match result {
        Ok(got) => {
            assert!(!is_wrong, "{}: a wrong request was answered", case.name);
            assert!(same(&got, &models.answers[served.case][i]), "{}: a wrong answer", case.name);
            count(&seen.right)
        }
        Err(_) if is_closed => count(&seen.closed),
        Err(Error { code: Code::DeadlineExceeded, .. })
            if timeout_ms > 0 && timeout_ms < 60_000 =>
        {
            count(&seen.late)
        }
        Err(Error { code: Code::ResourceExhausted, .. }) if served.has_small_queue => {
            count(&seen.full)
        }
        Err(Error { code: Code::InvalidArgument | Code::NotFound, .. }) if is_wrong => {
            count(&seen.refused)
        }
        Err(error) => panic!("{}, timeout {timeout_ms} ms, wrong {is_wrong}: {error}", case.name),
    };
}

/// What a process without groups has.
struct Left {
    resident: u64,
    /// What the C library has given out: grows where something is leaked, and not where memory that
    /// is free lies in pieces.
    in_use: usize,
    threads: usize,
    descriptors: usize,
}

impl Left {
    fn now() -> Self {
        // SAFETY: no precondition. What is free but kept by the allocator is no leak.
        let allocated = unsafe {
            libc::malloc_trim(0);
            libc::mallinfo2()
        };
        Self {
            resident: resident(),
            in_use: allocated.uordblks + allocated.hblkhd,
            threads: proc_entries("task"),
            descriptors: proc_entries("fd"),
        }
    }
}

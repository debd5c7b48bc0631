//! The memory of large tensors is kept for the next request, within its limit. Each test looks at a
//! whole process, and so runs in one of its own.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Numbers, create, load, one_thread, options, resident, same};
use session_group::cpuset::CpuSet;
use session_group::execution::Execution;
use session_group::memory::{KEPT_VARIABLE, memory_stats};
use session_group::tensorflow::Tensor;
use session_group::{Code, SessionGroup};
use stock_session::{ON_CALLING_THREAD, StockSession};

const MIB: u64 = 1 << 20;
const FEED: &str = "serving_default_image:0";
const FETCH: &str = "StatefulPartitionedCall:0";

/// Makes this test program the process that one of its tests looks at.
const CHILD: &str = "TEST_LARGE_TENSORS";

/// Whether this is a test's own process. If not, runs the test in one, with so many bytes to keep.
fn is_alone(test: &str, kept_bytes: Option<&str>) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--nocapture", test]).env(CHILD, "1").env_remove(KEPT_VARIABLE);
    if let Some(bytes) = kept_bytes {
        child.env(KEPT_VARIABLE, bytes);
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    print!("{text}");
    false
}

/// Of the calling thread.
fn page_faults() -> i64 {
    // SAFETY: zeros are a valid rusage, which the call fills.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_minflt
    }
}

fn convolutions() -> SessionGroup {
    let mut group_options = options(1);
    group_options.execution(Execution::Caller);
    load("convolutions", &group_options)
}

/// The largest values of its request take batch x side x side x 512 bytes.
fn image(batch: i64, side: i64) -> Tensor {
    let mut numbers = Numbers(9);
    let pixels: Vec<f32> = (0..batch * side * side * 3).map(|_| numbers.float()).collect();
    Tensor::from_slice(&[batch, side, side, 3], &pixels).unwrap()
}

fn run(group: &SessionGroup, image: &Tensor) -> Vec<Tensor> {
    group.run(&[(FEED, image)], &[FETCH], &[]).unwrap()
}

/// Page faults of a request after three others: the median of eleven, since mimalloc returns memory of
/// small tensors now and then.
fn warm_page_faults(group: &SessionGroup, image: &Tensor) -> i64 {
    (0..3).for_each(|_| drop(run(group, image)));
    let mut faults: [i64; 11] = std::array::from_fn(|_| {
        let before = page_faults();
        drop(run(group, image));
        page_faults() - before
    });
    faults.sort_unstable();
    faults[5]
}

#[test]
fn warm_requests_have_next_to_no_page_faults_and_answer_as_stock() {
    if !is_alone("warm_requests_have_next_to_no_page_faults_and_answer_as_stock", None) {
        return;
    }
    let group = convolutions();
    let (stock, _) = StockSession::load(&one_thread(), &common::dir("convolutions"));
    let step = stock.step(&[FEED], &[FETCH]);
    // 2, 8, 32 and 128 MiB.
    for (batch, side) in [(1, 64), (1, 128), (4, 128), (4, 256)] {
        let image = image(batch, side);
        let faults = warm_page_faults(&group, &image);
        println!("{batch} x {side} x {side}: {faults} page faults a request");
        assert!(faults < 8, "{faults} page faults a request");
        let misses = memory_stats().misses;
        let answer = run(&group, &image);
        assert_eq!(memory_stats().misses, misses, "all memory was kept");
        assert!(same(&answer, &stock.run(&step, &[&image], &ON_CALLING_THREAD)));
    }
    assert!(memory_stats().hits > 100);
    let text = group.metrics_text();
    assert!(text.contains("\nsession_group_large_tensors_kept_bytes "), "{text}");
}

/// Two threads that swap their blocks with every request have them in each other's caches: convolutions then ran
/// at 0.7 of their speed.
#[test]
fn threads_on_their_own_cpus_get_their_own_memory_back() {
    if !is_alone("threads_on_their_own_cpus_get_their_own_memory_back", None) {
        return;
    }
    let allowed = session_group::affinity::allowed().unwrap();
    let cpus: Vec<CpuSet> =
        allowed.cpus().iter().take(2).map(|&cpu| CpuSet::new([cpu]).unwrap()).collect();
    let group = convolutions();
    let image = image(1, 128);
    let requests = |n: usize| {
        std::thread::scope(|scope| {
            for set in &cpus {
                let (group, image) = (&group, &image);
                scope.spawn(move || {
                    session_group::affinity::on_thread("client", Some(set), || {
                        (0..n).for_each(|_| drop(run(group, image)));
                        Ok(())
                    })
                });
            }
        });
    };
    requests(50);
    let before = memory_stats();
    requests(200);
    let now = memory_stats();
    let (hits, moved) = (now.hits - before.hits, now.moved - before.moved);
    println!("{moved} of {hits} blocks were another CPU's");
    assert!(hits > 1_000 && moved * 10 < hits, "{moved} of {hits} blocks were another CPU's");
}

#[test]
fn a_limit_of_0_keeps_nothing() {
    if !is_alone("a_limit_of_0_keeps_nothing", Some("0")) {
        return;
    }
    let group = convolutions();
    let faults = warm_page_faults(&group, &image(1, 64));
    let stats = memory_stats();
    assert!(faults > 256, "{faults}: the system gives each page again");
    assert_eq!((stats.kept_bytes, stats.kept_limit_bytes, stats.hits), (0, 0, 0));
    assert!(group.describe().contains("\"kept_bytes\":0"));
}

#[test]
fn a_limit_that_is_no_number_is_refused() {
    if !is_alone("a_limit_that_is_no_number_is_refused", Some("2 GB")) {
        return;
    }
    let error = SessionGroup::new(&one_thread(), &options(1)).err().unwrap();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains(KEPT_VARIABLE) && error.message.contains("2 GB"), "{error}");
}

#[test]
fn closing_a_group_returns_its_memory() {
    if !is_alone("closing_a_group_returns_its_memory", None) {
        return;
    }
    let group = convolutions();
    let before = resident();
    drop(run(&group, &image(4, 256)));
    let (kept, used) = (memory_stats().kept_bytes, resident());
    assert!(kept > 200 * MIB && used > before + 200 * MIB, "{kept} bytes kept, {used} resident");
    group.close().unwrap();
    let closed = memory_stats();
    assert_eq!((closed.in_use_bytes, closed.kept_bytes, closed.kept_limit_bytes), (0, 0, 0));
    assert!(resident() < before + 32 * MIB, "{} bytes more", resident() - before);

    // What a group gave is freed after its end, and not kept for nobody.
    let group = create("trivial", &options(1));
    let x = Tensor::from_slice(&[1 << 20], &[1f32; 1 << 20]).unwrap();
    let y = group.run(&[("x:0", &x)], &["y:0"], &[]).unwrap();
    group.close().unwrap();
    assert_eq!(memory_stats().in_use_bytes, 4 * MIB);
    drop(y);
    assert_eq!((memory_stats().in_use_bytes, memory_stats().kept_bytes), (0, 0));
}

#[test]
fn what_no_request_needs_any_more_is_released() {
    if !is_alone("what_no_request_needs_any_more_is_released", None) {
        return;
    }
    let group = convolutions();
    let (odd, usual) = (image(4, 256), image(1, 128));
    drop(run(&group, &odd));
    assert!(memory_stats().kept_bytes > 200 * MIB);
    let begun = Instant::now();
    while memory_stats().kept_bytes > 64 * MIB {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", memory_stats());
        drop(run(&group, &usual));
    }
    let before = memory_stats();
    drop(run(&group, &usual));
    assert!(before.kept_bytes > 8 * MIB, "what is needed stays");
    assert_eq!(memory_stats().misses, before.misses);
}

/// With memory for a few of the tensors that are alive at a time.
#[test]
fn many_threads_with_many_sizes_stay_within_the_limit() {
    const LIMIT: u64 = 48 * MIB;
    let limit = LIMIT.to_string();
    if !is_alone("many_threads_with_many_sizes_stay_within_the_limit", Some(&limit)) {
        return;
    }
    let group = create("trivial", &options(2));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Relaxed) {
                let stats = memory_stats();
                assert!(stats.kept_bytes <= LIMIT && stats.kept_limit_bytes == LIMIT, "{stats:?}");
                most = most.max(stats.kept_bytes);
            }
            most
        });
        let clients: Vec<_> = (0..8u16)
            .map(|number| {
                let group = &group;
                scope.spawn(move || client(group, number))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        done.store(true, Relaxed);
        assert!(watcher.join().unwrap() > LIMIT / 2, "the limit was put to the test");
    });
    let stats = memory_stats();
    assert_eq!(stats.in_use_bytes, 0);
    assert!(stats.hits > 50 && stats.misses > 50, "{stats:?}");
}

/// Keeps three answers at a time, none of which another thread may write to.
fn client(group: &SessionGroup, number: u16) {
    let mut numbers = Numbers(number.into());
    let mut answers = std::collections::VecDeque::new();
    for round in 0..60u16 {
        // 0.5 to 8.5 MiB.
        let n = (1 << 17) + numbers.next() as usize % (2 << 20);
        let value = f32::from(number * 100 + round);
        let x = Tensor::from_slice(&[n as i64], &vec![value; n]).unwrap();
        answers.push_back((value + 1., group.run(&[("x:0", &x)], &["y:0"], &[]).unwrap()));
        if answers.len() > 3 || round == 59 {
            let (value, answer) = answers.pop_front().unwrap();
            assert!(answer[0].to_vec::<f32>().unwrap().iter().all(|&y| y == value));
        }
    }
}

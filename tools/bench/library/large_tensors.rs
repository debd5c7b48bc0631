//! A model whose values take 1 to 256 MB, through a group and through a stock session, by turns on the
//! same thread: medians, and page faults of a request. `cargo bench --bench large_tensors`.

use std::time::{Duration, Instant};

use session_group::execution::Execution;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Options, SessionGroup};
use stock_session::{ON_CALLING_THREAD, StockSession};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/build/convolutions");
const FEED: &str = "serving_default_image:0";
const FETCH: &str = "StatefulPartitionedCall:0";

/// What one side took.
#[derive(Default)]
struct Side {
    times: Vec<Duration>,
    faults: i64,
}

impl Side {
    fn measure(&mut self, request: impl FnOnce()) {
        let (before, begun) = (page_faults(), Instant::now());
        request();
        self.times.push(begun.elapsed());
        self.faults += page_faults() - before;
    }

    fn median(&mut self) -> f64 {
        self.times.sort_unstable();
        self.times[self.times.len() / 2].as_secs_f64() * 1e3
    }
}

/// Of this process.
fn page_faults() -> i64 {
    // SAFETY: zeros are a valid rusage, which the call fills.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage.ru_minflt
    }
}

fn main() {
    // One intra-op and one inter-op thread: fields 2 and 5 of ConfigProto.
    let mut one_thread = SessionOptions::new();
    one_thread.set_config(&[0x10, 1, 0x28, 1]).unwrap();
    let mut options = Options::new();
    options.session_num(1).execution(Execution::Caller);
    let group = SessionGroup::load(&one_thread, None, MODEL, &["serve"], &options, None)
        .expect("run `make models`");
    let callable = group.make_callable(&[FEED], &[FETCH], &[]).unwrap();
    let (stock, _) = StockSession::load(&one_thread, MODEL);
    let step = stock.step(&[FEED], &[FETCH]);

    println!("image           group p50   stock p50   stock/group   faults: group   stock");
    for (batch, side, rounds) in
        [(1, 32, 500), (1, 48, 300), (1, 64, 200), (1, 128, 100), (4, 128, 40), (8, 256, 8)]
    {
        let n = (batch * side * side * 3) as usize;
        let pixels: Vec<f32> = (0..n).map(|i| (i % 255) as f32 / 255.).collect();
        let image = Tensor::from_slice(&[batch, side, side, 3], &pixels).unwrap();
        let of_group = || drop(callable.run(&[&image]).unwrap());
        let of_stock = || drop(stock.run(&step, &[&image], &ON_CALLING_THREAD));
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        for _ in 0..3 {
            of_group();
            of_stock();
        }
        for _ in 0..rounds {
            ours.measure(of_group);
            theirs.measure(of_stock);
        }
        let (a, b) = (ours.median(), theirs.median());
        println!(
            "{batch} x {side} x {side:<5} {a:9.2} ms {b:8.2} ms {:11.3} {:16} {:7}",
            b / a,
            ours.faults / rounds,
            theirs.faults / rounds
        );
    }
}

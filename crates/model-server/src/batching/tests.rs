//! Batches of a small model.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Code, Options, Result, SessionGroup};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::queues::{Batch, MOST_IDLE, Names};
use super::*;
use crate::metrics::Metrics;
use crate::proto::serving::BatchingParameters;

/// Of half_plus, y = x / 2 + 2, with one thread.
fn batcher(max_batch: i64) -> (Scheduler, Batcher) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/build/half_plus");
    let mut options = Options::new();
    options.session_num(1);
    let (model, tags) = (model.to_str().unwrap(), ["serve"]);
    let group =
        SessionGroup::load(&SessionOptions::new(), None, model, &tags, &options, None).unwrap();
    let metrics = Arc::new(Metrics::default());
    let counts = metrics.of_version("half", 1);
    let batching = Batching::new(&BatchingParameters {
        max_batch_size: Some(max_batch),
        batch_timeout_micros: Some(i64::from(i32::MAX)),
        ..BatchingParameters::default()
    });
    let scheduler = Scheduler::new(1, metrics).unwrap();
    let batcher = Batcher::new(&scheduler, Arc::new(group), batching.unwrap(), counts);
    (scheduler, batcher)
}

async fn ask(batcher: &Batcher, xs: &[f32], deadline: Option<Instant>) -> Result<Vec<f32>> {
    let x = Tensor::from_slice(&[xs.len() as i64], xs)?;
    let outputs = batcher.run(vec![("x:0", x)], xs.len(), &["y:0"], deadline).await?;
    outputs[0].to_vec()
}

/// The value of a metric without labels.
fn metric(scheduler: &Scheduler, name: &str) -> String {
    let text = scheduler.shared.metrics.text();
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.map(str::to_string).collect()
}

const ROWS: &str = ":tensorflow:serving:batching_session:input_batch_size_sum";
const RUNS: &str = ":tensorflow:serving:batching_session:wrapped_run_count";

#[test]
fn requests_wait_without_a_thread() {
    let (scheduler, batcher) = batcher(100);
    let batcher = Arc::new(batcher);
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut all = JoinSet::new();
        for number in 0..100 {
            let batcher = batcher.clone();
            all.spawn(async move {
                let answer = ask(&batcher, &[number as f32], None).await.unwrap();
                assert_eq!(answer, [number as f32 / 2.0 + 2.0]);
            });
        }
        all.join_all().await;
    });
    assert_eq!((metric(&scheduler, RUNS), metric(&scheduler, ROWS)), ("1".into(), "100".into()));
}

#[test]
fn what_nobody_waits_for_is_not_run() {
    let (scheduler, batcher) = batcher(4);
    let waiting = || batcher.counts.batch_waiting.get();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let soon = Instant::now() + Duration::from_millis(50);
        let late = ask(&batcher, &[0.0], Some(soon)).await.unwrap_err();
        assert_eq!(late.code, Code::DeadlineExceeded);
        let gone = timeout(Duration::ZERO, ask(&batcher, &[0.0, 0.0], None));
        assert!(gone.await.is_err());
        assert_eq!(waiting(), 2);
        // They leave their room to others, and the batch runs when it is full of these.
        let (one, other) =
            tokio::join!(ask(&batcher, &[2.0, 4.0], None), ask(&batcher, &[6.0, 8.0], None));
        assert_eq!((one.unwrap(), other.unwrap()), (vec![3.0, 4.0], vec![5.0, 6.0]));
        assert_eq!((waiting(), metric(&scheduler, ROWS)), (0, "4".into()));
        let gone = timeout(Duration::ZERO, ask(&batcher, &[0.0], None));
        assert!(gone.await.is_err());
    });
    // Nor does a version stay for it.
    let counts = batcher.counts.clone();
    drop(batcher);
    assert_eq!(counts.batch_waiting.get(), 0);
    assert!(scheduler.shared.lock().all.is_empty());
}

#[test]
fn no_number_of_output_sets_leaves_queues_behind() {
    let (scheduler, batcher) = batcher(1000);
    let names = |number: usize| Names {
        feeds: vec!["x:0".to_string()],
        fetches: vec![format!("y:{number}")],
    };
    let mut queues = scheduler.shared.lock();
    let now = Instant::now();
    let waits = Batch { tasks: Vec::new(), rows: 1, opened: now };
    batcher.queue(&mut queues, names(0)).batches.push_back(waits);
    for number in 1..1000 {
        batcher.queue(&mut queues, names(number));
        assert!(queues.all.len() <= MOST_IDLE + 1, "{}", queues.all.len());
    }
    // What waits is still there.
    assert_eq!(batcher.queue(&mut queues, names(0)).batches.pop_front().unwrap().rows, 1);
}

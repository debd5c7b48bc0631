//! What a request costs beside what its graph computes: a graph that computes next to nothing, by
//! Criterion. `make bench-overhead` runs it.

use criterion::{Criterion, criterion_main};
use session_group::execution::Execution;
use session_group::optimization::Optimization;
use session_group::policy::Policy;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Options, SessionGroup};

fn group(change: impl FnOnce(&mut Options)) -> SessionGroup {
    let graph_def = concat!(env!("CARGO_MANIFEST_DIR"), "/models/build/trivial.pb");
    let graph_def = std::fs::read(graph_def).expect("run `make models`");
    let mut options = Options::new();
    options.session_num(2).policy(Policy::Thread).execution(Execution::Caller);
    change(&mut options);
    let group = SessionGroup::new(&SessionOptions::new(), &options).unwrap();
    group.create(&graph_def).unwrap();
    group
}

fn requests(criterion: &mut Criterion) {
    let x = Tensor::from_slice(&[1], &[1f32]).unwrap();
    let run = |group: &SessionGroup| group.run(&[("x:0", &x)], &["y:0"], &[]).unwrap();

    let optimised = group(|_| {});
    let callable = optimised.make_callable(&["x:0"], &["y:0"], &[]).unwrap();
    criterion.bench_function("callable", |bencher| bencher.iter(|| callable.run(&[&x]).unwrap()));
    criterion.bench_function("by names", |bencher| bencher.iter(|| run(&optimised)));

    let plain = group(|options| {
        Optimization::all().for_each(|it| {
            options.optimization(it, false);
        });
    });
    criterion.bench_function("without optimisations", |bencher| bencher.iter(|| run(&plain)));
    let worker = group(|options| {
        options.execution(Execution::Worker);
    });
    criterion.bench_function("on a worker thread", |bencher| bencher.iter(|| run(&worker)));
}

#[allow(missing_docs)] // What the macro makes.
mod made {
    criterion::criterion_group!(benches, super::requests);
}
criterion_main!(made::benches);

//! Load: every request is answered exactly once, with its own answer, whatever the policy and the
//! execution; too much of it is refused; failures stay with those who cause them.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{create, options};
use session_group::execution::Execution;
use session_group::policy::{Choose, Load, Policy};
use session_group::tensorflow::RunOptions;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Options, Request, SessionGroup};

const EXECUTIONS: [Execution; 3] = [Execution::Caller, Execution::Worker, Execution::Pool];

/// A policy of the user's own: the session with the shortest queue, or nonsense now and then.
struct Own {
    calls: AtomicUsize,
    nonsense: bool,
}

impl Choose for Own {
    fn choose(&self, load: &Load<'_>) -> session_group::Result<i32> {
        assert_eq!(load.in_flight.len(), load.queued.len());
        assert!(load.in_flight.iter().all(|n| (0..=64).contains(n)));
        let call = self.calls.fetch_add(1, Relaxed);
        if self.nonsense && call.is_multiple_of(3) {
            return Ok(load.queued.len() as i32);
        }
        let shortest = (0..load.queued.len()).min_by_key(|&i| (load.queued[i], load.in_flight[i]));
        Ok(shortest.unwrap() as i32)
    }
}

fn policies() -> Vec<Policy> {
    let own = |nonsense| Policy::Custom(Arc::new(Own { calls: AtomicUsize::new(0), nonsense }));
    vec![
        Policy::RoundRobin,
        Policy::Thread,
        Policy::LeastLoaded,
        Policy::CpuLocal,
        own(false),
        own(true),
    ]
}

/// x after no rounds is x: the answer tells whose it is.
fn echo(group: &SessionGroup, x: f32) -> session_group::Result<f32> {
    let (n, x) = (Tensor::from_slice(&[], &[0i32])?, Tensor::from_slice(&[], &[x])?);
    Ok(group.run(&[("slow/n", &n), ("slow/x", &x)], &["slow/y"], &[])?[0].to_vec()?[0])
}

#[test]
fn sixty_four_threads_get_each_answer_once_under_every_policy() {
    let cpu = session_group::topology::allowed().unwrap().cpus()[0];
    for execution in EXECUTIONS {
        for policy in policies() {
            let mut group_options = options(4);
            group_options.execution(execution).policy(policy.clone());
            group_options.cpuset(&format!("{cpu};{cpu};{cpu};{cpu}")).unwrap();
            let group = create("slow", &group_options);
            let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for client in 0..64 {
                    let (group, answered, refused) = (&group, &answered, &refused);
                    scope.spawn(move || {
                        for i in 0..25 {
                            let x = (client * 1000 + i) as f32;
                            match echo(group, x) {
                                Ok(y) => {
                                    assert_eq!(y, x, "somebody else's answer");
                                    answered.fetch_add(1, Relaxed);
                                }
                                Err(error) => {
                                    assert!(error.message.contains("custom policy"), "{error}");
                                    refused.fetch_add(1, Relaxed);
                                }
                            }
                        }
                    });
                }
            });
            let (answered, refused) = (answered.into_inner(), refused.into_inner());
            assert_eq!(answered + refused, 64 * 25);
            let stats: Vec<_> = (0..4).map(|i| group.stats(i).unwrap()).collect();
            let runs: u64 = stats.iter().map(|stats| stats.runs()).sum();
            assert_eq!(runs, answered as u64, "{execution} {policy:?}");
            assert!(stats.iter().all(|stats| stats.in_flight == 0 && stats.queued == 0));
            if matches!(policy, Policy::RoundRobin) {
                assert!(stats.iter().all(|stats| stats.runs() == 64 * 25 / 4));
            }
        }
    }
}

/// A group with one worker that is busy until `f` returns; `f` gets the group.
fn while_busy(options: &Options, f: impl FnOnce(&SessionGroup)) {
    let group = create("slow", options);
    echo(&group, 1.).unwrap();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let (n, x) = (Tensor::from_slice(&[], &[i32::MAX]), Tensor::from_slice(&[], &[1f32]));
            let mut options = RunOptions::parse(&[]).unwrap();
            options.set_timeout_ms(1000);
            let inputs = [("slow/n", &n.unwrap()), ("slow/x", &x.unwrap())];
            let options = Some(&options);
            let outputs = &["slow/y"];
            let request = Request { inputs: &inputs, outputs, options, ..Request::default() };
            group.run_request(&request, None).map(drop)
        });
        while group.stats(0).unwrap().in_flight == 0 || group.stats(0).unwrap().queued > 0 {
            std::thread::yield_now();
        }
        f(&group);
        assert_eq!(busy.join().unwrap().unwrap_err().code, Code::DeadlineExceeded);
    });
    assert_eq!(echo(&group, 2.).unwrap(), 2., "the session serves on");
}

#[test]
fn a_full_queue_refuses_at_once_or_waits_as_configured() {
    for wait in [false, true] {
        let mut group_options = options(1);
        group_options.execution(Execution::Worker).worker_threads(1).queue(2, wait);
        while_busy(&group_options, |group| {
            std::thread::scope(|scope| {
                let clients: Vec<_> =
                    (0..6).map(|i| scope.spawn(move || echo(group, i as f32))).collect();
                let results: Vec<_> = clients.into_iter().map(|c| c.join().unwrap()).collect();
                let refused: Vec<&Error> = results.iter().flat_map(|r| r.as_ref().err()).collect();
                if wait {
                    assert!(refused.is_empty(), "{refused:?}");
                } else {
                    assert_eq!(refused.len(), 4);
                    assert!(refused.iter().all(|error| error.code == Code::ResourceExhausted));
                    assert!(refused[0].message.contains("queue is full with 2 requests"));
                }
                for (i, result) in results.iter().enumerate() {
                    assert!(result.as_ref().map_or(true, |&y| y == i as f32));
                }
                let stats = group.stats(0).unwrap();
                assert_eq!(stats.rejected as usize, refused.len());
                assert_eq!(stats.errors(Code::ResourceExhausted) as usize, refused.len());
            });
        });
    }
}

#[test]
fn failed_requests_do_not_harm_others() {
    for execution in EXECUTIONS {
        let mut group_options = options(2);
        group_options.execution(execution);
        let group = create("slow", &group_options);
        std::thread::scope(|scope| {
            for client in 0..16 {
                let group = &group;
                scope.spawn(move || {
                    for i in 0..50 {
                        if client % 2 == 0 {
                            assert_eq!(echo(group, i as f32).unwrap(), i as f32);
                            continue;
                        }
                        let wrong = Tensor::from_slice(&[3], &[1i64, 2, 3]).unwrap();
                        let error = match i % 3 {
                            0 => group.run(&[("slow/n", &wrong)], &["slow/y"], &[]),
                            1 => group.run(&[("nowhere", &wrong)], &["slow/y"], &[]),
                            _ => group.run(&[], &["slow/y"], &[]),
                        };
                        assert_eq!(error.err().unwrap().code, Code::InvalidArgument);
                    }
                });
            }
        });
        let stats: Vec<_> = (0..2).map(|i| group.stats(i).unwrap()).collect();
        assert_eq!(stats.iter().map(|stats| stats.answers[0]).sum::<u64>(), 8 * 50);
        assert_eq!(stats.iter().map(|s| s.errors(Code::InvalidArgument)).sum::<u64>(), 8 * 50);
    }
}

//! Every answer of a group is, bit for bit, that of one stock session on the same executor.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::{cases, same};
use session_group::execution::Execution;
use session_group::optimization::Optimization;
use session_group::policy::Policy;

#[test]
fn thirty_two_clients_get_the_stock_answers_from_1_to_32_sessions() {
    for case in cases() {
        let expected = case.stock_answers();
        for sessions in [1, 2, 4, 8, 32] {
            let group = case.group(&common::options(sessions));
            let answered = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for client in 0..32 {
                    let (case, group, expected, answered) = (&case, &group, &expected, &answered);
                    scope.spawn(move || {
                        for round in 0..8 {
                            let i = (client + round) % expected.len();
                            let got = case.run(group, i);
                            assert!(
                                same(&got, &expected[i]),
                                "{} with {sessions} sessions, request {i}",
                                case.name
                            );
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(answered.into_inner(), 32 * 8);
        }
    }
}

#[test]
fn every_execution_and_policy_gives_the_stock_answers() {
    for case in cases() {
        let expected = case.stock_answers();
        for execution in [Execution::Caller, Execution::Worker, Execution::Pool] {
            for policy in [Policy::RoundRobin, Policy::Thread, Policy::LeastLoaded] {
                let mut options = common::options(3);
                options.execution(execution).policy(policy);
                let group = case.group(&options);
                for i in (0..expected.len()).cycle().take(12) {
                    assert!(same(&case.run(&group, i), &expected[i]), "{} {execution}", case.name);
                }
            }
        }
    }
}

#[test]
fn every_optimisation_alone_and_all_but_it_give_the_stock_answers() {
    for case in cases() {
        let expected = case.stock_answers();
        for optimization in Optimization::all() {
            for alone in [true, false] {
                let mut options = common::options(2);
                for other in Optimization::all() {
                    // Most do nothing without the serial executor.
                    let enabled = (other == optimization) == alone
                        || (alone && other == Optimization::SerialExecutor);
                    options.optimization(other, enabled);
                }
                let group = case.group(&options);
                for i in (0..expected.len()).cycle().take(8) {
                    let got = case.run(&group, i);
                    assert!(same(&got, &expected[i]), "{} {optimization} {alone}", case.name);
                }
            }
        }
    }
}

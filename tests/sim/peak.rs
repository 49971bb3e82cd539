//! Balancing by latency: a small world of servers with a speed of their own, and a queue each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tidegate::pool::{Balance, CallPermit, Moment, PickContext, Pool};

use crate::{endpoint, for_each_seed};

/// Runs calls that arrive one per `gap` milliseconds at servers that take `takes` milliseconds for
/// each; how many each got.
fn run(takes: &[u64], gap: u64, calls: u64, rng: &mut fastrand::Rng) -> Vec<u64> {
    let endpoints = (0..takes.len()).map(|n| endpoint(&format!("w{n}"), 1));
    let pool = Pool::new("p", Balance::PeakEwma, endpoints.collect()).expect("names differ");
    let at = |millis: u64| Moment::from_nanos(1).after(Duration::from_millis(millis));
    // When a call ends, when it began, where, and which permit it holds.
    let mut ends: BinaryHeap<Reverse<(u64, u64, usize, usize)>> = BinaryHeap::new();
    let mut permits: Vec<Option<CallPermit>> = Vec::new();
    let mut got = vec![0; takes.len()];
    for call in 0..calls {
        let now = call * gap;
        while let Some(Reverse((end, began, which, permit))) = ends.pop() {
            if end > now {
                ends.push(Reverse((end, began, which, permit)));
                break;
            }
            let latency = &pool.endpoints()[which].guard.latency;
            latency.observe(Duration::from_millis(end - began), at(end));
            permits[permit] = None;
        }
        let context = PickContext {
            now: at(now),
            ..PickContext::default()
        };
        let picked = pool.pick(&context, rng).expect("all are up");
        let which = pool.position(picked.id()).expect("it is of the pool");
        got[which] += 1;
        permits.push(Some(picked.call()));
        let spread = takes[which] / 10 + 1;
        let took = takes[which] + rng.u64(..spread);
        ends.push(Reverse((now + took, now, which, permits.len() - 1)));
    }
    drop(permits);
    assert!(
        pool.endpoints().iter().all(|e| e.busy() == 0),
        "a permit has leaked"
    );
    got
}

#[test]
fn a_slow_endpoint_gets_much_less_and_is_not_given_up() {
    for_each_seed(
        "a_slow_endpoint_gets_much_less_and_is_not_given_up",
        |rng| {
            let mut takes = vec![20; rng.usize(2..8)];
            takes[0] = 400;
            let got = run(&takes, 4, 2500, rng);
            let even = 2500 / takes.len() as u64;
            assert!(got[0] < even / 4, "{got:?}");
            assert!(got[0] > 0, "{got:?}");
        },
    );
}

#[test]
fn endpoints_that_are_equally_fast_get_about_the_same() {
    for_each_seed(
        "endpoints_that_are_equally_fast_get_about_the_same",
        |rng| {
            let count = rng.usize(2..8);
            let got = run(&vec![50; count], 3, 2500, rng);
            let even = 2500.0 / count as f64;
            for calls in &got {
                assert!((*calls as f64 - even).abs() < even * 0.25, "{got:?}");
            }
        },
    );
}

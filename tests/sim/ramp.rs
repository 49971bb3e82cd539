//! Slow start: shares in turn against the weights that count, whoever came back when.

use std::time::Duration;

use tidegate::pool::{Balance, Moment, PickContext, Pool, Protection};

use crate::{endpoint, for_each_seed};

#[test]
fn shares_follow_the_weights_that_count() {
    for_each_seed("shares_follow_the_weights_that_count", |rng| {
        let length = rng.u64(1..100);
        let weights: Vec<u32> = (0..rng.usize(1..10)).map(|_| rng.u32(1..20)).collect();
        let endpoints = weights.iter().enumerate();
        let endpoints = endpoints.map(|(n, weight)| endpoint(&format!("w{n}"), *weight));
        let pool = Pool::new("p", Balance::RoundRobin, endpoints.collect()).expect("names differ");
        let pool = pool.with_protection(Protection {
            slow_start: Duration::from_secs(length),
            ..Protection::default()
        });
        let at = |seconds: u64| Moment::default().after(Duration::from_secs(seconds));
        let now = 1 + length * 2;
        // The whole weight for those that never were away or have been back for long.
        let mut counts = Vec::new();
        for (endpoint, weight) in pool.endpoints().iter().zip(&weights) {
            let mut part = 1.0;
            if rng.bool() {
                let back = rng.u64(1..=now);
                endpoint.guard.came_back(at(back));
                let since = (now - back) as f64 / length as f64;
                part = (0.1 + 0.9 * since).min(1.0);
            }
            counts.push(f64::from(*weight) * part);
        }
        let total: f64 = counts.iter().sum();
        let context = PickContext {
            now: at(now),
            ..PickContext::default()
        };
        let mut got = vec![0.0; weights.len()];
        let picks = 2000;
        for _ in 0..picks {
            let picked = pool.pick(&context, rng).expect("all are up");
            got[pool.position(picked.id()).expect("it is of the pool")] += 1.0;
        }
        for (n, count) in counts.iter().enumerate() {
            let want = f64::from(picks) * count / total;
            // A turn more or less, and thousandths that are rounded down.
            let off = f64::abs(got[n] - want);
            assert!(off <= 2.0 + want * 0.02, "w{n} got {} of {want}", got[n]);
        }
    });
}

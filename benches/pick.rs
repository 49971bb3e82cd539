//! What does choosing an endpoint cost, by the way of balancing and the size of the pool?

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::pool::{Balance, Endpoint, EndpointSpec, HealthState, PickContext, Pool};

fn pool(balance: Balance, count: u64) -> Pool {
    let endpoints: Vec<Arc<Endpoint>> = (0..count)
        .map(|id| {
            Endpoint::new(EndpointSpec {
                name: format!("e{id}"),
                id,
                weight: 1,
                backup: false,
                address: "127.0.0.1:1".parse().ok(),
                health: HealthState::Up,
            })
        })
        .collect();
    Pool::new("bench", balance, endpoints).expect("the pool is small")
}

fn pick(c: &mut Criterion) {
    let mut rng = fastrand::Rng::with_seed(1);
    let ways = [
        ("least load", Balance::LeastLoad),
        ("round robin", Balance::RoundRobin),
        ("consistent hash", Balance::ConsistentHash),
    ];
    let mut group = c.benchmark_group("pick");
    for (name, balance) in ways {
        for count in [3, 30, 300] {
            let pool = pool(balance, count);
            let mut key = 0;
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    key += 1;
                    let context = PickContext {
                        key: Some(key),
                        ..PickContext::default()
                    };
                    pool.pick(&context, &mut rng)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);

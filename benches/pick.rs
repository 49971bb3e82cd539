//! What does choosing an endpoint cost, by the way of balancing and the size of the pool?

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::pool::PickContext;

mod samples;

fn pick(c: &mut Criterion) {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut group = c.benchmark_group("pick");
    for (name, balance) in samples::WAYS {
        for count in [3, 30, 300] {
            let pool = samples::pool(balance, count);
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

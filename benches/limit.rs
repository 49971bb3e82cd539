//! What does it cost to ask whether a call may go: a token, a place, one more of a client?

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::limit::{Bucket, Buckets, Cap, Client, Counts, Pattern, Rate};
use tidegate::pool::{Balance, PickContext, Priority};

mod samples;

const CLIENTS: u32 = 10_000;

fn rates(c: &mut Criterion) {
    let mut group = c.benchmark_group("rate");
    let rate = Rate::new(1_000_000, Duration::from_secs(1), 1_000_000);
    let bucket = Bucket::new(rate);
    let buckets = Buckets::new(65_536, [3, 5]);
    let mut now = 0;
    group.bench_function("total", |b| {
        b.iter(|| {
            now += 1000;
            bucket.take(1, now)
        });
    });
    let client = |number: u32| Client::at(Ipv4Addr::from_bits(number).into());
    group.bench_function("one client", |b| {
        b.iter(|| {
            now += 1000;
            buckets.take(1, client(7), rate, 1, now)
        });
    });
    let mut number = 0;
    group.bench_function("ten thousand clients", |b| {
        b.iter(|| {
            now += 1000;
            number = (number + 7919) % CLIENTS;
            buckets.take(1, client(number), rate, 1, now)
        });
    });
    let slow = Rate::new(1, Duration::from_secs(3600), 1);
    group.bench_function("refused", |b| {
        b.iter(|| buckets.take(2, client(7), slow, 1, now))
    });
    group.bench_function("flood of addresses", |b| {
        b.iter(|| {
            number = number.wrapping_add(1);
            buckets.take(3, client(number), slow, 1, now)
        });
    });
    group.finish();
}

fn numbers(c: &mut Criterion) {
    let mut group = c.benchmark_group("number");
    let (cap, counts) = (Cap::new(4), Counts::new());
    group.bench_function("of all", |b| b.iter(|| cap.enter().is_some()));
    group.bench_function("of one", |b| b.iter(|| counts.enter(7, 4).is_some()));
    let pattern = Pattern::new("slow_*");
    group.bench_function("tool name", |b| {
        b.iter(|| pattern.matches("slow_query_of_all"))
    });
    group.finish();
}

fn places(c: &mut Criterion) {
    let mut group = c.benchmark_group("place");
    let mut rng = fastrand::Rng::with_seed(1);
    let context = PickContext::default();
    for (name, max) in [
        ("no limit", None),
        ("free", Some(8)),
        ("waited for", Some(1)),
    ] {
        let pool = samples::pool(Balance::LeastLoad, 3);
        for endpoint in pool.endpoints() {
            endpoint.places.limit(max);
        }
        let pool = match max {
            Some(_) => pool.with_queue(1024),
            None => pool,
        };
        if max == Some(1) {
            let id = pool.endpoints()[0].id();
            let mut held = pool.place_at(id, Priority::Ordinary).expect("free");
            group.bench_function(name, |b| {
                b.iter(|| {
                    let waiting = pool.wait_for(id, Priority::Ordinary).expect("room");
                    let mut waiting = waiting.expect("counted");
                    drop(held.take());
                    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                    held = match waiting.poll(&mut context) {
                        std::task::Poll::Ready(place) => Some(place),
                        std::task::Poll::Pending => None,
                    };
                });
            });
            continue;
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                pool.pick_place(&context, Priority::Ordinary, &mut rng)
                    .is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rates, numbers, places);
criterion_main!(benches);

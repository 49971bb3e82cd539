//! What does a sealed id cost per request? Opening is paid by every session call, sealing by every
//! `initialize`; the table is touched once per session call.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::session::{Caps, IdKind, Key, NameHash, NewSession, PrincipalHash, Revision, Table};

mod samples;

fn ids(c: &mut Criterion) {
    let keyring = samples::keyring();
    let claims = samples::claims();
    let sealed = samples::sealed();
    c.bench_function("seal a session id", |b| {
        b.iter(|| keyring.seal(black_box(&claims), [9; 24]));
    });
    c.bench_function("open a session id", |b| {
        b.iter(|| keyring.open(black_box(sealed.as_bytes()), IdKind::Session));
    });
}

fn table(c: &mut Criterion) {
    let now = Instant::now();
    let caps = Caps {
        total: 200_000,
        per_pool: 200_000,
        per_principal: usize::MAX,
    };
    let table: Table<()> = Table::new(caps, now);
    let pool = NameHash::of("weather");
    let endpoint = NameHash::of("a");
    let keys: Vec<Key> = (0..100_000)
        .map(|n: u32| {
            let id = n.to_string();
            let key = Key::of(pool, endpoint, &id);
            let principal = PrincipalHash::ANONYMOUS;
            let new = NewSession {
                pool,
                endpoint,
                server_id: id.into(),
                principal,
                revision: Revision::UNKNOWN,
                guard: (),
            };
            table
                .open(key, new, now)
                .expect("the cap is above the count");
            key
        })
        .collect();
    let mut at = 0;
    c.bench_function("touch one of 100,000 sessions", |b| {
        b.iter(|| {
            at = (at + 7919) % keys.len();
            table.touch(keys[at], now, || unreachable!("every session is known"))
        });
    });
}

criterion_group!(benches, ids, table);
criterion_main!(benches);

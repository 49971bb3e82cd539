//! What does a sealed id cost per request? Opening is paid by every session call, sealing by every
//! `initialize`; the table is touched once per session call.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::session::{
    Caps, Claims, IdKind, Key, Keyring, NameHash, NewSession, PrincipalHash, Revision, SealingKey,
    Table,
};

fn claims() -> Claims {
    Claims {
        kind: IdKind::Session,
        pool: NameHash::of("weather"),
        endpoint: NameHash::of("127.0.0.1:9001"),
        server_id: "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".to_owned(),
        minted_at: 1_790_000_000,
        principal: PrincipalHash::ANONYMOUS,
    }
}

fn ids(c: &mut Criterion) {
    let keyring =
        Keyring::new(vec![SealingKey::from_bytes([7; 32])]).expect("one key is a keyring");
    let sealed = keyring
        .seal(&claims(), [9; 24])
        .expect("a short id is sealed");
    c.bench_function("seal a session id", |b| {
        b.iter(|| keyring.seal(black_box(&claims()), [9; 24]));
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
                server_id: id,
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

use super::*;

const CAPS: Caps = Caps {
    total: 100,
    per_pool: 50,
    per_principal: 10,
};
const TTL: Duration = Duration::from_secs(60);
const ALICE: PrincipalHash = PrincipalHash(1);

#[allow(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
fn start() -> Instant {
    Instant::now()
}

fn pool(n: u64) -> NameHash {
    NameHash::from_u64(n)
}

fn endpoint(n: u64) -> NameHash {
    NameHash::from_u64(n)
}

fn key(n: u32) -> Key {
    Key::of(pool(1), endpoint(1), &n.to_string())
}

fn new(n: u32, principal: PrincipalHash) -> NewSession<()> {
    NewSession {
        pool: pool(1),
        endpoint: endpoint(1),
        server_id: n.to_string().into(),
        principal,
        revision: Revision::of("2025-11-25"),
        guard: (),
    }
}

fn table(caps: Caps) -> (Arc<Table<()>>, Instant) {
    let now = start();
    (Arc::new(Table::new(caps, now)), now)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_session_is_known_from_its_initialize_to_its_end() {
    let (table, now) = table(CAPS);
    assert_eq!(table.open(key(1), new(1, ALICE), now), Ok(()));
    assert_eq!(
        table.touch(key(1), now + secs(5), || unreachable!("it is known")),
        Touched::Known
    );
    assert_eq!(
        (
            table.len(),
            table.pool_len(pool(1)),
            table.principal_len(ALICE)
        ),
        (1, 1, 1)
    );
    table.speaks(key(1), Revision::of("2025-06-18"));
    let live = table.close(key(1)).expect("it is known");
    assert_eq!(
        (&*live.server_id, live.revision.as_str()),
        ("1", "2025-06-18")
    );
    assert_eq!((live.created, live.last_used()), (now, now + secs(5)));
    assert!(table.is_empty() && table.close(key(1)).is_none());
    table.check_invariants();
}

#[test]
fn a_session_that_is_not_in_the_table_is_adopted() {
    let (table, now) = table(CAPS);
    assert_eq!(table.touch(key(1), now, || new(1, ALICE)), Touched::Adopted);
    assert_eq!(table.touch(key(1), now, || new(1, ALICE)), Touched::Known);
    assert_eq!(table.len(), 1);
}

#[test]
fn each_cap_refuses_and_says_which_it_is() {
    let cases = [
        (Caps { total: 2, ..CAPS }, Cap::Total),
        (
            Caps {
                per_pool: 2,
                ..CAPS
            },
            Cap::Pool,
        ),
        (
            Caps {
                per_principal: 2,
                ..CAPS
            },
            Cap::Principal,
        ),
    ];
    for (caps, cap) in cases {
        let (table, now) = table(caps);
        assert_eq!(table.room(pool(1), ALICE), Ok(()));
        assert_eq!(table.open(key(1), new(1, ALICE), now), Ok(()));
        assert_eq!(table.open(key(2), new(2, ALICE), now), Ok(()));
        let refused = Err(Refused { cap });
        assert_eq!(table.room(pool(1), ALICE), refused);
        assert_eq!(table.open(key(3), new(3, ALICE), now), refused);
        let touched = table.touch(key(3), now, || new(3, ALICE));
        assert_eq!(touched, Touched::Untracked(Refused { cap }));
        assert_eq!(table.touch(key(2), now, || new(2, ALICE)), Touched::Known);
        table.close(key(1));
        assert_eq!(table.open(key(3), new(3, ALICE), now), Ok(()));
        table.check_invariants();
    }
}

#[test]
fn anonymous_clients_are_not_one_principal() {
    let (table, now) = table(Caps {
        per_principal: 1,
        ..CAPS
    });
    for n in 0..20 {
        assert_eq!(
            table.open(key(n), new(n, PrincipalHash::ANONYMOUS), now),
            Ok(())
        );
    }
    assert_eq!(table.principal_len(PrincipalHash::ANONYMOUS), 0);
    table.check_invariants();
}

#[test]
fn a_lowered_cap_keeps_who_is_there() {
    let (table, now) = table(CAPS);
    (0..5).for_each(|n| assert_eq!(table.open(key(n), new(n, ALICE), now), Ok(())));
    table.set_caps(Caps { total: 3, ..CAPS });
    assert_eq!(table.len(), 5);
    assert_eq!(
        table.open(key(9), new(9, ALICE), now),
        Err(Refused { cap: Cap::Total })
    );
}

#[test]
fn an_id_that_the_server_gives_out_anew_replaces_the_session() {
    let (table, now) = table(CAPS);
    assert_eq!(table.open(key(1), new(1, ALICE), now), Ok(()));
    let stream = table.stream(key(1), now).expect("it is known");
    assert_eq!(
        table.open(key(1), new(1, PrincipalHash(2)), now + secs(1)),
        Ok(())
    );
    assert_eq!((table.len(), table.principal_len(ALICE)), (1, 0));
    let other = table.stream(key(1), now).expect("it is known");
    drop(stream); // A stream of the session that is gone, not of this one.
    assert_eq!(table.list(9, |_| true)[0].open_streams, 1);
    drop(other);
    assert_eq!(table.list(9, |_| true)[0].open_streams, 0);
    table.check_invariants();
}

#[test]
fn idle_sessions_are_reaped_and_busy_ones_stay() {
    let (table, now) = table(CAPS);
    (0..3).for_each(|n| assert_eq!(table.open(key(n), new(n, ALICE), now), Ok(())));
    let stream = table.stream(key(0), now).expect("it is known");
    table.touch(key(1), now + secs(30), || unreachable!("it is known"));

    let reaped = table.reap(now + TTL, TTL, 10);
    assert_eq!(
        reaped
            .iter()
            .map(|live| &*live.server_id)
            .collect::<Vec<_>>(),
        ["2"]
    );
    let reaped = table.reap(now + secs(90), TTL, 10);
    assert_eq!(
        reaped
            .iter()
            .map(|live| &*live.server_id)
            .collect::<Vec<_>>(),
        ["1"]
    );

    stream.end(now + secs(1000));
    assert!(
        table
            .reap(now + secs(1000) + TTL - secs(1), TTL, 10)
            .is_empty()
    );
    assert_eq!(table.reap(now + secs(1000) + TTL, TTL, 10).len(), 1);
    table.check_invariants();
}

#[test]
fn a_stream_that_is_dropped_ended_when_the_table_last_saw_the_time() {
    let (table, now) = table(CAPS);
    assert_eq!(table.open(key(1), new(1, ALICE), now), Ok(()));
    let streams = [table.stream(key(1), now), table.stream(key(1), now)];
    assert!(table.reap(now + secs(3600), TTL, 10).is_empty());
    drop(streams);
    assert!(table.reap(now + secs(3659), TTL, 10).is_empty());
    assert_eq!(table.reap(now + secs(3660), TTL, 10).len(), 1);
    assert!(table.stream(key(1), now).is_none());
}

#[test]
fn reaping_is_bounded_and_goes_on_where_it_stopped() {
    let (table, now) = table(Caps {
        per_principal: 50,
        ..CAPS
    });
    (0..50).for_each(|n| assert_eq!(table.open(key(n), new(n, ALICE), now), Ok(())));
    assert!(table.reap(now + TTL, TTL, 0).is_empty());
    let counts: Vec<_> = (0..8)
        .map(|_| table.reap(now + TTL, TTL, 7).len())
        .collect();
    assert_eq!(counts, [7, 7, 7, 7, 7, 7, 7, 1]);
    table.check_invariants();
}

#[test]
fn a_lost_endpoint_takes_its_sessions_and_no_others() {
    let (table, now) = table(CAPS);
    for n in 0..9 {
        let at = |n: u64| (pool(n % 3 / 2), endpoint(n % 2));
        let (pool, endpoint) = at(n);
        let new = NewSession {
            pool,
            endpoint,
            ..new(n as u32, PrincipalHash::ANONYMOUS)
        };
        assert_eq!(
            table.open(Key::of(pool, endpoint, &new.server_id), new, now),
            Ok(())
        );
    }
    let count = table.endpoint_len(pool(0), endpoint(1));
    let closed = table.close_endpoint(pool(0), endpoint(1), |_| false);
    assert!(count > 0 && closed.len() == count);
    assert!(
        closed
            .iter()
            .all(|live| (live.pool, live.endpoint) == (pool(0), endpoint(1)))
    );
    assert_eq!(
        (table.len(), table.endpoint_len(pool(0), endpoint(1))),
        (9 - count, 0)
    );
    table.check_invariants();
}

#[test]
fn guards_are_given_up_with_their_sessions() {
    let now = start();
    let (held, table) = (
        Arc::new(()),
        Arc::new(Table::new(Caps { total: 1, ..CAPS }, now)),
    );
    let with_guard = |n: u32| NewSession {
        pool: pool(1),
        endpoint: endpoint(1),
        server_id: n.to_string().into(),
        principal: ALICE,
        revision: Revision::UNKNOWN,
        guard: Arc::clone(&held),
    };
    assert_eq!(table.open(key(1), with_guard(1), now), Ok(()));
    assert_eq!(Arc::strong_count(&held), 2);
    assert!(table.open(key(2), with_guard(2), now).is_err());
    table.touch(key(2), now, || with_guard(2));
    assert_eq!(Arc::strong_count(&held), 2, "the refused ones are dropped");
    assert_eq!(table.open(key(1), with_guard(1), now), Ok(()));
    assert_eq!(Arc::strong_count(&held), 2, "the replaced one is dropped");
    assert_eq!(
        table.with(key(1), |guard| Arc::strong_count(guard)),
        Some(2)
    );
    drop(table.reap(now + TTL, TTL, 1));
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_list_is_bounded_and_filtered() {
    let (table, now) = table(CAPS);
    (0..9).for_each(|n| assert_eq!(table.open(key(n), new(n, ALICE), now), Ok(())));
    assert_eq!(table.list(4, |_| true).len(), 4);
    assert_eq!(table.list(4, |live| &*live.server_id == "7").len(), 1);
    assert_eq!(table.list(0, |_| true).len(), 0);
}

#[test]
fn threads_together_never_exceed_a_cap() {
    let (table, now) = table(Caps {
        total: 40,
        per_pool: 30,
        per_principal: 7,
    });
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let table = &table;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut streams = Vec::new();
                for _ in 0..3000 {
                    let n = rng.u32(..80);
                    let principal = PrincipalHash(u64::from(n % 8));
                    match rng.u8(..6) {
                        0 => drop(table.open(key(n), new(n, principal), now)),
                        1 | 2 => drop(table.touch(key(n), now, || new(n, principal))),
                        3 => drop(table.close(key(n))),
                        4 => streams.extend(table.stream(key(n), now)),
                        _ => drop(streams.pop()),
                    }
                    assert!(table.len() <= 30 && table.principal_len(principal) <= 7);
                    if rng.u8(..64) == 0 {
                        table.check_invariants();
                        drop(table.reap(now, Duration::ZERO, 5));
                    }
                }
            });
        }
    });
    table.check_invariants();
    assert!(
        table
            .list(99, |_| true)
            .iter()
            .all(|live| live.open_streams == 0)
    );
}

#[test]
fn a_revision_is_kept_if_it_is_short_and_visible() {
    assert_eq!(Revision::of("2025-11-25").as_str(), "2025-11-25");
    assert_eq!(
        Revision::of("0123456789abcdef").as_str(),
        "0123456789abcdef"
    );
    for text in ["0123456789abcdefg", "a b", "é", "\n"] {
        assert_eq!(Revision::of(text), Revision::UNKNOWN);
    }
}

use super::*;
use crate::pool::balance::testing::endpoints;
use crate::pool::{Admin, Balance, HealthState, NoEndpoint, PickContext};

const EJECTION: ejection::Settings = ejection::Settings {
    failures: 3,
    base_time: Duration::from_secs(10),
    max_time: Duration::from_secs(60),
    max_share: 50,
};

const BREAKER: breaker::Settings = breaker::Settings {
    failure_ratio: 50,
    min_calls: 4,
    window: Duration::from_secs(8),
    open_time: Duration::from_secs(5),
    trials: 2,
};

fn at(millis: u64) -> Moment {
    Moment::from_nanos(1).after(Duration::from_millis(millis))
}

fn pool(count: usize, protection: Protection) -> Pool {
    let endpoints = endpoints(&vec![1; count]);
    let pool = Pool::new("weather", Balance::RoundRobin, endpoints).expect("ids differ");
    pool.with_protection(protection)
}

fn ejecting(count: usize) -> Pool {
    pool(
        count,
        Protection {
            ejection: Some(EJECTION),
            ..Protection::default()
        },
    )
}

fn breaking(count: usize) -> Pool {
    pool(
        count,
        Protection {
            breaker: Some(BREAKER),
            ..Protection::default()
        },
    )
}

/// One call that ends like this.
fn call(pool: &Pool, which: usize, outcome: Outcome, now: Moment) -> Changes {
    let endpoint = &pool.endpoints()[which];
    let mut permit = pool.enter(endpoint, now).expect("the breaker lets it pass");
    pool.record(&mut permit, outcome, || now)
}

fn fail(pool: &Pool, which: usize, times: usize, now: Moment) -> Vec<Changes> {
    (0..times)
        .map(|_| call(pool, which, Outcome::Bad, now))
        .collect()
}

/// The places that a hundred picks come to.
fn picks(pool: &Pool, now: Moment) -> Result<Vec<usize>, NoEndpoint> {
    let mut rng = fastrand::Rng::with_seed(5);
    let context = PickContext {
        now,
        ..PickContext::default()
    };
    let picked: Result<Vec<_>, _> = (0..100)
        .map(|_| {
            Ok(pool
                .position(pool.pick(&context, &mut rng)?.id())
                .expect("it is of the pool"))
        })
        .collect();
    let mut picked = picked?;
    picked.sort_unstable();
    picked.dedup();
    Ok(picked)
}

#[test]
fn failures_in_a_row_eject_for_a_time_and_a_good_call_between_saves() {
    let pool = ejecting(3);
    fail(&pool, 0, 2, at(0));
    call(&pool, 0, Outcome::Good, at(0));
    assert!(
        fail(&pool, 0, 2, at(0))
            .iter()
            .all(|changes| *changes == Changes::default())
    );
    let changes = call(&pool, 0, Outcome::Bad, at(0));
    let done = Ejection::Done {
        failures: 3,
        times: 1,
        time: Duration::from_secs(10),
    };
    assert_eq!(changes.ejection, Some(done));
    assert_eq!(picks(&pool, at(9_999)), Ok(vec![1, 2]));
    assert_eq!(picks(&pool, at(10_000)), Ok(vec![0, 1, 2]));
    let guard = &pool.endpoints()[0].guard;
    assert!(!guard.take_return(at(9_999)));
    assert!(guard.take_return(at(10_000)), "told");
    assert!(!guard.take_return(at(10_000)), "once");
}

#[test]
fn sessions_of_an_ejected_endpoint_reach_it_and_what_they_show_counts_after_it() {
    let pool = ejecting(2);
    fail(&pool, 0, 3, at(0));
    let endpoint = &pool.endpoints()[0];
    assert!(endpoint.reach().is_ok());
    assert!(pool.enter(endpoint, at(1)).is_ok());
    assert!(
        fail(&pool, 0, 5, at(5_000))
            .iter()
            .all(|changes| changes.ejection.is_none())
    );
    let again = call(&pool, 0, Outcome::Bad, at(10_000)).ejection;
    let Some(Ejection::Done { times, time, .. }) = again else {
        panic!("it has not got better: {again:?}");
    };
    assert_eq!((times, time), (2, Duration::from_secs(20)));
}

#[test]
fn no_more_than_the_share_is_ejected_and_a_pool_of_one_never_is() {
    let pool = ejecting(5);
    for which in 0..2 {
        fail(&pool, which, 3, at(0));
    }
    let refused = fail(&pool, 2, 6, at(0));
    let no_room = Some(Ejection::NoRoom { failures: 3 });
    assert_eq!(
        refused.iter().filter(|c| c.ejection == no_room).count(),
        2,
        "not with each"
    );
    assert_eq!(picks(&pool, at(0)), Ok(vec![2, 3, 4]));
    fail(&pool, 2, 3, at(10_000));
    assert_eq!(
        picks(&pool, at(10_000)),
        Ok(vec![0, 1, 3, 4]),
        "there is room again"
    );

    let alone = ejecting(1);
    assert!(
        fail(&alone, 0, 100, at(0))
            .iter()
            .all(|changes| changes.ejection.is_none())
    );
    assert_eq!(picks(&alone, at(0)), Ok(vec![0]));
}

#[test]
fn an_endpoint_that_was_down_is_not_ejected_any_more() {
    let pool = ejecting(2);
    fail(&pool, 0, 3, at(0));
    let guard = &pool.endpoints()[0].guard;
    guard.recovered(at(1000));
    assert_eq!(picks(&pool, at(1000)), Ok(vec![0, 1]));
    let again = fail(&pool, 0, 3, at(1000)).pop().expect("three");
    let Some(Ejection::Done { times: 2, .. }) = again.ejection else {
        panic!("the second time: {again:?}");
    };
}

#[test]
fn ejected_ones_serve_when_there_is_nobody_else() {
    let pool = ejecting(2);
    fail(&pool, 0, 3, at(0));
    pool.endpoints()[1].set_health(HealthState::Unchecked);
    assert_eq!(
        picks(&pool, at(0)),
        Ok(vec![1]),
        "an unchecked one is better"
    );
    pool.endpoints()[1].set_health(HealthState::Down);
    assert_eq!(picks(&pool, at(0)), Ok(vec![0]));
    pool.endpoints()[0].set_admin(Admin::Drain);
    assert_eq!(
        picks(&pool, at(0)),
        Err(NoEndpoint::AllDraining),
        "but not against the operator"
    );
}

#[test]
fn nothing_is_ejected_where_it_is_switched_off() {
    let pool = pool(3, Protection::default());
    fail(&pool, 0, 100, at(0));
    assert_eq!(picks(&pool, at(0)), Ok(vec![0, 1, 2]));
    call(&pool, 0, Outcome::Good, at(0));
    assert!(!pool.endpoints()[0].guard.is_troubled());
}

#[test]
fn a_breaker_opens_by_ratio_and_closes_by_trials() {
    let pool = breaking(2);
    let endpoint = &pool.endpoints()[0];
    assert_eq!(call(&pool, 0, Outcome::Bad, at(0)), Changes::default());
    call(&pool, 0, Outcome::Good, at(0));
    call(&pool, 0, Outcome::Good, at(0));
    let opened = call(&pool, 0, Outcome::Bad, at(0)).breaker;
    let totals = Totals {
        calls: 4,
        failures: 2,
    };
    assert_eq!(opened, Some(Switched::Opened(totals)));
    let tripped = pool.enter(endpoint, at(1000)).expect_err("open");
    assert_eq!(tripped.retry_in, Duration::from_secs(4));
    assert_eq!(picks(&pool, at(1000)), Ok(vec![1]));
    assert_eq!(endpoint.guard.breaker(at(1000)), State::Open);

    let mut trials: Vec<_> = (0..2)
        .map(|_| pool.enter(endpoint, at(5000)).expect("a trial"))
        .collect();
    assert!(pool.enter(endpoint, at(5000)).is_err(), "no more than two");
    assert_eq!(picks(&pool, at(5000)), Ok(vec![1]));
    assert_eq!(
        endpoint.in_flight(),
        2,
        "a call that is refused is not counted"
    );
    drop(trials.pop());
    assert_eq!(picks(&pool, at(5000)), Ok(vec![0, 1]), "its permit is back");
    let closed: Vec<_> = (0..2)
        .map(|_| call(&pool, 0, Outcome::Good, at(5000)).breaker)
        .collect();
    assert_eq!(closed, [None, Some(Switched::Closed)]);
    assert_eq!(
        call(&pool, 0, Outcome::Bad, at(5000)),
        Changes::default(),
        "the past is past"
    );
    drop(trials);
    assert_eq!((endpoint.in_flight(), endpoint.guard.openings()), (0, 1));
}

#[test]
fn a_failed_trial_opens_the_breaker_again() {
    let pool = breaking(1);
    fail(&pool, 0, 4, at(0));
    assert_eq!(picks(&pool, at(0)), Err(NoEndpoint::AllTripped));
    let changes = call(&pool, 0, Outcome::Bad, at(5000));
    assert_eq!(changes.breaker, Some(Switched::Reopened));
    assert_eq!(picks(&pool, at(9_999)), Err(NoEndpoint::AllTripped));
    assert_eq!(picks(&pool, at(10_000)), Ok(vec![0]));
    assert_eq!(pool.endpoints()[0].guard.openings(), 2);
}

#[test]
fn calls_count_from_the_first_failure_on() {
    let pool = breaking(1);
    let guard = &pool.endpoints()[0].guard;
    for _ in 0..1000 {
        call(&pool, 0, Outcome::Good, at(0));
    }
    assert_eq!(
        guard.window.totals(BREAKER.window, at(0)),
        Totals::default()
    );
    assert!(
        fail(&pool, 0, 3, at(0))
            .iter()
            .all(|changes| changes.breaker.is_none())
    );
    assert!(call(&pool, 0, Outcome::Bad, at(0)).breaker.is_some());
}

#[test]
fn good_calls_are_not_counted_any_more_when_the_failure_is_forgotten() {
    let pool = breaking(1);
    let guard = &pool.endpoints()[0].guard;
    call(&pool, 0, Outcome::Bad, at(0));
    call(&pool, 0, Outcome::Good, at(1000));
    assert!(guard.is_troubled());
    call(&pool, 0, Outcome::Good, at(8_100));
    assert!(!guard.is_troubled());
}

#[test]
fn a_pool_reloaded_without_a_breaker_lets_everything_pass() {
    let mut pool = breaking(1);
    fail(&pool, 0, 4, at(0));
    assert!(pool.enter(&pool.endpoints()[0], at(0)).is_err());
    pool = pool.with_protection(Protection::default());
    assert!(pool.enter(&pool.endpoints()[0], at(0)).is_ok());
    assert_eq!(picks(&pool, at(0)), Ok(vec![0]));
}

#[test]
fn an_endpoint_that_comes_back_rises_to_its_share() {
    for balance in [Balance::LeastLoad, Balance::PeakEwma, Balance::RoundRobin] {
        let pool = Pool::new("weather", balance, endpoints(&[1, 1])).expect("ids differ");
        let pool = pool.with_protection(Protection {
            slow_start: Duration::from_secs(10),
            ..Protection::default()
        });
        let share = |now| {
            let mut rng = fastrand::Rng::with_seed(5);
            let context = PickContext {
                now,
                ..PickContext::default()
            };
            let picked = (0..4000).filter(|_| {
                let picked = pool.pick(&context, &mut rng).expect("both are up");
                picked.id() == pool.endpoints()[0].id()
            });
            picked.count() as f64 / 4000.0
        };
        let is = |now, expected: f64| {
            let share = share(now);
            assert!(
                (share - expected).abs() < 0.03,
                "{balance:?}: {share}, not {expected}"
            );
        };
        is(at(0), 0.5);
        pool.endpoints()[0].guard.recovered(at(1000));
        is(at(1000), 0.1 / 1.1);
        is(at(6000), 0.55 / 1.55);
        is(at(11_000), 0.5);
        pool.endpoints()
            .iter()
            .for_each(|e| e.guard.recovered(at(20_000)));
        is(at(20_500), 0.5);
    }
}

#[test]
fn the_end_of_an_ejection_and_of_an_open_breaker_begin_a_slow_start() {
    let slow_start = Duration::from_secs(10);
    let pool = pool(
        2,
        Protection {
            ejection: Some(EJECTION),
            breaker: Some(BREAKER),
            slow_start,
        },
    );
    let [ejected, broken] = pool.endpoints() else {
        unreachable!("there are two")
    };
    assert_eq!(ejected.guard.share(slow_start, at(0)), 1000);
    fail(&pool, 0, 3, at(0));
    assert_eq!(
        ejected.guard.share(slow_start, at(10_000)),
        100,
        "when it ends"
    );
    assert_eq!(ejected.guard.share(slow_start, at(15_000)), 550);
    assert_eq!(ejected.guard.share(slow_start, at(20_000)), 1000);

    fail(&pool, 1, 4, at(0));
    assert_eq!(broken.guard.breaker(at(0)), State::Open);
    for _ in 0..2 {
        call(&pool, 1, Outcome::Good, at(5_000));
    }
    assert_eq!(broken.guard.breaker(at(5_000)), State::Closed);
    assert_eq!(broken.guard.share(slow_start, at(5_000)), 100);
    assert_eq!(broken.guard.share(slow_start, at(15_000)), 1000);
}

#[test]
fn a_server_that_fails_fast_is_not_the_fastest() {
    let pool = Pool::new("weather", Balance::PeakEwma, endpoints(&[1, 1])).expect("ids differ");
    let healthy = &pool.endpoints()[0];
    healthy
        .guard
        .latency
        .observe(Duration::from_millis(50), at(0));
    assert_eq!(picks(&pool, at(0)), Ok(vec![1]), "nothing is known of it");
    call(&pool, 1, Outcome::Bad, at(0));
    assert_eq!(picks(&pool, at(0)), Ok(vec![0]));
    healthy
        .guard
        .latency
        .observe(Duration::from_millis(50), at(60_000));
    assert_eq!(picks(&pool, at(60_000)), Ok(vec![1]), "it is tried again");
}

#[test]
fn consistent_hash_keeps_its_keys_through_a_slow_start() {
    let pool =
        Pool::new("weather", Balance::ConsistentHash, endpoints(&[1, 1])).expect("ids differ");
    let pool = pool.with_protection(Protection {
        slow_start: Duration::from_secs(10),
        ..Protection::default()
    });
    let owners = || -> Vec<u64> {
        let mut rng = fastrand::Rng::with_seed(5);
        let owner = |key| {
            let context = PickContext {
                key: Some(key),
                now: at(1),
                ..PickContext::default()
            };
            pool.pick(&context, &mut rng).expect("both are up").id()
        };
        (0..200).map(owner).collect()
    };
    let before = owners();
    pool.endpoints()[0].guard.recovered(at(0));
    assert_eq!(owners(), before);
}

#[test]
fn threads_eject_no_more_than_the_share_at_once() {
    let pool = ejecting(8);
    std::thread::scope(|scope| {
        for which in 0..8 {
            let pool = &pool;
            scope.spawn(move || fail(pool, which, 500, at(0)));
        }
    });
    let ejected = pool
        .endpoints()
        .iter()
        .filter(|e| e.guard.is_ejected(at(0)));
    assert_eq!(ejected.count(), 4);
}

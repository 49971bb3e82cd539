//! The balancer against a plain list of rules, and its shares against the weights.

use fastrand::Rng;
use tidegate::pool::{
    Admin, Balance, CallPermit, Endpoint, Fact, HealthState, Need, NoEndpoint, PickContext, Pool,
    SessionGuard,
};

use crate::{endpoint, for_each_seed, one_of};

const BALANCES: [Balance; 5] = [
    Balance::LeastLoad,
    Balance::PeakEwma,
    Balance::Random,
    Balance::RoundRobin,
    Balance::ConsistentHash,
];

#[test]
fn balancer_picks_only_whom_it_may() {
    for_each_seed("balancer_picks_only_whom_it_may", |rng| {
        let endpoints: Vec<_> = (0..rng.usize(1..40))
            .map(|n| endpoint(&format!("w{n}"), rng.u32(..5)))
            .collect();
        let pool = Pool::new("p", one_of(rng, &BALANCES), endpoints).expect("names differ");
        let (mut calls, mut sessions) = (Vec::<CallPermit>::new(), Vec::<SessionGuard>::new());
        for _ in 0..300 {
            disturb(&pool.endpoints()[rng.usize(..pool.endpoints().len())], rng);
            let tried: Vec<u64> = pool
                .endpoints()
                .iter()
                .filter(|_| rng.u8(..6) == 0)
                .map(|e| e.id())
                .collect();
            let need = one_of(rng, &[Need::Any, Need::SessionEra, Need::StatelessEra]);
            let key = rng.bool().then(|| rng.u64(..));
            let context = PickContext {
                key,
                exclude: &tried,
                need,
                ..PickContext::default()
            };
            let allowed = allowed(&pool, &context);
            match pool.pick(&context, rng) {
                Ok(picked) => {
                    let allowed = allowed.expect("nobody may be picked");
                    assert!(
                        allowed.contains(&picked.id()),
                        "{} may not be picked",
                        picked.name()
                    );
                    calls.extend(rng.bool().then(|| picked.call()));
                    sessions.extend(rng.bool().then(|| picked.session()));
                }
                Err(reason) => assert_eq!(allowed, Err(reason)),
            }
            if !calls.is_empty() && rng.bool() {
                drop(calls.swap_remove(rng.usize(..calls.len())));
            }
            for e in pool.endpoints() {
                let held = calls
                    .iter()
                    .filter(|call| call.endpoint().id() == e.id())
                    .count();
                assert_eq!(e.in_flight() as usize, held);
                let held = sessions
                    .iter()
                    .filter(|held| held.endpoint().id() == e.id())
                    .count();
                assert_eq!(e.sessions() as usize, held);
            }
        }
        drop((calls, sessions));
        assert!(
            pool.endpoints().iter().all(|e| e.busy() == 0),
            "a guard has leaked"
        );
    });
}

fn disturb(endpoint: &Endpoint, rng: &mut Rng) {
    use HealthState::{Down, Unchecked, Up};
    match rng.u8(..8) {
        0 | 1 => endpoint.set_health(one_of(rng, &[Up, Up, Down, Unchecked])),
        2 => drop(endpoint.set_admin(one_of(
            rng,
            &[Admin::Up, Admin::Up, Admin::Drain, Admin::Maint],
        ))),
        3 => endpoint.set_weight(rng.u32(..5)),
        4 => endpoint.set_backup(rng.u8(..3) == 0),
        5 => drop(endpoint.set_address((rng.u8(..4) > 0).then(|| ([10, 0, 0, 1], 80).into()))),
        6 => endpoint.facts.speaks_session_era.learn(rng.u8(..4) > 0),
        _ => endpoint.facts.speaks_stateless_era.learn(rng.u8(..4) > 0),
    }
}

/// Whom `pick` may return, written down as plainly as possible.
fn allowed(pool: &Pool, context: &PickContext<'_>) -> Result<Vec<u64>, NoEndpoint> {
    let mut left: Vec<_> = pool
        .endpoints()
        .iter()
        .filter(|e| !context.exclude.contains(&e.id()))
        .collect();
    let era = |e: &Endpoint| match context.need {
        Need::Any => true,
        Need::SessionEra => e.facts.speaks_session_era.get() != Fact::No,
        Need::StatelessEra => e.facts.speaks_stateless_era.get() != Fact::No,
    };
    type Filter<'a> = (&'a dyn Fn(&Endpoint) -> bool, NoEndpoint);
    let filters: [Filter<'_>; 4] = [
        (&|e| e.health() != HealthState::Down, NoEndpoint::AllDown),
        (
            &|e| e.admin() == Admin::Up && e.weight() > 0,
            NoEndpoint::AllDraining,
        ),
        (&|e| e.address().is_some(), NoEndpoint::NoneResolved),
        (&era, NoEndpoint::WrongEra),
    ];
    for (passes, reason) in filters {
        left.retain(|e| passes(e));
        if left.is_empty() {
            return Err(reason);
        }
    }
    for (health, backup) in [
        (HealthState::Up, false),
        (HealthState::Up, true),
        (HealthState::Unchecked, false),
        (HealthState::Unchecked, true),
    ] {
        let group = left
            .iter()
            .filter(|e| (e.health(), e.is_backup()) == (health, backup));
        let group: Vec<_> = group.map(|e| e.id()).collect();
        if !group.is_empty() {
            return Ok(group);
        }
    }
    unreachable!("whoever is not down is in one of the groups")
}

#[test]
fn balancer_shares_follow_the_weights() {
    for_each_seed("balancer_shares_follow_the_weights", |rng| {
        let weights: Vec<u32> = (0..rng.usize(2..40)).map(|_| rng.u32(1..10)).collect();
        let total: u32 = weights.iter().sum();
        let picks = total * 40;
        for balance in BALANCES {
            let endpoints = weights
                .iter()
                .enumerate()
                .map(|(n, weight)| endpoint(&format!("w{n}"), *weight));
            let pool = Pool::new("p", balance, endpoints.collect()).expect("names differ");
            let context = PickContext::default(); // Without a key, every pick draws its own.
            let held: Vec<_> = (0..picks)
                .map(|_| pool.pick(&context, rng).expect("all are up").session())
                .collect();
            for (e, weight) in pool.endpoints().iter().zip(&weights) {
                let want = f64::from(picks * weight / total);
                let tolerance = match balance {
                    Balance::RoundRobin => 0.0,
                    // How far the fuller of two can be above the average does not grow with the
                    // number of sessions.
                    Balance::LeastLoad | Balance::PeakEwma => 4.0 + 3.0 * f64::from(*weight),
                    // Independent draws: six standard deviations.
                    Balance::Random | Balance::ConsistentHash => 6.0 * want.sqrt(),
                };
                let off = (f64::from(e.sessions()) - want).abs();
                assert!(
                    off <= tolerance,
                    "{balance:?} {weights:?}: {} is off by {off} of {want}",
                    e.name()
                );
            }
            drop(held);
        }
    });
}

#[test]
fn least_load_stays_even_while_sessions_come_and_go() {
    for_each_seed("least_load_stays_even_while_sessions_come_and_go", |rng| {
        let endpoints: Vec<_> = (0..rng.usize(2..40))
            .map(|n| endpoint(&format!("w{n}"), 1))
            .collect();
        let count = endpoints.len();
        let pool = Pool::new("p", Balance::LeastLoad, endpoints).expect("names differ");
        let (mut held, context) = (Vec::new(), PickContext::default());
        for _ in 0..count * 60 {
            held.push(pool.pick(&context, rng).expect("all are up").session());
            if held.len() > count * 20 {
                drop(held.swap_remove(rng.usize(..held.len())));
            }
        }
        let fullest = pool.endpoints().iter().map(|e| e.sessions() as usize).max();
        let average = held.len().div_ceil(count);
        // ln ln n plus a constant; drawn at random alone, the fullest would be 10 or 15 above.
        assert!(
            fullest <= Some(average + 5),
            "{fullest:?} sessions, {average} on average"
        );
    });
}

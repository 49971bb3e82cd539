use proptest::prelude::*;

use super::balance::testing::endpoints;
use super::*;

const ALL: [Balance; 4] = [
    Balance::LeastLoad,
    Balance::PeakEwma,
    Balance::RoundRobin,
    Balance::ConsistentHash,
];

fn pool(balance: Balance, weights: &[u32]) -> Pool {
    Pool::new("weather", balance, endpoints(weights)).expect("ids differ")
}

/// The names that a hundred picks come to, in order and without repetition.
fn picks(pool: &Pool, context: &PickContext<'_>) -> Result<Vec<String>, NoEndpoint> {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut names = Vec::new();
    for _ in 0..100 {
        names.push(pool.pick(context, &mut rng)?.name().to_owned());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn any_call() -> PickContext<'static> {
    PickContext::default()
}

#[test]
fn an_endpoint_is_found_by_its_id_in_any_state() {
    let pool = pool(Balance::LeastLoad, &[1; 40]);
    for (at, endpoint) in pool.endpoints().iter().enumerate() {
        endpoint.set_health(HealthState::Down);
        assert_eq!(pool.position(endpoint.id()), Some(at));
        assert!(
            pool.find(endpoint.id())
                .is_some_and(|found| Arc::ptr_eq(found, endpoint))
        );
    }
    assert!(pool.find(12345).is_none());
}

#[test]
fn a_pool_refuses_twins_and_crowds() {
    let mut twins = endpoints(&[1, 1]);
    twins.push(Arc::clone(&twins[0]));
    let error = Pool::new("p", Balance::LeastLoad, twins).expect_err("w0 is there twice");
    assert_eq!(error, PoolError::Duplicate("w0".into(), "w0".into()));
    let crowd = Pool::new("p", Balance::LeastLoad, endpoints(&[1; ENDPOINTS_MAX + 1]));
    assert_eq!(
        crowd.expect_err("too many"),
        PoolError::TooMany(ENDPOINTS_MAX + 1)
    );
    let full = pool(Balance::RoundRobin, &[1; ENDPOINTS_MAX]);
    assert!(
        full.pick(&any_call(), &mut fastrand::Rng::with_seed(1))
            .is_ok()
    );
}

#[test]
fn every_balance_uses_every_usable_endpoint_and_no_other() {
    for balance in ALL {
        let pool = pool(balance, &[1, 1, 1, 1, 1, 1]);
        assert_eq!(pool.balance(), balance);
        pool.endpoints()[0].set_health(HealthState::Down);
        pool.endpoints()[1].set_admin(Admin::Drain);
        pool.endpoints()[2].set_admin(Admin::Maint);
        pool.endpoints()[3].set_address(None);
        assert_eq!(
            picks(&pool, &any_call()),
            Ok(vec!["w4".into(), "w5".into()])
        );
        pool.endpoints()[5].set_weight(0);
        assert_eq!(picks(&pool, &any_call()), Ok(vec!["w4".into()]));
    }
}

#[test]
fn backups_serve_only_when_no_primary_can() {
    let pool = pool(Balance::RoundRobin, &[1, 1, 1]);
    let [first, second, backup] = pool.endpoints() else {
        unreachable!("there are three")
    };
    backup.set_backup(true);
    assert_eq!(
        picks(&pool, &any_call()),
        Ok(vec!["w0".into(), "w1".into()])
    );
    first.set_health(HealthState::Down);
    assert_eq!(picks(&pool, &any_call()), Ok(vec!["w1".into()]));
    second.set_health(HealthState::Unwell);
    assert_eq!(picks(&pool, &any_call()), Ok(vec!["w2".into()]));
    second.set_health(HealthState::Up);
    second.set_admin(Admin::Drain);
    assert_eq!(picks(&pool, &any_call()), Ok(vec!["w2".into()]));
    let tried = [backup.id()];
    let context = PickContext {
        exclude: &tried,
        ..any_call()
    };
    assert_eq!(picks(&pool, &context), Err(NoEndpoint::AllDraining));
}

#[test]
fn an_unchecked_endpoint_serves_only_when_none_is_up() {
    let pool = pool(Balance::LeastLoad, &[1, 1, 1]);
    let [first, second, backup] = pool.endpoints() else {
        unreachable!("there are three")
    };
    backup.set_backup(true);
    first.set_health(HealthState::Unchecked);
    second.set_health(HealthState::Unchecked);
    assert_eq!(
        picks(&pool, &any_call()),
        Ok(vec!["w2".into()]),
        "a backup that is known to be up"
    );
    backup.set_health(HealthState::Unchecked);
    assert_eq!(
        picks(&pool, &any_call()),
        Ok(vec!["w0".into(), "w1".into()])
    );
    second.set_health(HealthState::Up);
    assert_eq!(picks(&pool, &any_call()), Ok(vec!["w1".into()]));
}

#[test]
fn what_was_tried_is_not_picked_again() {
    for balance in ALL {
        let pool = pool(balance, &[1, 1, 1]);
        let mut rng = fastrand::Rng::with_seed(5);
        let mut tried = Vec::new();
        for _ in 0..3 {
            let context = PickContext {
                key: Some(7),
                exclude: &tried,
                need: Need::Any,
                ..any_call()
            };
            let next = pool.pick(&context, &mut rng).expect("one is left").id();
            assert!(!tried.contains(&next));
            tried.push(next);
        }
        let context = PickContext {
            key: Some(7),
            exclude: &tried,
            ..any_call()
        };
        assert_eq!(
            pool.pick(&context, &mut rng).err(),
            Some(NoEndpoint::AllDown)
        );
    }
}

#[test]
fn a_call_of_an_era_goes_where_the_era_may_be_spoken() {
    let pool = pool(Balance::LeastLoad, &[1, 1, 1]);
    let [first, second, third] = pool.endpoints() else {
        unreachable!("there are three")
    };
    first.facts.speaks_session_era.learn(true);
    first.facts.speaks_stateless_era.learn(false);
    second.facts.speaks_session_era.learn(false);
    second.facts.speaks_stateless_era.learn(true);
    let context = |need| PickContext { need, ..any_call() };
    let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(
        picks(&pool, &context(Need::SessionEra)),
        names(&["w0", "w2"])
    );
    assert_eq!(
        picks(&pool, &context(Need::StatelessEra)),
        names(&["w1", "w2"])
    );
    assert_eq!(
        picks(&pool, &context(Need::Any)),
        names(&["w0", "w1", "w2"])
    );
    third.facts.speaks_stateless_era.learn(false);
    second.set_admin(Admin::Maint);
    assert_eq!(
        picks(&pool, &context(Need::StatelessEra)),
        Err(NoEndpoint::WrongEra)
    );
}

#[test]
fn the_reason_nearest_to_success_is_given() {
    let pool = pool(Balance::LeastLoad, &[1, 1, 1, 1]);
    let context = PickContext {
        need: Need::SessionEra,
        ..any_call()
    };
    let reason = |pool: &Pool| picks(pool, &context).err();
    let [era, unresolved, draining, down] = pool.endpoints() else {
        unreachable!("there are four")
    };
    era.facts.speaks_session_era.learn(false);
    unresolved.set_address(None);
    draining.set_admin(Admin::Drain);
    down.set_health(HealthState::Down);
    for (endpoint, expected) in [
        (era, NoEndpoint::WrongEra),
        (unresolved, NoEndpoint::NoneResolved),
        (draining, NoEndpoint::AllDraining),
        (down, NoEndpoint::AllDown),
    ] {
        assert_eq!(reason(&pool), Some(expected));
        endpoint.set_health(HealthState::Down);
    }
    let empty = Pool::new("empty", Balance::RoundRobin, Vec::new()).expect("allowed");
    assert_eq!(reason(&empty), Some(NoEndpoint::AllDown));
}

#[test]
fn a_key_stays_with_its_endpoint_through_an_outage_of_another() {
    let pool = pool(Balance::ConsistentHash, &[1, 1, 1, 1]);
    let mut rng = fastrand::Rng::with_seed(9);
    let mut owner = |key| {
        let context = PickContext {
            key: Some(key),
            ..any_call()
        };
        pool.pick(&context, &mut rng).expect("usable").id()
    };
    let before: Vec<_> = (0..500).map(&mut owner).collect();
    pool.endpoints()[2].set_health(HealthState::Down);
    let lost = pool.endpoints()[2].id();
    for (key, before) in before.iter().enumerate() {
        let after = owner(key as u64);
        assert!(after == *before || *before == lost);
    }
    pool.endpoints()[2].set_health(HealthState::Up);
    assert_eq!(
        (0..500).map(owner).collect::<Vec<_>>(),
        before,
        "its keys return"
    );
}

proptest! {
    #[test]
    fn a_pick_succeeds_exactly_if_there_is_a_usable_endpoint(
        states in proptest::collection::vec(
            (0u8..3, 0u8..3, any::<bool>(), any::<bool>(), 0u32..3),
            0..8,
        ),
        seed: u64,
    ) {
        for balance in ALL {
            let pool = pool(balance, &states.iter().map(|state| state.4).collect::<Vec<_>>());
            for (endpoint, state) in pool.endpoints().iter().zip(&states) {
                let (health, admin, backup, resolved, _) = state;
                endpoint.set_health(HealthState::from_u8(*health));
                endpoint.set_admin([Admin::Up, Admin::Drain, Admin::Maint][usize::from(*admin)]);
                endpoint.set_backup(*backup);
                if !resolved { endpoint.set_address(None); }
            }
            let usable = |e: &&Arc<Endpoint>| e.health() != HealthState::Down
                && e.admin() == Admin::Up && e.weight() > 0 && e.address().is_some();
            let picked = pool.pick(&any_call(), &mut fastrand::Rng::with_seed(seed));
            prop_assert_eq!(picked.is_ok(), pool.endpoints().iter().any(|e| usable(&e)));
            if let Ok(picked) = picked {
                prop_assert!(usable(&&picked));
            }
        }
    }
}

//! Ejection against a list of rules, over calls that end well and badly.

use std::time::Duration;

use fastrand::Rng;
use tidegate::pool::{
    Balance, Ejection, HealthState, Moment, Outcome, PickContext, Pool, Protection, ejection,
};

use crate::{endpoint, for_each_seed, one_of};

/// What is known of one endpoint, written down as plainly as possible.
#[derive(Default)]
struct Model {
    streak: u32,
    until: u64,
    /// Ends and lengths of ejections that are not made up for.
    times: u32,
}

#[test]
fn ejection_keeps_its_rules() {
    for_each_seed("ejection_keeps_its_rules", history);
}

fn history(rng: &mut Rng) {
    let count = rng.usize(1..9);
    let base = rng.u64(1..30);
    let settings = ejection::Settings {
        failures: rng.u32(1..6),
        base_time: Duration::from_secs(base),
        max_time: Duration::from_secs(base * rng.u64(1..6)),
        max_share: rng.u8(1..101),
    };
    let endpoints = (0..count).map(|n| endpoint(&format!("w{n}"), 1));
    let pool = Pool::new("p", Balance::LeastLoad, endpoints.collect()).expect("names differ");
    let pool = pool.with_protection(Protection {
        ejection: Some(settings),
        ..Protection::default()
    });
    let room = if count < 2 {
        0
    } else {
        (count * usize::from(settings.max_share) / 100).max(1)
    };
    let goodness: Vec<f64> = (0..count)
        .map(|_| one_of(rng, &[0.0, 0.5, 0.9, 1.0]))
        .collect();
    let mut model: Vec<Model> = (0..count).map(|_| Model::default()).collect();
    let mut seconds = 1;
    for _ in 0..600 {
        seconds += u64::from(rng.u8(..4) == 0) * rng.u64(1..base * 2 + 2);
        let now = Moment::default().after(Duration::from_secs(seconds));
        let which = choose(&pool, &model, seconds, now, rng);
        let good = rng.f64() < goodness[which];
        let outcome = if good { Outcome::Good } else { Outcome::Bad };
        let mut permit = pool
            .enter(&pool.endpoints()[which], now)
            .expect("no breaker");
        let changes = pool.record(&mut permit, outcome, || now);
        assert_eq!(changes.breaker, None);

        let out = model.iter().filter(|other| other.until > seconds).count();
        let this = &mut model[which];
        this.streak = if good { 0 } else { this.streak + 1 };
        let due = this.streak >= settings.failures && this.until <= seconds && count > 1;
        let expected = match due {
            false => None,
            true if out >= room => {
                let failures = std::mem::take(&mut this.streak);
                Some(Ejection::NoRoom { failures })
            }
            true => Some(eject(this, &settings, seconds)),
        };
        assert_eq!(changes.ejection, expected);

        let ejected = |n: usize| pool.endpoints()[n].guard.is_ejected(now);
        for (n, model) in model.iter().enumerate() {
            assert_eq!(ejected(n), model.until > seconds, "w{n}");
        }
        assert!((0..count).filter(|n| ejected(*n)).count() <= room);
    }
}

/// A call goes where the pool sends it, or, one of a session, to the endpoint that owns it.
fn choose(pool: &Pool, model: &[Model], seconds: u64, now: Moment, rng: &mut Rng) -> usize {
    if rng.bool() {
        return rng.usize(..model.len());
    }
    let down = rng.usize(..model.len());
    let state = one_of(rng, &[HealthState::Up, HealthState::Down]);
    pool.endpoints()[down].set_health(state);
    let context = PickContext {
        now,
        ..PickContext::default()
    };
    let picked = pool.pick(&context, rng).map(|picked| picked.id());
    let up = |n: &usize| pool.endpoints()[*n].health() == HealthState::Up;
    let some_up = (0..model.len()).any(|n| up(&n));
    let some_good = (0..model.len()).any(|n| up(&n) && model[n].until <= seconds);
    let at = picked.ok().and_then(|id| pool.position(id));
    assert_eq!(at.is_some(), some_up, "with nobody else the ejected serve");
    if let Some(at) = at {
        assert!(
            model[at].until <= seconds || !some_good,
            "an ejected one was picked"
        );
    }
    pool.endpoints()[down].set_health(HealthState::Up);
    at.unwrap_or(down)
}

fn eject(model: &mut Model, settings: &ejection::Settings, seconds: u64) -> Ejection {
    let (base, max) = (settings.base_time.as_secs(), settings.max_time.as_secs());
    let length = |times: u32| (base * u64::from(times)).min(max);
    // Second by second, as slowly as it can be told.
    let mut left = length(model.times);
    for _ in model.until..seconds {
        if model.times > 0 {
            left -= 1;
            if left == 0 {
                model.times -= 1;
                left = length(model.times);
            }
        }
    }
    let most = max.div_ceil(base) as u32;
    model.times = (model.times + 1).min(most);
    model.until = seconds + length(model.times);
    Ejection::Done {
        failures: std::mem::take(&mut model.streak),
        times: model.times,
        time: Duration::from_secs(length(model.times)),
    }
}

//! Rise and fall counts against the whole list of outcomes.

use std::time::Duration;

use tidegate::pool::{Health, HealthState, Intervals};

use crate::{endpoint, for_each_seed, one_of};

#[test]
fn health_rises_and_falls_exactly_as_counted() {
    for_each_seed("health_rises_and_falls_exactly_as_counted", |rng| {
        let (rise, fall) = (rng.u32(1..6), rng.u32(1..6));
        let initial = one_of(
            rng,
            &[HealthState::Unchecked, HealthState::Up, HealthState::Down],
        );
        let mut health = Health::new(rise, fall, initial);
        let (mut state, mut since) = (initial, Vec::new());
        let (published, goodness) = (endpoint("w1", 1), rng.f64());
        for _ in 0..500 {
            if rng.u8(..10) == 0 {
                health.suspect();
            }
            let ok = rng.f64() < goodness;
            since.push(ok);
            let expected = naive(state, &since, rise as usize, fall as usize);
            let transition = health.record(ok);
            assert_eq!(
                transition.map(|t| (t.from, t.to)),
                expected.map(|to| (state, to))
            );
            if let Some(next) = expected {
                state = next;
                since.clear();
            }
            published.set_health(health.state());
            assert_eq!((health.state(), published.health()), (state, state));

            let interval = Duration::from_millis(rng.u64(1..5000));
            let wait = health.next_check_in(&Intervals::of(interval), rng.f64());
            let floor = interval.min(Duration::from_millis(100));
            assert!(
                (floor..=interval.mul_f64(1.1)).contains(&wait),
                "{wait:?} of {interval:?}"
            );
        }
    });
}

/// The state that the outcomes since the last change lead to, if to another one.
fn naive(state: HealthState, since: &[bool], rise: usize, fall: usize) -> Option<HealthState> {
    let last = |count: usize, ok: bool| {
        since.len() >= count && since.iter().rev().take(count).all(|o| *o == ok)
    };
    match state {
        HealthState::Unchecked if last(1, true) => Some(HealthState::Up),
        HealthState::Unchecked | HealthState::Up => last(fall, false).then_some(HealthState::Down),
        HealthState::Down => last(rise, true).then_some(HealthState::Up),
    }
}

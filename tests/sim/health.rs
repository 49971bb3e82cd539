//! Rise and fall counts against the whole list of outcomes.

use std::time::Duration;

use tidegate::pool::{Finding, Health, HealthState, Intervals};

use crate::{endpoint, for_each_seed, one_of};

#[test]
fn health_rises_and_falls_exactly_as_counted() {
    for_each_seed("health_rises_and_falls_exactly_as_counted", |rng| {
        let (rise, fall) = (rng.u32(1..6), rng.u32(1..6));
        let initial = one_of(
            rng,
            &[
                HealthState::Unchecked,
                HealthState::Up,
                HealthState::Down,
                HealthState::Unwell,
            ],
        );
        let mut health = Health::new(rise, fall, initial);
        let (mut state, mut since, mut all) = (initial, Vec::new(), Vec::new());
        let (published, goodness) = (endpoint("w1", 1), rng.f64());
        let honesty = rng.f64();
        for _ in 0..500 {
            if rng.u8(..10) == 0 {
                health.suspect();
            }
            let finding = match (rng.f64() < goodness, rng.f64() < honesty) {
                (true, _) => Finding::Well,
                (false, true) => Finding::Unwell,
                (false, false) => Finding::Gone,
            };
            since.push(finding == Finding::Well);
            all.push(finding);
            let is_gone = ends_with(&all, fall as usize, |finding| finding == Finding::Gone);
            let expected = naive(state, &since, is_gone, rise as usize, fall as usize);
            let transition = health.record(finding);
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

fn ends_with<T: Copy>(list: &[T], count: usize, is: impl Fn(T) -> bool) -> bool {
    list.len() >= count && list.iter().rev().take(count).all(|item| is(*item))
}

/// The state that the outcomes since the last change lead to, if to another one. `is_gone` says that
/// so many checks in a row as make it fall have found it gone, whatever it was meanwhile.
fn naive(
    state: HealthState,
    since: &[bool],
    is_gone: bool,
    rise: usize,
    fall: usize,
) -> Option<HealthState> {
    let last = |count: usize, good: bool| ends_with(since, count, |ok| ok == good);
    match state {
        HealthState::Unchecked if last(1, true) => Some(HealthState::Up),
        HealthState::Unchecked | HealthState::Up => last(fall, false).then_some(match is_gone {
            true => HealthState::Down,
            false => HealthState::Unwell,
        }),
        HealthState::Unwell if is_gone => Some(HealthState::Down),
        HealthState::Down | HealthState::Unwell => last(rise, true).then_some(HealthState::Up),
    }
}

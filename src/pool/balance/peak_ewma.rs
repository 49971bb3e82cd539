//! The one of two drawn at random where an answer is likely to come sooner: the time to a response
//! head lately (see `latency`), times the load there would be with one more call.
//!
//! It finds out by itself what weights cannot know: which copy runs on the slower machine, and which
//! one is collecting garbage right now. A call that has failed counts as a slow one. An endpoint of
//! which nothing is known is asked once, and not again before it has answered.

use std::sync::Arc;

use super::Scales;
use crate::pool::endpoint::Endpoint;

/// The time to a head, in nanoseconds, that an endpoint is taken for while its first answer is not
/// there: longer than any that is measured.
const UNKNOWN: f64 = 1e15;

/// The one where an answer is likely to come sooner.
pub(super) fn sooner(
    endpoints: &[Arc<Endpoint>],
    scales: Scales,
    first: usize,
    second: usize,
) -> usize {
    let (a, b) = (&endpoints[first], &endpoints[second]);
    let (a_time, b_time) = (time(a, scales), time(b, scales));
    // As with the least load: the heavier of two idle ones would win every time, and the draw has
    // already been fair to it.
    let is_cheaper = if a.busy() == 0 && b.busy() == 0 {
        b_time < a_time
    } else {
        b_time * load(b, scales) < a_time * load(a, scales)
    };
    if is_cheaper { second } else { first }
}

/// How long an answer is likely to take, in nanoseconds. Of one that was never seen, or so long ago
/// that nothing is left of it, the least that there is.
fn time(endpoint: &Endpoint, scales: Scales) -> f64 {
    let latency = endpoint.guard.latency.now(scales.now);
    if latency == 0.0 && endpoint.in_flight() > 0 {
        return UNKNOWN;
    }
    f64::from(latency).max(1.0)
}

/// The load there would be with one more call.
fn load(endpoint: &Endpoint, scales: Scales) -> f64 {
    (endpoint.busy() + 1) as f64 / scales.weight(endpoint).max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{all, endpoints};
    use super::super::{Balancer, Candidates};
    use super::*;
    use crate::pool::Moment;

    fn at(millis: u64) -> Scales {
        Scales {
            now: Moment::from_nanos(1).after(Duration::from_millis(millis)),
            slow_start: None,
        }
    }

    fn choose(
        endpoints: &[Arc<Endpoint>],
        candidates: &Candidates,
        scales: Scales,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        Balancer::PeakEwma.choose(endpoints, candidates, None, scales, rng)
    }

    fn choose_at(endpoints: &[Arc<Endpoint>], scales: Scales, rng: &mut fastrand::Rng) -> usize {
        choose(endpoints, &all(endpoints), scales, rng).expect("there are endpoints with a weight")
    }

    fn observe(endpoint: &Endpoint, millis: u64, scales: Scales) {
        let took = Duration::from_millis(millis);
        endpoint.guard.latency.observe(took, scales.now);
    }

    #[test]
    fn the_faster_one_is_taken_until_it_is_busier_by_as_much() {
        let (endpoints, mut rng) = (endpoints(&[1, 1]), fastrand::Rng::with_seed(7));
        observe(&endpoints[0], 10, at(0));
        observe(&endpoints[1], 45, at(0));
        let mut held = Vec::new();
        for _ in 0..4 {
            assert_eq!(choose_at(&endpoints, at(0), &mut rng), 0);
            held.push(endpoints[0].call());
        }
        assert_eq!(
            choose_at(&endpoints, at(0), &mut rng),
            1,
            "five times 10 is more than 45"
        );
    }

    #[test]
    fn one_that_was_slow_once_is_tried_again() {
        let (endpoints, mut rng) = (endpoints(&[1, 1]), fastrand::Rng::with_seed(7));
        observe(&endpoints[1], 900, at(0));
        for second in 0..60 {
            observe(&endpoints[0], 10, at(second * 1000));
        }
        assert_eq!(choose_at(&endpoints, at(5_000), &mut rng), 0);
        assert_eq!(choose_at(&endpoints, at(60_000), &mut rng), 1);
    }

    #[test]
    fn an_unknown_one_is_asked_once_at_a_time() {
        let (endpoints, mut rng) = (endpoints(&[1, 1]), fastrand::Rng::with_seed(7));
        observe(&endpoints[0], 10, at(0));
        assert_eq!(choose_at(&endpoints, at(0), &mut rng), 1);
        let _asked = endpoints[1].call();
        assert!((0..50).all(|_| choose_at(&endpoints, at(0), &mut rng) == 0));
    }

    #[test]
    fn nobody_is_chosen_without_a_weight() {
        let (endpoints, mut rng) = (endpoints(&[0, 0]), fastrand::Rng::with_seed(7));
        let chosen = choose(&endpoints, &all(&endpoints), at(0), &mut rng);
        assert_eq!(chosen, None);
    }
}

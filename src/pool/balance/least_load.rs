//! The less loaded of two drawn at random.
//!
//! Always taking the least loaded endpoint goes wrong as soon as there is more than one thread or
//! more than one balancer: all see the same one idle and all run to it. Drawing two and taking the
//! better avoids that and is nearly as even: the fullest of n endpoints is only about `ln ln n`
//! above the average (Mitzenmacher, "The power of two choices", 2001).
//!
//! Both are drawn in proportion to their weights. Drawn evenly, an endpoint that weighs more than
//! two n-ths of the whole could never get its share.

use std::sync::Arc;

use super::Candidates;
use crate::pool::endpoint::Endpoint;

/// The place of the endpoint to use, or `None` if no candidate has a weight.
pub(super) fn choose(
    endpoints: &[Arc<Endpoint>],
    candidates: &Candidates,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let weight = |at: usize| u64::from(endpoints[at].weight());
    let total: u64 = candidates.iter().map(weight).sum();
    let first = draw(candidates.iter().map(|at| (at, weight(at))), total, rng)?;
    let others = || {
        candidates
            .iter()
            .filter(|at| *at != first)
            .map(|at| (at, weight(at)))
    };
    // Summed anew: a weight may have changed since, and a sum that is too large draws nobody.
    let rest = others().map(|(_, weight)| weight).sum();
    match draw(others(), rest, rng) {
        Some(second) => Some(lighter(endpoints, first, second)),
        None => Some(first),
    }
}

/// Draws one in proportion to the weights, of which `total` is the sum.
fn draw(
    weighted: impl Iterator<Item = (usize, u64)>,
    total: u64,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    if total == 0 {
        return None;
    }
    let mut left = rng.u64(..total);
    let mut last = None;
    for (at, weight) in weighted.filter(|(_, weight)| *weight > 0) {
        if left < weight {
            return Some(at);
        }
        left -= weight;
        last = Some(at);
    }
    last // Only if a weight was lowered between the sum and the draw.
}

/// The one with less load, counting the call that is to be placed: `(busy + 1) / weight`.
///
/// Two idle endpoints are not compared: the heavier would win every time, and a pool with little to
/// do would send everything there. The draw has already been fair between them.
fn lighter(endpoints: &[Arc<Endpoint>], first: usize, second: usize) -> usize {
    let (a, b) = (&endpoints[first], &endpoints[second]);
    let (a_busy, b_busy) = (a.busy(), b.busy());
    if a_busy == 0 && b_busy == 0 {
        return first;
    }
    // a_busy + 1 is less than 2^34 and a weight less than 2^16, so nothing overflows.
    let a_load = (a_busy + 1) * u64::from(b.weight());
    let b_load = (b_busy + 1) * u64::from(a.weight());
    if b_load < a_load { second } else { first }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{all, endpoints};
    use super::*;

    fn choose_from(endpoints: &[Arc<Endpoint>], rng: &mut fastrand::Rng) -> usize {
        choose(endpoints, &all(endpoints), rng).expect("there are endpoints with a weight")
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let (endpoints, mut rng) = (endpoints(&[1, 1]), fastrand::Rng::with_seed(7));
        let _session = endpoints[0].session();
        assert!((0..100).all(|_| choose_from(&endpoints, &mut rng) == 1));
        let _calls = [endpoints[1].call(), endpoints[1].call()];
        assert!((0..100).all(|_| choose_from(&endpoints, &mut rng) == 0));
    }

    #[test]
    fn sessions_settle_in_proportion_to_the_weights() {
        let weights = [10, 5, 1, 1, 3];
        let (endpoints, mut rng) = (endpoints(&weights), fastrand::Rng::with_seed(11));
        let guards: Vec<_> = (0..4000)
            .map(|_| endpoints[choose_from(&endpoints, &mut rng)].session())
            .collect();
        for (endpoint, weight) in endpoints.iter().zip(weights) {
            let want = guards.len() as f64 * f64::from(weight) / 20.0;
            let got = f64::from(endpoint.sessions());
            assert!(
                (got - want).abs() <= want * 0.1 + 4.0,
                "{} has {got}, not {want}",
                endpoint.name()
            );
        }
    }

    #[test]
    fn an_idle_pool_is_used_in_proportion_to_the_weights() {
        let (endpoints, mut rng) = (endpoints(&[3, 1]), fastrand::Rng::with_seed(13));
        let heavy = (0..4000)
            .filter(|_| choose_from(&endpoints, &mut rng) == 0)
            .count();
        assert!((2850..3150).contains(&heavy), "{heavy} of 4000");
    }

    #[test]
    fn nobody_is_chosen_without_a_weight() {
        let (endpoints, mut rng) = (endpoints(&[0, 4, 0]), fastrand::Rng::with_seed(17));
        assert!((0..100).all(|_| choose_from(&endpoints, &mut rng) == 1));
        endpoints[1].set_weight(0);
        assert_eq!(choose(&endpoints, &all(&endpoints), &mut rng), None);
        assert_eq!(choose(&[], &Candidates::EMPTY, &mut rng), None);
    }
}

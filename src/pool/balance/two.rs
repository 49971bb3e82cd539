//! One or two drawn at random, in proportion to their weights.
//!
//! Drawn evenly, an endpoint that weighs more than two n-ths of the whole could never get its share.

use std::sync::Arc;

use super::{Candidates, Scales};
use crate::pool::endpoint::Endpoint;

/// The place of a candidate with a weight; `None` if there is none.
pub(super) fn draw_one(
    endpoints: &[Arc<Endpoint>],
    candidates: &Candidates,
    scales: Scales,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let weight = |at: usize| scales.weight(&endpoints[at]);
    let total: u64 = candidates.iter().map(weight).sum();
    draw(candidates.iter().map(|at| (at, weight(at))), total, rng)
}

/// The places of two different candidates with a weight, the second missing if there is only one.
/// `None` if there is none.
pub(super) fn draw_two(
    endpoints: &[Arc<Endpoint>],
    candidates: &Candidates,
    scales: Scales,
    rng: &mut fastrand::Rng,
) -> Option<(usize, Option<usize>)> {
    let weight = |at: usize| scales.weight(&endpoints[at]);
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
    Some((first, draw(others(), rest, rng)))
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

#[cfg(test)]
mod tests {
    use super::super::testing::{all, endpoints};
    use super::*;

    #[test]
    fn one_is_drawn_in_proportion_to_the_weights() {
        let weights = [1, 0, 4, 3];
        let endpoints = endpoints(&weights);
        let candidates = all(&endpoints);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut drawn = [0u32; 4];
        for _ in 0..40_000 {
            let at = draw_one(&endpoints, &candidates, Scales::default(), &mut rng);
            drawn[at.expect("some have weights")] += 1;
        }
        for (got, weight) in drawn.into_iter().zip(weights) {
            let want = 5000.0 * f64::from(weight);
            assert!((f64::from(got) - want).abs() <= want * 0.06, "{drawn:?}");
        }
    }

    #[test]
    fn nobody_is_drawn_without_a_weight() {
        let endpoints = endpoints(&[0, 0]);
        let mut rng = fastrand::Rng::with_seed(1);
        let drawn = draw_one(&endpoints, &all(&endpoints), Scales::default(), &mut rng);
        assert_eq!(drawn, None);
    }
}

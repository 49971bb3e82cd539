//! Two drawn at random, in proportion to their weights.
//!
//! Drawn evenly, an endpoint that weighs more than two n-ths of the whole could never get its share.

use std::sync::Arc;

use super::{Candidates, Scales};
use crate::pool::endpoint::Endpoint;

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

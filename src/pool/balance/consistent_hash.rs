//! The same key to the same endpoint, for as long as it is there.
//!
//! Weighted rendezvous: every endpoint draws a score from the key and its own id, and the highest
//! score wins. An endpoint's score depends on nothing else, so when one leaves, only its own keys
//! move, to whoever was second, and when it comes back they return. There is no ring to build or
//! to store, weights are exact, and every balancer with the same endpoints decides alike. The price
//! is a logarithm per endpoint, some 10 ns.
//!
//! The score of a weight w is `w / -ln(u)` with u drawn evenly from 0 to 1 (Schindelhauer and
//! Schomaker, "Weighted distributed hash tables", 2005).

use std::sync::Arc;

use super::Candidates;
use crate::pool::endpoint::Endpoint;

/// The place of the endpoint that owns `key`, or `None` if no candidate has a weight.
pub(super) fn choose(
    endpoints: &[Arc<Endpoint>],
    candidates: &Candidates,
    key: u64,
) -> Option<usize> {
    let scored = candidates
        .iter()
        .map(|at| (score(&endpoints[at], key), endpoints[at].id(), at));
    scored
        .filter(|(score, ..)| *score > 0.0)
        // Equal scores are possible in principle; the id settles them alike everywhere.
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map(|(_, _, at)| at)
}

fn score(endpoint: &Endpoint, key: u64) -> f64 {
    // 53 bits fill a double; the half keeps u away from 0 and 1, where the logarithm is no use.
    let draw = mix(mix(key) ^ endpoint.id()) >> 11;
    let u = (draw as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(endpoint.weight()) / -u.ln()
}

/// Spreads the bits of `x` (the finalizer of splitmix64). A change to it moves every key.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{all, endpoints};
    use super::*;

    #[test]
    fn keys_are_spread_in_proportion_to_the_weights() {
        let weights = [1, 2, 4, 1];
        let endpoints = endpoints(&weights);
        let candidates = all(&endpoints);
        let mut owned = [0u32; 4];
        for key in 0..40_000 {
            owned[choose(&endpoints, &candidates, key).expect("all have weights")] += 1;
        }
        for (got, weight) in owned.into_iter().zip(weights) {
            let want = 5000.0 * f64::from(weight);
            assert!((f64::from(got) - want).abs() < want * 0.06, "{owned:?}");
        }
    }

    #[test]
    fn nobody_owns_a_key_without_a_weight() {
        let endpoints = endpoints(&[0, 1]);
        let candidates = all(&endpoints);
        assert!((0..100).all(|key| choose(&endpoints, &candidates, key) == Some(1)));
        endpoints[1].set_weight(0);
        assert_eq!(choose(&endpoints, &candidates, 1), None);
    }

    proptest! {
        #[test]
        fn removing_an_endpoint_moves_only_its_own_keys(
            weights in proptest::collection::vec(1u32..100, 2..12),
            gone in any::<prop::sample::Index>(),
            keys in proptest::collection::vec(any::<u64>(), 200),
        ) {
            let endpoints = endpoints(&weights);
            let gone = gone.index(weights.len());
            let before = all(&endpoints);
            let mut after = Candidates::EMPTY;
            (0..weights.len()).filter(|at| *at != gone).for_each(|at| after.add(at));
            for key in keys {
                let owner = choose(&endpoints, &before, key);
                let heir = choose(&endpoints, &after, key);
                prop_assert!(owner == heir || owner == Some(gone));
                prop_assert!(heir.is_some() && heir != Some(gone));
            }
        }

        #[test]
        fn raising_a_weight_moves_keys_only_to_that_endpoint(
            weights in proptest::collection::vec(1u32..100, 2..12),
            raised in any::<prop::sample::Index>(),
            keys in proptest::collection::vec(any::<u64>(), 200),
        ) {
            let endpoints = endpoints(&weights);
            let (raised, candidates) = (raised.index(weights.len()), all(&endpoints));
            let owners = |keys: &[u64]| -> Vec<_> {
                keys.iter().map(|key| choose(&endpoints, &candidates, *key)).collect()
            };
            let before = owners(&keys);
            endpoints[raised].set_weight(weights[raised] + 50);
            for (before, after) in before.iter().zip(owners(&keys)) {
                prop_assert!(*before == after || after == Some(raised));
            }
        }
    }
}

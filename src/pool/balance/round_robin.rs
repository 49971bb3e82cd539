//! In turn, in proportion to the weights, and smoothly.
//!
//! With weights 5, 1, 1 the turns go a a b a c a a and not a a a a a b c. The method is nginx's:
//! each turn, every candidate gains its weight, the richest is chosen and pays what all gained
//! together. It needs no schedule, so weights and candidates may change from turn to turn.
//!
//! One short lock per pool: a turn is a few additions per endpoint. Without a lock two threads
//! would take the same turn, and the point of this way of balancing is that they do not.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Candidates, Scales};
use crate::pool::endpoint::Endpoint;

/// What each endpoint has gained and not paid, by its place in the pool.
pub(in crate::pool) struct RoundRobin {
    credit: Mutex<Box<[i64]>>,
}

impl RoundRobin {
    pub(super) fn new(endpoint_count: usize) -> Self {
        Self {
            credit: Mutex::new(vec![0; endpoint_count].into()),
        }
    }

    /// The place of the endpoint whose turn it is, or `None` if no candidate has a weight.
    pub(super) fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        candidates: &Candidates,
        scales: Scales,
    ) -> Option<usize> {
        // At most a thousand times 2^26, which leaves room for every sum.
        let weight = |at: usize| scales.weight(&endpoints[at]) as i64;
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let total: i64 = candidates.iter().map(weight).sum();
        let mut gained = 0;
        let mut richest: Option<usize> = None;
        for at in candidates.iter() {
            let weight = weight(at);
            if weight == 0 {
                continue;
            }
            // With constant weights no credit ever leaves this range. After a weight was lowered,
            // an old debt would keep an endpoint waiting for thousands of turns.
            credit[at] = credit[at].clamp(-total, total) + weight;
            gained += weight;
            if richest.is_none_or(|other| credit[at] > credit[other]) {
                richest = Some(at);
            }
        }
        let richest = richest?;
        credit[richest] -= gained;
        Some(richest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{all, endpoints};
    use super::*;

    fn turns(turns: &RoundRobin, endpoints: &[Arc<Endpoint>], count: usize) -> Vec<usize> {
        let candidates = all(endpoints);
        (0..count)
            .filter_map(|_| turns.choose(endpoints, &candidates, Scales::default()))
            .collect()
    }

    #[test]
    fn the_turns_of_a_heavy_endpoint_are_spread() {
        let endpoints = endpoints(&[5, 1, 1]);
        assert_eq!(
            turns(&RoundRobin::new(3), &endpoints, 7),
            [0, 0, 1, 0, 2, 0, 0]
        );
    }

    #[test]
    fn nobody_has_a_turn_without_a_weight() {
        let endpoints = endpoints(&[0, 2]);
        let robin = RoundRobin::new(2);
        assert_eq!(turns(&robin, &endpoints, 3), [1, 1, 1]);
        endpoints[1].set_weight(0);
        assert_eq!(turns(&robin, &endpoints, 3), Vec::<usize>::new());
    }

    #[test]
    fn an_old_debt_does_not_outlive_a_lowered_weight() {
        let endpoints = endpoints(&[60_000, 60_000]);
        let robin = RoundRobin::new(2);
        turns(&robin, &endpoints, 1);
        endpoints.iter().for_each(|endpoint| endpoint.set_weight(1));
        let mut next = turns(&robin, &endpoints, 6);
        next.sort_unstable();
        assert!(next.iter().filter(|at| **at == 0).count() >= 2, "{next:?}");
    }

    proptest! {
        #[test]
        fn every_round_gives_each_endpoint_exactly_its_weight(
            weights in proptest::collection::vec(1u32..20, 1..12),
        ) {
            let endpoints = endpoints(&weights);
            let robin = RoundRobin::new(weights.len());
            let round = weights.iter().sum::<u32>() as usize;
            for _ in 0..3 {
                let turns = turns(&robin, &endpoints, round);
                for (at, weight) in weights.iter().enumerate() {
                    let had = turns.iter().filter(|turn| **turn == at).count();
                    prop_assert_eq!(had, *weight as usize);
                }
            }
        }
    }
}

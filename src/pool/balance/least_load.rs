//! The less loaded of two drawn at random.
//!
//! Always taking the least loaded endpoint goes wrong as soon as there is more than one thread or
//! more than one balancer: all see the same one idle and all run to it. Drawing two and taking the
//! better avoids that and is nearly as even: the fullest of n endpoints is only about `ln ln n`
//! above the average (Mitzenmacher, "The power of two choices", 2001).

use std::sync::Arc;

use super::Scales;
use crate::pool::endpoint::Endpoint;

/// The one with less load, counting the call that is to be placed: `(busy + 1) / weight`.
///
/// Two idle endpoints are not compared: the heavier would win every time, and a pool with little to
/// do would send everything there. The draw has already been fair between them.
pub(super) fn lighter(
    endpoints: &[Arc<Endpoint>],
    scales: Scales,
    first: usize,
    second: usize,
) -> usize {
    let (a, b) = (&endpoints[first], &endpoints[second]);
    let (a_busy, b_busy) = (a.busy(), b.busy());
    if a_busy == 0 && b_busy == 0 {
        return first;
    }
    // a_busy + 1 is less than 2^34 and a weight less than 2^26, so nothing overflows.
    let a_load = (a_busy + 1) * scales.weight(b);
    let b_load = (b_busy + 1) * scales.weight(a);
    if b_load < a_load { second } else { first }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{all, endpoints};
    use super::super::{Balancer, Candidates};
    use super::*;

    fn choose(
        endpoints: &[Arc<Endpoint>],
        candidates: &Candidates,
        scales: Scales,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        Balancer::LeastLoad.choose(endpoints, candidates, None, scales, rng)
    }

    fn choose_from(endpoints: &[Arc<Endpoint>], rng: &mut fastrand::Rng) -> usize {
        choose(endpoints, &all(endpoints), Scales::default(), rng)
            .expect("there are endpoints with a weight")
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
        assert_eq!(
            choose(&endpoints, &all(&endpoints), Scales::default(), &mut rng),
            None
        );
        assert_eq!(
            choose(&[], &Candidates::EMPTY, Scales::default(), &mut rng),
            None
        );
    }
}

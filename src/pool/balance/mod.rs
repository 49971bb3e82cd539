//! Who of those that may.
//!
//! A pool filters; a balancer chooses among what is left. The ways differ in what they look
//! at: load, how long answers take, turn, a key of the call, or nothing. None of them allocates, and none keeps more than a number
//! per endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::ENDPOINTS_MAX;
use super::endpoint::Endpoint;
use super::moment::Moment;
use super::ramp;

mod consistent_hash;
mod least_load;
mod peak_ewma;
mod round_robin;
mod two;

use round_robin::RoundRobin;

/// How a pool balances, in the words of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The less loaded of two drawn at random.
    #[default]
    LeastLoad,
    /// The one of two drawn at random whose answers take less time for its load.
    PeakEwma,
    /// One drawn at random, in proportion to the weights.
    Random,
    /// In turn, in proportion to the weights.
    RoundRobin,
    /// The same key to the same endpoint, for as long as it is there.
    ConsistentHash,
}

/// A [`Balance`] and the state it needs.
pub(super) enum Balancer {
    LeastLoad,
    PeakEwma,
    Random,
    RoundRobin(RoundRobin),
    ConsistentHash,
}

impl Balancer {
    pub(super) fn new(balance: Balance, endpoint_count: usize) -> Self {
        match balance {
            Balance::LeastLoad => Self::LeastLoad,
            Balance::PeakEwma => Self::PeakEwma,
            Balance::Random => Self::Random,
            Balance::RoundRobin => Self::RoundRobin(RoundRobin::new(endpoint_count)),
            Balance::ConsistentHash => Self::ConsistentHash,
        }
    }

    pub(super) fn kind(&self) -> Balance {
        match self {
            Self::LeastLoad => Balance::LeastLoad,
            Self::PeakEwma => Balance::PeakEwma,
            Self::Random => Balance::Random,
            Self::RoundRobin(_) => Balance::RoundRobin,
            Self::ConsistentHash => Balance::ConsistentHash,
        }
    }

    /// How many are drawn at random, of which one is chosen; 0 where nothing is.
    pub(super) fn draws(&self) -> usize {
        match self {
            Self::LeastLoad | Self::PeakEwma => 2,
            Self::Random => 1,
            Self::RoundRobin(_) | Self::ConsistentHash => 0,
        }
    }

    /// Which of two that were drawn, for those that take two.
    pub(super) fn better(
        &self,
        endpoints: &[Arc<Endpoint>],
        scales: Scales,
        first: usize,
        second: usize,
    ) -> usize {
        match self {
            Self::PeakEwma => peak_ewma::sooner(endpoints, scales, first, second),
            _ => least_load::lighter(endpoints, scales, first, second),
        }
    }

    /// The place in `endpoints` of the one to use. `None` only if there is no candidate with a
    /// weight, which can happen to a caller that checked when a weight is lowered meanwhile.
    pub(super) fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        candidates: &Candidates,
        key: Option<u64>,
        scales: Scales,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        match self {
            Self::LeastLoad | Self::PeakEwma => {
                match two::draw_two(endpoints, candidates, scales, rng)? {
                    (first, Some(second)) => Some(self.better(endpoints, scales, first, second)),
                    (first, None) => Some(first),
                }
            }
            Self::Random => two::draw_one(endpoints, candidates, scales, rng),
            Self::RoundRobin(turns) => turns.choose(endpoints, candidates, scales),
            Self::ConsistentHash => {
                let key = key.unwrap_or_else(|| rng.u64(..));
                consistent_hash::choose(endpoints, candidates, key)
            }
        }
    }
}

/// How weights are read at one moment.
#[derive(Clone, Copy, Default)]
pub(super) struct Scales {
    pub(super) now: Moment,
    /// How long a slow start takes; `None` where nobody is in one.
    pub(super) slow_start: Option<Duration>,
}

impl Scales {
    /// What an endpoint weighs, in thousandths of its weight: less than 2^26, and 0 only if its
    /// weight is.
    pub(super) fn weight(self, endpoint: &Endpoint) -> u64 {
        let share = match self.slow_start {
            None => ramp::FULL,
            Some(length) => endpoint.guard.share(length, self.now),
        };
        u64::from(endpoint.weight()) * u64::from(share)
    }
}

const WORDS: usize = ENDPOINTS_MAX / 64;

/// A set of places in a pool's list of endpoints, on the stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates {
    words: [u64; WORDS],
}

impl Candidates {
    pub(super) const EMPTY: Self = Self { words: [0; WORDS] };

    /// `at` is less than [`ENDPOINTS_MAX`].
    pub(super) fn add(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.words[at / 64] &= !(1 << (at % 64));
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.words[at / 64] & (1 << (at % 64)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The places, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                (rest != 0).then(|| {
                    rest &= rest - 1;
                    at * 64 + bit as usize
                })
            })
        })
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::pool::{EndpointSpec, HealthState};

    /// Endpoints that are up, one for each weight, with ids as different as hashes are.
    pub(in crate::pool) fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
        let endpoint = |(at, weight): (usize, &u32)| {
            Endpoint::new(EndpointSpec {
                name: format!("w{at}"),
                id: (at as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93),
                weight: *weight,
                backup: false,
                address: Some(([127, 0, 0, 1], 9000 + at as u16).into()),
                health: HealthState::Up,
            })
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    pub(in crate::pool) fn all(endpoints: &[Arc<Endpoint>]) -> Candidates {
        let mut candidates = Candidates::EMPTY;
        (0..endpoints.len()).for_each(|at| candidates.add(at));
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_come_out_in_order_over_all_words() {
        let places = [0, 1, 63, 64, 127, 128, ENDPOINTS_MAX - 1];
        let mut candidates = Candidates::EMPTY;
        assert!(candidates.is_empty());
        places.iter().rev().for_each(|at| candidates.add(*at));
        assert_eq!(candidates.iter().collect::<Vec<_>>(), places);
        assert!(!candidates.is_empty());
        places.iter().for_each(|at| candidates.remove(*at));
        assert!(candidates.is_empty() && !candidates.has(64));
    }
}

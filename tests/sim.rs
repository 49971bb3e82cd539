//! Random histories of the pure cores, by seed: the session table, the balancer, the health
//! checks, ejection, breakers, slow start, the queue for places, token buckets, the events kept for
//! clients that come back.
//!
//! Each simulation runs a core and a naive model of it side by side through a few hundred random
//! steps and compares after every one. Time and randomness come from the seed, so a failure comes
//! back as often as one likes: it prints the command that replays it.
//!
//! `TIDEGATE_SEED=17` runs only that seed; `TIDEGATE_SEEDS=100000` runs more than the usual 256.

#![allow(clippy::print_stderr, reason = "a failure says how to replay it")]

use std::sync::Arc;

use fastrand::Rng;
use tidegate::pool::{Endpoint, EndpointSpec, HealthState};
use tidegate::session::NameHash;

#[path = "sim/balancer.rs"]
mod balancer;
#[path = "sim/breaker.rs"]
mod breaker;
#[path = "sim/ejection.rs"]
mod ejection;
#[path = "sim/health.rs"]
mod health;
#[path = "sim/limit.rs"]
mod limit;
#[path = "sim/peak.rs"]
mod peak;
#[path = "sim/queue.rs"]
mod queue;
#[path = "sim/ramp.rs"]
mod ramp;
#[path = "sim/resume.rs"]
mod resume;
#[path = "sim/table.rs"]
mod table;

const SEEDS: u64 = 256;

/// Runs `history` once for every seed, and says how to replay the seed it fails with.
fn for_each_seed(test: &'static str, history: impl Fn(&mut Rng)) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a seed is a number"))
    };
    let seeds = match number("TIDEGATE_SEED") {
        Some(seed) => seed..=seed,
        None => 0..=number("TIDEGATE_SEEDS").unwrap_or(SEEDS).saturating_sub(1),
    };
    for seed in seeds {
        let _replay = Replay { test, seed };
        history(&mut Rng::with_seed(seed));
    }
}

struct Replay {
    test: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed } = self;
            eprintln!(
                "seed {seed} failed; replay with: TIDEGATE_SEED={seed} cargo test --test sim {test}"
            );
        }
    }
}

/// An endpoint that takes everything, until told otherwise.
fn endpoint(name: &str, weight: u32) -> Arc<Endpoint> {
    Endpoint::new(EndpointSpec {
        name: name.into(),
        id: NameHash::of(name).get(),
        weight,
        backup: false,
        address: Some(([127, 0, 0, 1], 9001).into()),
        health: HealthState::Up,
    })
}

fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

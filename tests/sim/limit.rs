//! Token buckets against exact arithmetic, and counts against a plain tally.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;
use tidegate::limit::{Bucket, Buckets, Client, Counts, Rate, Taken};

use crate::{for_each_seed, one_of};

/// A bucket as one would explain it: so many tokens, and some more with time. In billionths of a
/// token per nanosecond, so that nothing is rounded.
struct Model {
    tokens: u128,
    at: u64,
    interval: u128,
    burst: u128,
}

impl Model {
    fn new(interval: u64, burst: u32) -> Self {
        let interval = u128::from(interval);
        let burst = u128::from(burst) * interval;
        Self {
            tokens: burst,
            at: 0,
            interval,
            burst,
        }
    }

    fn take(&mut self, tokens: u32, now: u64) -> Result<(), u128> {
        let grown = self.tokens + u128::from(now - self.at);
        (self.tokens, self.at) = (grown.min(self.burst), now);
        let price = (u128::from(tokens) * self.interval).min(self.burst);
        match price.checked_sub(self.tokens) {
            None | Some(0) => {
                self.tokens -= price;
                Ok(())
            }
            Some(missing) => Err(missing),
        }
    }
}

/// A rate that divides evenly, and its parts.
fn rate(rng: &mut Rng) -> (Rate, u64, u32) {
    let interval = rng.u64(1..2_000_000_000);
    let burst = rng.u32(1..50);
    let rate = Rate::new(1, Duration::from_nanos(interval), burst);
    (rate, interval, burst)
}

/// Moves the clock a little, not at all, or far.
fn pass(now: &mut u64, interval: u64, rng: &mut Rng) {
    *now += match rng.u8(..8) {
        0..=2 => 0,
        3..=6 => rng.u64(..=interval),
        _ => rng.u64(..interval * 60),
    };
}

#[test]
fn a_bucket_is_exact_and_its_wait_is_neither_too_short_nor_too_long() {
    for_each_seed(
        "a_bucket_is_exact_and_its_wait_is_neither_too_short_nor_too_long",
        |rng| {
            let (rate, interval, burst) = rate(rng);
            let (bucket, mut model) = (Bucket::new(rate), Model::new(interval, burst));
            let mut now = rng.u64(..1_000_000_000);
            for _ in 0..500 {
                pass(&mut now, interval, rng);
                let tokens = rng.u32(1..4);
                let wanted = model.take(tokens, now);
                let taken = bucket.take(tokens, now);
                assert_eq!(taken.map_err(|wait| wait.as_nanos()), wanted, "at {now}");
                if let Err(wait) = taken {
                    let wait = wait.as_nanos() as u64;
                    assert!(bucket.take(tokens, now + wait - 1).is_err(), "too long");
                    assert_eq!(bucket.take(tokens, now + wait), Ok(()), "too short");
                    now += wait;
                    assert_eq!(model.take(tokens, now), Ok(()));
                }
            }
        },
    );
}

#[test]
fn clients_do_not_pay_for_each_other_and_a_full_table_only_forgives() {
    for_each_seed(
        "clients_do_not_pay_for_each_other_and_a_full_table_only_forgives",
        |rng| {
            let secret = [rng.u64(..), rng.u64(..)];
            // Some have room for everybody, some do not.
            let capacity = one_of(rng, &[8, 64, 1024]);
            let buckets = Buckets::new(capacity, secret);
            let rates = [rate(rng), rate(rng)];
            let mut models: HashMap<(usize, u32), Model> = HashMap::new();
            let (mut now, mut forgotten) = (1, 0);
            for _ in 0..1000 {
                let rule = rng.usize(..2);
                let (rate, interval, burst) = rates[rule];
                pass(&mut now, interval, rng);
                let number = rng.u32(..60);
                let model = models.entry((rule, number));
                let model = model.or_insert_with(|| Model::new(interval, burst));
                let client = Client::at(Ipv4Addr::from_bits(number + 1).into());
                let allowed = model.take(1, now);
                let taken = buckets.take(rule as u32 + 1, client, rate, 1, now);
                forgotten += u32::from(taken == Taken::Forgetting);
                match (taken, allowed) {
                    (Taken::NotFor(wait), Err(missing)) if forgotten == 0 => {
                        assert_eq!(wait.as_nanos(), missing);
                    }
                    (Taken::NotFor(wait), Err(missing)) => assert!(wait.as_nanos() <= missing),
                    (Taken::NotFor(_), Ok(())) => panic!("{number} pays for others"),
                    (Taken::Yes | Taken::Forgetting, Err(_)) => {
                        assert!(forgotten > 0, "{number} has taken what it had not");
                        // It has at least nothing.
                        model.tokens = 0;
                    }
                    (Taken::Yes | Taken::Forgetting, Ok(())) => {}
                }
                assert!(buckets.len(now) <= capacity.max(8));
            }
            if capacity == 1024 {
                assert_eq!(forgotten, 0, "there was room for all");
            }
        },
    );
}

#[test]
fn counts_are_what_is_held() {
    for_each_seed("counts_are_what_is_held", |rng| {
        let counts = Counts::new();
        let mut held = Vec::new();
        for _ in 0..400 {
            let (of, max) = (u128::from(rng.u8(..6)) << 64, rng.u32(..5));
            let there = |held: &[(u128, _)], of| held.iter().filter(|(o, _)| *o == of).count();
            let before = there(&held, of);
            match counts.enter(of, max) {
                Some(counted) => {
                    assert!(before < max as usize);
                    held.push((of, counted));
                }
                None => assert!(before >= max as usize),
            }
            if rng.bool() && !held.is_empty() {
                drop(held.swap_remove(rng.usize(..held.len())));
            }
            assert_eq!(counts.of(of) as usize, there(&held, of));
        }
        held.clear();
        assert!(counts.is_empty());
    });
}

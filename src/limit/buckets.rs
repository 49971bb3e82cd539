//! A bucket for every client, in a table that does not grow.
//!
//! A table of all clients that ever came would grow for as long as somebody has addresses to come
//! from. Here each has its place in one of a few thousand sets of eight. A bucket that is full again
//! is as good as none, so its slot is free for others. When all eight of a set are in use, the one
//! that would be full soonest makes room: its client gets back what little it had used up. So
//! whoever fills the table gains some tokens for others, and shuts nobody out.
//!
//! Sets are chosen by a hash under a secret, so that nobody can aim at one. Each has a lock of its
//! own, which threads meet at only over the same client.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bucket::{FullAt, Rate};
use super::client::Client;

/// Slots of a set.
const WAYS: usize = 8;
/// Clients' buckets that a table remembers at once, over all rules; 2 MiB.
pub const BUCKETS_MAX: usize = 65_536;

/// Whose bucket, and of which rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Key {
    client: u128,
    rule: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: Key,
    full_at: FullAt,
}

/// What came of wanting tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// They were there.
    Yes,
    /// They were there, and to note it another client's bucket had to be forgotten.
    Forgetting,
    /// They will be there in so long. Nothing was taken.
    NotFor(Duration),
}

/// The buckets of clients.
#[derive(Debug)]
pub struct Buckets {
    sets: Box<[Mutex<[Slot; WAYS]>]>,
    secret: [u64; 2],
}

impl Buckets {
    /// A table of about `capacity` buckets. `secret` is random.
    pub fn new(capacity: usize, secret: [u64; 2]) -> Self {
        let sets = capacity.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            secret,
        }
    }

    /// Takes `tokens` at `now` from the bucket of `client` under `rule`, whose rate is always the same.
    pub fn take(&self, rule: u32, client: Client, rate: Rate, tokens: u32, now: u64) -> Taken {
        let key = Key {
            client: client.number(),
            rule,
        };
        let mut set = self.set(key);
        if let Some(slot) = set.iter_mut().find(|slot| slot.key == key) {
            return match rate.take(slot.full_at, tokens, now) {
                Ok(after) => {
                    slot.full_at = after;
                    Taken::Yes
                }
                Err(wait) => Taken::NotFor(wait),
            };
        }
        // A bucket that is not here is full, and gives at least once what it holds.
        let full_at = rate.take(0, tokens, now).unwrap_or(now);
        let fullest = set.iter_mut().min_by_key(|slot| slot.full_at);
        let Some(slot) = fullest else {
            return Taken::Yes;
        };
        let forgets = slot.full_at > now;
        *slot = Slot { key, full_at };
        match forgets {
            true => Taken::Forgetting,
            false => Taken::Yes,
        }
    }

    /// Puts `tokens` back that were taken in vain.
    pub fn give_back(&self, rule: u32, client: Client, rate: Rate, tokens: u32) {
        let key = Key {
            client: client.number(),
            rule,
        };
        if let Some(slot) = self.set(key).iter_mut().find(|slot| slot.key == key) {
            slot.full_at = rate.give_back(slot.full_at, tokens);
        }
    }

    /// Buckets that are remembered and not full at `now`. Takes all locks in turn.
    pub fn len(&self, now: u64) -> usize {
        let used = |set: &Mutex<[Slot; WAYS]>| {
            let set = lock(set);
            set.iter().filter(|slot| slot.full_at > now).count()
        };
        self.sets.iter().map(used).sum()
    }

    fn set(&self, key: Key) -> MutexGuard<'_, [Slot; WAYS]> {
        let [one, other] = self.secret;
        let low = mix(key.client as u64 ^ one, u64::from(key.rule) ^ other);
        let hash = mix((key.client >> 64) as u64 ^ low, one | 1);
        // The number of sets is a power of two.
        lock(&self.sets[hash as usize & (self.sets.len() - 1)])
    }
}

/// Both halves of a product: each bit of it depends on all bits of both factors.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b | 1);
    (product >> 64) as u64 ^ product as u64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn client(number: u32) -> Client {
        Client::at(std::net::Ipv4Addr::from_bits(number).into())
    }

    fn one_per_second() -> Rate {
        Rate::new(1, Duration::from_secs(1), 1)
    }

    #[test]
    fn clients_and_rules_have_buckets_of_their_own() {
        let buckets = Buckets::new(1024, [3, 5]);
        let rate = one_per_second();
        let take = |rule, number| buckets.take(rule, client(number), rate, 1, SECOND);
        assert_eq!(take(1, 1), Taken::Yes);
        assert_eq!(take(1, 1), Taken::NotFor(Duration::from_secs(1)));
        assert_eq!(take(1, 2), Taken::Yes);
        assert_eq!(take(2, 1), Taken::Yes);
        buckets.give_back(1, client(1), rate, 1);
        assert_eq!(take(1, 1), Taken::Yes);
        assert_eq!(buckets.len(SECOND), 3);
        assert_eq!(buckets.len(2 * SECOND), 0, "all are full again");
    }

    #[test]
    fn a_full_table_forgets_and_does_not_refuse() {
        let buckets = Buckets::new(64, [3, 5]);
        let rate = one_per_second();
        let mut forgotten = 0;
        for number in 0..10_000 {
            match buckets.take(1, client(number), rate, 1, SECOND + u64::from(number)) {
                Taken::Yes => {}
                Taken::Forgetting => forgotten += 1,
                Taken::NotFor(_) => panic!("client {number} has come for the first time"),
            }
            assert!(buckets.len(0) <= 64);
        }
        assert!(forgotten >= 10_000 - 64);
    }

    #[test]
    fn networks_next_to_each_other_spread_over_the_sets() {
        let buckets = Buckets::new(4096, [7, 11]);
        let rate = Rate::new(1, Duration::from_secs(3600), 1);
        let forgets = |number: u128| {
            let address = std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | (number << 64));
            let taken = buckets.take(1, Client::at(address.into()), rate, 1, SECOND);
            taken == Taken::Forgetting
        };
        let forgotten = (0..1024).filter(|number| forgets(*number)).count();
        assert!(forgotten < 20, "{forgotten} of 1024, a quarter of the room");
    }
}

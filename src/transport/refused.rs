//! The last messages that were refused because they are no HTTP, or HTTP that two readers could understand
//! differently: what HAProxy shows as `show errors`.
//!
//! One list for the process, for it is filled at the bottom of everything, where a head is parsed. Nothing is
//! done for a message that is good. One that is not costs an excerpt and a lock that nobody is waited for,
//! at most so many times a second; those beyond are counted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::ConnInfo;
use super::excerpt::{Excerpt, Kind};

/// Messages that are kept; the oldest gives way.
pub const KEPT: usize = 64;
/// Excerpts in a second: whoever sends nothing but refuse is not to be helped to keep us busy.
const PER_SECOND: u64 = 100;
/// Bits of a [`List::pace`] that count within a second.
const PACE_BITS: u32 = 16;

/// Who has sent a message that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A client.
    Client {
        /// The listener's name.
        listener: Arc<str>,
        /// The client's address; unspecified on a unix socket.
        address: SocketAddr,
    },
    /// An endpoint.
    Server {
        /// The group of its connections, as in [`super::dial::Target`].
        group: u64,
        /// Its address; unspecified on a unix socket.
        address: SocketAddr,
    },
}

/// A message that was refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// When.
    pub at: SystemTime,
    /// Who has sent it.
    pub sender: Sender,
    /// What is wrong with it.
    pub why: String,
    /// Its head, as far as it may be shown.
    pub excerpt: Excerpt,
}

/// The last of them, and how many there were.
#[derive(Debug, Default)]
pub struct List {
    last: Mutex<VecDeque<Refused>>,
    total: AtomicU64,
    /// The present second, and how many excerpts were made in it.
    pace: AtomicU64,
}

static LIST: List = List {
    last: Mutex::new(VecDeque::new()),
    total: AtomicU64::new(0),
    pace: AtomicU64::new(0),
};

/// Notes what a client has sent. `head` is the request's, as far as it is there.
#[cold]
pub fn by_client(info: &ConnInfo, why: &str, head: &[u8]) {
    let sender = || Sender::Client {
        listener: Arc::clone(&info.listener),
        address: info.client,
    };
    LIST.note(now(), sender, Kind::Request, why, head);
}

/// Notes what an endpoint has sent. `head` is the response's, as far as it is there.
#[cold]
pub fn by_server(group: u64, address: SocketAddr, why: &str, head: &[u8]) {
    let sender = || Sender::Server { group, address };
    LIST.note(now(), sender, Kind::Response, why, head);
}

/// The last that were refused, the newest first, and how many there were since the start.
pub fn last() -> (Vec<Refused>, u64) {
    LIST.newest_first()
}

fn now() -> SystemTime {
    SystemTime::now()
}

impl List {
    fn note(
        &self,
        now: SystemTime,
        sender: impl FnOnce() -> Sender,
        kind: Kind,
        why: &str,
        head: &[u8],
    ) {
        self.total.fetch_add(1, Relaxed);
        if !self.may(now) {
            return;
        }
        let refused = Refused {
            at: now,
            sender: sender(),
            why: why.to_owned(),
            excerpt: Excerpt::of(kind, head, why),
        };
        // Whoever serves does not wait for whoever looks.
        let Ok(mut last) = self.last.try_lock() else {
            return;
        };
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(refused);
    }

    /// Is there room for another excerpt in this second?
    fn may(&self, now: SystemTime) -> bool {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs() << PACE_BITS;
        let mut may = false;
        // Nothing is read by the result but the same word.
        let _ = self.pace.fetch_update(Relaxed, Relaxed, |pace| {
            let made = if pace >> PACE_BITS == second >> PACE_BITS {
                pace - second
            } else {
                0
            };
            may = made < PER_SECOND;
            Some(second + made + u64::from(may))
        });
        may
    }

    fn newest_first(&self) -> (Vec<Refused>, u64) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = last.iter().rev().cloned().collect();
        (newest, self.total.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn note(list: &List, now: SystemTime, why: &str) {
        let sender = || Sender::Server {
            group: 1,
            address: ([127, 0, 0, 1], 80).into(),
        };
        list.note(now, sender, Kind::Response, why, b"<html>\r\n\r\n");
    }

    #[test]
    fn the_last_are_kept_and_all_are_counted() {
        let list = List::default();
        let begun = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for number in 0..KEPT as u64 + 10 {
            note(
                &list,
                begun + Duration::from_secs(number),
                &number.to_string(),
            );
        }
        let (last, total) = list.newest_first();
        assert_eq!((last.len(), total), (KEPT, KEPT as u64 + 10));
        assert_eq!(last[0].why, (KEPT + 9).to_string());
        assert_eq!(last[KEPT - 1].why, "10");
    }

    #[test]
    fn a_flood_is_counted_and_costs_no_more_than_so_many_excerpts_a_second() {
        let list = List::default();
        let begun = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let made = |now| (0..500).filter(|_| list.may(now)).count() as u64;
        assert_eq!(made(begun), PER_SECOND);
        assert_eq!(made(begun + Duration::from_millis(900)), 0);
        assert_eq!(made(begun + Duration::from_secs(1)), PER_SECOND);
        for _ in 0..500 {
            note(&list, begun + Duration::from_secs(2), "wrong");
        }
        assert_eq!(list.newest_first().1, 500);
    }

    #[test]
    fn whoever_looks_holds_nobody_up() {
        let list = List::default();
        let held = list.last.lock().unwrap();
        note(&list, UNIX_EPOCH + Duration::from_secs(1_000_000), "wrong");
        drop(held);
        assert_eq!(list.newest_first().0.len(), 0);
        assert_eq!(list.newest_first().1, 1);
    }
}

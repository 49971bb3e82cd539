//! What has happened lately: the last few events that an operator would want to be told of, for the
//! console and for `tidegate top`.
//!
//! The places that write a message about such a thing call [`tell`] as well. The last [`KEPT`] are held
//! in a ring, and whoever follows it asks for what is newer than what it has: nobody has a queue of their
//! own, so a reader that is slow costs nothing and misses what has left the ring meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use once_cell::sync::Lazy;
use tokio::sync::watch;

use super::access_log;

/// Events that are held.
pub const KEPT: usize = 200;
/// The longest text of an event, in bytes; a longer one is cut.
pub const TEXT_MAX: usize = 2048;

/// The longest name of a pool or endpoint, in bytes. Refused operations may name what there is not.
const NAME_MAX: usize = 256;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// What the checks of an endpoint say has changed.
    Health,
    /// An endpoint was ejected for failing calls, or is no longer.
    Ejection,
    /// A breaker opened or closed.
    Breaker,
    /// An endpoint is being taken out, or is out.
    Drain,
    /// Sessions were lost with their endpoint.
    Sessions,
    /// The configuration was read again, or could not be.
    Reload,
    /// An operator did something, or was refused.
    Operator,
}

impl Topic {
    /// The word for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Ejection => "ejection",
            Self::Breaker => "breaker",
            Self::Drain => "drain",
            Self::Sessions => "sessions",
            Self::Reload => "reload",
            Self::Operator => "operator",
        }
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Something is well again, or as it was wanted.
    Good,
    /// To be known.
    Note,
    /// Something is not as it should be.
    Bad,
}

impl Weight {
    /// The word for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// Something that has happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its place in the life of this process, from 1.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// What it is about.
    pub topic: Topic,
    /// How much it matters.
    pub weight: Weight,
    /// The pool; empty where it is about none.
    pub pool: Box<str>,
    /// The endpoint; empty where it is about none.
    pub endpoint: Box<str>,
    /// A sentence for people, at most [`TEXT_MAX`] bytes.
    pub text: String,
}

impl Event {
    /// When, as RFC 3339 has it, in UTC.
    pub fn time(&self) -> String {
        rfc3339(self.at)
    }
}

/// A time as RFC 3339 has it, in UTC and to the millisecond.
pub fn rfc3339(at: SystemTime) -> String {
    let mut text = Vec::with_capacity(24);
    access_log::timestamp(&mut text, at);
    String::from_utf8(text).unwrap_or_default()
}

/// The ring and who waits for more.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<VecDeque<Arc<Event>>>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
    /// Tells the events of this process from those of one before.
    epoch: u64,
}

static FEED: Lazy<Feed> = Lazy::new(|| Feed::new(SystemTime::now()));

/// The feed of the process.
pub fn feed() -> &'static Feed {
    &FEED
}

/// Notes an event of the process that happens now.
pub fn tell(topic: Topic, weight: Weight, pool: &str, endpoint: &str, text: impl Into<String>) {
    FEED.add(
        SystemTime::now(),
        (topic, weight),
        (pool, endpoint),
        text.into(),
    );
}

impl Feed {
    /// An empty one that begins now.
    pub fn new(now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
            epoch: u64::try_from(since.as_millis()).unwrap_or_default(),
        }
    }

    /// Puts an event in, and the oldest out if there is no room.
    pub fn add(
        &self,
        at: SystemTime,
        (topic, weight): (Topic, Weight),
        (pool, endpoint): (&str, &str),
        mut text: String,
    ) {
        if text.len() > TEXT_MAX {
            text.truncate(upto(&text, TEXT_MAX - '…'.len_utf8()).len());
            text.push('…');
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        let number = *self.newest.borrow() + 1;
        ring.push_back(Arc::new(Event {
            number,
            at,
            topic,
            weight,
            pool: upto(pool, NAME_MAX).into(),
            endpoint: upto(endpoint, NAME_MAX).into(),
            text,
        }));
        self.newest.send_replace(number);
    }

    /// Those that are newer than the one with this number and still held, oldest first.
    pub fn after(&self, number: u64) -> Vec<Arc<Event>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = ring.iter().skip_while(|event| event.number <= number);
        newer.cloned().collect()
    }

    /// Tells when there is another one.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What stands for an event towards whoever may come back to it, also after a restart.
    pub fn id(&self, event: &Event) -> String {
        format!("{:x}-{}", self.epoch, event.number)
    }

    /// The number in such an id; 0, before all of them, if it is not of this process.
    pub fn number(&self, id: &str) -> u64 {
        let parts = id.split_once('-');
        let own = parts.filter(|(epoch, _)| u64::from_str_radix(epoch, 16) == Ok(self.epoch));
        let number = own.and_then(|(_, number)| number.parse().ok());
        number.unwrap_or_default()
    }
}

/// As much of a text as has at most so many bytes.
fn upto(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn add(feed: &Feed, text: &str) {
        let about = (Topic::Health, Weight::Bad);
        feed.add(UNIX_EPOCH, about, ("main", "a"), text.to_owned());
    }

    #[test]
    fn only_the_last_are_held_and_each_is_given_once() {
        let feed = Feed::new(UNIX_EPOCH);
        let mut newest = feed.follow();
        assert!(feed.after(0).is_empty());
        for n in 1..=KEPT + 50 {
            add(&feed, &n.to_string());
        }
        assert_eq!(*newest.borrow_and_update(), (KEPT + 50) as u64);
        let held = feed.after(0);
        assert_eq!(held.len(), KEPT);
        assert_eq!((held[0].number, held[0].text.as_str()), (51, "51"));
        let rest = feed.after(held[KEPT - 3].number);
        assert_eq!(rest.len(), 2);
        assert!(feed.after(rest[1].number).is_empty());
    }

    #[test]
    fn an_id_of_another_process_stands_before_all() {
        let feed = Feed::new(UNIX_EPOCH + Duration::from_secs(9));
        add(&feed, "one");
        add(&feed, "two");
        let held = feed.after(0);
        assert_eq!(feed.number(&feed.id(&held[1])), 2);
        let other = Feed::new(UNIX_EPOCH + Duration::from_secs(8));
        assert_eq!(other.number(&feed.id(&held[1])), 0);
        for wrong in ["", "2", "-", "x-2", "2328-x", "2328--1"] {
            assert_eq!(feed.number(wrong), 0, "{wrong}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let feed = Feed::new(UNIX_EPOCH);
        add(&feed, &"ä".repeat(TEXT_MAX));
        let held = &feed.after(0)[0];
        assert!(held.text.len() <= TEXT_MAX && held.text.ends_with('…'));
        assert_eq!(held.time(), "1970-01-01T00:00:00.000Z");
    }
}

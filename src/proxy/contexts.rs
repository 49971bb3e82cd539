//! How much has passed in each session, for a metric that has one series for each.
//!
//! Sessions have no bound that monitoring could live with, so this is off unless it is asked for, and then
//! for so many sessions at once: those that come first. A session beyond them is served like any other,
//! has no series, and is counted as that. A series goes with its session.
//!
//! What passes is counted at the session's pulse, when an exchange is over.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::ctx::Ctx;
use super::state::Shared;
use crate::session::{Key, Pulse, Table};
use crate::telemetry::{self, SessionTag};

/// The sessions that have a series.
#[derive(Default)]
pub struct Contexts(Mutex<Shown>);

#[derive(Default)]
struct Shown {
    all: HashMap<Key, SessionTag>,
    /// How often there was no room since somebody looked who has ended.
    refused: usize,
}

impl Shown {
    /// Lets go of those that have ended.
    fn look<T: Send>(&mut self, table: &Table<T>) {
        self.refused = 0;
        self.all.retain(|key, _| table.pulse(*key).is_some());
    }
}

impl Contexts {
    /// Gives a session a series, if fewer than `max` have one. Those that have ended give theirs up.
    fn enter<T: Send>(&self, table: &Table<T>, max: usize, key: Key, tag: SessionTag) -> bool {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.all.len() >= max {
            // Not each time, for it takes as long as there are sessions here.
            shown.refused += 1;
            if shown.refused >= max {
                shown.look(table);
            }
        }
        let has_room = shown.all.len() < max || shown.all.contains_key(&key);
        if has_room {
            shown.all.insert(key, tag);
        }
        has_room
    }

    /// The bytes of each session that is shown and lives, by its tag. Two sessions of the same tag, which
    /// are one in four billion, are one here too.
    pub fn list<T: Send>(&self, table: &Table<T>) -> BTreeMap<SessionTag, u64> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.look(table);
        let mut bytes = BTreeMap::new();
        for (key, tag) in &shown.all {
            let passed = table.pulse(*key).map_or(0, |pulse| pulse.bytes());
            *bytes.entry(*tag).or_default() += passed;
        }
        bytes
    }
}

/// Has what passes in an exchange counted for its session, if that is wanted.
pub fn follow(
    shared: &Shared,
    ctx: &mut Ctx,
    key: Key,
    tag: SessionTag,
    pulse: Option<Arc<Pulse>>,
) {
    let max = ctx.snapshot.config.sessions.context_sizes;
    let Some(pulse) = pulse.filter(|_| max > 0) else {
        return;
    };
    if pulse.begin_counting() && !shared.contexts.enter(&shared.sessions, max, key, tag) {
        telemetry::context_not_shown();
    }
    ctx.context = Some(pulse);
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use super::*;
    use crate::session::{Caps, NameHash, NewSession, PrincipalHash, Revision};

    const POOL: NameHash = NameHash::from_u64(1);
    const ENDPOINT: NameHash = NameHash::from_u64(2);

    fn table(now: Instant) -> Table<()> {
        let caps = Caps {
            total: 1_000_000,
            per_pool: 1_000_000,
            per_principal: 1_000_000,
        };
        Table::new(caps, now)
    }

    fn key(n: usize) -> Key {
        Key::of(POOL, ENDPOINT, &n.to_string())
    }

    fn tag(n: usize) -> SessionTag {
        SessionTag::of(&n.to_string())
    }

    fn open(table: &Table<()>, n: usize, now: Instant) {
        let new = NewSession {
            pool: POOL,
            endpoint: ENDPOINT,
            server_id: n.to_string().into(),
            principal: PrincipalHash::ANONYMOUS,
            revision: Revision::UNKNOWN,
            guard: (),
        };
        table.open(key(n), new, now).unwrap();
    }

    /// Resident memory of this process in KiB; other tests run in it too.
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages.unwrap_or(0) * 4
    }

    #[test]
    fn a_million_sessions_have_as_many_series_as_may_be() {
        const SEEN: usize = 1_000_000;
        const LIVE: usize = 20_000;
        const SHOWN: usize = 1000;
        let now = Instant::now();
        let (table, contexts) = (table(now), Contexts::default());
        let (before, mut peak) = (resident(), 0);
        let (mut refused, mut most) = (0, 0);
        let mut live = VecDeque::with_capacity(LIVE + 1);
        for n in 0..SEEN {
            let key = key(n);
            open(&table, n, now);
            let pulse = table.pulse(key).unwrap();
            pulse.add_bytes(7);
            if pulse.begin_counting() && !contexts.enter(&table, SHOWN, key, tag(n)) {
                refused += 1;
            }
            live.push_back(key);
            if live.len() > LIVE {
                live.pop_front().map(|key| table.close(key));
            }
            if n % 7000 == 0 {
                most = most.max(contexts.list(&table).len());
                peak = peak.max(resident());
            }
        }
        println!(
            "{SEEN} sessions, {LIVE} at once: {most} series at most, {refused} without, resident \
             {before} KiB before and {peak} KiB at most"
        );
        assert!(most > SHOWN / 2 && most <= SHOWN, "{most}");
        assert!(refused >= SEEN - SHOWN * (SEEN / LIVE + 1), "{refused}");
        assert_eq!(table.len(), LIVE);
    }

    #[test]
    fn a_series_goes_with_its_session_and_says_what_has_passed() {
        let now = Instant::now();
        let (table, contexts) = (table(now), Contexts::default());
        open(&table, 1, now);
        open(&table, 2, now);
        assert!(contexts.enter(&table, 2, key(1), tag(1)));
        assert!(
            !contexts.enter(&table, 1, key(2), tag(2)),
            "there is no room"
        );
        table.pulse(key(1)).unwrap().add_bytes(300);
        // It goes on at another endpoint, and what has passed has passed.
        let moved = table.rebind(key(1), NameHash::from_u64(3), "x".into(), (), now);
        assert_eq!(moved, Some(()));
        table.pulse(key(1)).unwrap().add_bytes(5);
        assert_eq!(contexts.list(&table), BTreeMap::from([(tag(1), 305)]));
        drop(table.close(key(1)));
        assert_eq!(contexts.list(&table), BTreeMap::new());
        assert!(contexts.enter(&table, 1, key(2), tag(2)), "there is now");
        assert_eq!(contexts.list(&table), BTreeMap::from([(tag(2), 0)]));
    }
}

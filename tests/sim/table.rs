//! The session table against a plain map: caps, counts, streams, expiry, loss.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidegate::pool::{Endpoint, SessionGuard};
use tidegate::session::{
    Cap, Caps, Key, NameHash, NewSession, PrincipalHash, Refused, Revision, StreamGuard, Table,
    Touched,
};

use crate::{endpoint, for_each_seed, one_of};

#[test]
fn table_keeps_its_caps_its_counts_and_its_streams() {
    for_each_seed("table_keeps_its_caps_its_counts_and_its_streams", |rng| {
        let mut world = World::new(rng);
        for _ in 0..rng.usize(50..400) {
            world.now += Duration::from_millis(rng.u64(..5_000));
            world.step(rng);
            world.compare();
        }
        world.lose_the_table();
        assert!(
            world.endpoints.iter().all(|e| e.busy() == 0),
            "a guard has leaked"
        );
    });
}

/// The table, and what a plain map would say.
struct World {
    table: Arc<Table<SessionGuard>>,
    caps: Caps,
    idle_ttl: Duration,
    now: Instant,
    /// The latest time that the table was shown: what a dropped stream takes for its end.
    shown: Instant,
    /// Shared by all pools: two pools may name the same server, as far as the table knows.
    endpoints: Vec<Arc<Endpoint>>,
    model: BTreeMap<Key, Modelled>,
    streams: Vec<(Key, u32, StreamGuard<SessionGuard>)>,
    next_serial: u32,
}

struct Modelled {
    who: Who,
    serial: u32,
    streams: u32,
    last_used: Instant,
}

/// A session, as its client knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Who {
    pool: u64,
    endpoint: usize,
    principal: u64,
    id: u32,
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let caps = Caps {
            total: rng.usize(1..60),
            per_pool: rng.usize(1..40),
            per_principal: rng.usize(1..12),
        };
        let now = start();
        Self {
            table: Arc::new(Table::new(caps, now)),
            caps,
            idle_ttl: Duration::from_secs(rng.u64(1..300)),
            now,
            shown: now,
            endpoints: ["w1", "w2", "w3"].map(|name| endpoint(name, 1)).into(),
            model: BTreeMap::new(),
            streams: Vec::new(),
            next_serial: 0,
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let who = Who {
            pool: rng.u64(..3),
            endpoint: rng.usize(..3),
            principal: rng.u64(..6),
            id: rng.u32(..8),
        };
        match rng.u8(..100) {
            0..25 => self.initialize(who),
            25..50 => self.request(who),
            50..65 => self.open_stream(who),
            65..80 => self.close_stream(rng),
            80..88 => self.delete(who),
            88..97 => self.reap(rng),
            97..99 => self.lose_an_endpoint(who),
            _ => self.lose_the_table(),
        }
    }

    fn initialize(&mut self, who: Who) {
        self.model.remove(&key(who));
        let expected = self.room(who);
        let room = self.table.room(pool(who), principal(who));
        if self.table.list(1, |live| live.key == key(who)).is_empty() {
            assert_eq!(room, expected);
        }
        assert_eq!(
            self.table.open(key(who), self.session(who), self.now),
            expected
        );
        if expected.is_ok() {
            self.enter(who);
        }
    }

    fn request(&mut self, who: Who) {
        let known = self.model.get_mut(&key(who));
        let expected = match known {
            Some(session) => {
                session.last_used = self.now;
                Touched::Known
            }
            None => self
                .room(who)
                .map_or_else(Touched::Untracked, |()| Touched::Adopted),
        };
        let touched = self.table.touch(key(who), self.now, || self.session(who));
        assert_eq!(touched, expected);
        if expected == Touched::Adopted {
            self.enter(who);
        }
    }

    fn open_stream(&mut self, who: Who) {
        self.shown = self.now;
        let guard = self.table.stream(key(who), self.now);
        assert_eq!(guard.is_some(), self.model.contains_key(&key(who)));
        if let (Some(guard), Some(session)) = (guard, self.model.get_mut(&key(who))) {
            session.streams += 1;
            session.last_used = self.now;
            self.streams.push((key(who), session.serial, guard));
        }
    }

    fn close_stream(&mut self, rng: &mut Rng) {
        if self.streams.is_empty() {
            return;
        }
        let (key, serial, guard) = self.streams.swap_remove(rng.usize(..self.streams.len()));
        let ended = if rng.bool() { self.now } else { self.shown };
        match ended == self.now {
            true => guard.end(self.now),
            false => drop(guard),
        }
        if let Some(session) = self
            .model
            .get_mut(&key)
            .filter(|live| live.serial == serial)
        {
            session.streams -= 1;
            session.last_used = session.last_used.max(ended);
        }
    }

    fn delete(&mut self, who: Who) {
        let live = self.table.close(key(who));
        assert_eq!(live.is_some(), self.model.remove(&key(who)).is_some());
        assert!(live.is_none_or(|live| *live.server_id == *who.id.to_string()));
    }

    fn reap(&mut self, rng: &mut Rng) {
        self.shown = self.now;
        let max = one_of(rng, &[0, 1, 5, 1000]);
        let idle = |session: &Modelled, now: Instant, ttl: Duration| {
            session.streams == 0 && now.duration_since(session.last_used) >= ttl
        };
        let idle_count = self
            .model
            .values()
            .filter(|s| idle(s, self.now, self.idle_ttl))
            .count();
        let reaped = self.table.reap(self.now, self.idle_ttl, max);
        assert_eq!(
            reaped.len(),
            idle_count.min(max),
            "all that are idle, up to the maximum"
        );
        for live in reaped {
            let session = self
                .model
                .remove(&live.key)
                .expect("only a live session is reaped");
            assert!(
                idle(&session, self.now, self.idle_ttl),
                "{:?} was not idle",
                session.who
            );
        }
    }

    fn lose_an_endpoint(&mut self, who: Who) {
        let before = self.model.len();
        self.model
            .retain(|_, s| (s.who.pool, s.who.endpoint) != (who.pool, who.endpoint));
        let closed = self.table.close_endpoint(pool(who), name(who), |_| false);
        assert_eq!(closed.len(), before - self.model.len());
    }

    /// A restart: nothing is left, and every session is adopted again with its next request.
    fn lose_the_table(&mut self) {
        self.streams.clear();
        self.model.clear();
        self.table = Arc::new(Table::new(self.caps, self.now));
        self.shown = self.now;
    }

    fn compare(&self) {
        self.table.check_invariants();
        let count = |of: &dyn Fn(&Who) -> bool| self.model.values().filter(|s| of(&s.who)).count();
        assert_eq!(self.table.len(), self.model.len());
        assert!(self.table.len() <= self.caps.total);
        for n in 0..6 {
            let pool = self.table.pool_len(NameHash::from_u64(n));
            assert!(pool == count(&|who| who.pool == n) && pool <= self.caps.per_pool);
            let held = self.table.principal_len(PrincipalHash(n));
            assert!(n == 0 || held == count(&|who| who.principal == n));
            assert!(held <= self.caps.per_principal);
        }
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let truth = count(&|who| who.endpoint == at);
            assert_eq!(
                endpoint.sessions() as usize,
                truth,
                "guards are held by live sessions only"
            );
        }
        for live in self.table.list(usize::MAX, |_| true) {
            let session = &self.model[&live.key];
            assert_eq!(live.open_streams, session.streams);
            assert_eq!(live.last_used(), session.last_used);
        }
    }

    fn room(&self, who: Who) -> Result<(), Refused> {
        let count = |of: &dyn Fn(&Who) -> bool| self.model.values().filter(|s| of(&s.who)).count();
        let refused = |cap| Err(Refused { cap });
        if who.principal != 0 && count(&|w| w.principal == who.principal) >= self.caps.per_principal
        {
            return refused(Cap::Principal);
        }
        if self.model.len() >= self.caps.total {
            return refused(Cap::Total);
        }
        if count(&|w| w.pool == who.pool) >= self.caps.per_pool {
            return refused(Cap::Pool);
        }
        Ok(())
    }

    fn enter(&mut self, who: Who) {
        self.next_serial += 1;
        let (serial, last_used) = (self.next_serial, self.now);
        self.model.insert(
            key(who),
            Modelled {
                who,
                serial,
                streams: 0,
                last_used,
            },
        );
    }

    fn session(&self, who: Who) -> NewSession<SessionGuard> {
        NewSession {
            pool: pool(who),
            endpoint: name(who),
            server_id: who.id.to_string().into(),
            principal: principal(who),
            revision: Revision::of("2025-11-25"),
            guard: self.endpoints[who.endpoint].session(),
        }
    }
}

fn pool(who: Who) -> NameHash {
    NameHash::from_u64(who.pool)
}

fn name(who: Who) -> NameHash {
    NameHash::from_u64(who.endpoint as u64)
}

fn principal(who: Who) -> PrincipalHash {
    PrincipalHash(who.principal)
}

fn key(who: Who) -> Key {
    Key::of(pool(who), name(who), &who.id.to_string())
}

#[allow(
    clippy::disallowed_methods,
    reason = "simulated time needs some instant to count from"
)]
fn start() -> Instant {
    Instant::now()
}

//! What is known of one session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Key, Table};
use crate::session::hash::{NameHash, PrincipalHash};

/// The protocol revision that a session negotiated, as text. Revisions are dates of 10 bytes; at
/// most [`Revision::MAX`] bytes are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    len: u8,
    bytes: [u8; Self::MAX],
}

impl Revision {
    /// Most bytes of a revision.
    pub const MAX: usize = 16;
    /// Not known: the session was adopted, or the server did not say.
    pub const UNKNOWN: Self = Self {
        len: 0,
        bytes: [0; Self::MAX],
    };

    /// Keeps `text`, or [`Self::UNKNOWN`] if it is longer than [`Self::MAX`] or not visible ASCII.
    pub fn of(text: &str) -> Self {
        if text.len() > Self::MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Self::UNKNOWN;
        }
        let mut bytes = [0; Self::MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self {
            len: text.len() as u8,
            bytes,
        }
    }

    /// The text, empty if unknown.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({})", self.as_str())
    }
}

impl<T: Send> Table<T> {
    /// Notes which revision a session speaks. Clients say so from the message behind `initialize` on.
    pub fn speaks(&self, key: Key, revision: Revision) {
        if let Some(live) = self.shard(key).get_mut(&key) {
            live.revision = revision;
        }
    }
}

/// The sign of life of one session, which its requests move without the table's locks.
#[derive(Debug)]
pub struct Pulse {
    /// When the table was made; times are counted from there.
    base: Instant,
    /// Nanoseconds from `base` to the latest request, or to the end of the latest stream.
    last: AtomicU64,
    /// The session has left the table.
    over: AtomicBool,
    /// Bytes of bodies that have passed in the session, where somebody counts them.
    bytes: AtomicU64,
    /// Somebody has begun to count them.
    counted: AtomicBool,
}

impl Pulse {
    pub(super) fn new(base: Instant, now: Instant) -> Arc<Self> {
        let pulse = Self {
            base,
            last: AtomicU64::new(0),
            over: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            counted: AtomicBool::new(false),
        };
        pulse.note(now);
        Arc::new(pulse)
    }

    /// Another one for the same session, which goes on with what was counted.
    pub(super) fn again(&self, now: Instant) -> Arc<Self> {
        let next = Self::new(self.base, now);
        next.bytes.store(self.bytes(), Relaxed);
        let counted = self.counted.load(Relaxed);
        next.counted.store(counted, Relaxed);
        next
    }

    /// Counts bytes of bodies that have passed.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes of bodies that were counted.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Is nobody counting bytes yet? Whoever is told so does from now on.
    pub fn begin_counting(&self) -> bool {
        !self.counted.load(Relaxed) && !self.counted.swap(true, Relaxed)
    }

    /// Notes a request of the session. False if the session has left the table: it then has to be
    /// entered again.
    pub fn beat(&self, now: Instant) -> bool {
        self.note(now);
        !self.over.load(Relaxed)
    }

    /// Has the session left the table?
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    pub(super) fn note(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.base).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        // Two requests at once may leave the earlier time, by as much as they are apart.
        if nanos > self.last.load(Relaxed) {
            self.last.store(nanos, Relaxed);
        }
    }

    pub(super) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    fn last(&self) -> Instant {
        self.base + Duration::from_nanos(self.last.load(Relaxed))
    }
}

/// A session that is to enter the table.
#[derive(Debug)]
pub struct NewSession<T> {
    /// The pool it belongs to.
    pub pool: NameHash,
    /// The endpoint that owns it.
    pub endpoint: NameHash,
    /// The server's own id, as bounded by [`crate::session::IdKind::server_id_max`].
    pub server_id: Arc<str>,
    /// Who began it.
    pub principal: PrincipalHash,
    /// The revision it speaks.
    pub revision: Revision,
    /// What the caller wants released when the session leaves the table.
    pub guard: T,
}

/// A session in the table, or just taken out of it.
#[derive(Debug)]
pub struct Live<T> {
    /// Its key in the table.
    pub key: Key,
    /// The pool it belongs to.
    pub pool: NameHash,
    /// The endpoint that owns it.
    pub endpoint: NameHash,
    /// The server's own id, for the DELETE that ends it upstream.
    pub server_id: Arc<str>,
    /// Who began it.
    pub principal: PrincipalHash,
    /// The revision it speaks.
    pub revision: Revision,
    /// When it entered this table; for an adopted session later than its `initialize`.
    pub created: Instant,
    /// Its sign of life, shared with whoever serves its requests.
    pub pulse: Arc<Pulse>,
    /// Streams that are open now. Raised by `Table::stream`, lowered by `StreamGuard`.
    pub open_streams: u32,
    /// What the caller stored with it.
    pub guard: T,
    /// Tells this session from an earlier one of the same key.
    pub(super) serial: u64,
}

impl<T> Live<T> {
    pub(super) fn new(
        key: Key,
        serial: u64,
        new: NewSession<T>,
        pulse: Arc<Pulse>,
        now: Instant,
    ) -> Self {
        Self {
            key,
            pool: new.pool,
            endpoint: new.endpoint,
            server_id: new.server_id,
            principal: new.principal,
            revision: new.revision,
            created: now,
            pulse,
            open_streams: 0,
            guard: new.guard,
            serial,
        }
    }

    /// Its latest request, or the end of its latest stream.
    pub fn last_used(&self) -> Instant {
        self.pulse.last()
    }

    /// Has it been without request and stream for `idle_ttl`?
    pub fn is_idle(&self, now: Instant, idle_ttl: Duration) -> bool {
        self.open_streams == 0 && now.saturating_duration_since(self.last_used()) >= idle_ttl
    }

    pub(super) fn without_guard(&self) -> Live<()> {
        Live {
            key: self.key,
            pool: self.pool,
            endpoint: self.endpoint,
            server_id: self.server_id.clone(),
            principal: self.principal,
            revision: self.revision,
            created: self.created,
            pulse: Arc::clone(&self.pulse),
            open_streams: self.open_streams,
            guard: (),
            serial: self.serial,
        }
    }
}

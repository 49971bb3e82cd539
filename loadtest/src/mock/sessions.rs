//! The open sessions of the mock.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::caller::locked;

/// Sessions at a time; past it `initialize` is answered 503. Sessions end with DELETE only.
const SESSIONS_MAX: u64 = 200_000;
const SHARDS: usize = 16;

/// As it stands in `Mcp-Session-Id`: 32 hexadecimal digits.
pub(super) type SessionId = u128;

pub(super) struct Sessions {
    shards: [Mutex<HashMap<SessionId, Entry>>; SHARDS],
    random: RandomState,
    opened: AtomicU64,
    count: AtomicU64,
    streams: AtomicU64,
}

#[derive(Default)]
struct Entry {
    /// Calls of `counter` so far.
    calls: u64,
    /// Wakes the open stream, if there is one, to end it.
    stream: Option<Arc<Notify>>,
}

/// Why a stream was not opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoStream {
    UnknownSession,
    /// There is one already: a session has one stream.
    Taken,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            shards: Default::default(),
            random: RandomState::new(),
            opened: AtomicU64::new(0),
            count: AtomicU64::new(0),
            streams: AtomicU64::new(0),
        }
    }

    /// Opens a session; `None` when there are too many.
    pub(super) fn open(&self) -> Option<SessionId> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= SESSIONS_MAX {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        // The counter makes it unique, the hash unlike those of another mock.
        let id = u128::from(self.random.hash_one(number)) << 64 | u128::from(number);
        locked(self.shard(id)).insert(id, Entry::default());
        Some(id)
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        locked(self.shard(id)).contains_key(&id)
    }

    /// Counts a call of `counter`, from 1; `None` for an unknown session.
    pub(super) fn count_call(&self, id: SessionId) -> Option<u64> {
        let mut shard = locked(self.shard(id));
        let entry = shard.get_mut(&id)?;
        entry.calls += 1;
        Some(entry.calls)
    }

    /// Ends a session and its stream; false if it is unknown.
    pub(super) fn close(&self, id: SessionId) -> bool {
        let Some(entry) = locked(self.shard(id)).remove(&id) else {
            return false;
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(stream) = entry.stream {
            stream.notify_one();
        }
        true
    }

    /// Opens a session's stream. What is returned is notified when the session ends.
    pub(super) fn open_stream(&self, id: SessionId) -> Result<Arc<Notify>, NoStream> {
        let mut shard = locked(self.shard(id));
        let entry = shard.get_mut(&id).ok_or(NoStream::UnknownSession)?;
        if entry.stream.is_some() {
            return Err(NoStream::Taken);
        }
        self.streams.fetch_add(1, Ordering::Relaxed);
        Ok(entry.stream.insert(Arc::new(Notify::new())).clone())
    }

    /// To be called once for every stream opened.
    pub(super) fn close_stream(&self, id: SessionId) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
        if let Some(entry) = locked(self.shard(id)).get_mut(&id) {
            entry.stream = None;
        }
    }

    /// Open sessions, open streams.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.count.load(Ordering::Relaxed),
            self.streams.load(Ordering::Relaxed),
        )
    }

    fn shard(&self, id: SessionId) -> &Mutex<HashMap<SessionId, Entry>> {
        // The low bits are a counter.
        &self.shards[id as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_and_ends() {
        let sessions = Sessions::new();
        let (one, two) = (sessions.open().unwrap(), sessions.open().unwrap());
        assert_ne!(one, two);
        assert_eq!(
            (sessions.count_call(one), sessions.count_call(one)),
            (Some(1), Some(2))
        );
        assert_eq!(sessions.count_call(two), Some(1));
        assert!(sessions.close(one) && !sessions.close(one) && !sessions.contains(one));
        assert_eq!(
            (sessions.count_call(one), sessions.counts()),
            (None, (1, 0))
        );
    }

    #[test]
    fn a_session_has_one_stream_at_a_time() {
        let sessions = Sessions::new();
        let id = sessions.open().unwrap();
        assert!(sessions.open_stream(id).is_ok());
        assert_eq!(sessions.open_stream(id).unwrap_err(), NoStream::Taken);
        sessions.close_stream(id);
        assert!(sessions.open_stream(id).is_ok());
        assert_eq!(
            sessions.open_stream(0).unwrap_err(),
            NoStream::UnknownSession
        );
    }
}

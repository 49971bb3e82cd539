//! The open streams of a session, which keep it from being idle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Key, Table, lock};

impl<T: Send> Table<T> {
    /// Counts a stream of the session as open until the guard is dropped. `None` if the session is
    /// not in the table: nothing expires it then.
    pub fn stream(self: &Arc<Self>, key: Key, now: Instant) -> Option<StreamGuard<T>> {
        self.show(now);
        let mut shard = self.shard(key);
        let live = shard.get_mut(&key)?;
        live.pulse.note(now);
        live.open_streams += 1;
        Some(StreamGuard {
            table: Some(Arc::clone(self)),
            key,
            serial: live.serial,
        })
    }
}

impl<T> Table<T> {
    /// `ended` is `None` if whoever held the stream did not say when.
    fn stream_closed(&self, key: Key, serial: u64, ended: Option<Instant>) {
        let shown = || self.base + Duration::from_nanos(self.shown.load(Relaxed));
        let ended = ended.unwrap_or_else(shown);
        let mut shard = lock(&self.shards[key.shard()]);
        let Some(live) = shard.get_mut(&key).filter(|live| live.serial == serial) else {
            return; // The session ended before its stream.
        };
        debug_assert!(live.open_streams > 0, "each guard was counted once");
        live.open_streams = live.open_streams.saturating_sub(1);
        live.pulse.note(ended);
    }
}

/// One open stream of a session, which keeps the session from being idle. Made by
/// [`Table::stream`].
pub struct StreamGuard<T> {
    /// None once its end is counted.
    table: Option<Arc<Table<T>>>,
    key: Key,
    serial: u64,
}

impl<T> StreamGuard<T> {
    /// Ends the stream at a known time. A guard that is dropped instead takes the latest time that
    /// [`Table::reap`] or [`Table::stream`] was shown, which is off by as much as their interval.
    pub fn end(mut self, now: Instant) {
        self.close(Some(now));
    }
}

impl<T> StreamGuard<T> {
    fn close(&mut self, ended: Option<Instant>) {
        if let Some(table) = self.table.take() {
            table.stream_closed(self.key, self.serial, ended);
        }
    }
}

impl<T> Drop for StreamGuard<T> {
    fn drop(&mut self) {
        self.close(None);
    }
}

impl<T> fmt::Debug for StreamGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamGuard({:?})", self.key)
    }
}

//! The sessions of one copy: who has one, what it counts, which streams it holds, when it ends.
//!
//! A session costs memory for as long as its client might come back, and clients seldom say
//! good-bye. So there is a cap: beyond it the session that has been idle longest makes room. A
//! session with an open stream is in use, however long the stream is silent, and is never taken
//! away.
//!
//! Pure: time comes in as `now`. The only effect is that the streams of a session that ends notice,
//! through the channel in their [`Lease`].

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::feed::Level;
use crate::mcp::RawId;

/// The most sessions that are kept. One more takes the place of the one that was idle longest.
pub const SESSIONS_MAX: usize = 10_000;
/// How long a session without an open stream may be idle before it ends.
pub const SESSION_IDLE_TTL: Duration = Duration::from_secs(60 * 60);
/// The most event streams that one session may have open; one more is refused.
pub const STREAMS_PER_SESSION_MAX: usize = 64;

/// Names a session: a version 4 UUID (RFC 9562 section 5.4) as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SessionId(Arc<str>);

impl SessionId {
    /// The id as it stands in the header.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A stream's place in its session. Given back with [`Sessions::close_stream`].
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) session: SessionId,
    /// Tells the streams of this copy apart.
    pub(super) number: u64,
    /// Resolves with a value when the client cancels the request that the stream answers, and with
    /// an error when the session ends.
    pub(super) stop: oneshot::Receiver<()>,
}

/// What a stream is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Purpose {
    /// The session's own stream, opened with GET. One at a time.
    Standalone,
    /// The answer to this request.
    Answer(RawId),
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamRefused {
    #[error("the session is unknown or has ended")]
    UnknownSession,
    #[error("the session has its stream already")]
    AlreadyOpen,
    #[error("the session has too many streams open")]
    TooMany,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// How often `counter` was called.
    pub(super) calls: u64,
    /// The least level of log messages that the client wants.
    pub(super) level: Level,
    used_at: Instant,
    /// The key in [`Sessions::idle`] while there are no streams.
    place: u64,
    /// At most [`STREAMS_PER_SESSION_MAX`].
    streams: Vec<OpenStream>,
}

#[derive(Debug)]
struct OpenStream {
    number: u64,
    purpose: Purpose,
    /// Taken when the request is cancelled; dropped when the session ends.
    stop: Option<oneshot::Sender<()>>,
}

/// The sessions of one copy, at most as many as it was made for.
#[derive(Debug)]
pub(super) struct Sessions {
    by_id: HashMap<SessionId, Session>,
    /// Those without an open stream, the one idle longest first.
    idle: BTreeMap<u64, SessionId>,
    /// The next place in `idle`, and the next number of a stream.
    next: u64,
    cap: usize,
    /// Two keyed hashes make the two halves of an id. The standard library keys them from the
    /// operating system's randomness, and knowing ids does not tell the keys; a small generator
    /// would give away its state, and with it everybody's ids, in its output.
    mint: [RandomState; 2],
    minted: u64,
}

impl Sessions {
    /// Room for `cap` sessions.
    pub(super) fn new(cap: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            idle: BTreeMap::new(),
            next: 0,
            cap,
            mint: [RandomState::new(), RandomState::new()],
            minted: 0,
        }
    }

    /// How many there are, including those that ended by idleness since the last call.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Begins a session. `None` if there is no room and every session has a stream open.
    pub(super) fn begin(&mut self, now: Instant) -> Option<SessionId> {
        self.expire(now);
        if self.by_id.len() >= self.cap {
            let (_, oldest) = self.idle.pop_first()?;
            self.by_id.remove(&oldest);
        }
        let id = self.mint();
        let place = self.next();
        let session = Session {
            calls: 0,
            level: Level::Debug,
            used_at: now,
            place,
            streams: Vec::new(),
        };
        self.by_id.insert(id.clone(), session);
        self.idle.insert(place, id.clone());
        self.check_invariants();
        Some(id)
    }

    /// The session that the client names, if there is one; from now on it is the one last used.
    pub(super) fn touch(&mut self, id: &str, now: Instant) -> Option<(SessionId, &mut Session)> {
        self.expire(now);
        let place = self.next();
        let session = self.by_id.get_mut(id)?;
        session.used_at = now;
        let id = match self.idle.remove(&session.place) {
            Some(id) => {
                self.idle.insert(place, id.clone());
                session.place = place;
                id
            }
            None => SessionId(id.into()),
        };
        Some((id, session))
    }

    /// Ends a session and its streams. False if there is none.
    pub(super) fn end(&mut self, id: &str, now: Instant) -> bool {
        self.expire(now);
        let Some(session) = self.by_id.remove(id) else {
            return false;
        };
        self.idle.remove(&session.place);
        self.check_invariants();
        true
    }

    /// Opens a stream in a session.
    pub(super) fn open_stream(
        &mut self,
        id: &str,
        purpose: Purpose,
        now: Instant,
    ) -> Result<Lease, StreamRefused> {
        let number = self.next();
        let Some((id, session)) = self.touch(id, now) else {
            return Err(StreamRefused::UnknownSession);
        };
        let taken = |stream: &OpenStream| stream.purpose == Purpose::Standalone;
        if purpose == Purpose::Standalone && session.streams.iter().any(taken) {
            return Err(StreamRefused::AlreadyOpen);
        }
        if session.streams.len() >= STREAMS_PER_SESSION_MAX {
            return Err(StreamRefused::TooMany);
        }
        let (sender, stop) = oneshot::channel();
        session.streams.push(OpenStream {
            number,
            purpose,
            stop: Some(sender),
        });
        let place = session.place;
        self.idle.remove(&place);
        self.check_invariants();
        Ok(Lease {
            session: id,
            number,
            stop,
        })
    }

    /// A stream is over. To be called once for every lease, also after its session has ended.
    pub(super) fn close_stream(&mut self, id: &SessionId, number: u64, now: Instant) {
        let place = self.next();
        let Some(session) = self.by_id.get_mut(id) else {
            return;
        };
        session.streams.retain(|stream| stream.number != number);
        session.used_at = now;
        if session.streams.is_empty() {
            session.place = place;
            self.idle.insert(place, id.clone());
        }
        self.check_invariants();
    }

    /// The client does not want the answer to a request any more. Stops the stream that gives it,
    /// if it is still open.
    pub(super) fn cancel(&mut self, id: &str, request: &RawId) {
        let Some(session) = self.by_id.get_mut(id) else {
            return;
        };
        let purpose = Purpose::Answer(request.clone());
        let mut streams = session.streams.iter_mut();
        let stream = streams.find(|stream| stream.purpose == purpose);
        if let Some(stop) = stream.and_then(|stream| stream.stop.take()) {
            // It may have come to its end by itself just now.
            let _ = stop.send(());
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.idle.first_entry() {
            let used_at = self.by_id.get(oldest.get()).map(|session| session.used_at);
            let is_over = used_at
                .is_none_or(|used_at| now.saturating_duration_since(used_at) >= SESSION_IDLE_TTL);
            if !is_over {
                return;
            }
            self.by_id.remove(&oldest.remove());
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn mint(&mut self) -> SessionId {
        self.minted += 1;
        let [high, low] = self.mint.each_ref().map(|key| key.hash_one(self.minted));
        let high = (high & !0xf000) | 0x4000;
        let low = (low & !(0b11 << 62)) | (0b10 << 62);
        let text = format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff,
        );
        SessionId(text.into())
    }

    /// Exactly the sessions without a stream are idle, and the bounds hold. Looks at numbers only,
    /// because it runs after every change.
    fn check_invariants(&self) {
        debug_assert!(self.by_id.len() <= self.cap);
        debug_assert!(self.idle.len() <= self.by_id.len());
        debug_assert!(self.idle.first_key_value().is_none_or(|(place, id)| {
            let session = self.by_id.get(id);
            session.is_some_and(|session| session.place == *place && session.streams.is_empty())
        }));
    }
}

#[cfg(test)]
mod tests;

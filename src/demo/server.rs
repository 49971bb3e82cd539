//! The shell: reads an exchange, has it answered, writes the answer, and holds streams open.
//!
//! Time, locks and waiting are here and nowhere else in the demo.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::feed::{Ending, Feed, Step};
use super::reply::{Body, Opened, Reply, Whole};
use super::request::understand;
use super::session::Lease;
use super::state::State;
use crate::mcp::{answer, headers::MCP_SESSION_ID, sse};
use crate::transport::fields::Names;
use crate::transport::{Downstream, Edits, Error, Headers, Length, RequestHead};

/// The longest request body, in bytes; a longer one is answered with 413.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a stream may be silent before a comment shows that it is alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One copy of the demo server. Shared by all its connections.
///
/// Its sessions are bounded by [`super::SESSIONS_MAX`] and their streams by
/// [`super::STREAMS_PER_SESSION_MAX`]; streams of the stateless era last no longer than their
/// connections, and are bounded by whoever bounds those.
#[derive(Debug)]
pub struct DemoServer {
    /// Held for the time of one answer, never while waiting.
    state: Mutex<State>,
    keep_alive: Duration,
    /// True once every stream shall end.
    closing: watch::Sender<bool>,
}

impl DemoServer {
    /// A copy with a name, which its tool `whoami` tells.
    pub fn new(name: &str) -> Self {
        Self {
            state: Mutex::new(State::new(name)),
            keep_alive: KEEP_ALIVE,
            closing: watch::Sender::new(false),
        }
    }

    /// Serves one exchange. Returns when its answer is complete or the client is gone; a stream
    /// may take that long. May be dropped at any time.
    pub async fn serve<D: Downstream>(&self, down: &mut D) {
        // The one thing to do about a client that cannot be reached is to stop, and an exchange
        // that is dropped unfinished shows the client that it is incomplete.
        let _ = self.exchange(down).await;
    }

    /// How many sessions there are. Sessions that have ended by idleness are counted until the
    /// next call notices.
    pub fn session_count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Ends every open stream properly, and from now on every new one at once: a subscription with
    /// its result, a running call with an error, a session's own stream without a word.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    async fn exchange<D: Downstream>(&self, down: &mut D) -> Result<(), Error> {
        let wants_body = down.head().method() != "HEAD";
        let Some(body) = read_body(down).await? else {
            down.close_after();
            let text = "the body is too large";
            let whole = Whole::error(413, None, answer::INVALID_REQUEST, text);
            return write(down, whole, wants_body).await;
        };
        match self.reply(down.head(), &body) {
            Reply::Whole(whole) => write(down, whole, wants_body).await,
            Reply::Stream(opened) => self.stream(down, opened).await,
        }
    }

    fn reply(&self, head: &dyn RequestHead, body: &[u8]) -> Reply {
        match understand(head, body) {
            Ok(call) => self.lock().answer(call, Instant::now().into_std()),
            Err(whole) => whole.into(),
        }
    }

    /// Sends what a stream has to say until it is over, one way or another.
    async fn stream<D: Downstream>(&self, down: &mut D, opened: Opened) -> Result<(), Error> {
        let Opened { lease, mut feed } = opened;
        let mut held = Held {
            server: self,
            lease,
        };
        let session = held.lease.as_ref().map(|lease| lease.session.clone());
        let mut fields = STREAM_FIELDS.to_vec();
        if let Some(session) = &session {
            fields.push((MCP_SESSION_ID, session.as_str().as_bytes()));
        }
        let edits = Edits {
            set: &fields,
            drop: Names::NONE,
            ..Edits::default()
        };
        down.send_head(200, None, edits, Length::Unknown).await?;
        down.flush().await?;
        match self.feed(down, &mut feed, &mut held).await? {
            Woken::Due => {}
            Woken::Gone => return Ok(()),
            Woken::Ended(ending) => {
                if let Some(event) = feed.last_words(ending) {
                    down.send_body(&event).await?;
                }
            }
        }
        // The place is free before the client can see the end and ask for it again.
        drop(held);
        down.finish().await
    }

    async fn feed<D: Downstream>(
        &self,
        down: &mut D,
        feed: &mut Feed,
        held: &mut Held<'_>,
    ) -> Result<Woken, Error> {
        let mut wait = Wait {
            closing: self.closing.subscribe(),
            keep_alive: self.keep_alive,
            spoke: Instant::now(),
        };
        loop {
            let due = match feed.step() {
                Step::Event(event) => {
                    down.send_body(&event).await?;
                    wait.spoke = Instant::now();
                    continue;
                }
                Step::Wait(time) => Some(Instant::now() + time),
                Step::Rest => None,
                Step::Done => return Ok(Woken::Due),
            };
            let stop = held.lease.as_mut().map(|lease| &mut lease.stop);
            match wait.until(down, due, stop).await? {
                Woken::Due => {}
                woken @ (Woken::Gone | Woken::Ended(_)) => return Ok(woken),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole sessions behind, because each change is one call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// The time has come.
    Due,
    /// The client has gone away.
    Gone,
    /// The stream is ended from outside.
    Ended(Ending),
}

/// What the waits of one stream have in common.
struct Wait {
    closing: watch::Receiver<bool>,
    keep_alive: Duration,
    /// When anything was last sent.
    spoke: Instant,
}

impl Wait {
    /// Waits until `due`, or for ever, and keeps the stream alive meanwhile.
    async fn until<D: Downstream>(
        &mut self,
        down: &mut D,
        due: Option<Instant>,
        mut stop: Option<&mut oneshot::Receiver<()>>,
    ) -> Result<Woken, Error> {
        loop {
            let quiet = self.spoke + self.keep_alive;
            let wake = due.map_or(quiet, |due| due.min(quiet));
            // In this order, so that a stream of many events without pauses can be stopped too.
            tokio::select! {
                biased;
                () = down.gone() => return Ok(Woken::Gone),
                ending = stopped(&mut stop) => return Ok(Woken::Ended(ending)),
                // The sender is part of the server, so an error cannot come before the value.
                _ = self.closing.wait_for(|closing| *closing) => {
                    return Ok(Woken::Ended(Ending::Closing));
                }
                () = sleep_until(wake) => {}
            }
            if due.is_some_and(|due| due <= wake) {
                return Ok(Woken::Due);
            }
            down.send_body(sse::KEEP_ALIVE).await?;
            self.spoke = Instant::now();
        }
    }
}

async fn stopped(stop: &mut Option<&mut oneshot::Receiver<()>>) -> Ending {
    match stop {
        Some(stop) => match (&mut **stop).await {
            Ok(()) => Ending::Cancelled,
            Err(_) => Ending::SessionOver,
        },
        None => std::future::pending().await,
    }
}

/// A stream's place in its session, given back when the stream is over, however it ends.
struct Held<'a> {
    server: &'a DemoServer,
    lease: Option<Lease>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(lease) = &self.lease {
            let now = Instant::now().into_std();
            self.server.lock().close_stream(lease, now);
        }
    }
}

/// The whole body, or `None` if it is longer than [`BODY_BYTES_MAX`].
async fn read_body<D: Downstream>(down: &mut D) -> Result<Option<Vec<u8>>, Error> {
    let announced = down.head().get("content-length");
    let announced = announced.and_then(|value| str::from_utf8(value).ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while !down.body_ended() {
        let Some(piece) = down.read_body().await? else {
            break;
        };
        if body.len() + piece.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

async fn write<D: Downstream>(down: &mut D, whole: Whole, wants_body: bool) -> Result<(), Error> {
    let (content_type, body) = match whole.body {
        Body::None => (None, Bytes::new()),
        Body::Json(json) => (Some("application/json"), Bytes::from(json)),
        Body::Text(text) => (
            Some("text/plain; charset=utf-8"),
            Bytes::from_static(text.as_bytes()),
        ),
    };
    let session = whole.session.as_ref().map(|session| session.as_str());
    let fields: Vec<(&'static str, &[u8])> = [
        ("content-type", content_type),
        ("allow", whole.allow),
        (MCP_SESSION_ID, session),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?.as_bytes())))
    .collect();
    let edits = Edits {
        set: &fields,
        drop: Names::NONE,
        ..Edits::default()
    };
    if body.is_empty() || !wants_body {
        down.send_head(whole.status, None, edits, Length::None)
            .await?;
    } else {
        let length = Length::Exact(body.len() as u64);
        down.send_head(whole.status, None, edits, length).await?;
        down.send_body(&body).await?;
    }
    down.finish().await
}

/// The head of every stream. Whoever stands between must neither keep events back nor pack them.
const STREAM_FIELDS: [(&str, &[u8]); 3] = [
    ("content-type", b"text/event-stream"),
    ("cache-control", b"no-cache, no-transform"),
    ("x-accel-buffering", b"no"),
];

#[cfg(test)]
mod tests;

//! Event streams on their way to the client: forwarded as bytes, at once and unchanged, and never
//! ended without the answer the client waits for.
//!
//! The scan over the passing bytes knows where one event ends and the next begins, and which
//! requests were answered. So comments of ours keep a quiet stream alive, and when the server is
//! lost, the client is told in the stream, in a place where it can be told.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::call::Owed;
use super::ctx::{Ctx, End};
use super::fault::Fault;
use super::links::Link;
use super::state::{Phase, Phases};
use super::watch::LAST_HOPE;
use crate::config::Streams;
use crate::mcp::sse::{KEEP_ALIVE, Mode, write_message_event};
use crate::mcp::{Note, RawId, SseScan, answer};
use crate::pool::{Endpoint, HealthState, Outcome};
use crate::transport::buffer::Piece;
use crate::transport::{Downstream, Error, Upstream};

/// What kind of stream this is, which decides how it may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The reply to a POST: ends with the answer to its request.
    Post,
    /// The standalone stream of a session: may end at any time, the client opens it again.
    Get,
    /// `subscriptions/listen`: ends with its result.
    Listen,
    /// HTTP+SSE: carries the answers to all of the session's POSTs.
    Sse,
}

/// Time limits of a stream. `None` is no limit.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Comments of ours after so much silence.
    pub keep_alive: Duration,
    /// Silence of the server that ends the stream.
    pub idle: Option<Duration>,
    /// Age that ends the stream.
    pub total: Option<Duration>,
    /// Largest event, in bytes.
    pub event_max: u64,
}

impl Limits {
    /// The limits for a stream of this kind under this configuration. Only the reply to a POST is
    /// under the pool's idle and total limits: the other kinds are silent for hours by nature.
    pub fn new(
        kind: Kind,
        streams: &Streams,
        idle: Option<Duration>,
        total: Option<Duration>,
    ) -> Self {
        let bounded = kind == Kind::Post;
        Self {
            keep_alive: streams.keep_alive,
            idle: idle.filter(|_| bounded),
            total: total.filter(|_| bounded),
            event_max: streams.max_event as u64,
        }
    }
}

/// How long a server may keep a stream open after its last answer before we end it.
const GRACE_AFTER_ANSWER: Duration = Duration::from_secs(5);

/// One stream on its way.
pub struct Relay {
    kind: Kind,
    endpoint: Arc<Endpoint>,
    limits: Limits,
    /// Requests that were not answered yet.
    owed: Owed,
    /// Where the answers owed are kept, for HTTP+SSE.
    link: Option<Arc<Link>>,
    scan: SseScan,
    tool_failed: Option<bool>,
    /// What the answers say of the server, the worst of them.
    said: Option<Outcome>,
    too_large: bool,
    answered_at: Option<Instant>,
    last_from_server: Instant,
    last_to_client: Instant,
    opened: Instant,
}

/// What ended the wait for the next piece.
enum Next {
    Piece(Piece),
    ServerEnd,
    ServerLost,
    ClientGone,
    Wake,
    Drain,
}

impl Relay {
    /// A stream of which nothing was forwarded yet.
    pub fn new(
        kind: Kind,
        endpoint: Arc<Endpoint>,
        owed: Owed,
        link: Option<Arc<Link>>,
        limits: Limits,
    ) -> Self {
        let now = Instant::now();
        let mode = if kind == Kind::Get {
            Mode::Borders
        } else {
            Mode::Messages
        };
        Self {
            kind,
            endpoint,
            limits,
            owed,
            link,
            scan: SseScan::new(mode).with_event_max(limits.event_max),
            tool_failed: None,
            said: None,
            too_large: false,
            answered_at: None,
            last_from_server: now,
            last_to_client: now,
            opened: now,
        }
    }

    /// Forwards what has arrived already, together with the response head that still waits to go out.
    /// How the stream ended, if it has; otherwise it goes on with [`Self::run`].
    ///
    /// Many a reply is there as a whole, and then needs no more than any other.
    pub async fn begin<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        ctx: &mut Ctx,
    ) -> Option<End> {
        let end = match self.forward_arrived(down, up, ctx).await {
            Ok(end) => end?,
            Err(error) => End::of_write(&error),
        };
        Some(self.conclude(down, ctx, end).await)
    }

    async fn forward_arrived<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        ctx: &mut Ctx,
    ) -> Result<Option<End>, Error> {
        loop {
            let arrived = poll_fn(|context| Poll::Ready(up.poll_body(context))).await;
            let piece = match arrived {
                Poll::Pending => return Ok(None),
                Poll::Ready(Ok(None)) => return Ok(Some(self.end_of_server())),
                Poll::Ready(Err(_)) => return Ok(Some(End::UpstreamLost)),
                Poll::Ready(Ok(Some(piece))) => piece,
            };
            self.observe(&piece);
            let joined = down.join_body(&piece);
            if joined {
                ctx.bytes_out += piece.len() as u64;
            } else {
                self.send(down, ctx, &piece).await?;
            }
            if self.too_large {
                return Ok(Some(End::TooLarge));
            }
            if !joined {
                return Ok(None);
            }
        }
    }

    /// Forwards the stream to its end, and finishes the response. Returns how it ended.
    pub async fn run<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        ctx: &mut Ctx,
        phases: &Phases,
    ) -> End {
        let end = match self.forward(down, up, ctx, phases).await {
            Ok(end) => end,
            Err(error) => End::of_write(&error),
        };
        self.conclude(down, ctx, end).await
    }

    async fn conclude<D: Downstream>(&mut self, down: &mut D, ctx: &mut Ctx, end: End) -> End {
        if matches!(end, End::ClientGone | End::ClientWrite) {
            down.abort().await;
            return end;
        }
        match self.close(down, ctx, end).await {
            Ok(()) => end,
            Err(error) => End::of_write(&error),
        }
    }

    /// Whether every request of the client was answered.
    pub fn is_answered(&self) -> bool {
        self.owed.is_empty() && self.answered_at.is_some()
    }

    /// What kind of stream it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a tool call was answered with an error, if its answer was seen.
    pub fn tool_failed(&self) -> Option<bool> {
        self.tool_failed
    }

    /// What the answers, as far as they were seen, say of the server.
    pub fn said(&self) -> Option<Outcome> {
        self.said
    }

    async fn forward<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        ctx: &mut Ctx,
        phases: &Phases,
    ) -> Result<End, Error> {
        down.flush().await?;
        loop {
            match self.next(down, up, phases).await {
                Next::Piece(piece) => {
                    self.last_from_server = Instant::now();
                    self.observe(&piece);
                    self.send(down, ctx, &piece).await?;
                    if self.too_large {
                        return Ok(End::TooLarge);
                    }
                }
                Next::ServerEnd => return Ok(self.end_of_server()),
                Next::ServerLost => return Ok(End::UpstreamLost),
                Next::ClientGone => return Ok(End::ClientGone),
                Next::Drain => return Ok(End::Drain),
                Next::Wake => {
                    if let Some(end) = self.tick(down, ctx).await? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    async fn next<D: Downstream, U: Upstream>(
        &self,
        down: &mut D,
        up: &mut U,
        phases: &Phases,
    ) -> Next {
        down.alarm().at(self.wake());
        poll_fn(|context| {
            if let Poll::Ready(piece) = up.poll_body(context) {
                return Poll::Ready(match piece {
                    Ok(Some(piece)) => Next::Piece(piece),
                    Ok(None) => Next::ServerEnd,
                    Err(_) => Next::ServerLost,
                });
            }
            if down.poll_gone(context).is_ready() {
                return Poll::Ready(Next::ClientGone);
            }
            if phases.now() == Phase::Ending {
                return Poll::Ready(Next::Drain);
            }
            down.alarm().poll(context).map(|()| Next::Wake)
        })
        .await
    }

    /// Watches a piece pass: which requests it answers, and where events end.
    pub fn observe(&mut self, piece: &[u8]) {
        let Self {
            scan,
            owed,
            link,
            tool_failed,
            said,
            too_large,
            ..
        } = self;
        scan.feed(piece, &mut |event| match &event.note {
            Note::Response {
                id,
                is_error,
                is_tool_error,
                error_code,
            } => {
                *tool_failed = Some(*is_error || *is_tool_error);
                match error_code.is_some_and(answer::is_server_fault) {
                    true => *said = Some(Outcome::Bad),
                    false => *said = said.or(Some(Outcome::Good)),
                }
                if let Some(id) = id {
                    settle(owed, link.as_deref(), id);
                }
            }
            Note::Batch(items) => {
                for id in items
                    .iter()
                    .filter(|item| item.is_response)
                    .filter_map(|item| item.id.as_ref())
                {
                    settle(owed, link.as_deref(), id);
                }
            }
            Note::EventTooLarge => *too_large = true,
            _ => {}
        });
        if self.kind == Kind::Post && self.owed.is_empty() && self.answered_at.is_none() {
            self.answered_at = Some(Instant::now());
        }
    }

    async fn send<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        piece: &[u8],
    ) -> Result<(), Error> {
        ctx.bytes_out += piece.len() as u64;
        down.send_body(piece).await?;
        self.last_to_client = Instant::now();
        Ok(())
    }

    /// The next moment at which something may be due.
    fn wake(&self) -> Instant {
        let mut wake = self.last_to_client + self.limits.keep_alive;
        let deadlines = [
            self.limits.idle.map(|idle| self.last_from_server + idle),
            self.limits.total.map(|total| self.opened + total),
            self.answered_at.map(|at| at + GRACE_AFTER_ANSWER),
        ];
        for deadline in deadlines.into_iter().flatten() {
            wake = wake.min(deadline);
        }
        wake
    }

    /// Does what is due: ends the stream at a limit, or breaks the silence with a comment.
    async fn tick<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
    ) -> Result<Option<End>, Error> {
        let now = Instant::now();
        let over = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now >= since + limit)
        };
        if self
            .answered_at
            .is_some_and(|at| now >= at + GRACE_AFTER_ANSWER)
        {
            return Ok(Some(End::Complete));
        }
        if over(self.last_from_server, self.limits.idle) || over(self.opened, self.limits.total) {
            return Ok(Some(End::Timeout));
        }
        // A server that vanished without a reset is not kept alive with comments of ours.
        let silent = now.saturating_duration_since(self.last_from_server);
        if self.endpoint.health() == HealthState::Down && silent >= LAST_HOPE {
            return Ok(Some(End::UpstreamLost));
        }
        if now >= self.last_to_client + self.limits.keep_alive {
            if self.scan.at_boundary() {
                self.send(down, ctx, KEEP_ALIVE).await?;
            } else {
                // Inside of an event nothing of ours may stand; look again after the same time.
                self.last_to_client = now;
            }
        }
        Ok(None)
    }

    /// What a proper end of the server's stream means.
    fn end_of_server(&self) -> End {
        match self.kind {
            Kind::Get => End::Complete,
            Kind::Sse => End::UpstreamLost,
            Kind::Post | Kind::Listen if self.owed.is_empty() => End::Complete,
            // A server that gave the client a point to resume from may close on purpose; the
            // client comes back with GET and Last-Event-ID.
            Kind::Post if self.scan.event_id_seen() && self.scan.at_boundary() => End::Resumable,
            Kind::Post | Kind::Listen => End::UpstreamLost,
        }
    }

    /// Ends the response: first whatever the client is still owed, then the proper end.
    async fn close<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        end: End,
    ) -> Result<(), Error> {
        let tail = self.last_words(end);
        if !tail.is_empty() {
            self.send(down, ctx, &tail).await?;
        }
        down.finish().await
    }

    /// The events that tell the client what it would otherwise wait for.
    fn last_words(&mut self, end: End) -> Vec<u8> {
        let mut tail = Vec::new();
        if end == End::Complete || end == End::Resumable {
            return tail;
        }
        if !self.scan.at_boundary() {
            self.scan.poison_partial(&mut tail);
        }
        let mut owed = std::mem::take(&mut self.owed);
        if let Some(link) = &self.link {
            owed.extend(link.take());
        }
        for id in &owed {
            let message = match (self.kind, end) {
                // Clients take the result of a listen as the cue to open it again, an error not.
                (Kind::Listen, _) => listen_result(id),
                (_, End::Drain) => failure(id, Fault::Draining),
                (_, End::Timeout) => failure(id, Fault::UpstreamTimeout),
                (_, End::TooLarge) => failure(id, Fault::UpstreamMalformed),
                _ => failure(id, Fault::UpstreamClosed),
            };
            write_message_event(&mut tail, &message);
        }
        tail
    }
}

fn settle(owed: &mut Owed, link: Option<&Link>, id: &RawId) {
    owed.retain(|other| other != id);
    if let Some(link) = link {
        link.settle(id);
    }
}

fn failure(id: &RawId, fault: Fault) -> Vec<u8> {
    let row = fault.row();
    answer::error(Some(id), row.code, row.message, None)
}

/// The graceful end of `subscriptions/listen` (2026-07-28).
fn listen_result(id: &RawId) -> Vec<u8> {
    let result = format!(
        r#"{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}}}"#,
        id.as_json()
    );
    answer::result(id, &result)
}

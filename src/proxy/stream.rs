//! Event streams on their way to the client: forwarded as bytes, at once and unchanged, and never
//! ended without the answer the client waits for.
//!
//! The scan over the passing bytes knows where one event ends and the next begins, and which
//! requests were answered. So comments of ours keep a quiet stream alive, and when the server is
//! lost, the client is told in the stream, in a place where it can be told.

mod ending;
mod observe;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::call::Owed;
use super::ctx::{Ctx, End};
use super::limits;
use super::links::Link;
use super::outcome::Said;
use super::resume::Lent;
use super::state::{Phase, Phases};
use super::watch::LAST_HOPE;
use crate::config::Streams;
use crate::mcp::SseScan;
use crate::mcp::sse::{KEEP_ALIVE, Mode};
use crate::pool::{Endpoint, HealthState};
use crate::telemetry::StreamKind;
use crate::transport::buffer::Piece;
use crate::transport::nanos::Nanos;
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

impl Kind {
    /// The kind as metrics count it.
    pub const fn label(self) -> StreamKind {
        match self {
            Self::Post => StreamKind::Post,
            Self::Get => StreamKind::Get,
            Self::Listen => StreamKind::Listen,
            Self::Sse => StreamKind::Sse,
        }
    }
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
    keep_alive: Nanos,
    idle: Option<Nanos>,
    total: Option<Nanos>,
    /// Requests that were not answered yet.
    owed: Owed,
    /// Where the answers owed are kept, for HTTP+SSE.
    link: Option<Arc<Link>>,
    scan: SseScan,
    /// Ids for the server's events, where it gives none and they are wanted.
    lent: Option<Box<Lent>>,
    tool_failed: Option<bool>,
    /// The code of the last error that was an answer.
    rpc_code: Option<i64>,
    /// What the answers say of the server, the worst of them.
    said: Option<Said>,
    too_large: bool,
    /// There is no server at the moment.
    is_cut_off: bool,
    answered_at: Option<Instant>,
    last_from_server: Instant,
    last_to_client: Instant,
    opened: Instant,
}

/// What ended a wait.
enum Next<T> {
    Ready(T),
    Ended(End),
    Wake,
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
            keep_alive: limits.keep_alive.into(),
            idle: limits.idle.map(Nanos::from),
            total: limits.total.map(Nanos::from),
            owed,
            link,
            scan: SseScan::new(mode).with_event_max(limits.event_max),
            lent: None,
            tool_failed: None,
            rpc_code: None,
            said: None,
            too_large: false,
            is_cut_off: false,
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
        Some(self.end(down, ctx, end).await)
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
            let piece = self.observe(&piece).map_or(piece, Piece::from);
            self.release(ctx);
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

    /// Forwards the server's stream to its end, and says what that was. The response is not finished
    /// by it: see [`Self::end`].
    pub async fn run<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        ctx: &mut Ctx,
        phases: &Phases,
    ) -> End {
        match self.forward(down, up, ctx, phases).await {
            Ok(end) => end,
            Err(error) => End::of_write(&error),
        }
    }

    /// Finishes the response, with whatever the client is still owed. How it ended, all in all.
    pub async fn end<D: Downstream>(&mut self, down: &mut D, ctx: &mut Ctx, end: End) -> End {
        if end.is_of_client() {
            down.abort().await;
            return end;
        }
        match self.close(down, ctx, end).await {
            Ok(()) => end,
            Err(error) => End::of_write(&error),
        }
    }

    /// The id of the last event that has passed.
    pub fn last_event_id(&self) -> Option<&[u8]> {
        self.scan.last_event_id()
    }

    /// The server is lost in the middle: what it has begun is made into something that clients
    /// ignore, so that events of ours, or of another server, may follow.
    ///
    /// # Errors
    /// The client could not be written to.
    pub async fn cut_off<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
    ) -> Result<(), Error> {
        let mut tail = Vec::new();
        self.scan.poison_partial(&mut tail);
        self.scan.feed(&tail, &mut |_| {});
        if let Some(lent) = &mut self.lent {
            lent.drop_open();
        }
        if !tail.is_empty() {
            self.send(down, ctx, &tail).await?;
        }
        // Silence is ours from here on.
        self.is_cut_off = true;
        self.last_from_server = Instant::now();
        Ok(())
    }

    /// Goes on with the events of `endpoint`, of which `first` were read.
    ///
    /// # Errors
    /// The client could not be written to.
    pub async fn go_on<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        endpoint: Arc<Endpoint>,
        first: &[u8],
    ) -> Result<(), Error> {
        ctx.endpoint = Some(endpoint.id());
        self.endpoint = endpoint;
        self.is_cut_off = false;
        self.last_from_server = Instant::now();
        let lent = self.observe(first);
        let first = lent.as_deref().unwrap_or(first);
        if !first.is_empty() {
            self.send(down, ctx, first).await?;
        }
        Ok(())
    }

    /// Waits for `ready` while the client's stream is kept going; how the stream has ended, if it
    /// has meanwhile.
    ///
    /// # Errors
    /// The client could not be written to.
    pub async fn hold<D: Downstream, T>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        phases: &Phases,
        mut ready: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Result<T, End>, Error> {
        let lot = ctx.request_id;
        loop {
            let leaves = self.leaves(phases, lot);
            let wake = leaves.map_or_else(|| self.wake(), |(at, _)| at.min(self.wake()));
            down.alarm().at(wake);
            let next = poll_fn(|context| {
                if let Poll::Ready(value) = ready(context) {
                    return Poll::Ready(Next::Ready(value));
                }
                if down.poll_gone(context).is_ready() {
                    return Poll::Ready(Next::Ended(End::ClientGone));
                }
                let wanted = self.lent.as_ref().map(|lent| lent.poll_wanted(context));
                if wanted.is_some_and(|wanted| wanted.is_ready()) {
                    return Poll::Ready(Next::Ended(End::TakenOver));
                }
                if self.leaves(phases, lot) != leaves || self.is_due_sooner(context) {
                    return Poll::Ready(Next::Wake);
                }
                down.alarm().poll(context).map(|()| Next::Wake)
            });
            match next.await {
                Next::Ready(value) => return Ok(Ok(value)),
                Next::Ended(end) => return Ok(Err(end)),
                Next::Wake => {
                    if let Some((at, end)) = self.leaves(phases, lot)
                        && Instant::now() >= at
                    {
                        return Ok(Err(end));
                    }
                    // Boxed, like all that a stream does but wait: it would be held as room for as
                    // long as the stream is silent.
                    if let Some(end) = Box::pin(self.tick(down, ctx)).await? {
                        return Ok(Err(end));
                    }
                }
            }
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

    /// The code of the last error that was an answer, of ours or of the server's.
    pub fn rpc_code(&self) -> Option<i64> {
        self.rpc_code
    }

    /// What the answers, as far as they were seen, say of the server.
    pub fn said(&self) -> Option<Said> {
        self.said
    }

    async fn forward<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        ctx: &mut Ctx,
        phases: &Phases,
    ) -> Result<End, Error> {
        // Boxed, as in the loop: what is done once would be room held for as long as the stream lasts.
        Box::pin(self.go(down, ctx)).await?;
        loop {
            let waited = self.hold(down, ctx, phases, |context| up.poll_body(context));
            match waited.await? {
                Ok(Ok(Some(piece))) => {
                    self.last_from_server = Instant::now();
                    let piece = self.observe(&piece).map_or(piece, Piece::from);
                    self.release(ctx);
                    Box::pin(self.send(down, ctx, &piece)).await?;
                    if self.too_large {
                        return Ok(End::TooLarge);
                    }
                }
                Ok(Ok(None)) => return Ok(self.end_of_server()),
                Ok(Err(_)) => return Ok(End::UpstreamLost),
                Err(end) => return Ok(end),
            }
        }
    }

    /// Sends what is ready when the stream begins: its head, and what its client has missed.
    async fn go<D: Downstream>(&mut self, down: &mut D, ctx: &mut Ctx) -> Result<(), Error> {
        down.flush().await?;
        match self.lent.as_mut().map(|lent| lent.take_missed()) {
            Some(missed) => self.send(down, ctx, &missed).await,
            None => Ok(()),
        }
    }

    /// Gives back what an answered call held, before its client hears the answer and may call again.
    fn release(&self, ctx: &mut Ctx) {
        if self.kind == Kind::Post && self.owed.is_empty() {
            limits::end_call(ctx);
        }
    }

    async fn send<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        piece: &[u8],
    ) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        ctx.bytes_out += piece.len() as u64;
        down.send_body(piece).await?;
        self.last_to_client = Instant::now();
        Ok(())
    }

    /// When the stream has to end because of what the operator does, and why.
    fn leaves(&self, phases: &Phases, lot: u64) -> Option<(Instant, End)> {
        let leaves = match self.is_cut_off {
            true => (phases.leaves_process(lot)?, End::Drain),
            false if self.kind == Kind::Post => phases.leaves_call(&self.endpoint, lot)?,
            false => phases.leaves(&self.endpoint, lot)?,
        };
        // The calls of HTTP+SSE are answered on the stream: it stays for them as for any call.
        let is_waited_for = self.link.as_ref().is_some_and(|link| link.is_owing());
        (!is_waited_for || phases.now() == Phase::Ending).then_some(leaves)
    }

    /// The next moment at which something may be due.
    fn wake(&self) -> Instant {
        let mut wake = self.last_to_client + self.keep_alive.get();
        let deadlines = [
            self.idle.map(|idle| self.last_from_server + idle.get()),
            self.total.map(|total| self.opened + total.get()),
            self.answered_at.map(|at| at + GRACE_AFTER_ANSWER),
            self.next_due(),
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
        let over = |since: Instant, limit: Option<Nanos>| {
            limit.is_some_and(|limit| now >= since + limit.get())
        };
        if self
            .answered_at
            .is_some_and(|at| now >= at + GRACE_AFTER_ANSWER)
        {
            return Ok(Some(End::Complete));
        }
        if over(self.last_from_server, self.idle) || over(self.opened, self.total) {
            return Ok(Some(End::Timeout));
        }
        self.tell_overdue(down, ctx, now).await?;
        // A server that vanished without a reset is not kept alive with comments of ours. One that is
        // lost for certain is waited for by whoever looks for another.
        let silent = now.saturating_duration_since(self.last_from_server);
        let is_down = !self.is_cut_off && self.endpoint.health() == HealthState::Down;
        if is_down && silent >= LAST_HOPE {
            return Ok(Some(End::UpstreamLost));
        }
        if now >= self.last_to_client + self.keep_alive.get() {
            if self.scan.at_boundary() {
                let primer = self.lent.as_mut().and_then(|lent| lent.prime());
                let word = primer.as_deref().unwrap_or(KEEP_ALIVE);
                self.send(down, ctx, word).await?;
            } else {
                // Inside of an event nothing of ours may stand; look again after the same time.
                self.last_to_client = now;
            }
        }
        Ok(None)
    }
}

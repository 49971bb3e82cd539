//! The reply on its way back: held until it is complete, or streamed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::call::{Call, Rules};
use super::ctx::{Ctx, End};
use super::decide::{Aim, Bound};
use super::fault::Fault;
use super::flight::InFlight;
use super::forward::Reply;
use super::kept::Kept;
use super::limits;
use super::listen::Listen;
use super::outcome;
use super::resume::Lent;
use super::revival::{Revival, What};
use super::settle::{disown, give_back, settle_session, shown_session};
use super::state::PoolState;
use super::stream::{Kind, Limits, Relay};
use super::streaming::Begun;
use super::termination::Step;
use super::watch::{Stop, Watch};
use super::{Next, Worker};
use crate::config::Resume;
use crate::mcp::{Class, HttpMethod, Peek, RawId, answer};
use crate::session::{IdKind, StreamOf};
use crate::telemetry;
use crate::transport::buffer::Piece;
use crate::transport::fields::{
    CONTENT_ENCODING, CONTENT_TYPE, ETAG, MCP_PROTOCOL_VERSION, MCP_SESSION_ID, Names,
};
use crate::transport::{
    Downstream, Edits, Error, Headers as _, Length, RequestHead, ResponseHead, Upstream,
};

/// A body up to this size is held until it is complete, so that a server lost in its middle is
/// still answered with a proper error.
const HOLD_MAX: usize = 256 * 1024;

/// Relays a reply to its end.
///
/// # Errors
/// Only while nothing was sent to the client yet.
pub async fn relay<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &Call,
    aim: &Aim,
    mut reply: Reply,
    flight: &mut InFlight,
) -> Result<Next, Fault> {
    let session = settle_session(worker, down.head(), ctx, pool, call, aim, &reply)?;
    if is_event_stream(reply.up.head()) {
        let begun = stream(worker, down, ctx, pool, call, aim, reply, session, flight);
        return begun.await;
    }
    let total = call.answer_limit(pool.config.timeouts.header);
    let held = match hold(worker, down, &mut reply, total).await {
        Ok(held) => held,
        Err(fault) => {
            let said = outcome::of_fault(fault);
            outcome::report(&worker.shared, pool, &mut reply.permit, said);
            if call.rules == Rules::Handshake && session.is_some() {
                disown(worker, down.head(), pool, &reply);
            }
            return Err(fault);
        }
    };
    if held.complete {
        // Before the client hears the answer, and may call again.
        limits::end_call(ctx);
    }
    let status = reply.up.head().status();
    if outcome::of_head(call, status).is_none() {
        let said = Some(outcome::of_answer(&held.pieces));
        outcome::report(&worker.shared, pool, &mut reply.permit, said);
    }
    note_answer(ctx, pool, call, status, &held);
    let held = reworded(held, call, status);
    if held.ours {
        ctx.rpc_code = Some(Fault::UpstreamFailed.row().code);
    }
    let idle = pool.config.timeouts.stream_idle;
    send(
        worker,
        down,
        ctx,
        &mut reply,
        session.as_deref(),
        held,
        idle,
    )
    .await;
    if ctx.end == End::Complete {
        reply.up.release();
    } else if call.rules == Rules::Handshake && session.is_some() {
        disown(worker, down.head(), pool, &reply);
    }
    Ok(Next::Done)
}

/// Whether the body is an event stream.
pub fn is_event_stream(head: &dyn ResponseHead) -> bool {
    let value = head.known(CONTENT_TYPE).unwrap_or_default();
    let essence = value
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    head.status() == 200 && essence.eq_ignore_ascii_case(b"text/event-stream")
}

/// A body read as far as it is held.
struct Held {
    pieces: SmallVec<[Piece; 2]>,
    size: usize,
    complete: bool,
    /// The text is ours, whatever the head says of it.
    ours: bool,
}

impl Held {
    /// Whether this is a JSON-RPC answer, or an array of them.
    fn is_answer(&self) -> bool {
        let mut peek = Peek::lenient();
        self.pieces.iter().all(|piece| peek.feed(piece).is_ok())
            && peek.finish().is_ok()
            && matches!(peek.message().class(), Class::Response | Class::Batch)
    }
}

/// A server in trouble, or what stands before it, often answers in HTML or with nothing. The
/// status is its word and stays; the text becomes one that the client can match to its request.
fn reworded(held: Held, call: &Call, status: u16) -> Held {
    let [id] = call.owed.as_slice() else {
        return held;
    };
    if status < 500 || !held.complete || held.is_answer() {
        return held;
    }
    let row = Fault::UpstreamFailed.row();
    let text = Piece::from(answer::error(Some(id), row.code, row.message, None));
    Held {
        size: text.len(),
        pieces: [text].into_iter().collect(),
        complete: true,
        ours: true,
    }
}

async fn hold<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    reply: &mut Reply,
    limit: Duration,
) -> Result<Held, Fault> {
    let mut held = Held {
        pieces: SmallVec::new(),
        size: 0,
        complete: false,
        ours: false,
    };
    let Reply { up, permit } = reply;
    let mut watch = Watch::new(permit.endpoint(), &worker.shared.phases, limit);
    while held.size <= HOLD_MAX {
        let piece = watch.wait(down, |context| up.poll_body(context)).await?;
        match piece {
            Ok(Some(piece)) => {
                held.size += piece.len();
                held.pieces.push(piece);
            }
            Ok(None) => {
                held.complete = true;
                break;
            }
            Err(Error::Malformed(_)) => return Err(Fault::UpstreamMalformed),
            Err(_) => return Err(Fault::UpstreamClosed),
        }
    }
    Ok(held)
}

/// Sends the head, what was held, and the rest, in which the server may be silent for `idle`.
async fn send<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    reply: &mut Reply,
    session: Option<&str>,
    held: Held,
    idle: Option<Duration>,
) {
    let length = match (held.complete, held.size) {
        (true, 0) => Length::None,
        (true, size) => Length::Exact(size as u64),
        (false, _) => reply.up.length(),
    };
    let mut set: SmallVec<[(&'static str, &[u8]); 2]> = SmallVec::new();
    set.extend(session.map(|id| (MCP_SESSION_ID.as_str(), id.as_bytes())));
    let mut drop = Names::of(&[MCP_SESSION_ID]);
    if held.ours {
        set.push(("content-type", b"application/json"));
        drop = Names::of(&[MCP_SESSION_ID, CONTENT_ENCODING, ETAG]);
    }
    let edits = Edits {
        set: &set,
        drop,
        ..Edits::default()
    };
    let head = reply.up.head();
    ctx.answered(head.status(), Instant::now());
    if held.complete {
        ctx.step = Step::Last;
    }
    let sent = down.send_head(head.status(), Some(head), edits, length);
    if let Err(error) = sent.await {
        ctx.end = End::of_write(&error);
        return down.abort().await;
    }
    for piece in &held.pieces {
        ctx.bytes_out += piece.len() as u64;
        if let Err(error) = down.send_body(piece).await {
            ctx.end = End::of_write(&error);
            return down.abort().await;
        }
    }
    if !held.complete && !send_rest(worker, down, ctx, reply, idle).await {
        return down.abort().await;
    }
    match down.finish().await {
        Ok(()) => ctx.end = End::Complete,
        Err(error) => ctx.end = End::of_write(&error),
    }
}

/// Streams what was too long to be held. False if it could not be completed.
async fn send_rest<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    reply: &mut Reply,
    idle: Option<Duration>,
) -> bool {
    let Reply { up, permit } = reply;
    let idle = idle.unwrap_or(Duration::MAX);
    let mut watch = Watch::new(permit.endpoint(), &worker.shared.phases, idle);
    loop {
        let waited = watch.wait(down, |context| up.poll_body(context)).await;
        let piece = match waited {
            Ok(piece) => piece,
            Err(stop) => {
                ctx.end = match stop {
                    Stop::ClientGone => End::ClientGone,
                    Stop::Timeout => End::Timeout,
                    Stop::Vanished => End::Truncated,
                    Stop::Draining => End::Drain,
                };
                return false;
            }
        };
        watch.again();
        match piece {
            Ok(Some(piece)) => {
                ctx.bytes_out += piece.len() as u64;
                if let Err(error) = down.send_body(&piece).await {
                    ctx.end = End::of_write(&error);
                    return false;
                }
            }
            Ok(None) => return true,
            Err(_) => {
                ctx.end = End::Truncated;
                return false;
            }
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one straight line, cut where a screen ends"
)]
async fn stream<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &Call,
    aim: &Aim,
    reply: Reply,
    session: Option<Cow<'_, str>>,
    flight: &mut InFlight,
) -> Result<Next, Fault> {
    let kind = match call.http {
        HttpMethod::Post if call.is("subscriptions/listen") => Kind::Listen,
        HttpMethod::Post => Kind::Post,
        _ => Kind::Get,
    };
    let counted = telemetry::OpenStream::enter(kind.label());
    if kind != Kind::Post {
        flight.becomes_stream();
    }
    let config = &ctx.snapshot.config.streams;
    let timeouts = &pool.config.timeouts;
    let total = call.time_left().or(timeouts.total);
    let limits = Limits::new(kind, config, timeouts.stream_idle, total);
    let opens_session = call.rules == Rules::Handshake && session.is_some();
    let orphan = if opens_session {
        shown_session(down.head(), pool, &reply)
    } else {
        None
    };
    let sent = send_stream_head(down, ctx, &reply, session.as_deref()).await;
    if let Err(error) = sent {
        ctx.end = End::of_write(&error);
        counted.end(ctx.end.of_stream());
        down.abort().await;
        if let Some(orphan) = orphan {
            give_back(&worker.shared, orphan);
        }
        return Ok(Next::Done);
    }
    let endpoint = Arc::clone(reply.endpoint());
    let mut begun = Box::new(Begun {
        relay: Relay::new(kind, endpoint, call.owed.clone(), None, limits),
        reply,
        counted,
        activity: None,
        orphan: orphan.map(Box::new),
        is_tool_call: call.is("tools/call"),
        sse: None,
        revival: None,
    });
    let Begun { relay, reply, .. } = &mut *begun;
    if let (Some(resume), Aim::Bound(bound)) = (&ctx.snapshot.config.streams.resume, aim)
        && bound.kind == IdKind::Session
    {
        let revision = down.head().known(MCP_PROTOCOL_VERSION);
        relay.lend(lent(worker, resume, call, kind, bound).spoken(revision));
    }
    let mut ended = relay.begin(down, &mut reply.up, ctx).await;
    if ended.is_none() && relay.is_answered() {
        // Its end is about to come, so it is not worth a task.
        let rest = relay.run(down, &mut reply.up, ctx, &worker.shared.phases);
        let end = Box::pin(rest).await;
        ended = Some(relay.end(down, ctx, end).await);
    }
    if let Some(end) = ended {
        ctx.end = end;
        begun.settle(&worker.shared, ctx);
        return Ok(Next::Done);
    }
    reply.up.release_head();
    relay.lasts();
    if let Aim::Bound(bound) = aim {
        begun.activity = worker.shared.sessions.stream(bound.key, Instant::now());
    }
    let what = match (kind, aim) {
        (Kind::Get, Aim::Bound(bound)) if begun.activity.is_some() => {
            Some(What::Session(bound.key))
        }
        (Kind::Listen, _) => listen(down.head(), call).map(Box::new).map(What::Listen),
        _ => None,
    };
    let patience = ctx.snapshot.config.streams.reconnect;
    begun.revival = what.zip(patience).map(|(what, patience)| {
        Box::new(Revival {
            patience,
            dialer: Arc::clone(&worker.dialer),
            pool: Arc::clone(pool),
            kept: Kept::of(
                &ctx.snapshot.config,
                pool,
                down.head(),
                down.info(),
                down.dress(),
            ),
            what,
        })
    });
    Ok(Next::Stream(begun))
}

/// Ids for the events of a stream of a session.
fn lent(worker: &Worker, config: &Resume, call: &Call, kind: Kind, bound: &Bound) -> Lent {
    let (kind, request) = match kind {
        Kind::Get => (StreamOf::Session, None),
        Kind::Post | Kind::Listen | Kind::Sse => (StreamOf::Request, call.owed.first()),
    };
    let request = request.map(RawId::as_json);
    Lent::new(&worker.shared.rings, config, bound.key, kind, request)
}

/// The subscription that a request makes, if all of it is here.
fn listen(head: &dyn RequestHead, call: &Call) -> Option<Listen> {
    let [id] = call.owed.as_slice() else {
        return None;
    };
    let pieces = call.body.chunks.iter().map(|chunk| &**chunk);
    let whole = call.body.is_whole();
    whole.then(|| Listen::of(head.onward(), id, pieces))?
}

/// The head of a stream: never with a length, since we may have something to add at its end, and
/// with the word that keeps other proxies in front of us from buffering it.
pub async fn send_stream_head<D: Downstream>(
    down: &mut D,
    ctx: &mut Ctx,
    reply: &Reply,
    session: Option<&str>,
) -> Result<(), Error> {
    let mut set: SmallVec<[(&'static str, &[u8]); 2]> = SmallVec::new();
    set.push(("x-accel-buffering", b"no"));
    if let Some(id) = session {
        set.push((MCP_SESSION_ID.as_str(), id.as_bytes()));
    }
    let head = reply.up.head();
    let edits = Edits {
        set: &set,
        drop: Names::of(&[MCP_SESSION_ID]),
        ..Edits::default()
    };
    ctx.answered(head.status(), Instant::now());
    ctx.streamed = true;
    down.send_head(head.status(), Some(head), edits, Length::Unknown)
        .await
}

/// Learns from an answer: the error that it is, whether a tool call failed, and what `server/discover` said.
fn note_answer(ctx: &mut Ctx, pool: &PoolState, call: &Call, status: u16, held: &Held) {
    if call.is("tools/call") {
        ctx.tool_failed = Some(status != 200 || outcome::tells_failure(&held.pieces));
    }
    if call.http == HttpMethod::Post {
        ctx.rpc_code = outcome::error_code(&held.pieces);
    }
    if call.is("server/discover") && status == 200 && held.complete {
        let pieces: Vec<&[u8]> = held.pieces.iter().map(|piece| &**piece).collect();
        pool.remember_discover(&pieces.concat());
    }
}

//! An exchange that goes on as a stream, when its request has been dealt with.
//!
//! A stream may last for hours and there may be tens of thousands of them, so what it holds is
//! chosen: both connections without a buffer, the scan over its events, what the log will say.
//! Everything else that its request needed has been let go.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::ctx::{Ctx, End};
use super::finish;
use super::flight::InFlight;
use super::forward::Reply;
use super::legacy_sse::SseSession;
use super::limits;
use super::open::{Listed, Open};
use super::outcome;
use super::resume::linger::Lingering;
use super::revival::Revival;
use super::settle::give_back;
use super::state::{Held, Orphan, Shared};
use super::stream::{Kind, Relay};
use crate::session::StreamGuard;
use crate::telemetry::OpenStream;
use crate::transport::{Downstream, Upstream};

/// A stream that has begun: what it needs from its request.
pub struct Begun {
    /// The bytes on their way.
    pub relay: Relay,
    /// The exchange with the endpoint.
    pub reply: Reply,
    /// Counts the stream.
    pub counted: OpenStream,
    /// Keeps the session from being idle.
    pub activity: Option<StreamGuard<Held>>,
    /// The session that this stream opens, to be given back if the client never hears of it. Boxed,
    /// as what most streams have not is room that all of them would hold.
    pub orphan: Option<Box<Orphan>>,
    /// The stream answers a tool call.
    pub is_tool_call: bool,
    /// The session that this stream is, in HTTP+SSE.
    pub sse: Option<Box<SseSession>>,
    /// What it takes to ask for the stream again, where that can be done.
    pub revival: Option<Box<Revival>>,
}

impl Begun {
    /// Gives back what the stream held when it has ended, and tells `ctx` what came of it.
    pub fn settle(self, shared: &Shared, ctx: &mut Ctx) {
        let Self {
            mut relay,
            mut reply,
            ..
        } = self;
        if relay.kind() == Kind::Post
            && relay.is_answered()
            && let Some(lent) = relay.take_lent()
        {
            lent.keep();
        }
        ctx.rpc_code = relay.rpc_code();
        if self.is_tool_call {
            ctx.tool_failed = Some(relay.tool_failed().unwrap_or(true));
        }
        if relay.kind() == Kind::Post
            && let Some(pool) = ctx.pool.map(|pool| ctx.snapshot.pool(pool))
        {
            let said = outcome::of_stream(ctx.end, relay.said());
            outcome::report(shared, pool, &mut reply.permit, said);
        }
        drop(self.activity);
        self.counted.end(ctx.end.of_stream());
        if let Some(sse) = self.sse {
            sse.end(shared);
        }
        if let Some(orphan) = self.orphan.filter(|_| !relay.is_answered()) {
            give_back(shared, *orphan);
        }
        if ctx.end == End::Complete {
            reuse(reply);
        }
    }
}

/// An exchange that goes on as a stream: nothing but what the stream needs.
pub struct Streaming<D> {
    shared: Arc<Shared>,
    down: D,
    ctx: Ctx,
    _flight: InFlight,
    listed: Option<Listed>,
    begun: Begun,
}

impl<D: Downstream> Streaming<D> {
    /// Goes on with what `serve` has begun.
    pub fn new(shared: Arc<Shared>, down: D, ctx: Ctx, flight: InFlight, begun: Begun) -> Self {
        let (mut down, mut ctx) = (down, ctx);
        if shared.log.is_on() || ctx.is_traced() {
            ctx.note(down.head());
        }
        down.release_head();
        let kind = begun.relay.kind().label().as_str();
        let open = Open::of(&ctx, begun.reply.endpoint(), kind);
        let listed = open.map(|open| shared.open.enter(open));
        Self {
            shared,
            down,
            ctx,
            _flight: flight,
            listed,
            begun,
        }
    }

    /// Carries the stream to its end and records it.
    pub async fn run(mut self: Box<Self>) -> D {
        // Whatever lives across this point is held for as long as the stream lasts, so it is one
        // pointer; what comes after is not async, or its needs would be reserved all the while.
        self.carry().await;
        self.conclude()
    }

    async fn carry(&mut self) {
        let Self {
            shared,
            down,
            ctx,
            listed,
            begun,
            ..
        } = self;
        let Begun {
            relay,
            reply,
            revival,
            ..
        } = begun;
        let end = loop {
            let end = relay.run(down, &mut reply.up, ctx, &shared.phases).await;
            let elsewhere = matches!(end, End::UpstreamLost | End::Withdrawn);
            let Some(revival) = revival.as_ref().filter(|_| elsewhere) else {
                break end;
            };
            // Boxed: it is rare, and every stream would hold the room for it.
            match Box::pin(revival.revive(shared, down, ctx, relay)).await {
                Ok(again) => {
                    if let Some(listed) = listed {
                        listed.moves_to(again.endpoint());
                    }
                    *reply = again;
                }
                Err(instead) => break instead,
            }
        };
        ctx.end = Box::pin(relay.end(down, ctx, end)).await;
    }

    #[expect(
        clippy::boxed_local,
        reason = "moving it out here would reserve its size in `run`"
    )]
    fn conclude(self: Box<Self>) -> D {
        let Self {
            shared,
            down,
            mut ctx,
            _flight: flight,
            listed,
            begun,
        } = *self;
        drop(listed);
        let lingers = match ctx.end.is_of_client() {
            true => Lingering::of(&shared, begun, ctx.end),
            false => Err(Box::new(begun)),
        };
        match lingers {
            Ok(mut stream) => {
                stream.call = limits::take_call(&mut ctx, None);
                stream.begin(&shared);
            }
            Err(begun) => begun.settle(&shared, &mut ctx),
        }
        finish::finish(&shared, &ctx, down.info(), down.head());
        drop(flight);
        down
    }
}

/// Read to its proper end, the connection may serve again; otherwise it is dropped.
fn reuse(mut reply: Reply) {
    let mut context = Context::from_waker(Waker::noop());
    if let Poll::Ready(Ok(None)) = reply.up.poll_body(&mut context) {
        reply.up.release();
    }
}

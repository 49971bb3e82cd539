//! A client comes back for a stream.
//!
//! What it gets depends on what can still be had:
//!
//! | the stream | the client gets |
//! |---|---|
//! | is read on, or by another connection of the client | what it has missed, then the stream |
//! | has ended, and is kept | what it has missed, then the end |
//! | has given its answer, and the client has seen it | 204: nothing is to come |
//! | is gone, a standing one | a fresh one of the server's |
//! | is gone, the reply to a request | an error event for that request, then the end |
//!
//! 204 is the word of HTML's event streams (section 9.2.3) for "do not come back", and no error. A fresh
//! stream misses what has been, but is all there is: clients count any other answer as a failed attempt
//! and give up after two, and 404 would say that the session is gone. A client that waits for an
//! answer would wait on a fresh stream until its own time limit, so it is told instead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::super::call::Call;
use super::super::ctx::{Ctx, End};
use super::super::decide::Bound;
use super::super::fault::Fault;
use super::super::flight::InFlight;
use super::super::limits;
use super::super::local;
use super::super::state::Shared;
use super::super::stream::Kind;
use super::super::streaming::Begun;
use super::super::{Next, Worker};
use super::linger::Lingering;
use super::rings::Slot;
use crate::mcp::sse::write_message_event;
use crate::mcp::{RawId, answer};
use crate::session::{EventId, Place, Stamp, StreamOf};
use crate::telemetry::{self, Limit, OpenStream, Resumed};
use crate::transport::fields::{LAST_EVENT_ID, MCP_SESSION_ID, Names};
use crate::transport::{Downstream, Edits, Headers as _, Length};

/// How long the task that reads a stream may take to hand it over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Serves a GET of a session whose client comes back to a stream that it can have here; `None` if the
/// server is to be asked.
pub async fn back<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    call: &mut Call,
    bound: &Bound,
    flight: &mut InFlight,
) -> Option<Next> {
    let rings = &worker.shared.rings;
    let last = down.head().known(LAST_EVENT_ID);
    let Some(id) = last.and_then(EventId::parse) else {
        let is_new = last.is_none();
        // Servers have one standing stream per session: the one that was read on must make way, or is
        // just what is asked for.
        let stream = wanted(&rings.lingering(bound.key)?).await?;
        if !is_new {
            return None;
        }
        let sent = stream.sent;
        return Some(go_on(&worker.shared, down, ctx, bound, flight, stream, sent).await);
    };
    let Place::Number(number) = id.place else {
        local::nothing_more(down, ctx).await;
        return Some(Next::Done);
    };
    if let Some(slot) = rings.find(bound.key, id.stream) {
        if let Some(stream) = wanted(&slot).await {
            return Some(go_on(&worker.shared, down, ctx, bound, flight, stream, number).await);
        }
        if let Some((missed, gap)) = slot.replay(number) {
            replay(down, ctx, missed, gap).await;
            return Some(Next::Done);
        }
    }
    telemetry::stream_resumed(Resumed::Gone);
    if id.kind == StreamOf::Session {
        call.afresh = true;
        return None;
    }
    let request = id.request.as_deref().and_then(RawId::parse);
    match request {
        Some(request) => local::event_stream(down, ctx, lost(id.stream, &request)).await,
        None => local::nothing_more(down, ctx).await,
    }
    Some(Next::Done)
}

/// Sends the rest of a stream that has ended.
async fn replay<D: Downstream>(down: &mut D, ctx: &mut Ctx, missed: Vec<u8>, gap: bool) {
    telemetry::stream_resumed(Resumed::Ended);
    if gap {
        telemetry::limit_hit(Limit::ResumeEvents);
    }
    if missed.is_empty() {
        local::nothing_more(down, ctx).await;
    } else {
        local::event_stream(down, ctx, missed).await;
    }
}

/// The stream, from whoever reads it.
async fn wanted(slot: &Arc<Slot>) -> Option<Box<Lingering>> {
    timeout(HAND_OVER, slot.want()?).await.ok()?.ok()
}

/// Goes on with a stream for a client that has seen its events up to `number`.
async fn go_on<D: Downstream>(
    shared: &Arc<Shared>,
    down: &mut D,
    ctx: &mut Ctx,
    bound: &Bound,
    flight: &mut InFlight,
    stream: Box<Lingering>,
    number: u64,
) -> Next {
    telemetry::stream_resumed(Resumed::Live);
    ctx.endpoint = Some(stream.reply.endpoint().id());
    ctx.streamed = true;
    ctx.answered(200, Instant::now());
    let set: [(&'static str, &[u8]); 4] = [
        ("content-type", b"text/event-stream"),
        ("cache-control", b"no-cache, no-transform"),
        ("x-accel-buffering", b"no"),
        (MCP_SESSION_ID.as_str(), bound.sealed.as_bytes()),
    ];
    let edits = Edits {
        set: &set,
        drop: Names::NONE,
        ..Edits::default()
    };
    let sent = down.send_head(200, None, edits, Length::Unknown).await;
    if let Err(error) = sent {
        ctx.end = End::of_write(&error);
        down.abort().await;
        stream.begin(shared);
        return Next::Done;
    }
    let mut stream = *stream;
    stream.relay.catch_up(number);
    limits::take_over(ctx, std::mem::take(&mut stream.call));
    if stream.relay.kind() == Kind::Get {
        flight.becomes_stream();
    }
    Next::Stream(Box::new(Begun {
        counted: OpenStream::enter(stream.relay.kind().label()),
        relay: stream.relay,
        reply: stream.reply,
        activity: stream.activity,
        orphan: None,
        is_tool_call: stream.is_tool_call,
        sse: None,
        revival: stream.revival,
    }))
}

/// What tells a client that the answer it waits for cannot be had any more.
fn lost(stream: u64, request: &RawId) -> Vec<u8> {
    let code = Fault::UpstreamClosed.row().code;
    let message = "the stream cannot be resumed any more";
    let error = answer::error(Some(request), code, message, None);
    let mut event = Vec::new();
    Stamp::new(StreamOf::Request, stream, None).write_line(&mut event, Place::Last);
    write_message_event(&mut event, &error);
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::SseScan;

    #[test]
    fn a_client_that_comes_too_late_is_told_and_does_not_come_back() {
        let request = RawId::parse("\"r-1\"").unwrap();
        let event = lost(7, &request);
        let mut scan = SseScan::default();
        let mut told = 0;
        scan.feed(&event, &mut |note| {
            told += 1;
            assert!(note.has_id);
        });
        assert!(told == 1 && scan.at_boundary());
        let id = EventId::parse(scan.last_event_id().unwrap()).unwrap();
        assert_eq!(id.place, Place::Last);
        assert!(String::from_utf8(event).unwrap().contains("\"id\":\"r-1\""));
    }
}

//! Answers written by us: faults, health, and what the gateway may say for its servers.

use std::time::Instant;

use bytes::Bytes;

use super::ctx::{Ctx, End};
use super::fault::Fault;
use super::intake::Builtin;
use super::state::{Phase, PoolState, Shared};
use crate::mcp::{Revision, answer};
use crate::transport::dress::More;
use crate::transport::fields::{MCP_PROTOCOL_VERSION, Names};
use crate::transport::{Downstream, Edits, Error, Length, RequestHead};

const JSON: (&str, &[u8]) = ("content-type", b"application/json");
const STREAM: [(&str, &[u8]); 2] = [
    ("content-type", b"text/event-stream"),
    ("cache-control", b"no-cache, no-transform"),
];
const TEXT: (&str, &[u8]) = ("content-type", b"text/plain; charset=utf-8");

/// Answers a request with a fault: its status and a JSON-RPC error that carries the request's id
/// where it is known.
pub async fn refuse<D: Downstream>(down: &mut D, ctx: &mut Ctx, fault: Fault) {
    let row = fault.row();
    fault.count();
    ctx.fault = Some(fault);
    if fault == Fault::ClientGone {
        ctx.status = row.status;
        ctx.end = End::ClientGone;
        down.abort().await;
        return;
    }
    ctx.rpc_code = Some(row.code);
    let data = row.names_versions.then(|| {
        let requested = requested(down.head(), ctx);
        answer::supported_versions(&[Revision::V2026_07_28], &requested)
    });
    let error = |id| answer::error(id, row.code, row.message, data.as_deref());
    let body = if ctx.batch.is_empty() {
        error(ctx.id.as_ref())
    } else {
        let errors: Vec<_> = ctx.batch.iter().map(|id| error(Some(id))).collect();
        [b"[", errors.join(&b","[..]).as_slice(), b"]"].concat()
    };
    let mut set = vec![JSON];
    if let Some((name, value)) = row.field {
        set.push((name, value.as_bytes()));
    }
    let retry_after = fault.retry_after().map(|seconds| seconds.to_string());
    if let Some(seconds) = &retry_after {
        set.push(("retry-after", seconds.as_bytes()));
    }
    if !down.body_ended() || fault == Fault::BodyTooLarge {
        // The rest of the body is not read, so the connection has no next request. Where all of a
        // body that is too long has come after all, that is chance, and not to be relied on.
        down.close_after();
    }
    respond(down, ctx, row.status, &set, body.into()).await;
}

/// The protocol version that the request asks for, as far as it is shown back.
fn requested(head: &impl RequestHead, ctx: &Ctx) -> String {
    let header = head
        .known(MCP_PROTOCOL_VERSION)
        .map(String::from_utf8_lossy)
        .or_else(|| ctx.requested.as_deref().map(|word| word.as_str().into()));
    header.unwrap_or_default().chars().take(64).collect()
}

/// A fault as the bytes of a whole HTTP/1 response, for a connection on which no exchange stands, with
/// what a route says of its head. `is_rpc` says whether the client speaks JSON-RPC; else it is text.
pub fn bare(fault: Fault, is_rpc: bool, more: Option<More<'_>>) -> Vec<u8> {
    let row = fault.row();
    let (kind, body) = match is_rpc {
        true => {
            let body = answer::error(None, row.code, row.message, None);
            ("application/json", body)
        }
        false => {
            let body = format!("{}\n", row.message).into_bytes();
            ("text/plain; charset=utf-8", body)
        }
    };
    let status = http::StatusCode::from_u16(row.status).ok();
    let reason = status
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let retry_after = match (fault.retry_after(), row.field) {
        (Some(seconds), _) => format!("retry-after: {seconds}\r\n"),
        (None, Some((name, value))) => format!("{name}: {value}\r\n"),
        (None, None) => String::new(),
    };
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {kind}\r\n{retry_after}content-length: {}\r\nconnection: close\r\n",
        row.status,
        body.len()
    )
    .into_bytes();
    if let Some(more) = more {
        more.each(&mut |name, value| {
            let parts = [name.as_bytes(), b": ", value, b"\r\n"];
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        });
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

/// Answers with a JSON body and status 200.
pub async fn json<D: Downstream>(down: &mut D, ctx: &mut Ctx, body: Vec<u8>) {
    respond(down, ctx, 200, &[JSON], body.into()).await;
}

/// Answers a GET with an event stream that has come to its end.
pub async fn ended_stream<D: Downstream>(down: &mut D, ctx: &mut Ctx) {
    respond(down, ctx, 200, &STREAM, Bytes::new()).await;
}

/// Answers a GET with an event stream of these events.
pub async fn event_stream<D: Downstream>(down: &mut D, ctx: &mut Ctx, events: Vec<u8>) {
    respond(down, ctx, 200, &STREAM, events.into()).await;
}

/// Answers a GET whose client is not to come back (HTML, section 9.2.3).
pub async fn nothing_more<D: Downstream>(down: &mut D, ctx: &mut Ctx) {
    respond(down, ctx, 204, &[], Bytes::new()).await;
}

/// Answers `/health` and `/ready`.
///
/// `/health` says that the process is alive. `/ready` says that it serves: not draining, and at
/// least one endpoint of every pool can take traffic. While the first checks are under way it is not
/// ready yet: what came now would all go to the endpoint that answered first.
pub async fn builtin<D: Downstream>(shared: &Shared, down: &mut D, ctx: &mut Ctx, which: Builtin) {
    if !matches!(down.head_method(), "GET" | "HEAD") {
        refuse(down, ctx, Fault::Method("GET, HEAD")).await;
        return;
    }
    let (status, text) = match which {
        Builtin::Health => (200, "ok\n"),
        Builtin::Ready => readiness(shared),
    };
    respond(
        down,
        ctx,
        status,
        &[TEXT],
        Bytes::from_static(text.as_bytes()),
    )
    .await;
}

/// Status and text of `/ready`.
pub fn readiness(shared: &Shared) -> (u16, &'static str) {
    if shared.phase() != Phase::Running {
        return (503, "draining\n");
    }
    let snapshot = shared.snapshot.load();
    let all = |is: fn(&PoolState) -> bool| snapshot.pools.iter().all(|pool| is(pool));
    if !all(PoolState::is_usable) {
        (503, "a pool has no endpoint\n")
    } else if !all(PoolState::is_settled) {
        (503, "first checks are under way\n")
    } else {
        (200, "ready\n")
    }
}

/// Answers with what the configuration says, without a look at the request's body.
pub async fn fixed<D: Downstream>(
    down: &mut D,
    ctx: &mut Ctx,
    status: u16,
    set: &[(&str, &[u8])],
    body: Bytes,
) {
    if !down.body_ended() {
        down.close_after();
    }
    respond(down, ctx, status, set, body).await;
}

async fn respond<D: Downstream>(
    down: &mut D,
    ctx: &mut Ctx,
    status: u16,
    set: &[(&str, &[u8])],
    body: Bytes,
) {
    ctx.answered(status, Instant::now());
    ctx.end = End::Local;
    let length = match status {
        // It has no body, and no length either (RFC 9110, section 8.6).
        204 | 304 => Length::None,
        _ => Length::Exact(body.len() as u64),
    };
    let sent = async {
        down.send_head(
            status,
            None,
            Edits {
                set,
                drop: Names::NONE,
                ..Edits::default()
            },
            length,
        )
        .await?;
        if down.head_method() != "HEAD" && length != Length::None {
            ctx.bytes_out = body.len() as u64;
            down.send_body(&body).await?;
        }
        down.finish().await
    };
    let sent: Result<(), Error> = sent.await;
    if let Err(error) = sent {
        ctx.end = End::of_write(&error);
    }
}

/// A shorthand on every downstream.
pub trait HeadMethod {
    /// The request's HTTP method.
    fn head_method(&self) -> &str;
}

impl<D: Downstream> HeadMethod for D {
    fn head_method(&self) -> &str {
        self.head().method()
    }
}

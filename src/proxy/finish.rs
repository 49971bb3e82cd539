//! The end of every request: its line in the log and its place in the metrics, exactly once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ctx::{Ctx, End, Noted};
use super::fault::Fault;
use super::forwarded;
use super::sampling;
use super::state::Shared;
use super::termination;
use super::trace;
use crate::config::{HEADERS_MAX, LogFormat};
use crate::mcp::Era;
use crate::mcp::trace::digits;
use crate::pool::Endpoint;
use crate::telemetry::{
    Entry, Limit, Proved, Record, RequestRecord, Times, ToolLabel, ToolOutcome, limit_hit,
    record_request,
};
use crate::transport::fields::USER_AGENT;
use crate::transport::h1::head::Head;
use crate::transport::nanos::Nanos;
use crate::transport::{ConnInfo, RequestHead};

/// Records a request that is over. `head` is its head, unless that was noted and let go.
pub fn finish(shared: &Shared, ctx: &Ctx, info: &ConnInfo, head: &dyn RequestHead) {
    let duration = Instant::now().saturating_duration_since(ctx.started);
    let tool = ctx
        .tool
        .as_deref()
        .map_or(ToolLabel::NONE, |name| shared.tools.label(name));
    let server = endpoint(ctx).map(|endpoint| endpoint.name());
    record_request(&RequestRecord {
        method: ctx.mcp_method,
        tool,
        status: counted_status(ctx),
        server: server.unwrap_or(""),
        first_byte: ctx.first_byte.filter(|_| ctx.streamed).map(Nanos::get),
        duration,
        tool_outcome: ctx.tool.as_ref().map(|_| outcome(ctx)),
    });
    if let Some(pulse) = &ctx.context {
        pulse.add_bytes(ctx.bytes_in + ctx.bytes_out);
    }
    match ctx.end {
        End::ClientWrite => limit_hit(Limit::WriteTime),
        End::TooLarge => limit_hit(Limit::EventBytes),
        _ => {}
    }
    let is_logged = shared.log.is_on() && sampling::is_logged(ctx, head);
    if is_logged || ctx.is_traced() {
        tell(shared, ctx, info, head, duration, is_logged);
    }
}

/// Logs what never became a request: malformed, too large or too slow, on a connection that closes.
pub fn refused(shared: &Shared, info: &ConnInfo, fault: Fault) {
    if !shared.log.is_on() {
        return;
    }
    let (head, now) = (Head::default(), Instant::now());
    let mut ctx = Ctx::begin(shared.snapshot.load_full(), &head, info, now);
    let row = fault.row();
    ctx.fault = Some(fault);
    ctx.rpc_code = Some(row.code);
    // It has no head that could say where in a trace it belongs.
    ctx.trace = None;
    ctx.answered(row.status, now);
    tell(shared, &ctx, info, &head, Duration::ZERO, true);
}

fn endpoint(ctx: &Ctx) -> Option<&Arc<Endpoint>> {
    let pool = &ctx.snapshot.pool(ctx.pool?).pool;
    pool.find(ctx.endpoint?)
}

/// Tells the log of a request, if it `is_logged`, and the collector of traces, if it is traced.
fn tell(
    shared: &Shared,
    ctx: &Ctx,
    info: &ConnInfo,
    head: &dyn RequestHead,
    duration: Duration,
    is_logged: bool,
) {
    let endpoint = endpoint(ctx);
    let noted = ctx.noted.as_deref();
    let format = &ctx.snapshot.config.log.access.format;
    let (mut values, mut id, mut trace) = ([None; HEADERS_MAX], [0; 16], [0; 32]);
    let headers = headers(format, noted, head, &mut values);
    let entry = Entry {
        at: SystemTime::now(),
        listener: &info.listener,
        client: forwarded::address(ctx.client, info),
        local: Some(canonical(info.local)).filter(is_somewhere),
        tls: info.tls,
        proved: proved(ctx, info),
        http_version: ctx.http.as_str(),
        host: noted.map_or_else(|| head.authority(), |noted| noted.host.as_deref()),
        method: noted.map_or_else(|| head.method(), |noted| &noted.method),
        path: noted.map_or_else(|| head.path(), |noted| &noted.path),
        mcp_method: Some(ctx.mcp_method).filter(|method| !method.is_empty()),
        tool_name: ctx.tool.as_deref(),
        era: ctx.era.map(|era| match era {
            Era::Session => "session",
            Era::Stateless => "stateless",
        }),
        pool: ctx.pool.map(|pool| ctx.snapshot.pool(pool).pool.name()),
        server: endpoint.map(|endpoint| endpoint.name()),
        server_address: endpoint
            .and_then(|endpoint| endpoint.address())
            .filter(is_somewhere),
        session: ctx.session,
        status: ctx.status,
        rpc_code: ctx.rpc_code,
        times: Times {
            duration,
            queue: ctx.timers.queue.get(),
            asked: ctx.timers.asked.map(Nanos::get),
            connect: ctx.timers.connect.map(Nanos::get),
            header: ctx.timers.header.map(Nanos::get),
            first_byte: ctx.first_byte.map(Nanos::get),
        },
        retries: ctx.retries,
        request_bytes: ctx.bytes_in,
        response_bytes: ctx.bytes_out,
        request_id: hex(&ctx.request_id.to_be_bytes(), &mut id),
        trace_id: trace_id(ctx, head).map(|id| hex(&id, &mut trace)),
        termination: termination::flags(ctx),
        end_reason: match ctx.fault {
            Some(fault) => fault.row().label,
            None => ctx.end.as_str(),
        },
        user_agent: noted.map_or_else(
            || head.known(USER_AGENT),
            |noted| noted.user_agent.as_deref(),
        ),
        headers,
    };
    if is_logged {
        shared.log.log(format, &entry);
    }
    let tracing = ctx.snapshot.config.tracing.as_ref();
    if let Some((tracing, traced)) = tracing.zip(ctx.traced(duration)) {
        let record = Box::new(Record::new(&entry, traced));
        shared.traces.push(record, tracing.queue);
    }
}

/// The trace that a request belongs to: the one that goes on here, or else the one that it tells.
fn trace_id(ctx: &Ctx, head: &dyn RequestHead) -> Option<[u8; 16]> {
    match (&ctx.trace, &ctx.noted) {
        (Some(trace), _) => Some(trace.id()),
        (None, Some(noted)) => noted.trace,
        (None, None) => trace::told(head).map(|told| told.trace),
    }
}

fn proved<'a>(ctx: &Ctx, info: &'a ConnInfo) -> Option<Proved<'a>> {
    let peer = info.certificate()?;
    Some(Proved {
        tag: ctx.principal.tag(),
        name: peer.name(),
        subject: peer.subject(),
        issuer: peer.issuer(),
        fingerprint: peer.fingerprint(),
    })
}

/// A unix socket has an address that is none.
fn is_somewhere(address: &SocketAddr) -> bool {
    !address.ip().is_unspecified()
}

/// The request headers that a format asks for.
fn headers<'a, 'v>(
    format: &LogFormat,
    noted: Option<&'a Noted>,
    head: &'a dyn RequestHead,
    values: &'v mut [Option<&'a [u8]>; HEADERS_MAX],
) -> &'v [Option<&'a [u8]>] {
    let LogFormat::Text(format) = format else {
        return &[];
    };
    let names = format.headers.iter().enumerate();
    for (value, (at, name)) in values.iter_mut().zip(names) {
        *value = match noted {
            Some(noted) => noted.headers.get(at).and_then(|value| value.as_deref()),
            None => head.get(name),
        };
    }
    &values[..format.headers.len().min(HEADERS_MAX)]
}

/// An IPv4 address is one, though an IPv6 socket has it in a longer form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An id as hex digits.
fn hex<'a>(id: &[u8], room: &'a mut [u8]) -> &'a str {
    digits(room, id);
    std::str::from_utf8(room).unwrap_or_default()
}

/// The status that metrics count: a reply whose server was lost in the middle was no success,
/// though its head said 200.
fn counted_status(ctx: &Ctx) -> u16 {
    match ctx.end {
        End::UpstreamLost | End::Truncated if ctx.status == 200 => 502,
        _ => ctx.status,
    }
}

fn outcome(ctx: &Ctx) -> ToolOutcome {
    match ctx.tool_failed {
        Some(false) => ToolOutcome::Success,
        Some(true) | None => ToolOutcome::Error,
    }
}

//! The end of every request: its line in the log and its place in the metrics, exactly once.

use std::time::{Instant, SystemTime};

use super::ctx::{Ctx, End};
use super::state::Shared;
use crate::mcp::Era;
use crate::telemetry::{
    Entry, Limit, RequestRecord, ToolLabel, ToolOutcome, limit_hit, record_request,
};
use crate::transport::fields::USER_AGENT;
use crate::transport::{ConnInfo, RequestHead};

/// Records a request that is over. `head` is its head, unless that was noted and let go.
pub fn finish(shared: &Shared, ctx: &Ctx, info: &ConnInfo, head: &dyn RequestHead) {
    let duration = Instant::now().saturating_duration_since(ctx.started);
    let tool = ctx
        .tool
        .as_deref()
        .map_or(ToolLabel::NONE, |name| shared.tools.label(name));
    let pool = ctx.pool.map(|pool| &ctx.snapshot.pool(pool).pool);
    let server = pool
        .zip(ctx.endpoint)
        .and_then(|(pool, id)| Some(pool.find(id)?.name()));
    record_request(&RequestRecord {
        method: ctx.mcp_method,
        tool,
        status: counted_status(ctx),
        server: server.unwrap_or(""),
        first_byte: ctx.first_byte.filter(|_| ctx.streamed),
        duration,
        tool_outcome: ctx.tool.as_ref().map(|_| outcome(ctx)),
    });
    match ctx.end {
        End::ClientWrite => limit_hit(Limit::WriteTime),
        End::TooLarge => limit_hit(Limit::EventBytes),
        _ => {}
    }
    if !shared.log.is_on() {
        return;
    }
    let noted = ctx.noted.as_deref();
    shared.log.log(&Entry {
        at: SystemTime::now(),
        listener: &info.listener,
        client: ctx.client,
        http_version: ctx.http,
        method: noted.map_or_else(|| head.method(), |noted| &noted.method),
        path: noted.map_or_else(|| head.path(), |noted| &noted.path),
        mcp_method: Some(ctx.mcp_method).filter(|method| !method.is_empty()),
        tool_name: ctx.tool.as_deref(),
        era: ctx.era.map(|era| match era {
            Era::Session => "session",
            Era::Stateless => "stateless",
        }),
        pool: pool.map(|pool| pool.name()),
        server,
        session: ctx.session,
        status: ctx.status,
        duration,
        first_byte: ctx.first_byte,
        request_bytes: ctx.bytes_in,
        response_bytes: ctx.bytes_out,
        request_id: hex(ctx.request_id, &mut [0; 16]),
        end_reason: ctx.fault.unwrap_or_else(|| ctx.end.as_str()),
        user_agent: noted.map_or_else(
            || head.known(USER_AGENT),
            |noted| noted.user_agent.as_deref(),
        ),
    });
}

/// The 16 hex digits of a request's id.
fn hex(id: u64, room: &mut [u8; 16]) -> &str {
    for (at, digit) in room.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (60 - 4 * at)) as usize & 15];
    }
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

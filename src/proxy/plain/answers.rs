//! Answers of our own on routes of plain HTTP.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::PlainCtx;
use crate::config::Cors;
use crate::proxy::cors;
use crate::proxy::ctx::End;
use crate::proxy::fault::Fault;
use crate::transport::dress::Fields;
use crate::transport::sessions::PingoraHead;

/// Answers a fault in plain text: on these routes nobody speaks JSON-RPC.
pub(super) async fn refuse(
    session: &mut Session,
    plain: &mut PlainCtx,
    fault: Fault,
) -> Result<bool> {
    let row = fault.row();
    fault.count();
    let text = format!("{}\n", row.message);
    let mut head = ResponseHeader::build(row.status, Some(5))?;
    head.insert_header("content-type", "text/plain; charset=utf-8")?;
    head.insert_header("content-length", text.len().to_string())?;
    if let Some((name, value)) = row.field {
        head.insert_header(name, value)?;
    }
    if let Some(seconds) = fault.retry_after() {
        head.insert_header("retry-after", seconds.to_string())?;
    }
    plain.dress(session, &mut head)?;
    if let Some(ctx) = &mut plain.ctx {
        ctx.fault = Some(fault);
        ctx.end = End::Local;
        ctx.answered(row.status, Instant::now());
        ctx.bytes_out = text.len() as u64;
    }
    session.set_keepalive(None);
    session.write_response_header(Box::new(head), false).await?;
    session
        .write_response_body(Some(Bytes::from(text)), true)
        .await?;
    Ok(true)
}

/// Answers a preflight.
pub(super) async fn preflight(
    session: &mut Session,
    plain: &mut PlainCtx,
    cors: &Cors,
    head: &PingoraHead,
) -> Result<bool> {
    if !cors::lets_in(cors, head) {
        return refuse(session, plain, Fault::Origin).await;
    }
    let mut answer = ResponseHeader::build(204, Some(8))?;
    answer.insert_header("access-control-allow-headers", cors::allowed(cors, head))?;
    plain.dress.response = Some(Arc::clone(&cors.preflight) as Arc<dyn Fields>);
    plain.dress(session, &mut answer)?;
    if let Some(ctx) = &mut plain.ctx {
        ctx.end = End::Local;
        ctx.answered(204, Instant::now());
    }
    session
        .write_response_header(Box::new(answer), true)
        .await?;
    Ok(true)
}

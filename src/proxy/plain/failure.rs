//! What clients of plain routes are told when an exchange fails, and what is noted of it.

use std::io::ErrorKind;

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, Session};

use super::{PlainCtx, answers};
use crate::proxy::ctx::End;
use crate::proxy::fault::Fault;
use crate::proxy::outcome;
use crate::proxy::state::Shared;

/// Tells the client, where nothing of an answer has been sent, and notes how the exchange ended.
pub(super) async fn told(
    shared: &Shared,
    session: &mut Session,
    error: &Error,
    plain: &mut PlainCtx,
) -> FailToProxy {
    let downstream = *error.esource() == ErrorSource::Downstream;
    let struck = plain.clock.struck();
    let fault = match error.etype() {
        _ if struck.is_some() && !plain.is_sent => Fault::SlowBody,
        _ if struck.is_some() => Fault::UpstreamTimeout,
        ErrorType::HTTPStatus(503) => plain.unplaced.unwrap_or(Fault::NoEndpoint),
        ErrorType::ReadTimedout if downstream => Fault::SlowBody,
        ErrorType::WriteTimedout if downstream => {
            if let Some(ctx) = &mut plain.ctx {
                ctx.end = End::ClientWrite;
            }
            return FailToProxy {
                error_code: Fault::ClientGone.row().status,
                can_reuse_downstream: false,
            };
        }
        _ if downstream && is_of(error, ErrorKind::InvalidData) => {
            Fault::Invalid("the body's framing is not valid")
        }
        _ if downstream && is_of(error, ErrorKind::TimedOut) => Fault::SlowBody,
        _ if downstream => Fault::ClientGone,
        _ if plain.exhausted => Fault::Exhausted,
        ErrorType::ReadTimedout | ErrorType::ConnectTimedout => Fault::UpstreamTimeout,
        ErrorType::ConnectRefused | ErrorType::ConnectError | ErrorType::ConnectNoRoute => {
            Fault::Connect
        }
        _ => Fault::UpstreamClosed,
    };
    if fault != Fault::ClientGone && session.response_written().is_none() {
        // A connection that could not be made was reported as that.
        if !matches!(fault, Fault::Connect | Fault::NoEndpoint) {
            plain.report(shared, outcome::of_fault(fault));
        }
        let _ = answers::refuse(session, plain, fault).await;
    } else if let Some(ctx) = &mut plain.ctx {
        ctx.end = match fault {
            Fault::ClientGone => End::ClientGone,
            _ => struck.unwrap_or(End::Truncated),
        };
    }
    FailToProxy {
        error_code: fault.row().status,
        can_reuse_downstream: false,
    }
}

/// Why the transport refused to read on in a body: [`crate::transport::single`] tells it by the kind.
fn is_of(error: &Error, kind: ErrorKind) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == kind)
}

//! Which requests of plain routes may be sent again once a server has had them.

use http::Method;
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

/// May this request be sent again? Nothing of an answer has come, the failure is of the connection,
/// and doing it twice is as good as once (RFC 9110, section 9.2). On a connection that had lain idle
/// the server most likely never saw it, which is enough for PUT and DELETE.
pub(super) fn may(session: &Session, error: &Error, reused: bool) -> bool {
    let method = &session.req_header().method;
    let repeatable = match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => true,
        Method::PUT | Method::DELETE => reused,
        _ => false,
    };
    let broken = matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    );
    repeatable
        && broken
        && *error.esource() == ErrorSource::Upstream
        && session.response_written().is_none()
        && !session.as_ref().retry_buffer_truncated()
}

//! What is counted of connections that come to nothing before there was a request on them.

use super::METRICS;
use crate::telemetry::labels::{HandshakeFailure, HeaderFailure};

/// Counts a TLS handshake that came to nothing.
pub fn handshake_failed(why: HandshakeFailure) {
    METRICS.handshakes_failed[why as usize].inc();
}

/// Counts a connection that was closed for want of a header of the PROXY protocol.
pub fn proxy_header_failed(why: HeaderFailure) {
    METRICS.proxy_headers_failed[why as usize].inc();
}

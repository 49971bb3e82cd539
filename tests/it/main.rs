//! The integration tests: one binary, one file per behaviour.

mod balance;
mod fault_before_head;
mod fault_in_stream;
mod framing;
mod http2;
mod hygiene;
mod legacy_sse;
mod limits;
mod plain_http;
mod session_era;
mod stateless_era;
mod streams;
mod support;
mod support_works;
mod unknown_sessions;
mod websocket;

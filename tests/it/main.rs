//! The integration tests: one binary, one file per behaviour.

mod balance;
mod cli;
mod fault_before_head;
mod fault_in_stream;
mod framing;
mod health;
mod http2;
mod hygiene;
mod legacy_sse;
mod lifecycle;
mod limits;
mod plain_http;
mod session_era;
mod stateless_era;
mod streams;
mod support;
mod support_works;
mod telemetry;
mod unknown_sessions;
mod websocket;

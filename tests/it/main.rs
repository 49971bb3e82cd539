//! The integration tests: one binary, one file per behaviour.

#![allow(clippy::print_stderr, reason = "a failure shows what the program said")]

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
mod protect;
mod session_era;
mod stateless_era;
mod streams;
mod support;
mod support_works;
mod telemetry;
mod unknown_sessions;
mod websocket;

//! The integration tests: one binary, one file per behaviour.

mod legacy_sse;
mod plain_http;
mod support;
mod support_works;
mod websocket;

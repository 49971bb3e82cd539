//! The integration tests: one binary, one file per behaviour.

#![allow(clippy::print_stderr, reason = "a failure shows what the program said")]

mod admin;
mod balance;
mod cli;
mod drain;
mod edge;
mod fault_before_head;
mod fault_in_stream;
mod framing;
mod health;
mod hostile_http2;
mod hostile_json;
mod http2;
mod hygiene;
mod legacy_sse;
mod lifecycle;
mod limits;
mod logs;
mod per_client;
mod plain_http;
mod protect;
mod queueing;
mod rates;
mod recovery;
mod reload;
mod resume;
mod retries;
mod revival;
mod session_era;
mod slow_clients;
mod slow_readers;
mod smuggling;
mod stateless_era;
mod streams;
mod support;
mod support_works;
mod telemetry;
mod tls;
mod tls_endpoints;
mod unknown_sessions;
mod upgrade;
mod websocket;
mod withdraw;

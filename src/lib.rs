//! Tidegate: an L7 load balancer that speaks MCP, the Model Context Protocol.
//!
//! The map of the code, outermost first; imports go down this list only (`tests/tidy.rs` holds
//! them to it):
//!
//! - [`cli`]: the command line.
//! - [`server`]: the process. Listeners, threads, signals, checks, the admin address.
//! - [`demo`]: the MCP server behind `tidegate demo`.
//! - [`proxy`]: one request, from first byte to log line. Start reading here.
//! - [`transport`]: bytes in, bytes out, behind two small traits.
//! - [`route`], [`session`], [`pool`], [`telemetry`]: which pool, whose session, which endpoint,
//!   what happened. None of them knows the others.
//! - [`limit`]: rates, and numbers at once.
//! - [`config`]: the words an operator writes, and their meaning.
//! - [`mcp`]: the protocol as pure functions and small state machines.

pub mod cli;
pub mod config;
pub mod demo;
pub mod limit;
pub mod mcp;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod server;
pub mod session;
pub mod telemetry;
pub mod transport;

//! The MCP server behind `tidegate demo`: small, real, and correct in both eras.
//!
//! A balancer is hard to try without something to balance, and an MCP server with sessions, event
//! streams and slow calls is a chore to set up. So the binary carries one. Three copies of it, told
//! apart by their names, are enough to see a session stay at one copy (`whoami`, `counter`), a
//! stream pass event by event (`ticks`), and every answer arrive as it was given (`echo`).
//!
//! On `/mcp` it serves the session-era revisions 2025-03-26 to 2025-11-25 and the stateless one,
//! 2026-07-28; `/health` says that the copy is alive.
//!
//! | module | question |
//! |---|---|
//! | `request` | what does the client ask for, and is it well formed? |
//! | `state` | what is the answer, given all that this copy remembers? |
//! | `session_era`, `stateless_era` | what do the methods of each era do? |
//! | `session` | which sessions are there, and when do they end? |
//! | `tools` | what can be called? |
//! | `feed` | what does an event stream say, and when? |
//! | `reply` | what is an answer, before it is written? |
//! | `server` | how is all that read from and written to a client? |
//!
//! All but the last are pure: time comes in, replies go out as values.
//!
//! What it does not know: that there is a balancer in front of it, other copies, sockets, or
//! configuration.

mod feed;
mod reply;
mod request;
mod server;
mod session;
mod session_era;
mod state;
mod stateless_era;
mod tools;

#[cfg(test)]
mod tests;

pub use server::{BODY_BYTES_MAX, DemoServer, KEEP_ALIVE};
pub use session::{SESSION_IDLE_TTL, SESSIONS_MAX, STREAMS_PER_SESSION_MAX};

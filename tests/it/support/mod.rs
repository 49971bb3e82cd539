//! What the integration tests stand on: real peers with a script, and the real binary between them.
//!
//! - [`Endpoint`] is an MCP server on a free port of 127.0.0.1 that speaks both eras, counts
//!   everything it sees, and misbehaves when a test tells it to ([`Fault`]).
//! - [`Client`] is an MCP client that controls and reports every byte; [`h2::H2Client`] is the same
//!   over HTTP/2, [`frames::Raw`] frame by frame, and [`ws::WebSocket`] over a WebSocket.
//! - [`Tidegate`] is the program under test, as a child process with a config of its own.
//!
//! Nothing in here is a mock of the program's types, and nothing sleeps to wait for a condition:
//! a test waits on a signal ([`Endpoint::until`]) or polls with a deadline ([`eventually`]).
//! Every wait ends after [`PATIENCE`], so a test that goes wrong fails instead of hanging.
//!
//! Helpers panic when the environment fails them, for a test has no better use of such an error.

#![allow(
    dead_code,
    unused_imports,
    clippy::disallowed_methods,
    reason = "each test file uses its own part of the support, which stands outside the pure cores"
)]

use std::time::Duration;

use tokio::time::Instant;

pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod crowd;
pub(crate) mod deaf;
pub(crate) mod dns;
pub(crate) mod door;
pub(crate) mod endpoint;
pub(crate) mod frames;
pub(crate) mod h2;
pub(crate) mod pebble;
pub(crate) mod script;
pub(crate) mod sse;
pub(crate) mod tidegate;
pub(crate) mod tls;
pub(crate) mod tls_front;
pub(crate) mod tmux;
pub(crate) mod wire;
pub(crate) mod ws;

pub(crate) use client::{
    Client, Connection, Mcp, NoAnswer, Outgoing, Response, SessionId, text_of,
};
pub(crate) use endpoint::{Disconnect, Endpoint, Request};
pub(crate) use script::Fault;
pub(crate) use sse::{Event, Events};
pub(crate) use tidegate::Tidegate;
pub(crate) use wire::{BodyEnd, Headers};

/// How long a test waits for anything before it counts as a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The newest revision of the session era.
pub(crate) const SESSION_VERSION: &str = "2025-11-25";

/// The revision of the stateless era.
pub(crate) const STATELESS_VERSION: &str = "2026-07-28";

/// Time between two looks at a condition that nobody signals.
const POLL: Duration = Duration::from_millis(5);

/// Polls `condition` until it holds, and tells whether it did before `deadline` had passed.
#[must_use = "assert it, so that the failing line is the test's own"]
pub(crate) async fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    eventually_some(deadline, async || condition().then_some(()))
        .await
        .is_some()
}

/// Polls `look` until it finds something or `deadline` has passed.
pub(crate) async fn eventually_some<T>(
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Awaits `future` for at most [`PATIENCE`]; panics with `what` when it takes longer.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took longer than {PATIENCE:?}"),
    }
}

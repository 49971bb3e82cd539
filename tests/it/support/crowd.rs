//! Clients that call and listen until they are told to stop, and must not notice what happens meanwhile.

use std::time::Instant;

use serde_json::json;
use tokio::sync::watch;

use super::{BodyEnd, Client, Mcp, Response, SessionId};

/// Calls within a session, each on a connection of its own; every one must be answered. How many.
pub(crate) async fn calls(
    client: Client,
    session: SessionId,
    stop: watch::Receiver<bool>,
) -> usize {
    let mut made = 0;
    while !*stop.borrow() {
        let answer = client.call(&session, "whoami", json!({})).await;
        assert!(answer["error"].is_null(), "{answer}");
        made += 1;
    }
    made
}

/// Listens to a stream on which nothing but comments may come, and which may not end.
pub(crate) async fn held(mut stream: Response, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            piece = stream.piece() => match piece {
                Ok(comment) => assert!(comment.starts_with(b":"), "{comment:?}"),
                end => panic!("it was cut: {end:?}"),
            },
            _ = stop.changed() => return,
        }
    }
}

/// When a stream on which nothing is said has ended properly.
pub(crate) async fn end_of(mut stream: Response) -> Instant {
    let (events, end) = stream.events().rest().await;
    assert_eq!((events.len(), end), (0, BodyEnd::Complete));
    Instant::now()
}

/// So many, or as the environment says.
pub(crate) fn size(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

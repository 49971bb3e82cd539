//! How an endpoint dies and comes back.

use std::io::ErrorKind;

use serde_json::json;

use crate::support::{BodyEnd, Client, Endpoint, Mcp, NoAnswer, SessionId};

async fn refused(client: &Client) -> bool {
    client.connect().await.err() == Some(NoAnswer::Connect(ErrorKind::ConnectionRefused))
}

#[tokio::test]
async fn a_kill_resets_every_connection_at_once() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    let idle = client.connect().await.expect("a connection");
    let ticks = json!({"n": 1000, "every_ms": 1000});
    let mut call = client.start_call(&session, "ticks", ticks).await;
    endpoint
        .until("three connections", |e| e.connections_open() == 3)
        .await;

    endpoint.kill().await;
    assert_eq!(endpoint.connections_open(), 0);
    assert_eq!(endpoint.streams_open(), 0);
    assert!(refused(&client).await);
    assert_eq!(stream.read_to_end().await.end, BodyEnd::Reset);
    assert_eq!(call.read_to_end().await.end, BodyEnd::Reset);
    assert_eq!(idle.rest().await.1, BodyEnd::Reset);
    assert!(
        endpoint.disconnects().is_empty(),
        "it was not the client that left"
    );
}

#[tokio::test]
async fn a_restart_keeps_the_port_and_what_it_should() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    endpoint.kill().await;
    endpoint.restart().await;
    assert_eq!(client.whoami(&session).await, "a");

    endpoint.restart_forgetting().await;
    let gone = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    assert!(endpoint.sessions().is_empty());
}

#[tokio::test]
async fn refusing_connections_leaves_those_there_are() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let connection = client.connect().await.expect("a connection");
    endpoint
        .until("it is accepted", |e| e.connections_open() == 1)
        .await;
    endpoint.refuse_connections().await;
    assert!(refused(&client).await);
    let response = client
        .try_request_on(connection, "GET", "/plain", &[], b"")
        .await;
    assert_eq!(response.map(|r| r.status), Ok(200));
    endpoint.restart().await;
    assert!(!refused(&client).await);
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_still_taken() {
    let endpoint = Endpoint::start("a").await;
    endpoint.kill().await;
    for _ in 0..200 {
        let other = Endpoint::start("b").await;
        assert_ne!(other.address(), endpoint.address());
    }
    endpoint.restart().await;
    assert!(!refused(&Client::of(&endpoint)).await);
}

#[tokio::test]
async fn an_expired_session_is_unknown() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    endpoint.expire(&session.0);
    assert_eq!(stream.read_to_end().await.end, BodyEnd::Complete);
    let gone = client
        .start_call(&SessionId(session.0), "whoami", json!({}))
        .await;
    assert_eq!(gone.status, 404);
}

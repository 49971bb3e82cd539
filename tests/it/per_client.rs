//! One client has so many connections, sessions and streams, and what it gives back it may have again.

use std::time::Duration;

use serde_json::json;

use crate::support::ws::WebSocket;
use crate::support::{BodyEnd, Endpoint, Mcp, Response, Tidegate, eventually_some};

async fn hits(gate: &Tidegate, limit: &str) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_limits_hit_total", &[("limit", limit)])
}

async fn refused(mut answer: Response) {
    assert_eq!(answer.status, 429);
    assert!(answer.json().await["error"]["code"].is_i64());
}

/// Asks until the answer is 200, as a client may when something that it had has gone.
async fn until_taken(mut ask: impl AsyncFnMut() -> Response) -> Response {
    let taken = eventually_some(Duration::from_secs(5), async || {
        let answer = ask().await;
        (answer.status == 200).then_some(answer)
    });
    taken.await.expect("there is room again")
}

#[tokio::test]
async fn connections_over_a_clients_share_are_closed() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .listener("max_connections_per_client: 2")
        .start()
        .await;
    let client = gate.client();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut answer = client.request("GET", "/health", &[], b"").await;
        answer.read_to_end().await;
        held.push(answer.into_connection());
    }
    let over = client.connect().await.expect("the kernel accepts");
    let (rest, end) = over.rest().await;
    assert_eq!(rest.len(), 0);
    assert!(matches!(end, BodyEnd::Closed | BodyEnd::Reset));
    assert_eq!(hits(&gate, "connections_per_client").await, 1.0);
    held.pop();
    let room = eventually_some(Duration::from_secs(5), async || {
        let answer = client.try_request("GET", "/health", &[], b"").await;
        answer.ok().filter(|answer| answer.status == 200)
    });
    assert!(room.await.is_some());
}

#[tokio::test]
async fn sessions_over_a_clients_share_are_refused_until_one_ends() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::build(&[&a])
        .config("sessions: { max_per_client: 2 }")
        .start()
        .await;
    let client = gate.client();
    let first = client.initialize().await;
    // A server that refuses has opened none.
    a.fault_next(1, crate::support::Fault::Status(400, "{}".into()));
    assert_eq!(client.send_initialize().await.status, 400);
    let second = client.initialize().await;
    refused(client.send_initialize().await).await;
    let denied = WebSocket::connect(&client).await.expect_err("a refusal");
    assert_eq!(denied.status, 429);
    assert_eq!(hits(&gate, "sessions_per_client").await, 2.0);
    assert_eq!(client.whoami(&first).await, "a", "it goes on");
    assert_eq!(client.delete(&second).await.status, 200);
    let socket = WebSocket::connect(&client).await.expect("room for one");
    refused(client.send_initialize().await).await;
    socket.close(1000).await;
    until_taken(async || client.send_initialize().await).await;
}

#[tokio::test]
async fn streams_over_a_clients_share_are_refused_until_one_ends() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::build(&[&a])
        .config("streams: { max_per_client: 2 }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let get = client.get_stream(&session, None).await;
    let listen = client.listen().await;
    assert_eq!((get.status, listen.status), (200, 200));
    refused(client.listen().await).await;
    refused(gate.h2_client().await.listen().await).await;
    let denied = WebSocket::connect(&client).await.expect_err("a refusal");
    assert_eq!(denied.status, 429);
    assert_eq!(hits(&gate, "streams_per_client").await, 3.0);
    assert_eq!(client.whoami(&session).await, "a", "calls are no streams");
    drop(listen);
    let again = until_taken(async || client.listen().await).await;
    drop((get, again));
}

#[tokio::test]
async fn a_session_has_so_many_get_streams() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("streams: { max_per_session: 1 }")
        .start()
        .await;
    let client = gate.client();
    let (one, other) = (client.initialize().await, client.initialize().await);
    let stream = client.get_stream(&one, None).await;
    assert_eq!(stream.status, 200);
    refused(client.get_stream(&one, None).await).await;
    assert_eq!(client.get_stream(&other, None).await.status, 200);
    assert_eq!(hits(&gate, "streams_per_session").await, 1.0);
    assert_eq!(client.whoami(&one).await, "a");
    drop(stream);
    until_taken(async || client.get_stream(&one, None).await).await;
}

#[tokio::test]
async fn a_stream_of_http_and_sse_is_a_session_as_well() {
    let a = Endpoint::named("a").legacy_sse().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /sse\n  pool: main")
        .config("sessions: { max_per_client: 1 }\nstreams: { max_per_client: 1 }")
        .start()
        .await;
    let client = gate.client();
    let accept = [("accept", "text/event-stream")];
    let stream = client.request("GET", "/sse", &accept, b"").await;
    assert_eq!(stream.status, 200);
    refused(client.request("GET", "/sse", &accept, b"").await).await;
    assert_eq!(hits(&gate, "sessions_per_client").await, 1.0);
    drop(stream);
    until_taken(async || client.request("GET", "/sse", &accept, b"").await).await;
}

#[tokio::test]
async fn a_call_on_http_and_sse_holds_its_place_until_its_answer_comes() {
    let a = Endpoint::named("a").legacy_sse().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /sse\n  pool: main")
        .endpoint("a", "max_in_flight: 1")
        .pool("queue_timeout: 300ms\ntools: [{ name: slow, concurrent: 1 }]")
        .start()
        .await;
    let client = gate.client();
    let accept = [("accept", "text/event-stream")];
    let mut stream = client.request("GET", "/sse", &accept, b"").await;
    let mut events = stream.events();
    let address = events
        .next()
        .await
        .and_then(|event| event.data)
        .expect("an address");
    let json = [("content-type", "application/json")];
    let post = async |id: u32, tool: &str, ms: u32| {
        let params = json!({"name": tool, "arguments": {"ms": ms}});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let body = message.to_string();
        client
            .request("POST", &address, &json, body.as_bytes())
            .await
            .status
    };
    assert_eq!(post(1, "slow", 1500).await, 202);
    assert_eq!(post(2, "slow", 0).await, 429, "it runs already");
    assert_eq!(post(3, "whoami", 0).await, 503, "no place");
    assert_eq!(events.next_json().await["id"], 1);
    assert_eq!(post(4, "slow", 0).await, 202);
    assert_eq!(events.next_json().await["id"], 4);
}

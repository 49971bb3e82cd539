//! The PROXY protocol towards endpoints: a connection begins with whom it is for, and serves nobody else.

use std::net::SocketAddr;

use serde_json::json;

use crate::support::door::Door;
use crate::support::h2::H2Client;
use crate::support::tidegate::Builder;
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Mcp, PATIENCE, Tidegate, eventually};

/// Routes of MCP and of plain HTTP to endpoints behind a door.
fn build(door: &Door, keys: &str) -> Builder {
    let address = door.address();
    let plain = format!(
        "plain: {{ kind: http, health: {{ check: none }}, endpoints: [\"{address}\"], {keys} }}"
    );
    Tidegate::build(&[])
        .also_at("a", address)
        .routes("- { path: /mcp, pool: main }\n- { path_prefix: /, pool: plain }")
        .pool(keys)
        .pools(&plain)
        .config("trusted_proxies: [127.0.0.1]\nthreads: 1")
}

/// Who was announced, without the ports, connection by connection.
fn sources(door: &Door) -> Vec<String> {
    let announced = door.announced();
    let source = |pair: &Option<(SocketAddr, SocketAddr)>| {
        pair.map_or_else(
            || "itself".to_owned(),
            |(source, _)| source.ip().to_string(),
        )
    };
    announced.iter().map(source).collect()
}

fn of(gate: &Tidegate, client: &str) -> Client {
    gate.client().with_header("x-forwarded-for", client)
}

#[tokio::test]
async fn endpoints_are_told_for_whom_a_connection_is_on_every_path() {
    for version in ["v1", "v2"] {
        let a = Endpoint::named("a").websocket().start().await;
        let door = Door::taking_off(a.address()).await;
        let gate = build(&door, &format!("send_proxy: {version}"))
            .start()
            .await;
        let client = of(&gate, "198.51.100.7");
        let session = client.initialize().await;
        client.whoami(&session).await;
        drop(client.get_stream(&session, None).await);
        drop(WebSocket::connect(&client).await.expect("a WebSocket"));
        assert_eq!(client.request("PUT", "/plain", &[], b"x").await.status, 200);
        let h2 = H2Client::connect(gate.address()).await.expect("HTTP/2");
        let h2 = h2.with_header("x-forwarded-for", "198.51.100.7");
        h2.modern_call("whoami", json!({})).await;
        let plain = h2.try_request("GET", "/plain", &[], b"").await;
        assert_eq!(plain.expect("an answer").status, 200);
        let seen = sources(&door);
        assert!(seen.len() >= 3, "{seen:?}");
        assert!(
            seen.iter().all(|source| source == "198.51.100.7"),
            "{seen:?}"
        );
        for announced in door.announced() {
            let (_, destination) = announced.expect("a client");
            assert_eq!(destination, gate.address());
        }
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_its_own_client_alone() {
    let a = Endpoint::start("a").await;
    let door = Door::taking_off(a.address()).await;
    let gate = build(&door, "send_proxy: v2").start().await;
    for _ in 0..2 {
        for address in ["198.51.100.7", "2001:db8::7", "198.51.100.8"] {
            of(&gate, address).modern_call("whoami", json!({})).await;
        }
    }
    // Whether the server lets a connection go is its own business, but nobody uses another's.
    let seen = sources(&door);
    assert_eq!(seen.len(), 3, "{seen:?}");
    for (request, address) in a.requests().iter().zip(
        ["198.51.100.7", "2001:db8::7", "198.51.100.8"]
            .iter()
            .cycle(),
    ) {
        assert_eq!(seen[request.connection - 1], *address);
    }
    for _ in 0..2 {
        for address in ["198.51.100.1", "198.51.100.2"] {
            let plain = of(&gate, address).request("GET", "/plain", &[], b"").await;
            assert_eq!(plain.status, 200);
            let request = a.requests().pop().expect("a request");
            assert_eq!(sources(&door)[request.connection - 1], address);
        }
    }
}

#[tokio::test]
async fn a_client_that_nobody_speaks_for_is_told_with_its_port() {
    let a = Endpoint::start("a").await;
    let door = Door::taking_off(a.address()).await;
    let gate = build(&door, "send_proxy: v1").start().await;
    gate.client().modern_call("whoami", json!({})).await;
    let announced = door.announced();
    let (source, destination) = announced[0].expect("a client");
    assert_eq!(source.ip().to_string(), "127.0.0.1");
    assert_ne!(source.port(), 0);
    assert_eq!(destination, gate.address());
}

#[tokio::test]
async fn checks_speak_for_nobody() {
    for check in ["mcp", "http, path: /plain", "tcp"] {
        let a = Endpoint::start("a").await;
        let door = Door::taking_off(a.address()).await;
        let gate = build(&door, "send_proxy: v2")
            .health(&format!("{{ check: {check}, interval: 100ms }}"))
            .start()
            .await;
        assert!(eventually(PATIENCE, || !door.announced().is_empty()).await);
        assert!(sources(&door).iter().all(|source| source == "itself"));
        let healthy = [("server_name", "a")];
        gate.metrics_when(|m| m.with("mcp_server_healthy", &healthy) == 1.0)
            .await;
    }
}

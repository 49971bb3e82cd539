//! Paths that servers see in another form than clients sent them.

use serde_json::json;

use crate::support::ws::WebSocket;
use crate::support::{Endpoint, Mcp, Tidegate};

async fn seen(gate: &Tidegate, a: &Endpoint, path: &str) -> String {
    let mut answer = gate.client().request("GET", path, &[], b"").await;
    answer.text().await;
    assert_eq!(a.requests().len(), 1, "{path}: {}", answer.status);
    a.requests().pop().expect("a request").path
}

#[tokio::test]
async fn plain_paths_are_rewritten_and_keep_their_encoding_and_query() {
    for (rewrite, path, expected) in [
        (
            "prefix: /plain",
            "/api/a%20b%2Fc//d?q=%2F&/api",
            "/plain/a%20b%2Fc//d?q=%2F&/api",
        ),
        ("prefix: /plain", "/api", "/plain"),
        ("prefix: /plain", "/api?x", "/plain?x"),
        ("prefix: /", "/api/plain/y", "/plain/y"),
        ("prefix: /", "/api", "/"),
        ("prefix: /plain", "/%61pi/%61", "/plain/a"),
        (
            "regex: '^/api/v(\\d+)/(.*)', to: /plain/$2/$1",
            "/api/v2/x%2Fy?z=1",
            "/plain/x%2Fy/2?z=1",
        ),
        (
            "regex: '^/api/none', to: /plain",
            "/api/other",
            "/api/other",
        ),
    ] {
        let a = Endpoint::start("a").await;
        let gate = Tidegate::build(&[&a])
            .routes(&format!(
                "- path_prefix: /api\n  pool: main\n  rewrite: {{ {rewrite} }}"
            ))
            .pool("kind: http")
            .start()
            .await;
        assert_eq!(seen(&gate, &a, path).await, expected, "{rewrite}");
        let line = gate.logged(|line| line["pool"] == "main").await;
        let sent = path.split('?').next();
        assert_eq!(
            line["path"].as_str(),
            sent,
            "the log has what the client sent"
        );
    }
}

#[tokio::test]
async fn a_rewrite_cannot_lead_out_of_its_path() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .routes("- path_prefix: /api\n  pool: main\n  rewrite: { regex: '^/api/(.*)/x(.*)', to: /plain/$1$2 }")
        .pool("kind: http")
        .start()
        .await;
    let client = gate.client();
    for path in ["/api/./x.", "/api/a/../x", "/api/a%2f/x..", "/api/%2e/x%2E"] {
        let answer = client.request("GET", path, &[], b"").await;
        assert_eq!(answer.status, 400, "{path}");
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn mcp_goes_to_the_rewritten_path_in_all_its_forms() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /weather\n  pool: main\n  rewrite: { prefix: /mcp }")
        .health("{ check: mcp, interval: 100ms }")
        .start()
        .await;
    let client = gate.client().with_path("/weather");
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    let stream = client.get_stream(&session, None).await;
    assert!(stream.is_stream());
    assert_eq!(client.delete(&session).await.status, 200);
    let listened = client.listen().await;
    assert!(listened.is_stream());
    let answer = client.modern("tools/list", None, json!({})).await;
    assert_eq!(answer.status, 200);
    let h2 = gate.h2_client().await.with_path("/weather");
    let answer = h2.modern("tools/list", None, json!({})).await;
    assert_eq!(answer.status, 200);
    let socket = WebSocket::connect(&client).await.expect("a WebSocket");
    assert_eq!(socket.close(1000).await, Some(1000));
    for request in a.requests() {
        assert_eq!(request.path, "/mcp", "{request:?}");
    }
}

#[tokio::test]
async fn a_stream_is_asked_for_again_on_the_rewritten_path() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /weather\n  pool: main\n  rewrite: { prefix: /mcp }\n  request_headers: { set: { X-Inside: here } }")
        .pool("ejection: off\nbreaker: off")
        .start()
        .await;
    let client = gate.client().with_path("/weather");
    let listened = client.listen().await;
    assert!(listened.is_stream());
    a.reset_connections().await;
    a.until("it is asked again", |e| {
        e.calls("subscriptions/listen").len() >= 2
    })
    .await;
    for request in a.calls("subscriptions/listen") {
        assert_eq!(request.path, "/mcp");
        assert_eq!(request.header("x-inside"), Some("here"));
    }
}

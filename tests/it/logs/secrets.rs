//! Secrets wherever a client can put one, and a look through all that was logged.

use serde_json::{Value, json};

use super::call;
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Mcp, Outgoing, Tidegate, eventually};

/// What must not be found. Every place gets one of its own, so that a leak names its place.
fn secret(place: &str) -> String {
    format!("s3cr3t-{place}")
}

/// Headers that carry credentials, arguments or ids of sessions.
fn laden(client: Client) -> Client {
    [
        ("authorization", "Bearer "),
        ("proxy-authorization", "Basic "),
        ("cookie", "session="),
        ("x-api-key", ""),
        ("mcp-param-city", ""),
        ("x-anything", ""),
        ("referer", "https://u:s3cr3t-userinfo@h/p?token="),
    ]
    .into_iter()
    .fold(client, |client, (name, before)| {
        client.with_header(name, &format!("{before}{}", secret(name)))
    })
}

async fn speak(gate: &Tidegate) -> Vec<String> {
    let client = laden(gate.client());
    let session = client.initialize().await;
    let arguments = json!({"text": secret("argument"), "nested": {"deep": secret("deep")}});
    client.call(&session, "echo", arguments.clone()).await;
    client.call(&session, "fail", arguments.clone()).await;
    client.call(&session, "no_such", arguments.clone()).await;
    client
        .rpc(
            &session,
            "resources/read",
            json!({"uri": format!("x://{}", secret("uri"))}),
        )
        .await;
    client
        .send(call("echo", arguments))
        .await
        .read_to_end()
        .await;
    let meta =
        json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": secret("progress")}});
    let with_id = Outgoing::stateless(&json!(secret("id")), "tools/call", Some("echo"), meta);
    client.send(with_id).await.read_to_end().await;
    client
        .get_stream(&session, Some(&secret("last-event")))
        .await
        .reset();
    for path in ["/mcp", "/plain/x", "/none", "/health"] {
        let target = format!("{path}?token={}", secret("query"));
        client
            .request("GET", &target, &[], b"")
            .await
            .read_to_end()
            .await;
        let body = secret("body");
        let mut posted = client.request("POST", &target, &[], body.as_bytes()).await;
        posted.read_to_end().await;
    }
    let forged = crate::support::SessionId(format!("{}x", session.0));
    client
        .start_call(&forged, "echo", json!({}))
        .await
        .read_to_end()
        .await;
    if let Ok(socket) = WebSocket::connect(&client).await {
        socket.send_text(&secret("frame")).await;
        socket.close(1000).await;
    }
    client.delete(&session).await;
    vec![session.0]
}

/// The program writes all it has into these files and to its standard error.
async fn look(gate: &Tidegate, lines: usize, sessions: &[String]) {
    let log = gate.places().access_log();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    let all = eventually(std::time::Duration::from_secs(10), || {
        text().lines().count() >= lines
    });
    assert!(all.await, "too few lines: {}", text());
    for text in [text(), gate.stderr()] {
        let found = text.lines().find(|line| line.contains("s3cr3t"));
        assert_eq!(found, None, "a secret is in the log");
        for id in sessions {
            assert!(!text.contains(id.as_str()), "a session's id is in the log");
        }
    }
}

fn routes(a: &Endpoint) -> (String, String) {
    let routes = "- path: /mcp\n  pool: main\n- path_prefix: /plain\n  pool: plain";
    let pools = format!(
        "plain:\n  kind: http\n  health: {{ check: none }}\n  endpoints: [\"{}\"]",
        a.address()
    );
    (routes.to_owned(), pools)
}

#[tokio::test]
async fn no_secret_is_ever_logged() {
    let a = Endpoint::named("a").websocket().start().await;
    let (routes, pools) = routes(&a);
    let gate = Tidegate::build(&[&a])
        .routes(&routes)
        .pools(&pools)
        .start()
        .await;
    let mut ids = speak(&gate).await;
    ids.extend(
        a.requests()
            .iter()
            .filter_map(|r| r.header("mcp-session-id").map(str::to_owned)),
    );
    assert!(ids.len() > 1, "ids of the server as well");
    look(&gate, 18, &ids).await;
    let line = gate.logged(|line| line["mcp_method"] == "initialize").await;
    let tag = line["session"].as_str().expect("a hash");
    assert_eq!(tag.len(), 8);
}

#[tokio::test]
async fn no_id_of_an_old_session_is_logged() {
    let a = Endpoint::named("a").legacy_sse().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /sse\n  pool: main")
        .start()
        .await;
    let client = laden(gate.client());
    let mut stream = client
        .request("GET", "/sse", &[("accept", "text/event-stream")], b"")
        .await;
    let first = stream.events().next().await.expect("the endpoint event");
    let address = first.data.expect("an address");
    let (_, id) = address.split_once("session=").expect("a sealed id");
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": secret("argument")}}});
    let json = [("content-type", "application/json")];
    let posted = client
        .request("POST", &address, &json, message.to_string().as_bytes())
        .await;
    assert_eq!(posted.status, 202);
    let answer: Value = stream.events().next_json().await;
    assert_eq!(answer["id"], 1);
    stream.reset();
    look(&gate, 2, &[id.to_owned()]).await;
}

//! What the access log says of an exchange: who ended it and where, what its steps took, and never a
//! secret.

use serde_json::{Value, json};

use crate::support::tls::{Certificate, TlsDoor};
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Fault, Mcp, Outgoing, Tidegate};

mod formats;
mod routes;
mod secrets;
mod targets;

/// A stateless call of a tool.
fn call(tool: &str, arguments: Value) -> Outgoing {
    let params = json!({"name": tool, "arguments": arguments});
    Outgoing::stateless(&json!(1), "tools/call", Some(tool), params)
}

/// Letters and reason of the one line with this user agent.
async fn ended(gate: &Tidegate, agent: &str) -> (String, String) {
    let line = gate.logged(|line| line["user_agent"] == agent).await;
    let text = |key: &str| line[key].as_str().expect("a text").to_owned();
    (text("termination"), text("end_reason"))
}

fn pair(letters: &str, reason: &str) -> (String, String) {
    (letters.to_owned(), reason.to_owned())
}

fn named(gate: &Tidegate, agent: &str) -> Client {
    gate.client().with_header("user-agent", agent)
}

#[tokio::test]
async fn what_went_well_or_never_left_is_told_apart() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    named(&gate, "good").send(call("whoami", json!({}))).await;
    assert_eq!(ended(&gate, "good").await, pair("--", "complete"));
    named(&gate, "health")
        .request("GET", "/health", &[], b"")
        .await;
    assert_eq!(ended(&gate, "health").await, pair("LR", "local"));
    named(&gate, "astray").request("GET", "/x", &[], b"").await;
    assert_eq!(ended(&gate, "astray").await, pair("PR", "no_route"));
    let unknown = crate::support::SessionId("deadbeef".into());
    let client = named(&gate, "unknown");
    let refused = client.start_call(&unknown, "whoami", json!({})).await;
    assert_eq!(refused.status, 404);
    assert_eq!(ended(&gate, "unknown").await, pair("PR", "unknown_session"));
}

#[tokio::test]
async fn what_never_became_a_request_has_a_line() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 200ms, header_block: 2KiB }")
        .start()
        .await;
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n", "x".repeat(4096));
    for (bytes, status, termination, reason) in [
        ("GET / HTTP/1.1\r\nHo st: h\r\n\r\n", 400, "PR", "invalid"),
        ("GET / HTTP/1.1\r\nHost:", 408, "cR", "slow_head"),
        (&long, 431, "PR", "head_size"),
    ] {
        let refused = gate.client().raw(bytes.as_bytes()).await;
        assert_eq!(refused.expect("an answer").status, status);
        let line = gate.logged(|line| line["end_reason"] == reason).await;
        assert_eq!(line["status"], status);
        assert_eq!(line["termination"], termination);
        assert_eq!(line["client"], "127.0.0.1");
        assert!(line.get("path").is_none(), "{line}");
    }
}

#[tokio::test]
async fn what_a_server_did_is_told_with_its_step() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .pool("timeouts: { header: 200ms }\nbreaker: off\nejection: off")
        .start()
        .await;
    a.fault_next(1, Fault::ResetBeforeHead);
    named(&gate, "reset").send(call("whoami", json!({}))).await;
    assert_eq!(ended(&gate, "reset").await, pair("SH", "upstream_closed"));
    a.fault(Fault::StallBeforeHead);
    named(&gate, "stall").send(call("whoami", json!({}))).await;
    assert_eq!(ended(&gate, "stall").await, pair("sH", "upstream_timeout"));
    a.heal();
    a.fault_next(1, Fault::ResetMidEvent(30));
    let ticks = call("ticks", json!({"n": 3, "every_ms": 1}));
    named(&gate, "cut").send(ticks).await.read_to_end().await;
    assert_eq!(ended(&gate, "cut").await, pair("SD", "upstream_lost"));
    a.refuse_connections().await;
    named(&gate, "refused")
        .send(call("whoami", json!({})))
        .await;
    assert_eq!(ended(&gate, "refused").await, pair("SC", "connect"));
    let line = gate.logged(|line| line["user_agent"] == "refused").await;
    assert!(line.get("connect_ms").is_none(), "there was no connection");
    assert!(line["retries"].is_number());
}

#[tokio::test]
async fn what_a_client_did_is_told_with_its_step() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let session = gate.client().initialize().await;
    named(&gate, "stream")
        .get_stream(&session, None)
        .await
        .reset();
    assert_eq!(ended(&gate, "stream").await, pair("CD", "client_gone"));

    a.fault(Fault::StallBeforeHead);
    let client = named(&gate, "waiting");
    let outgoing = call("whoami", json!({}));
    let bytes = client.encode("POST", "/mcp", &outgoing.header_lines(), &outgoing.body);
    let connection = client.connect().await.expect("a connection");
    connection.raw(&bytes).await.expect("it is sent");
    a.request(|request| request.rpc_method() == Some("tools/call"))
        .await;
    connection.reset();
    assert_eq!(ended(&gate, "waiting").await, pair("CH", "client_gone"));
}

#[tokio::test]
async fn what_the_operator_ends_is_told() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("drain_timeout: 1s\ndrain_jitter: 100ms")
        .start()
        .await;
    let session = gate.client().initialize().await;
    let mut stream = named(&gate, "stream").get_stream(&session, None).await;
    gate.signal("TERM");
    stream.read_to_end().await;
    assert_eq!(ended(&gate, "stream").await, pair("KD", "drain"));
}

#[tokio::test]
async fn the_wait_for_a_place_is_a_time_of_its_own() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .endpoint("a", "max_in_flight: 1")
        .pool("queue_timeout: 300ms")
        .start()
        .await;
    a.fault_next(1, Fault::StallBeforeHead);
    let first = named(&gate, "first");
    let running = tokio::spawn(async move { first.send(call("whoami", json!({}))).await });
    a.request(|request| request.rpc_method() == Some("tools/call"))
        .await;
    named(&gate, "second").send(call("whoami", json!({}))).await;
    assert_eq!(ended(&gate, "second").await, pair("sQ", "queue_timeout"));
    let line = gate.logged(|line| line["user_agent"] == "second").await;
    let queued = line["queue_ms"].as_f64().expect("a time");
    assert!((290.0..5000.0).contains(&queued), "{line}");
    assert!(line.get("header_ms").is_none());
    let third = named(&gate, "third");
    let waiting = tokio::spawn(async move { third.send(call("whoami", json!({}))).await });
    gate.metrics_when(|metrics| metrics.sum("tidegate_calls_waiting") == 1.0)
        .await;
    a.heal();
    assert_eq!(running.await.expect("no panic").status, 200);
    assert_eq!(waiting.await.expect("no panic").status, 200);
    let line = gate.logged(|line| line["user_agent"] == "third").await;
    assert!(line["queue_ms"].as_f64() > Some(0.0), "{line}");
    let line = gate.logged(|line| line["user_agent"] == "first").await;
    assert_eq!(line["queue_ms"], 0.0, "{line}");
}

#[tokio::test]
async fn the_times_of_the_steps_add_up() {
    let a = Endpoint::start("a").await;
    // Connections to endpoints belong to a thread.
    let gate = Tidegate::build(&[&a]).config("threads: 1").start().await;
    let slow = json!({"n": 3, "every_ms": 100});
    named(&gate, "new")
        .send(call("whoami", json!({})))
        .await
        .json()
        .await;
    named(&gate, "kept")
        .send(call("whoami", json!({})))
        .await
        .json()
        .await;
    named(&gate, "slow")
        .send(call("ticks", slow))
        .await
        .read_to_end()
        .await;
    let time = |line: &Value, key: &str| {
        let found = line[key].as_f64();
        found.unwrap_or_else(|| panic!("no {key} in {line}"))
    };
    let line = gate.logged(|line| line["user_agent"] == "new").await;
    assert!(
        time(&line, "connect_ms") > 0.0,
        "a connection was made: {line}"
    );
    assert!(time(&line, "header_ms") > 0.0);
    assert!(
        time(&line, "queue_ms") + time(&line, "connect_ms") + time(&line, "header_ms")
            <= time(&line, "duration_ms"),
        "{line}"
    );
    let line = gate.logged(|line| line["user_agent"] == "kept").await;
    assert_eq!(line["connect_ms"], 0.0, "{line}");
    let line = gate.logged(|line| line["user_agent"] == "slow").await;
    assert!(time(&line, "duration_ms") >= 200.0, "{line}");
    assert!(time(&line, "header_ms") <= time(&line, "first_byte_ms"));
    assert!(time(&line, "first_byte_ms") < time(&line, "duration_ms"));
}

#[tokio::test]
async fn attempts_after_the_first_are_counted() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool("balance: round_robin\nbreaker: off\nejection: off")
        .start()
        .await;
    a.refuse_connections().await;
    for _ in 0..2 {
        let answer = named(&gate, "it").send(call("whoami", json!({}))).await;
        assert_eq!(answer.status, 200);
    }
    let line = gate.logged(|line| line["retries"] == 1).await;
    assert_eq!(line["server"], "b");
    assert_eq!(line["server_address"], b.address().to_string());
    gate.logged(|line| line["retries"] == 0).await;
}

#[tokio::test]
async fn errors_of_json_rpc_are_told_by_their_code() {
    let a = Endpoint::start("a").await;
    let streamed = Endpoint::named("s").streams_everything().start().await;
    for endpoint in [&a, &streamed] {
        let gate = Tidegate::in_front_of(&[endpoint]).await;
        let mut answer = named(&gate, "no-tool")
            .send(call("no_such", json!({})))
            .await;
        assert_eq!(answer.rpc().await["error"]["code"], -32602);
        let line = gate.logged(|line| line["user_agent"] == "no-tool").await;
        assert_eq!(line["rpc_code"], -32602, "the server's: {line}");
        assert_eq!(line["end_reason"], "complete");
        named(&gate, "good")
            .send(call("whoami", json!({})))
            .await
            .rpc()
            .await;
        let line = gate.logged(|line| line["user_agent"] == "good").await;
        assert!(line.get("rpc_code").is_none(), "{line}");
        named(&gate, "astray").request("GET", "/x", &[], b"").await;
        let line = gate.logged(|line| line["user_agent"] == "astray").await;
        assert_eq!(line["rpc_code"], -32600, "ours: {line}");
    }
    let gate = Tidegate::in_front_of(&[&a]).await;
    a.fault_next(1, Fault::ResetMidEvent(30));
    let ticks = call("ticks", json!({"n": 3, "every_ms": 1}));
    named(&gate, "cut").send(ticks).await.read_to_end().await;
    let line = gate.logged(|line| line["user_agent"] == "cut").await;
    assert_eq!(line["rpc_code"], -32603, "ours, in the stream: {line}");
}

#[tokio::test]
async fn the_version_of_tls_is_there_on_every_way() {
    let a = Endpoint::named("a").websocket().start().await;
    let certificate = Certificate::new();
    let gate = Tidegate::build(&[&a])
        .listener(&certificate.listener())
        .routes("- path: /mcp\n  pool: main\n- path_prefix: /\n  pool: plain")
        .pools(&format!(
            "plain:\n  kind: http\n  health: {{ check: none }}\n  endpoints: [\"{}\"]",
            a.address()
        ))
        .start()
        .await;
    for (versions, version) in [
        (&rustls::version::TLS13, "1.3"),
        (&rustls::version::TLS12, "1.2"),
    ] {
        let door =
            TlsDoor::with_versions(gate.address(), &certificate, &["http/1.1"], &[versions]).await;
        let client = |what: &str| {
            let agent = format!("{what}-{version}");
            door.client().with_header("user-agent", &agent)
        };
        client("mcp").send(call("whoami", json!({}))).await;
        client("plain").request("GET", "/plain", &[], b"").await;
        let socket = WebSocket::connect(&client("socket"))
            .await
            .expect("an upgrade");
        socket.close(1000).await;
        for what in ["mcp", "plain", "socket"] {
            let agent = format!("{what}-{version}");
            let line = gate.logged(|line| line["user_agent"] == *agent).await;
            assert_eq!(line["tls"], version, "{line}");
            assert!(line["connect_ms"].is_number(), "{line}");
            assert!(line["header_ms"].is_number(), "{line}");
        }
    }
}

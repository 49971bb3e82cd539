//! The numbers and the log, as an operator's tools read them.

use serde_json::{Value, json};

use crate::support::tidegate::Metrics;
use crate::support::{Endpoint, Fault, Mcp, Outgoing, Tidegate, text_of};

/// Families with these names, types and labels are what dashboards for MCP gateways look for.
const FAMILIES: &[(&str, &str)] = &[
    ("mcp_requests_total", "counter"),
    ("mcp_tool_calls_total", "counter"),
    ("mcp_request_duration_seconds", "histogram"),
    ("mcp_tool_execution_duration_seconds", "histogram"),
    ("mcp_active_connections", "gauge"),
    ("mcp_server_healthy", "gauge"),
    ("mcp_requests_per_second", "gauge"),
];

async fn page(gate: &Tidegate) -> String {
    let mut response = gate.admin().request("GET", "/metrics", &[], b"").await;
    assert_eq!(response.status, 200);
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    response.text().await
}

#[tokio::test]
async fn every_family_is_there_before_the_first_request() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let page = page(&gate).await;
    for (name, kind) in FAMILIES {
        let heading = format!("# TYPE {name} {kind}\n");
        assert!(page.contains(&heading), "{heading}");
        assert!(page.contains(&format!("# HELP {name} ")), "{name}");
        let suffix = if *kind == "histogram" { "_count" } else { "" };
        let sample = format!("\n{name}{suffix}");
        assert!(page.contains(&sample), "{name} has a sample");
    }
    assert!(page.contains(
        "mcp_request_duration_seconds_bucket{method=\"initialize\",tool_name=\"\",le=\"1\"}"
    ));
    assert!(
        !page.contains("mcp_context_size_bytes"),
        "nobody asked for it"
    );
    let metrics = Metrics::parse(&page);
    assert_eq!(
        metrics.sum("mcp_requests_total"),
        0.0,
        "scrapes do not count"
    );
    assert_eq!(
        metrics.with("mcp_server_healthy", &[("server_name", "a")]),
        1.0
    );
    for name in [
        "process_open_fds",
        "process_resident_memory_bytes",
        "tidegate_build_info",
    ] {
        assert!(metrics.sum(name) > 0.0, "{name}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_method_tool_and_status() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: mcp, interval: 100ms, timeout: 500ms }")
        .start()
        .await;
    // Tools are known once the first check has asked for them.
    a.request(|r| r.rpc_method() == Some("tools/list")).await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    for _ in 0..3 {
        client.whoami(&session).await;
    }
    text_of(&client.modern_call("whoami", json!({})).await);
    client.call(&session, "fail", json!({})).await;
    client.call(&session, "no_such_tool", json!({})).await;
    client.rpc(&session, "tools/list", json!({})).await;
    client.rpc(&session, "x/y", json!({})).await;
    client.get_stream(&session, None).await.reset();
    client.delete(&session).await;
    client.start_call(&session, "whoami", json!({})).await;

    let count = |m: &Metrics, method: &str, tool: &str, status: &str| {
        let labels = [("method", method), ("tool_name", tool), ("status", status)];
        m.with("mcp_requests_total", &labels)
    };
    let metrics = gate
        .metrics_when(|m| m.sum("mcp_requests_total") >= 13.0)
        .await;
    for (method, tool, status, wanted) in [
        ("initialize", "", "200", 1.0),
        ("notifications/initialized", "", "202", 1.0),
        ("tools/call", "whoami", "200", 4.0),
        ("tools/call", "whoami", "404", 1.0),
        ("tools/call", "fail", "200", 1.0),
        ("tools/call", "other", "200", 1.0),
        ("tools/list", "", "200", 1.0),
    ] {
        let found = count(&metrics, method, tool, status);
        assert_eq!(found, wanted, "{method} {tool} {status}: {metrics:#?}");
    }
    let names: Vec<&String> = metrics.0.keys().collect();
    let leaked = |word: &str| names.iter().any(|name| name.contains(word));
    assert!(!leaked("no_such_tool"), "what a client claims is no label");
    assert!(!leaked("x/y"));

    let tools = |tool: &str, status: &str| {
        let labels = [
            ("tool_name", tool),
            ("server_name", "a"),
            ("status", status),
        ];
        metrics.with("mcp_tool_calls_total", &labels)
    };
    assert_eq!(tools("whoami", "success"), 4.0);
    assert_eq!(tools("whoami", "error"), 1.0);
    assert_eq!(tools("fail", "error"), 1.0);
    assert_eq!(tools("fail", "success"), 0.0);
    assert_eq!(tools("other", "error"), 1.0);
    let whoami = [("tool_name", "whoami"), ("server_name", "a")];
    assert!(metrics.with("mcp_tool_execution_duration_seconds_count", &whoami) >= 4.0);
    assert!(metrics.sum("tidegate_label_overflow_total") >= 1.0);
}

#[tokio::test]
async fn failures_of_servers_are_errors_of_tools_and_5xx() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let call = || json!({"name": "echo", "arguments": {}});
    a.fault_next(1, Fault::ResetBeforeHead);
    assert_eq!(
        client
            .modern("tools/call", Some("echo"), call())
            .await
            .status,
        502
    );
    let ticks = json!({"name": "ticks", "arguments": {"n": 3, "every_ms": 1}});
    a.fault_next(1, Fault::ResetMidEvent(30));
    let mut broken = client.modern("tools/call", Some("ticks"), ticks).await;
    broken.read_to_end().await;
    let metrics = gate
        .metrics_when(|m| m.with("mcp_requests_total", &[("status", "502")]) == 2.0)
        .await;
    let errors = metrics.with("mcp_tool_calls_total", &[("status", "error")]);
    assert_eq!(errors, 2.0, "a stream that broke was no success");
    assert_eq!(
        metrics.with("mcp_tool_calls_total", &[("status", "success")]),
        0.0
    );
}

#[tokio::test]
async fn streams_sessions_and_connections_are_gauges_that_come_back() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let get = client.get_stream(&session, None).await;
    let listen = client.listen().await;
    let ticks = json!({"name": "ticks", "arguments": {"n": 1000, "every_ms": 20}});
    let post = client.modern("tools/call", Some("ticks"), ticks).await;
    let socket = crate::support::ws::WebSocket::connect(&client).await;
    let kind = |m: &Metrics, kind: &str| m.with("tidegate_streams", &[("kind", kind)]);
    let metrics = gate
        .metrics_when(|m| m.sum("tidegate_streams") == 4.0)
        .await;
    for of in ["get", "listen", "post", "websocket"] {
        assert_eq!(kind(&metrics, of), 1.0, "{of}");
    }
    assert_eq!(metrics.sum("tidegate_sessions"), 1.0);
    assert!(metrics.sum("mcp_active_connections") >= 4.0);
    assert_eq!(metrics.sum("tidegate_endpoint_in_flight"), 4.0);

    for response in [get, listen, post] {
        response.reset();
    }
    socket
        .map(crate::support::ws::WebSocket::reset)
        .expect("a WebSocket");
    assert_eq!(client.delete(&session).await.status, 200);
    let metrics = gate
        .metrics_when(|m| m.sum("tidegate_streams") == 0.0)
        .await;
    let gone = |of| [("kind", of), ("reason", "client_closed")];
    for of in ["get", "listen", "post", "websocket"] {
        let ended = metrics.with("tidegate_streams_ended_total", &gone(of));
        assert_eq!(ended, 1.0, "{of}");
    }
    let metrics = gate
        .metrics_when(|m| m.sum("tidegate_endpoint_in_flight") == 0.0)
        .await;
    assert_eq!(metrics.sum("tidegate_sessions"), 0.0);
    assert_eq!(metrics.sum("tidegate_sessions_opened_total"), 1.0);
    let deleted = [("reason", "deleted")];
    assert_eq!(metrics.with("tidegate_sessions_ended_total", &deleted), 1.0);
    // Whoever asks for the metrics has a connection as well.
    gate.metrics_when(|m| m.sum("mcp_active_connections") <= 1.0)
        .await;
}

#[tokio::test]
async fn a_stream_does_not_count_as_a_slow_request() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let ticks = client
        .modern_call("ticks", json!({"n": 6, "every_ms": 100}))
        .await;
    assert_eq!(text_of(&ticks), "6 ticks");
    let labels = [("method", "tools/call")];
    let metrics = gate
        .metrics_when(|m| m.with("mcp_request_duration_seconds_count", &labels) == 1.0)
        .await;
    let to_first_byte = metrics.with("mcp_request_duration_seconds_sum", &labels);
    assert!(to_first_byte < 0.4, "{to_first_byte}");
    let whole = metrics.sum("mcp_tool_execution_duration_seconds_sum");
    assert!(whole >= 0.5, "{whole}");
}

#[tokio::test]
async fn refused_ids_are_counted_by_reason() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let other = Tidegate::in_front_of(&[&a]).await;
    let foreign = other.client().initialize().await;
    let client = gate.client();
    let unknown = crate::support::SessionId("deadbeef".into());
    for id in [&unknown, &foreign] {
        let refused = client.start_call(id, "whoami", json!({})).await;
        assert_eq!(refused.status, 404);
    }
    let metrics = gate.metrics().await;
    let reason = |reason| metrics.with("tidegate_refused_ids_total", &[("reason", reason)]);
    assert_eq!(reason("malformed"), 1.0);
    assert_eq!(reason("unknown_key") + reason("forged"), 1.0);
}

#[tokio::test]
async fn every_request_has_one_line_in_the_log() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client().with_header("user-agent", "it/1.0");
    let session = client.initialize().await;
    let secret = "s3cr3t-argument";
    client.call(&session, "echo", json!({"text": secret})).await;
    let ticks = json!({"n": 2, "every_ms": 1, "text": secret});
    client.call(&session, "ticks", ticks).await;
    let call = Outgoing::stateless(
        &json!("id-s3cr3t"),
        "tools/call",
        Some("echo"),
        json!({"name": "echo", "arguments": {"text": secret}}),
    );
    let call = call
        .with("authorization", "Bearer s3cr3t-token")
        .with("mcp-param-x", "s3cr3t-parameter");
    client.send(call).await;
    let query = [("accept", "application/json")];
    client
        .request("GET", "/nothing?key=s3cr3t-query", &query, b"")
        .await;
    gate.h2_client()
        .await
        .modern("tools/list", None, Value::Null)
        .await;
    client.get_stream(&session, None).await.reset();
    client.delete(&session).await;

    gate.logged(|line| line["method"] == "DELETE").await;
    gate.logged(|line| line["method"] == "GET" && line["status"] == 200)
        .await;
    let lines = gate.access_log();
    assert_eq!(lines.len(), 9, "{lines:#?}");
    for line in &lines {
        let time = line["timestamp"].as_str().expect("a timestamp");
        assert_eq!(time.len(), "2026-01-01T00:00:00.000Z".len(), "{time}");
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        for key in [
            "duration_ms",
            "first_byte_ms",
            "request_bytes",
            "response_bytes",
            "status",
        ] {
            assert!(line[key].is_number(), "{key} in {line}");
        }
        for key in [
            "listener",
            "client",
            "http_version",
            "method",
            "path",
            "request_id",
            "end_reason",
        ] {
            assert!(
                line[key].as_str().is_some_and(|text| !text.is_empty()),
                "{key} in {line}"
            );
        }
        assert_eq!(line["client"], "127.0.0.1");
    }
    let mut ids: Vec<&str> = lines
        .iter()
        .filter_map(|l| l["request_id"].as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), lines.len(), "request ids tell requests apart");

    let find = |wanted: &dyn Fn(&Value) -> bool| lines.iter().find(|l| wanted(l)).expect("a line");
    let initialize = find(&|l| l["mcp_method"] == "initialize");
    assert_eq!(initialize["era"], "session");
    assert_eq!(initialize["server"], "a");
    assert_eq!(initialize["pool"], "main");
    assert_eq!(initialize["user_agent"], "it/1.0");
    let tag = initialize["session"].as_str().expect("a hashed session");
    assert!(tag.len() <= 16 && !session.0.contains(tag));
    let echo = find(&|l| l["tool_name"] == "echo" && l["era"] == "session");
    assert_eq!(echo["mcp_method"], "tools/call");
    assert_eq!(echo["session"], tag, "one session, one tag");
    assert_eq!(echo["end_reason"], "complete");
    assert!(echo["request_bytes"].as_u64() > Some(50));
    assert!(echo["response_bytes"].as_u64() > Some(50));
    let stateless = find(&|l| l["tool_name"] == "echo" && l["era"] == "stateless");
    assert!(stateless.get("session").is_none());
    let nothing = find(&|l| l["path"] == "/nothing");
    assert_eq!(nothing["status"], 404);
    assert_eq!(nothing["end_reason"], "no_route");
    assert!(lines.iter().any(|l| l["http_version"] == "2"));
    let stream = find(&|l| l["method"] == "GET" && l["status"] == 200);
    assert_eq!(stream["end_reason"], "client_gone");

    let text = std::fs::read_to_string(gate.places().access_log()).expect("the log");
    assert!(!text.contains("s3cr3t"), "no content, no credentials");
    assert!(!text.contains(&session.0), "no id of ours");
    let own = a
        .requests()
        .iter()
        .find_map(|r| r.header("mcp-session-id").map(str::to_owned));
    assert!(
        !text.contains(&own.expect("a session")),
        "nor of the server"
    );
}

#[tokio::test]
async fn a_line_cannot_be_forged() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let evil = "x\",\"status\":999,\"y\":\"\\u001b[2J\t";
    let client = gate.client().with_header("user-agent", evil);
    let params = json!({"name": "e\n{\"forged\":true}", "arguments": {}});
    client
        .modern("tools/call", Some("e\n{\"forged\":true}"), params)
        .await;
    let line = gate.logged(|line| line["mcp_method"] == "tools/call").await;
    assert_eq!(line["status"], 200);
    assert_eq!(line["tool_name"], "e\n{\"forged\":true}");
    assert_eq!(gate.access_log().len(), 1);
}

#[tokio::test]
async fn the_admin_address_knows_its_pages() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let admin = gate.admin();
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(
            admin.request("GET", path, &[], b"").await.status,
            200,
            "{path}"
        );
        let refused = admin.request("POST", path, &[], b"{}").await;
        assert_eq!(refused.status, 405, "{path}");
    }
    assert_eq!(admin.request("GET", "/mcp", &[], b"").await.status, 404);
    // And the listener keeps the metrics to itself.
    let outside = gate.client().request("GET", "/metrics", &[], b"").await;
    assert_eq!(outside.status, 404);
    let mut health = gate.client().request("HEAD", "/health", &[], b"").await;
    assert_eq!(
        (health.status, health.header("content-length")),
        (200, Some("3"))
    );
    health.read_to_end().await;
}

#[tokio::test]
async fn what_is_no_call_has_its_line_too() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /mcp\n  pool: main\n- path_prefix: /plain\n  pool: web")
        .pools(&format!(
            "web: {{ kind: http, health: {{ check: none }}, endpoints: [\"{}\"] }}",
            a.address()
        ))
        .start()
        .await;
    let client = gate.client();
    let answer = client
        .request("POST", "/plain/x?key=s3cr3t", &[], b"body")
        .await
        .read_to_end()
        .await;
    let line = gate.logged(|line| line["path"] == "/plain/x").await;
    assert_eq!(line["status"], 200);
    assert_eq!(line["pool"], "web");
    assert_eq!(line["request_bytes"], 4);
    assert_eq!(line["response_bytes"], answer.bytes.len());
    assert!(line.get("mcp_method").is_none() && line.get("era").is_none());

    let socket = crate::support::ws::WebSocket::connect(&client).await;
    let socket = socket.expect("a WebSocket");
    socket.send_text("hello").await;
    assert_eq!(socket.next_text().await, "hello");
    socket.close(1000).await;
    let line = gate.logged(|line| line["status"] == 101).await;
    assert_eq!(line["server"], "a");
    assert!(line["request_bytes"].as_u64() >= Some(11), "{line}");
    assert!(line["response_bytes"].as_u64() >= Some(7), "{line}");
    let metrics = gate.metrics().await;
    assert_eq!(
        metrics.with("mcp_requests_total", &[("status", "200")]),
        1.0
    );
    assert_eq!(
        metrics.with("mcp_requests_total", &[("status", "101")]),
        1.0
    );
}

#[tokio::test]
async fn connections_and_streams_leave_no_descriptor_behind() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::build(&[&a])
        .pool("keep_alive: 100ms")
        .start()
        .await;
    let client = gate.client();
    let warm = client.initialize().await;
    client.delete(&warm).await;
    let open = |metrics: &Metrics| metrics.sum("process_open_fds");
    let before = open(
        &gate
            .metrics_when(|m| m.sum("mcp_active_connections") <= 1.0)
            .await,
    );
    for _ in 0..3 {
        let mut held = Vec::new();
        for _ in 0..8 {
            let session = client.initialize().await;
            held.push(client.get_stream(&session, None).await);
            held.push(client.listen().await);
            let refused = client.request("GET", "/nothing", &[], b"").await;
            assert_eq!(refused.status, 404);
        }
        assert!(open(&gate.metrics().await) >= before + 16.0);
        for stream in held {
            stream.reset();
        }
    }
    gate.metrics_when(|m| m.sum("mcp_active_connections") <= 1.0 && open(m) <= before + 4.0)
        .await;
}

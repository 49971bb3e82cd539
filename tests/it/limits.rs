//! Everything has a bound, and whoever comes up to it is told so in an answer that arrives.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Client, Endpoint, Mcp, NoAnswer, Outgoing, Response, Tidegate, eventually_some,
    text_of,
};

fn call() -> Outgoing {
    let params = json!({"name": "whoami", "arguments": {}});
    Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), params)
}

/// The answer as JSON, arrived whole; and behind it the end of the connection, not a reset.
async fn told(mut refused: Response) -> Value {
    let body = refused.read_to_end().await;
    assert_eq!(body.end, BodyEnd::Complete);
    let (rest, end) = refused.into_connection().rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
    serde_json::from_slice(&body.bytes).expect("JSON")
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_an_answer_that_arrives() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let seen = a.requests().len();
    for bytes in [(4 << 20) + 1, 12 << 20] {
        let text = "x".repeat(bytes);
        let params = json!({"name": "echo", "arguments": {"text": text}});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        for outgoing in [
            Outgoing::in_session(&session, &message),
            Outgoing::stateless(&json!(1), "tools/call", Some("echo"), params),
        ] {
            let refused = client.send(outgoing.clone()).await;
            assert_eq!(refused.status, 413, "{bytes} with a length");
            assert_eq!(told(refused).await["error"]["code"], -32600);

            let chunked = outgoing.with("transfer-encoding", "chunked");
            let mut body = format!("{:x}\r\n", chunked.body.len()).into_bytes();
            body.extend_from_slice(&chunked.body);
            body.extend_from_slice(b"\r\n0\r\n\r\n");
            let lines = chunked.header_lines();
            let refused = client.request("POST", "/mcp", &lines, &body).await;
            assert_eq!(refused.status, 413, "{bytes} in chunks");
            assert_eq!(told(refused).await["error"]["code"], -32600);
        }
    }
    assert_eq!(client.whoami(&session).await, "a");
    let complete = a.requests().len() - seen;
    assert_eq!(complete, 1, "no part of them was acted on");
}

#[tokio::test]
async fn a_limit_of_ones_own_is_kept_to_the_byte() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { body: 2000B }")
        .start()
        .await;
    for (size, status) in [(2000, 200), (2001, 413)] {
        let mut outgoing = call();
        let room = size - outgoing.body.len();
        outgoing.body.extend(std::iter::repeat_n(b' ', room));
        let answer = gate.client().send(outgoing).await;
        assert_eq!(answer.status, status, "{size}");
    }
}

#[tokio::test]
async fn a_header_block_over_the_limit_is_refused() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let fits = call().with("x-large", &"h".repeat(30 * 1024));
    assert_eq!(client.send(fits).await.status, 200);
    for size in [33 * 1024, 200 * 1024, 2 << 20] {
        let over = call().with("x-large", &"h".repeat(size));
        let refused = client.send(over).await;
        assert_eq!(refused.status, 431, "{size}");
        told(refused).await;
    }
    // In the request line as well.
    let target = format!("/mcp?{}", "q".repeat(40 * 1024));
    let refused = client.request("POST", &target, &[], b"{}").await;
    assert_eq!(refused.status, 431);
    assert_eq!(a.requests().len(), 1);
}

#[tokio::test]
async fn too_many_header_fields_are_refused() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let fields = |count: usize| {
        let mut outgoing = call();
        // Host and Content-Length are added by the client.
        while outgoing.headers.len() + 2 < count {
            let name = format!("x-{}", outgoing.headers.len());
            outgoing = outgoing.with(&name, "1");
        }
        outgoing
    };
    assert_eq!(client.send(fields(100)).await.status, 200);
    for count in [101, 300] {
        let refused = client.send(fields(count)).await;
        assert_eq!(refused.status, 431, "{count}");
        told(refused).await;
    }
    let mut many = call();
    for n in 0..65 {
        many = many.with(&format!("mcp-param-{n}"), "1");
    }
    assert_eq!(client.send(many).await.status, 431);
    assert_eq!(a.requests().len(), 1);
}

#[tokio::test]
async fn a_routing_header_may_stand_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    for (name, value) in [
        ("mcp-method", "tools/call"),
        ("mcp-name", "whoami"),
        ("mcp-protocol-version", "2026-07-28"),
    ] {
        let refused = gate.client().send(call().with(name, value)).await;
        assert_eq!(refused.status, 400, "{name}");
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_full_listener_closes_and_has_room_again() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .listener("max_connections: 3")
        .start()
        .await;
    let client = gate.client();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut answer = client.send(call()).await;
        assert_eq!(text_of(&answer.json().await), "a");
        held.push(answer.into_connection());
    }
    let over = client.connect().await.expect("the kernel accepts");
    let (rest, end) = over.rest().await;
    assert_eq!(rest.len(), 0);
    assert!(matches!(end, BodyEnd::Closed | BodyEnd::Reset), "at once");
    let metrics = gate.metrics().await;
    let refused = metrics.with("tidegate_limits_hit_total", &[("limit", "connections")]);
    assert_eq!(refused, 1.0);
    // Those that are open are served on.
    let connection = held.pop().expect("three");
    let outgoing = call();
    let lines = outgoing.header_lines();
    let again = client
        .try_request_on(connection, "POST", "/mcp", &lines, &outgoing.body)
        .await;
    assert_eq!(again.expect("an answer").status, 200);
    // And one that has gone makes room.
    let room = eventually_some(Duration::from_secs(5), async || {
        let answer: Result<Response, NoAnswer> = client.try_send(call()).await;
        answer.ok().filter(|answer| answer.status == 200)
    });
    assert!(room.await.is_some());
    // The admin address is apart.
    assert_eq!(
        gate.admin()
            .request("GET", "/health", &[], b"")
            .await
            .status,
        200
    );
}

/// A POST of these bytes in the session era.
fn post_of(body: String) -> Outgoing {
    let mut outgoing = Outgoing::post(&Value::Null);
    outgoing.body = body.into_bytes();
    outgoing
}

async fn refusal(client: &Client, outgoing: Outgoing) -> (u16, Value) {
    let mut refused = client.send(outgoing).await;
    (refused.status, refused.json().await)
}

#[tokio::test]
async fn a_body_that_is_no_message_is_refused() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"x":{open}{close}}}}}"#
        )
    };
    for (what, body, code) in [
        ("nothing", String::new(), -32700),
        ("not JSON", "{\"jsonrpc\":".into(), -32700),
        ("two messages", "{} {}".into(), -32700),
        (
            "a trailing comma",
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize",}"#.into(),
            -32700,
        ),
        (
            "not UTF-8 in a text",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\u{1}\"}".into(),
            -32700,
        ),
        ("a number", "42".into(), -32600),
        ("no method", r#"{"jsonrpc":"2.0","id":1}"#.into(), -32600),
        ("deep", deep(150), -32600),
        ("very deep", deep(100_000), -32600),
        (
            "two methods",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"initialize"}"#.into(),
            -32600,
        ),
        (
            "two methods, one escaped",
            r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"ping","method":"initialize"}"#.into(),
            -32600,
        ),
        (
            "two ids",
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"initialize"}"#.into(),
            -32600,
        ),
        (
            "two names",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#
                .into(),
            -32600,
        ),
        (
            "an id that is an object",
            r#"{"jsonrpc":"2.0","id":{},"method":"initialize"}"#.into(),
            -32600,
        ),
        (
            "a long id",
            format!(
                r#"{{"jsonrpc":"2.0","id":"{}","method":"initialize"}}"#,
                "i".repeat(300)
            ),
            -32600,
        ),
        (
            "a long method",
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
                "m".repeat(300)
            ),
            -32600,
        ),
    ] {
        let (status, message) = refusal(&client, post_of(body)).await;
        assert_eq!(status, 400, "{what}: {message}");
        assert_eq!(message["error"]["code"], code, "{what}");
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_batch_has_a_length() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let batch = |count: usize| -> Value {
        (0..count)
            .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"}))
            .collect()
    };
    let outgoing = Outgoing::in_session(&session, &batch(128));
    let mut answer = client.send(outgoing).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().await.as_array().map(Vec::len), Some(128));
    let seen = a.requests().len();
    for count in [129, 5000] {
        let (status, message) =
            refusal(&client, Outgoing::in_session(&session, &batch(count))).await;
        assert_eq!(status, 400, "{count}");
        assert_eq!(message["error"]["code"], -32600);
    }
    assert_eq!(a.requests().len(), seen);
}

#[tokio::test]
async fn sessions_over_the_cap_are_refused_before_the_server_opens_them() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("sessions: { max: 2 }")
        .start()
        .await;
    let client = gate.client();
    let first = client.initialize().await;
    client.initialize().await;
    let mut refused = client.send_initialize().await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("10"));
    let message = refused.json().await;
    assert_eq!(message["error"]["message"], "too many sessions are open");
    gate.logged(|line| line["end_reason"] == "sessions" && line["termination"] == "PR")
        .await;
    assert_eq!(a.sessions_opened(), 2);
    assert_eq!(client.whoami(&first).await, "a");
    assert_eq!(client.delete(&first).await.status, 200);
    client.initialize().await;
    assert_eq!(a.sessions_opened(), 3);
    let metrics = gate.metrics().await;
    let hit = metrics.with("tidegate_limits_hit_total", &[("limit", "sessions")]);
    assert_eq!(hit, 1.0);
}

#[tokio::test]
async fn a_pool_that_is_full_leaves_room_in_others() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a])
        .config("sessions: { max: 3, max_per_pool: 2 }")
        .routes("- path: /mcp\n  host: other.test\n  pool: other\n- path: /mcp\n  pool: main")
        .pools(&format!(
            "other:\n  health: {{ check: none }}\n  endpoints: [ {{ name: b, address: \"{}\" }} ]",
            b.address()
        ))
        .start()
        .await;
    let client = gate.client();
    let other = gate.client().with_header("host", "other.test");
    client.initialize().await;
    client.initialize().await;
    let mut refused = client.send_initialize().await;
    assert_eq!(refused.status, 503);
    let message = refused.json().await;
    assert_eq!(message["error"]["message"], "too many sessions are open");
    gate.logged(|line| line["end_reason"] == "sessions_per_pool")
        .await;
    other.initialize().await;
    assert_eq!(other.send_initialize().await.status, 503, "in all");
    assert_eq!((a.sessions_opened(), b.sessions_opened()), (2, 1));
    let metrics = gate.metrics().await;
    for limit in ["sessions_per_pool", "sessions"] {
        let hit = metrics.with("tidegate_limits_hit_total", &[("limit", limit)]);
        assert_eq!(hit, 1.0, "{limit}");
    }
}

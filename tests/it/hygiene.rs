//! What passes, what stays behind, and what is rewritten, on the way to the server and back.

use serde_json::{Value, json};

use crate::support::tidegate::Builder;
use crate::support::{
    Client, Endpoint, Fault, Headers, Mcp, Outgoing, Response, SessionId, Tidegate, text_of,
};

/// A call of the stateless era.
fn call() -> Outgoing {
    let params = json!({"name": "whoami", "arguments": {}});
    Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), params)
}

/// A call in a session.
fn call_in(session: &SessionId) -> Outgoing {
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "whoami", "arguments": {}}});
    Outgoing::in_session(session, &message)
}

#[tokio::test]
async fn the_server_is_asked_by_its_own_name() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    drop(client.get_stream(&session, None).await);
    client.send(call()).await;
    client.send(call().with("host", "localhost")).await;
    client.delete(&session).await;
    gate.h2_client().await.send(call()).await;
    let own = a.address().to_string();
    let requests = a.requests();
    assert_eq!(requests.len(), 7);
    for request in requests {
        let hosts: Vec<&str> = request.headers.all("host").collect();
        assert_eq!(hosts, [own.as_str()], "{} {}", request.method, request.path);
    }
}

#[tokio::test]
async fn what_the_server_should_know_is_passed() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let passed = [
        ("authorization", "Bearer t0ken.with-parts_"),
        ("mcp-param-city", "=?base64?VMWNa3nFjQ==?="),
        ("mcp-param-unknown", "42"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "vendor=1"),
        ("user-agent", "it/1.0"),
        ("x-own", "of the client"),
        ("x-own", "twice"),
    ];
    for outgoing in [call(), call_in(&session)] {
        let mut outgoing = outgoing;
        for (name, value) in passed {
            outgoing = outgoing.with(name, value);
        }
        let sent = outgoing.headers.clone();
        assert_eq!(client.send(outgoing).await.status, 200);
        let calls = a.calls("tools/call");
        let seen = &calls.last().expect("it arrived").headers;
        for (name, value) in sent.iter().filter(|(name, _)| name != "mcp-session-id") {
            assert!(seen.all(name).any(|v| v == value), "{name}: {value}");
        }
        assert_eq!(
            seen.all("x-own").collect::<Vec<_>>(),
            ["of the client", "twice"]
        );
        let accept: Vec<&str> = seen.all("accept").collect();
        assert_eq!(accept, ["application/json, text/event-stream"]);
    }
}

#[tokio::test]
async fn an_accept_of_any_form_is_left_alone() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    for accept in ["text/event-stream;q=0.5, application/json", "*/*"] {
        let outgoing = call().without("accept").with("accept", accept);
        gate.client().send(outgoing).await;
        let requests = a.requests();
        let seen = requests.last().expect("it arrived");
        assert_eq!(seen.header("accept"), Some(accept));
    }
    // Nor is one invented; the server is to say what it thinks of that.
    gate.client().send(call().without("accept")).await;
    let requests = a.requests();
    assert_eq!(requests.last().expect("it arrived").header("accept"), None);
}

#[tokio::test]
async fn what_belongs_to_the_clients_connection_stays_behind() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let private = [
        ("connection", "keep-alive, X-Private"),
        ("connection", "x-more"),
        ("x-private", "1"),
        ("x-more", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eA=="),
        ("te", "trailers"),
        ("trailer", "x-checksum"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("accept-encoding", "gzip, br"),
    ];
    for outgoing in [call(), call_in(&session)] {
        let mut outgoing = outgoing;
        for (name, value) in private {
            outgoing = outgoing.with(name, value);
        }
        assert_eq!(client.send(outgoing).await.status, 200);
        let calls = a.calls("tools/call");
        let seen = &calls.last().expect("it arrived").headers;
        for (name, _) in private.iter().filter(|(name, _)| *name != "connection") {
            assert!(!seen.has(name), "{name}");
        }
        let connection: Vec<&str> = seen.all("connection").collect();
        assert!(
            connection
                .iter()
                .all(|v| v.eq_ignore_ascii_case("keep-alive")),
            "{connection:?}"
        );
    }
}

#[tokio::test]
async fn a_client_cannot_make_us_drop_what_the_server_routes_by() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    for name in [
        "host",
        "mcp-session-id",
        "Mcp-Method",
        "mcp-param-x",
        "authorization",
        "accept",
    ] {
        let named = format!("close, {name}");
        let outgoing = call_in(&session).with("connection", named.as_str());
        assert_eq!(client.send(outgoing).await.status, 400, "{name}");
    }
    assert!(a.calls("tools/call").is_empty());
}

#[tokio::test]
async fn what_belongs_to_the_servers_connection_stays_behind() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for tool in ["whoami", "ticks"] {
        for (name, value) in [
            ("Connection", "keep-alive, X-Private"),
            ("X-Private", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Upgrade", "h2c"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("X-Kept", "yes"),
            ("WWW-Authenticate", "Bearer realm=\"x\""),
        ] {
            a.fault_next(1, Fault::ExtraHeader(name.into(), value.into()));
        }
        let params = json!({"name": tool, "arguments": {"n": 1}});
        let mut answer = client.modern("tools/call", Some(tool), params).await;
        assert_eq!(answer.status, 200);
        for name in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(!answer.headers().has(name), "{name}");
        }
        let cookies: Vec<&str> = answer.headers().all("set-cookie").collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(answer.header("x-kept"), Some("yes"));
        assert!(answer.headers().has("www-authenticate"));
        answer.read_to_end().await;
    }
}

#[tokio::test]
async fn a_stream_is_never_announced_with_a_length_and_never_buffered() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let params = json!({"name": "ticks", "arguments": {"n": 1}});
    let answer = gate
        .client()
        .modern("tools/call", Some("ticks"), params)
        .await;
    assert!(answer.is_stream());
    assert!(!answer.headers().has("content-length"));
    let buffering: Vec<&str> = answer.headers().all("x-accel-buffering").collect();
    assert_eq!(buffering, ["no"]);
    assert_eq!(
        answer.header("cache-control"),
        Some("no-cache, no-transform")
    );
}

/// Everything a response says, in one text.
async fn everything(response: &mut Response) -> String {
    let body = response.read_to_end().await;
    format!(
        "{:?} {}",
        response.head,
        String::from_utf8_lossy(&body.bytes)
    )
}

#[tokio::test]
async fn a_session_is_known_by_our_id_to_the_client_and_by_its_own_to_the_server() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let own = a.sessions()[0].clone();
    assert_ne!(session.0, own);
    assert!(session.0.len() < 200 && session.0.bytes().all(|b| b.is_ascii_graphic()));
    assert!(!session.0.contains(&own));

    let mut stream = client.get_stream(&session, None).await;
    let id_of = |response: &Response| -> Vec<String> {
        let ids = response.headers().all("mcp-session-id");
        ids.map(str::to_owned).collect()
    };
    // The server echoes its id on every reply: the client sees its own.
    assert_eq!(id_of(&stream), [session.0.as_str()]);
    let mut texts = Vec::new();
    for (tool, arguments) in [("whoami", json!({})), ("ticks", json!({"n": 2}))] {
        let mut answer = client.start_call(&session, tool, arguments).await;
        assert_eq!(id_of(&answer), [session.0.as_str()], "{tool}");
        texts.push(everything(&mut answer).await);
    }
    texts.push(everything(&mut client.rpc(&session, "no/such", Value::Null).await).await);
    texts.push(everything(&mut client.delete(&session).await).await);
    texts.push(everything(&mut stream).await);
    // Unknown here by now, and at the server.
    texts.push(everything(&mut client.start_call(&session, "whoami", json!({})).await).await);
    for text in texts {
        assert!(!text.contains(&own), "{text}");
    }
    let in_session = a.requests();
    for request in &in_session[1..] {
        let ids: Vec<&str> = request.headers.all("mcp-session-id").collect();
        assert_eq!(ids, [own.as_str()], "{}", request.method);
    }
}

#[tokio::test]
async fn a_session_that_a_server_opens_over_a_refusal_is_not_shown() {
    let a = Endpoint::named("a").session_only().leaky().start().await;
    let gate = Tidegate::build(&[&a]).pool("eras: session").start().await;
    let client = gate.client();
    let session = client.initialize().await;
    // An error in the session: such servers show a fresh id with it.
    a.fault_next(1, Fault::Status(400, "{}".into()));
    let refused = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(refused.status, 400);
    let shown: Vec<&str> = refused.headers().all("mcp-session-id").collect();
    assert!(shown.iter().all(|id| *id == session.0), "{shown:?}");
    assert_eq!(client.whoami(&session).await, "a", "the session lives on");
}

#[tokio::test]
async fn a_stray_session_id_of_the_stateless_era_stays_behind() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let outgoing = call()
        .with("mcp-session-id", "stray")
        .with("last-event-id", "7");
    assert_eq!(gate.client().send(outgoing).await.status, 200);
    let seen = &a.requests()[0];
    assert!(!seen.headers.has("mcp-session-id"));
    assert!(!seen.headers.has("last-event-id"));
}

#[tokio::test]
async fn the_last_event_id_of_a_session_is_passed() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    drop(client.get_stream(&session, Some("669")).await);
    let seen = a.request(|r| r.method == "GET").await;
    assert_eq!(seen.header("last-event-id"), Some("669"));
}

/// The status of a call with this host and origin.
async fn asked(client: &Client, host: Option<&str>, origin: Option<&str>) -> u16 {
    let mut outgoing = call();
    if let Some(host) = host {
        outgoing = outgoing.with("host", host);
    }
    if let Some(origin) = origin {
        outgoing = outgoing.with("origin", origin);
    }
    let mut answer = client.send(outgoing).await;
    let status = answer.status;
    let message = answer.json().await;
    assert_eq!(message.get("error").is_some(), status != 200, "{message}");
    status
}

#[tokio::test]
async fn on_a_loopback_address_only_loopback_names_are_answered() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for host in [
        "localhost",
        "localhost:8080",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]:80",
        "app.localhost",
    ] {
        assert_eq!(asked(&client, Some(host), None).await, 200, "{host}");
    }
    let good = a.requests().len();
    for host in [
        "evil.example.com",
        "evil.example.com:80",
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1.evil.example",
    ] {
        assert_eq!(asked(&client, Some(host), None).await, 403, "{host}");
        let origin = format!("http://{host}");
        assert_eq!(
            asked(&client, Some(host), Some(&origin)).await,
            403,
            "{host}"
        );
    }
    assert_eq!(a.requests().len(), good, "nothing of it came through");
}

#[tokio::test]
async fn a_page_must_be_of_this_machine_unless_origins_are_listed() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for origin in [
        "http://localhost:3000",
        "https://localhost",
        "http://127.0.0.1:5173",
        "http://[::1]",
    ] {
        assert_eq!(asked(&client, None, Some(origin)).await, 200, "{origin}");
    }
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "file://",
    ] {
        assert_eq!(asked(&client, None, Some(origin)).await, 403, "{origin}");
    }
    for request in a.requests() {
        assert!(!request.headers.has("origin"), "the server never sees it");
    }
    // Every method has the same gate.
    let foreign = gate.client().with_header("origin", "https://evil.example");
    for method in ["GET", "DELETE", "OPTIONS", "PUT"] {
        let refused = foreign.request(method, "/mcp", &[], b"").await;
        assert_eq!(refused.status, 403, "{method}");
    }
}

fn listed(a: &Endpoint) -> Builder {
    Tidegate::build(&[a]).route("origins: [\"https://app.example.com\", \"http://x.example:8080\"]")
}

#[tokio::test]
async fn listed_origins_are_let_in_and_no_others() {
    let a = Endpoint::start("a").await;
    let gate = listed(&a).start().await;
    let client = gate.client();
    for origin in ["https://app.example.com", "http://x.example:8080"] {
        assert_eq!(asked(&client, None, Some(origin)).await, 200, "{origin}");
    }
    for origin in [
        "http://app.example.com",
        "https://app.example.com:444",
        "http://localhost",
        "https://sub.app.example.com",
    ] {
        assert_eq!(asked(&client, None, Some(origin)).await, 403, "{origin}");
    }
    assert_eq!(asked(&client, None, None).await, 200, "no page at all");
    let any = Tidegate::build(&[&a])
        .route("origins: [\"*\"]")
        .start()
        .await;
    assert_eq!(
        asked(&any.client(), None, Some("https://evil.example")).await,
        200
    );
}

#[tokio::test]
async fn a_route_answers_for_its_own_host() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a])
        .routes(
            "- host: tools.example.com\n  path: /mcp\n  pool: main\n\
             - host: \"*.example.org\"\n  path: /mcp\n  pool: other",
        )
        .pools(&format!(
            "other: {{ health: {{ check: none }}, endpoints: [\"{}\"] }}",
            b.address()
        ))
        .start()
        .await;
    let client = gate.client();
    let answered = |host: &'static str| {
        let client = client.clone();
        async move {
            let mut answer = client.send(call().with("host", host)).await;
            let status = answer.status;
            (status, answer.json().await)
        }
    };
    for (host, name) in [
        ("tools.example.com", "a"),
        ("Tools.Example.COM:8080", "a"),
        ("deep.down.example.org", "b"),
    ] {
        let (status, message) = answered(host).await;
        assert_eq!(status, 200, "{host}");
        assert_eq!(text_of(&message), name);
    }
    for host in ["example.org", "other.example.com"] {
        let (status, _) = answered(host).await;
        assert!(matches!(status, 403 | 404), "{host}: {status}");
    }
    // The site itself may call from its own pages.
    let same = asked(
        &client,
        Some("tools.example.com"),
        Some("https://tools.example.com"),
    )
    .await;
    assert_eq!(same, 200);
    let other = asked(
        &client,
        Some("tools.example.com"),
        Some("https://evil.example"),
    )
    .await;
    assert_eq!(other, 403);
}

#[tokio::test]
async fn our_own_answers_tell_nothing_of_the_inside() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    a.kill().await;
    let mut refused = gate.client().send(call()).await;
    assert_eq!(refused.status, 502);
    let text = everything(&mut refused).await;
    let inside: [&str; 3] = [&a.address().to_string(), "main", "ingora"];
    for word in inside {
        assert!(!text.contains(word), "{word} in {text}");
    }
    let Headers(lines) = refused.headers();
    assert!(lines.iter().all(|(name, _)| name != "server"), "{lines:?}");
}

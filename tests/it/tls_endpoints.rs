//! TLS to endpoints: everything that is sent without TLS is sent with it, by the rules that the operator
//! has set, and what is wrong with a certificate is told in words.

use std::time::Duration;

use rustls::HandshakeKind;
use serde_json::json;

use crate::support::authority::{Authority, Issued};
use crate::support::tidegate::Builder;
use crate::support::tls_front::{Front, Manners};
use crate::support::ws::WebSocket;
use crate::support::{Endpoint, Mcp, Outgoing, Tidegate, eventually, text_of};

mod checks;
mod refused;

/// The names that an endpoint has here.
const NAMES: &[&str] = &["w.internal", "127.0.0.1"];

/// One in front of this endpoint, which speaks TLS with these keys.
fn build(front: &Front, tls: &str) -> Builder {
    let keys = format!("tls: {{ {tls} }}");
    Tidegate::build(&[])
        .also_at("a", front.address())
        .endpoint("a", &keys)
}

/// The status of a call, or of a request on a plain route.
async fn status(gate: &Tidegate, kind: &str) -> u16 {
    let client = gate.client();
    if kind == "http" {
        return client.request("GET", "/plain", &[], b"").await.status;
    }
    let params = json!({"name": "whoami", "arguments": {}});
    let call = Outgoing::stateless(&json!(7), "tools/call", Some("whoami"), params);
    client.send(call).await.status
}

/// An endpoint with a certificate of an authority.
struct Place {
    endpoint: Endpoint,
    authority: Authority,
    issued: Issued,
}

impl Place {
    async fn new() -> Self {
        Self::with(Endpoint::start("a").await)
    }

    fn with(endpoint: Endpoint) -> Self {
        let authority = Authority::new();
        let issued = authority.issue(NAMES);
        Self {
            endpoint,
            authority,
            issued,
        }
    }

    async fn front(&self) -> Front {
        Front::of(&self.endpoint, &self.issued).await
    }

    async fn agreeing_to(&self, protocols: &[&str]) -> Front {
        let manners = Manners {
            shows: &self.issued,
            protocols,
            clients: None,
        };
        Front::with(&self.endpoint, manners).await
    }

    fn ca(&self) -> String {
        format!("ca: {}", self.authority.file())
    }
}

#[tokio::test]
async fn sessions_and_streams_are_carried_over_tls() {
    let place = Place::new().await;
    let front = place.front().await;
    let gate = build(&front, &place.ca()).start().await;
    let client = gate.client();
    let session = client.initialize().await;
    for _ in 0..5 {
        assert_eq!(client.whoami(&session).await, "a");
    }
    let mut stream = client.get_stream(&session, None).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    let owned = place.endpoint.sessions()[0].clone();
    let pushed = || place.endpoint.push(&owned, &note);
    assert!(eventually(Duration::from_secs(5), pushed).await);
    assert_eq!(stream.events().next_json().await, note);
    let ticks = client
        .modern_call("ticks", json!({"n": 5, "every_ms": 10}))
        .await;
    assert_eq!(text_of(&ticks), "5 ticks");
    assert_eq!(client.delete(&session).await.status, 200);
    assert!(place.endpoint.sessions().is_empty());
    for one in front.shaken() {
        assert_eq!(one.protocol.as_deref(), Some("http/1.1"));
        assert_eq!(one.name, None, "an address is not a name to ask for");
    }
}

#[tokio::test]
async fn a_kept_connection_carries_many_calls_and_large_ones() {
    let place = Place::new().await;
    let front = place.front().await;
    let gate = build(&front, &place.ca())
        .config("threads: 1")
        .start()
        .await;
    let client = gate.client();
    let text: String = (0..1 << 20)
        .map(|n| char::from(b'a' + (n % 23) as u8))
        .collect();
    for size in [0, 1, 5000, 16_384, 1 << 20] {
        let echo = client.modern_call("echo", json!({"text": text[..size]}));
        assert!(text_of(&echo.await) == text[..size], "it came back altered");
    }
    assert_eq!(front.shaken().len(), 1);
}

#[tokio::test]
async fn a_new_connection_resumes_the_session_of_an_older_one() {
    let place = Place::new().await;
    let front = place.front().await;
    let gate = build(&front, &place.ca())
        .pool("keep_alive: 100ms")
        .start()
        .await;
    for _ in 0..3 {
        gate.client().modern_call("whoami", json!({})).await;
        let closed = || place.endpoint.connections_open() == 0;
        assert!(eventually(Duration::from_secs(5), closed).await);
    }
    let kinds: Vec<_> = front.shaken().iter().map(|one| one.kind).collect();
    assert_eq!(kinds[0], Some(HandshakeKind::Full));
    assert_eq!(kinds[1..], vec![Some(HandshakeKind::Resumed); 2]);
}

#[tokio::test]
async fn http2_is_agreed_on_and_one_connection_carries_what_is_asked_at_once() {
    let place = Place::with(Endpoint::named("a").http2().start().await);
    let front = place.agreeing_to(&["h2", "http/1.1"]).await;
    let gate = build(&front, &place.ca())
        .endpoint("a", "http2: true")
        .config("threads: 1")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (client, session) = (client.clone(), session.clone());
        calls.push(tokio::spawn(async move {
            client.call(&session, "slow", json!({"ms": 100})).await
        }));
    }
    for call in calls {
        assert_eq!(text_of(&call.await.expect("no panic")), "done");
    }
    let big = client.modern_call("big", json!({"bytes": 1_000_000})).await;
    assert_eq!(text_of(&big).len(), 1_000_000);
    let shaken = front.shaken();
    assert_eq!(shaken.len(), 1);
    assert_eq!(shaken[0].protocol.as_deref(), Some("h2"));
}

#[tokio::test]
async fn an_endpoint_that_prefers_http_1_is_spoken_to_in_it() {
    for protocols in [&["http/1.1"][..], &[]] {
        let place = Place::new().await;
        let front = place.agreeing_to(protocols).await;
        let gate = build(&front, &place.ca())
            .endpoint("a", "http2: true")
            .config("threads: 1")
            .start()
            .await;
        for _ in 0..3 {
            let who = gate.client().modern_call("whoami", json!({})).await;
            assert_eq!(text_of(&who), "a");
        }
        assert_eq!(front.shaken().len(), 1, "it is kept");
    }
}

#[tokio::test]
async fn websockets_are_carried_over_tls_even_to_an_endpoint_of_http2() {
    let place = Place::with(Endpoint::named("a").websocket().start().await);
    let front = place.agreeing_to(&["h2", "http/1.1"]).await;
    let gate = build(&front, &place.ca())
        .endpoint("a", "http2: true")
        .start()
        .await;
    let socket = WebSocket::connect(&gate.client())
        .await
        .expect("an upgrade");
    for length in [0, 126, 65_536, 300_000] {
        let text = "x".repeat(length);
        socket.send_text(&text).await;
        assert_eq!(socket.next_text().await, text);
    }
    assert_eq!(place.endpoint.push_websockets("news"), 1);
    assert_eq!(socket.next_text().await, "news");
    socket.close(1000).await;
    assert_eq!(front.shaken()[0].protocol.as_deref(), Some("http/1.1"));
}

#[tokio::test]
async fn plain_routes_are_carried_over_tls() {
    for http2 in [false, true] {
        let endpoint = Endpoint::named("a");
        let endpoint = if http2 { endpoint.http2() } else { endpoint };
        let place = Place::with(endpoint.start().await);
        let front = place.agreeing_to(&["h2", "http/1.1"]).await;
        let gate = build(&front, &place.ca())
            .endpoint("a", &format!("http2: {http2}"))
            .routes("- path_prefix: /\n  pool: main")
            .pool("kind: http")
            .config("threads: 1")
            .start()
            .await;
        let body = vec![b'x'; 1 << 20];
        for body in [&b"some body"[..], &body, b"again"] {
            let mut answer = gate.client().request("POST", "/plain/x", &[], body).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.json().await["body_bytes"], body.len());
        }
        let shaken = front.shaken();
        assert_eq!(shaken.len(), 1, "the connection is kept");
        let expected = if http2 { "h2" } else { "http/1.1" };
        assert_eq!(shaken[0].protocol.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn an_endpoint_is_asked_by_the_name_that_its_certificate_must_be_for() {
    let place = Place::new().await;
    let front = place.front().await;
    let tls = format!("{}, server_name: W.internal", place.ca());
    for kind in ["mcp", "http"] {
        let gate = build(&front, &tls)
            .routes("- path_prefix: /\n  pool: main")
            .pool(&format!("kind: {kind}"))
            .start()
            .await;
        assert_eq!(status(&gate, kind).await, 200);
        let last = front.shaken().pop().expect("a handshake");
        assert_eq!(last.name.as_deref(), Some("w.internal"));
    }
}

#[tokio::test]
async fn an_endpoint_that_wants_to_know_us_is_shown_our_certificate() {
    let place = Place::new().await;
    let clients = Authority::new();
    let ours = clients.issue_client("tidegate");
    let manners = Manners {
        shows: &place.issued,
        protocols: &["http/1.1"],
        clients: Some(&clients),
    };
    let front = Front::with(&place.endpoint, manners).await;
    let tls = format!("{}, {}", place.ca(), ours.keys());
    for kind in ["mcp", "http"] {
        let gate = build(&front, &tls)
            .routes("- path_prefix: /\n  pool: main")
            .pool(&format!("kind: {kind}"))
            .start()
            .await;
        assert_eq!(status(&gate, kind).await, 200, "{kind}");
        let last = front.shaken().pop().expect("a handshake");
        assert_eq!(last.client.as_deref(), Some(&*ours.der), "{kind}");
    }
}

#[tokio::test]
async fn the_system_vouches_for_endpoints_of_which_nothing_else_is_said() {
    let place = Place::new().await;
    let front = place.front().await;
    let keys = format!("address: \"https://{}\"", front.address());
    for kind in ["mcp", "http"] {
        let (listen, keys) = (kind.to_owned(), keys.clone());
        let gate = Tidegate::build(&[])
            .variable("SSL_CERT_FILE", &place.authority.file())
            .config_with(move |places| {
                format!(
                    "listeners: [{{ bind: {} }}]\nroutes: [{{ path_prefix: /, pool: p }}]\n\
                     pools: {{ p: {{ kind: {listen}, health: {{ check: none }}, endpoints: [{{ {keys} }}] }} }}\n\
                     admin: {{ bind: {} }}\nstate_dir: {}\nlog: {{ access: off }}\n",
                    places.listen,
                    places.admin,
                    places.state_dir().display()
                )
            })
            .start()
            .await;
        assert_eq!(status(&gate, kind).await, 200, "{kind}");
    }
    assert_eq!(front.shaken().len(), 2);
}

//! Endpoints that are not who they should be get no request, and clients are told as of any endpoint
//! that cannot be reached.

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::{BasicConstraints, IsCa};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{NAMES, Place, build, status};
use crate::support::authority::{Authority, Issued};
use crate::support::tls_front::{Front, Manners};
use crate::support::ws::WebSocket;
use crate::support::{Endpoint, Mcp, Outgoing, Tidegate, eventually};

/// Asks in every way there is, and looks whether each is answered 502 with the right body, and nothing
/// has arrived. Then it looks for the reason among what the checks have said.
async fn is_refused(front: &Front, endpoint: &Endpoint, tls: &str, words: &str) {
    for keys in ["http2: false", "http2: true"] {
        let gate = build(front, tls).endpoint("a", keys).start().await;
        let params = json!({"name": "whoami", "arguments": {}});
        let call = Outgoing::stateless(&json!(7), "tools/call", Some("whoami"), params);
        let mut answer = gate.client().send(call).await;
        assert_eq!(answer.status, 502, "{words}");
        let body = answer.json().await;
        assert_eq!((&body["id"], &body["jsonrpc"]), (&json!(7), &json!("2.0")));
        assert!(body["error"]["message"].is_string(), "{body}");
        let socket = WebSocket::connect(&gate.client()).await;
        assert_eq!(socket.err().map(|head| head.status), Some(502), "{words}");
    }
    let plain = build(front, tls)
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
        .start()
        .await;
    let answer = plain.client().request("POST", "/plain", &[], b"x").await;
    assert_eq!(answer.status, 502, "{words}");
    assert!(endpoint.requests().is_empty(), "{words}");
    is_told(front, tls, words).await;
}

/// What each kind of check says of such an endpoint, beside one that is well.
async fn is_told(front: &Front, tls: &str, words: &str) {
    for check in ["mcp", "http, path: /plain", "tcp"] {
        is_told_by(front.address(), check, tls, words).await;
    }
}

async fn is_told_by(address: SocketAddr, check: &str, tls: &str, words: &str) {
    let well = Endpoint::start("well").await;
    let health = format!("{{ check: {check}, interval: 100ms, timeout: 1s, fall: 1 }}");
    let gate = Tidegate::build(&[&well])
        .also_at("a", address)
        .endpoint("a", &format!("tls: {{ {tls} }}"))
        .health(&health)
        .start()
        .await;
    let said = || {
        let text = gate.stderr();
        let line = |line: &str| line.contains("endpoint is down") && line.contains(words);
        text.lines().any(line)
    };
    let told = eventually(Duration::from_secs(5), said).await;
    assert!(told, "{check}, {words}:\n{}", gate.stderr());
}

async fn front(shows: &Issued) -> (Endpoint, Front) {
    let endpoint = Endpoint::start("a").await;
    let front = Front::of(&endpoint, shows).await;
    (endpoint, front)
}

#[tokio::test]
async fn one_whose_certificate_somebody_else_has_signed() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (endpoint, front) = front(&other.issue(NAMES)).await;
    let tls = format!("ca: {}", ours.file());
    is_refused(&front, &endpoint, &tls, "not signed by an authority").await;
}

#[tokio::test]
async fn one_whose_certificate_is_for_another_name() {
    let authority = Authority::new();
    let (endpoint, front) = front(&authority.issue(&["other.example"])).await;
    let tls = format!("ca: {}, server_name: w.internal", authority.file());
    let words = "its certificate is for other.example, not for w.internal";
    is_refused(&front, &endpoint, &tls, words).await;
}

#[tokio::test]
async fn one_whose_certificate_has_expired() {
    let authority = Authority::new();
    let (endpoint, front) = front(&authority.issue_expired(NAMES)).await;
    let tls = format!("ca: {}", authority.file());
    is_refused(&front, &endpoint, &tls, "its certificate has expired").await;
}

#[tokio::test]
async fn one_that_vouches_for_itself_unless_it_is_trusted() {
    let authority = Authority::new();
    let shown = authority.self_signed(NAMES, |_| {});
    let (endpoint, front) = front(&shown).await;
    let tls = format!("ca: {}", authority.file());
    is_refused(&front, &endpoint, &tls, "not signed by an authority").await;
    let trusted = format!("ca: {}", shown.cert.display());
    for tls in [trusted.as_str(), "verify: off"] {
        for kind in ["mcp", "http"] {
            let gate = build(&front, tls)
                .routes("- path_prefix: /\n  pool: main")
                .pool(&format!("kind: {kind}"))
                .start()
                .await;
            assert_eq!(status(&gate, kind).await, 200, "{kind}, {tls}");
        }
    }
}

#[tokio::test]
async fn one_that_shows_the_certificate_of_an_authority() {
    let authority = Authority::new();
    let shown = authority.self_signed(NAMES, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let (endpoint, front) = front(&shown).await;
    let tls = format!("ca: {}", shown.cert.display());
    is_refused(&front, &endpoint, &tls, "that of an authority (CA:TRUE)").await;
}

#[tokio::test]
async fn one_that_speaks_no_tls() {
    let place = Place::new().await;
    // What it takes for a request it answers in plain text, or hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 5];
            let _ = stream.read_exact(&mut hello).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    is_told_by(address, "tcp", &place.ca(), "it does not speak TLS here").await;
    answering.abort();
    let plain = place.endpoint.address();
    is_told_by(
        plain,
        "tcp",
        &place.ca(),
        "it closed the connection in the TLS handshake",
    )
    .await;
    assert!(place.endpoint.requests().is_empty());
}

#[tokio::test]
async fn one_that_wants_to_know_us_says_so() {
    let place = Place::new().await;
    let (clients, others) = (Authority::new(), Authority::new());
    let manners = Manners {
        shows: &place.issued,
        protocols: &["http/1.1"],
        clients: Some(&clients),
    };
    let front = Front::with(&place.endpoint, manners).await;
    let stranger = others.issue_client("tidegate");
    let expired = clients.issue_expired(&["tidegate.example"]);
    for (proof, words) in [
        (String::new(), "it wants a client certificate"),
        (
            format!(", {}", stranger.keys()),
            "it refused our certificate (`cert`): it does not know who signed it",
        ),
        (
            format!(", {}", expired.keys()),
            "it refused our certificate (`cert`): it is not valid today",
        ),
    ] {
        let tls = format!("{}{proof}", place.ca());
        is_told_by(front.address(), "mcp", &tls, words).await;
    }
    assert!(place.endpoint.requests().is_empty());
}

//! Who the client is: by the socket, or by what a trusted proxy says; and what endpoints are told of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::tidegate::Builder;
use crate::support::tls::{Certificate, TlsDoor};
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Fault, Mcp, Outgoing, Request, Tidegate, eventually};

/// What says who the client is.
const TOLD: [&str; 8] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-ssl",
    "x-real-ip",
];

/// A server of today's MCP and of plain HTTP, and one of HTTP+SSE.
struct Servers {
    today: Endpoint,
    old: Endpoint,
}

impl Servers {
    async fn start() -> Self {
        Self {
            today: Endpoint::named("today").websocket().start().await,
            old: Endpoint::named("old").legacy_sse().start().await,
        }
    }

    /// Routes to all that they serve, with keys for every pool.
    fn build(&self, keys: &str) -> Builder {
        let pool = |name: &str, kind: &str, endpoint: &Endpoint| {
            let address = endpoint.address();
            format!(
                "{name}: {{ kind: {kind}, health: {{ check: none }}, endpoints: [\"{address}\"]{}{keys} }}",
                if keys.is_empty() { "" } else { ", " }
            )
        };
        Tidegate::build(&[&self.today])
            .routes("- { path: /mcp, pool: main }")
            .routes("- { path: /sse, pool: old }")
            .routes("- { path_prefix: /, pool: plain }")
            .pool(keys)
            .pools(&pool("plain", "http", &self.today))
            .pools(&pool("old", "mcp", &self.old))
    }

    fn requests(&self) -> Vec<Request> {
        let mut all = self.today.requests();
        all.extend(self.old.requests());
        all
    }
}

/// What a request said of its client, by name; each at most once.
fn told(request: &Request) -> Value {
    let mut all = serde_json::Map::new();
    for (name, _) in &request.headers.0 {
        // Servers that write names as variables take the one for the other.
        let hyphened = name.to_ascii_lowercase().replace('_', "-");
        assert!(
            !name.contains('_') || !TOLD.contains(&hyphened.as_str()),
            "{name} is passed on"
        );
    }
    for name in TOLD {
        let values: Vec<&str> = request.headers.all(name).collect();
        assert!(
            values.len() <= 1,
            "{name} stands more than once: {values:?}"
        );
        if let [value] = values[..] {
            all.insert(name.to_owned(), value.into());
        }
    }
    all.into()
}

/// A client that says all kinds of things of itself.
fn liar(client: Client) -> Client {
    client
        .with_header("X-Forwarded-For", "198.51.100.1, 198.51.100.2")
        .with_header("x-forwarded-for", "198.51.100.3")
        .with_header("X-Forwarded-Proto", "https")
        .with_header("X-Forwarded-Host", "evil.example")
        .with_header("X-Forwarded-Port", "443")
        .with_header("X-Forwarded-Prefix", "/evil")
        .with_header("X-Forwarded-Ssl", "on")
        .with_header("X-Real-IP", "198.51.100.4")
        .with_header("X_Forwarded_For", "198.51.100.6")
        .with_header("x_real-ip", "198.51.100.6")
        .with_header("Forwarded", "for=198.51.100.5;proto=https")
}

/// Asks in every way there is: the two eras, a stream, HTTP+SSE, a WebSocket, a plain route.
async fn ask_in_every_way(client: &Client) {
    let session = client.initialize().await;
    client.whoami(&session).await;
    drop(client.get_stream(&session, None).await);
    client.modern_call("whoami", json!({})).await;
    let listening = client.clone().with_path("/sse");
    let stream = listening.request("GET", "/sse", &[("accept", "text/event-stream")], b"");
    assert_eq!(stream.await.status, 200);
    drop(WebSocket::connect(client).await.expect("a WebSocket"));
    assert_eq!(client.request("PUT", "/plain", &[], b"x").await.status, 200);
    client.delete(&session).await;
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_replaced_on_every_path() {
    let servers = Servers::start().await;
    let gate = servers.build("").start().await;
    ask_in_every_way(&liar(gate.client())).await;
    let expected = json!({
        "x-forwarded-for": "127.0.0.1",
        "x-real-ip": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": gate.address().to_string(),
    });
    let requests = servers.requests();
    assert!(requests.len() >= 8, "{}", requests.len());
    for request in &requests {
        assert_eq!(
            told(request),
            expected,
            "{} {}",
            request.method,
            request.path
        );
    }
    let mut h2 = gate.h2_client().await;
    for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        h2 = h2.with_header(name, "198.51.100.1");
    }
    h2.modern_call("whoami", json!({})).await;
    let answer = h2.try_request("GET", "/plain", &[], b"").await;
    assert_eq!(answer.expect("an answer").status, 200);
    let requests = servers.today.requests();
    for request in &requests[requests.len() - 2..] {
        assert_eq!(told(request)["x-forwarded-for"], "127.0.0.1");
        assert_eq!(told(request)["forwarded"], Value::Null);
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_says_counts_on_every_path() {
    let servers = Servers::start().await;
    let gate = servers
        .build("")
        .config("trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]")
        .start()
        .await;
    let client = gate
        .client()
        .with_header(
            "X-Forwarded-For",
            "198.51.100.1, [2001:db8::9]:4711, 10.0.0.2",
        )
        .with_header("X-Forwarded-Proto", "https")
        .with_header("X-Forwarded-Host", "real.example:8443")
        .with_header("X-Forwarded-Port", "8443")
        .with_header("Forwarded", "for=198.51.100.5");
    ask_in_every_way(&client).await;
    let expected = json!({
        "x-forwarded-for": "2001:db8::9, 10.0.0.2, 127.0.0.1",
        "x-real-ip": "2001:db8::9",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "real.example:8443",
        "x-forwarded-port": "8443",
    });
    let requests = servers.requests();
    for request in &requests {
        assert_eq!(
            told(request),
            expected,
            "{} {}",
            request.method,
            request.path
        );
    }
    // And so in the log.
    let all = eventually(crate::support::PATIENCE, || {
        gate.access_log().len() >= requests.len()
    });
    assert!(all.await);
    for line in gate.access_log() {
        assert_eq!(line["client"], "2001:db8::9", "{line}");
    }
}

#[tokio::test]
async fn endpoints_are_told_by_the_header_that_their_pool_wants() {
    let a = Endpoint::start("a").await;
    let plain = format!(
        "plain: {{ kind: http, endpoints: [\"{}\"], client_headers: both }}",
        a.address()
    );
    let gate = Tidegate::build(&[&a])
        .routes("- { path: /mcp, pool: main }\n- { path_prefix: /, pool: plain }")
        .pools(&plain)
        .pool("client_headers: forwarded")
        .config("trusted_proxies: [127.0.0.1]\ntrusted_header: forwarded")
        .start()
        .await;
    let client = gate
        .client()
        .with_header("X-Forwarded-For", "198.51.100.1")
        .with_header(
            "Forwarded",
            "for=\"[2001:db8::9]\";host=real.example;proto=https",
        );
    client.modern_call("whoami", json!({})).await;
    assert_eq!(client.request("GET", "/plain", &[], b"").await.status, 200);
    let forwarded = "for=\"[2001:db8::9]\";host=\"real.example\";proto=https, for=127.0.0.1";
    let requests = a.requests();
    assert_eq!(told(&requests[0]), json!({"forwarded": forwarded}));
    let mut both = told(&requests[1]);
    assert_eq!(both["forwarded"].take(), forwarded);
    assert_eq!(both["x-forwarded-for"], "2001:db8::9, 127.0.0.1");
}

#[tokio::test]
async fn a_pool_that_wants_none_is_told_nothing() {
    let servers = Servers::start().await;
    let gate = servers.build("client_headers: off").start().await;
    ask_in_every_way(&liar(gate.client())).await;
    for request in servers.requests() {
        assert_eq!(
            told(&request),
            json!({}),
            "{} {}",
            request.method,
            request.path
        );
    }
}

#[tokio::test]
async fn over_tls_the_scheme_is_https() {
    let servers = Servers::start().await;
    let certificate = Certificate::new();
    let gate = servers
        .build("")
        .listener(&certificate.listener())
        .start()
        .await;
    let door = TlsDoor::open(gate.address(), &certificate, &["http/1.1"]).await;
    door.client().modern_call("whoami", json!({})).await;
    let plain = door.client().request("GET", "/plain", &[], b"").await;
    assert_eq!(plain.status, 200);
    for request in servers.requests() {
        assert_eq!(
            told(&request)["x-forwarded-proto"],
            "https",
            "{}",
            request.path
        );
    }
}

#[tokio::test]
async fn limits_count_the_client_and_not_the_proxy() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .route("rate: { per_client: 1/h, burst: 2 }")
        .config("trusted_proxies: [127.0.0.1]\nsessions: { max_per_client: 1 }")
        .start()
        .await;
    let of = |address: &str| gate.client().with_header("x-forwarded-for", address);
    let call = || {
        let params = json!({"name": "whoami", "arguments": {}});
        Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), params)
    };
    for address in ["198.51.100.1", "198.51.100.2", "2001:db8::1"] {
        for expected in [200, 200, 429] {
            assert_eq!(of(address).send(call()).await.status, expected, "{address}");
        }
    }
    // One network of IPv6 is one client.
    assert_eq!(of("2001:db8::ffff").send(call()).await.status, 429);
    assert_eq!(of("2001:db8:0:1::1").send(call()).await.status, 200);
    for address in ["198.51.100.8", "198.51.100.9"] {
        for expected in [200, 429] {
            let answer = of(address).send_initialize().await;
            assert_eq!(answer.status, expected, "{address}");
        }
    }
}

#[tokio::test]
async fn consistent_hashing_goes_by_the_client() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool("balance: consistent_hash")
        .config("trusted_proxies: [127.0.0.1]")
        .start()
        .await;
    let mut seen = BTreeSet::new();
    for n in 1..=32 {
        let client = gate
            .client()
            .with_header("x-forwarded-for", &format!("198.51.100.{n}"));
        let first = client.modern_call("whoami", json!({})).await;
        let again = client.modern_call("whoami", json!({})).await;
        assert_eq!(first["result"], again["result"]);
        seen.insert(first["result"].to_string());
    }
    assert_eq!(seen.len(), 2, "both are used");
}

#[tokio::test]
async fn a_session_begun_again_is_begun_in_the_clients_name() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool("on_endpoint_loss: reinitialize")
        .start()
        .await;
    let client = liar(gate.client());
    let session = client.initialize().await;
    let owner = client.whoami(&session).await;
    let owner = if owner == "a" { &a } else { &b };
    owner.fault_next(1, Fault::Status(404, "{}".into()));
    client.whoami(&session).await;
    assert_eq!(a.calls("initialize").len() + b.calls("initialize").len(), 2);
    for request in a.requests().iter().chain(&b.requests()) {
        assert_eq!(told(request)["x-forwarded-for"], "127.0.0.1");
        assert_eq!(told(request)["forwarded"], Value::Null);
    }
}

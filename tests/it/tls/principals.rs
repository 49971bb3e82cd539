//! One client that has proved who it is has so much, from wherever it comes, and its neighbours as much
//! again.

use std::time::Duration;

use serde_json::json;

use super::clients::Parties;
use crate::support::authority::Issued;
use crate::support::h2::H2Client;
use crate::support::tidegate::Builder;
use crate::support::tls::TlsDoor;
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Mcp, Outgoing, Tidegate, eventually_some};

pub(super) const HERE: &str = "127.0.0.1";
pub(super) const THERE: &str = "127.0.0.2";
/// What a client may ask for, each on a route of its own.
pub(super) const WAYS: [&str; 7] = [
    "/mcp",
    "/get",
    "/socket",
    "/sse",
    "/plain",
    "/mcp-h2",
    "/plain-h2",
];
const STREAM: [(&str, &str); 1] = [("accept", "text/event-stream")];

/// A server of today's MCP and of plain HTTP, and one of HTTP+SSE.
pub(super) struct Servers {
    pub(super) today: Endpoint,
    pub(super) old: Endpoint,
}

impl Servers {
    pub(super) async fn start() -> Self {
        Self {
            today: Endpoint::named("today").websocket().start().await,
            old: Endpoint::named("old").legacy_sse().start().await,
        }
    }

    /// Routes to all that they serve, each with these keys; clients may prove themselves.
    pub(super) fn build(&self, parties: &Parties, keys: &str) -> Builder {
        let pool = |name: &str, kind: &str, endpoint: &Endpoint| {
            let address = endpoint.address();
            format!(
                "{name}: {{ kind: {kind}, health: {{ check: none }}, endpoints: [\"{address}\"] }}"
            )
        };
        let mut builder = Tidegate::build(&[&self.today])
            .listener(&parties.listener(", client_auth: optional"))
            .pools(&pool("plain", "http", &self.today))
            .pools(&pool("old", "mcp", &self.old));
        for path in WAYS {
            let pool = match path {
                "/sse" => "old",
                "/plain" | "/plain-h2" => "plain",
                _ => "main",
            };
            builder = builder.routes(&format!("- {{ path: {path}, pool: {pool}{keys} }}"));
        }
        builder
    }
}

/// A client at one address.
pub(super) struct Person {
    doors: [TlsDoor; 2],
    /// What every request says.
    says: Vec<(String, String)>,
}

/// How a request was answered.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Passed,
    /// 429, with whole seconds to wait.
    Refused(u32),
}

impl Person {
    pub(super) async fn at(
        address: &str,
        parties: &Parties,
        gate: &Tidegate,
        proof: Option<&Issued>,
    ) -> Self {
        Self {
            doors: [
                parties.door_at(address, gate, "http/1.1", proof).await,
                parties.door_at(address, gate, "h2", proof).await,
            ],
            says: Vec::new(),
        }
    }

    /// Has this field in every request.
    pub(super) fn saying(mut self, name: &str, value: &str) -> Self {
        self.says.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn client(&self) -> Client {
        let says = self.says.iter();
        says.fold(self.doors[0].client(), |client, (name, value)| {
            client.with_header(name, value)
        })
    }

    pub(super) async fn h2(&self) -> H2Client {
        let client = H2Client::connect(self.doors[1].address()).await;
        let says = self.says.iter();
        says.fold(client.expect("HTTP/2"), |client, (name, value)| {
            client.with_header(name, value)
        })
    }

    pub(super) async fn ask(&self, way: &str) -> Heard {
        let params = json!({"name": "whoami", "arguments": {}});
        let call = Outgoing::stateless(&json!(7), "tools/call", Some("whoami"), params);
        let client = self.client().with_path(way);
        let mut answer = match way {
            "/mcp" => client.send(call).await,
            "/mcp-h2" => self.h2().await.with_path(way).send(call).await,
            "/plain-h2" => {
                let answer = self.h2().await.try_request("GET", way, &[], b"").await;
                answer.expect("an answer")
            }
            "/socket" => {
                let Err(head) = WebSocket::connect(&client).await else {
                    return Heard::Passed;
                };
                let seconds = head.headers.get("retry-after");
                return heard(head.status, seconds);
            }
            _ => client.request("GET", way, &STREAM, b"").await,
        };
        let heard = heard(answer.status, answer.header("retry-after"));
        if heard != Heard::Passed && way.starts_with("/mcp") {
            let told = answer.json().await;
            assert_eq!(
                (&told["id"], told["error"]["code"].as_i64()),
                (&json!(7), Some(-32603))
            );
        }
        heard
    }
}

fn heard(status: u16, seconds: Option<&str>) -> Heard {
    if status != 429 {
        return Heard::Passed;
    }
    let seconds = seconds.expect("when to come again");
    Heard::Refused(seconds.parse().expect("whole seconds"))
}

async fn hits(gate: &Tidegate, limit: &str) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_limits_hit_total", &[("limit", limit)])
}

#[tokio::test]
async fn rates_of_a_principal_hold_wherever_it_is_and_for_nobody_else() {
    let servers = Servers::start().await;
    let parties = Parties::new();
    let rate = ", rate: { per_principal: 1/h, burst: 2 }";
    let gate = servers.build(&parties, rate).start().await;
    let one = parties.clients.issue_client("one");
    let renewed = parties.clients.issue_client("one");
    let other = parties.clients.issue_client("other");
    let one_here = Person::at(HERE, &parties, &gate, Some(&one)).await;
    let one_there = Person::at(THERE, &parties, &gate, Some(&renewed)).await;
    let other_here = Person::at(HERE, &parties, &gate, Some(&other)).await;
    let nobody = Person::at(HERE, &parties, &gate, None).await;
    for way in WAYS {
        assert_eq!(one_here.ask(way).await, Heard::Passed, "{way}");
        assert_eq!(one_there.ask(way).await, Heard::Passed, "{way}");
        for person in [&one_here, &one_there] {
            let heard = person.ask(way).await;
            let told = matches!(heard, Heard::Refused(3500..=3600));
            assert!(told, "{way}: {heard:?}");
        }
        assert_eq!(other_here.ask(way).await, Heard::Passed, "{way}");
        for _ in 0..3 {
            assert_eq!(nobody.ask(way).await, Heard::Passed, "{way}");
        }
    }
    assert_eq!(hits(&gate, "rate_principal").await, 2.0 * WAYS.len() as f64);
    let client = one_here.client();
    for _ in 0..3 {
        let probe = client.modern("server/discover", None, json!({})).await;
        assert_eq!(probe.status, 200);
    }
}

#[tokio::test]
async fn an_address_and_a_principal_are_limited_side_by_side() {
    let servers = Servers::start().await;
    let parties = Parties::new();
    let rate = ", rate: { per_client: 1/h, per_principal: 1/h, burst: 2 }";
    let gate = servers.build(&parties, rate).start().await;
    let proofs = ["one", "other"].map(|name| parties.clients.issue_client(name));
    let one_here = Person::at(HERE, &parties, &gate, Some(&proofs[0])).await;
    let one_there = Person::at(THERE, &parties, &gate, Some(&proofs[0])).await;
    let other_here = Person::at(HERE, &parties, &gate, Some(&proofs[1])).await;
    let other_there = Person::at(THERE, &parties, &gate, Some(&proofs[1])).await;
    assert_eq!(one_here.ask("/mcp").await, Heard::Passed);
    assert_eq!(other_here.ask("/mcp").await, Heard::Passed);
    assert!(matches!(other_here.ask("/mcp").await, Heard::Refused(_)));
    assert_eq!(hits(&gate, "rate").await, 1.0);
    // What was refused for its address has cost the principal nothing.
    assert_eq!(other_there.ask("/mcp").await, Heard::Passed);
    assert!(matches!(other_there.ask("/mcp").await, Heard::Refused(_)));
    assert_eq!(hits(&gate, "rate_principal").await, 1.0);
    // And the other way round.
    assert_eq!(one_there.ask("/mcp").await, Heard::Passed);
    assert!(matches!(one_there.ask("/mcp").await, Heard::Refused(_)));
    assert_eq!(hits(&gate, "rate").await, 2.0);
}

#[tokio::test]
async fn sessions_of_a_principal_are_counted_over_its_addresses() {
    let servers = Servers::start().await;
    let parties = Parties::new();
    let limit = "sessions: { max_per_principal: 2 }";
    let gate = servers.build(&parties, "").config(limit).start().await;
    let proofs = ["one", "other"].map(|name| parties.clients.issue_client(name));
    let here = Person::at(HERE, &parties, &gate, Some(&proofs[0])).await;
    let there = Person::at(THERE, &parties, &gate, Some(&proofs[0])).await;
    let other = Person::at(HERE, &parties, &gate, Some(&proofs[1])).await;
    let nobody = Person::at(HERE, &parties, &gate, None).await;
    let first = here.client().initialize().await;
    there.client().initialize().await;
    assert_eq!(here.client().send_initialize().await.status, 429);
    assert_eq!(there.h2().await.send_initialize().await.status, 429);
    let denied = WebSocket::connect(&there.client()).await;
    assert_eq!(denied.expect_err("a refusal").status, 429);
    let denied = here.client().request("GET", "/sse", &STREAM, b"").await;
    assert_eq!(denied.status, 429);
    assert_eq!(hits(&gate, "sessions_per_principal").await, 4.0);
    for person in [&other, &nobody, &nobody, &nobody] {
        person.client().initialize().await;
    }
    assert_eq!(here.client().delete(&first).await.status, 200);
    there.client().initialize().await;
    assert_eq!(here.client().send_initialize().await.status, 429);
}

#[tokio::test]
async fn streams_of_a_principal_are_counted_over_its_addresses() {
    let servers = Servers::start().await;
    let parties = Parties::new();
    let limit = "streams: { max_per_principal: 2 }";
    let gate = servers.build(&parties, "").config(limit).start().await;
    let proofs = ["one", "other"].map(|name| parties.clients.issue_client(name));
    let here = Person::at(HERE, &parties, &gate, Some(&proofs[0])).await;
    let there = Person::at(THERE, &parties, &gate, Some(&proofs[0])).await;
    let other = Person::at(HERE, &parties, &gate, Some(&proofs[1])).await;
    let nobody = Person::at(HERE, &parties, &gate, None).await;
    let session = here.client().initialize().await;
    let get = here.client().get_stream(&session, None).await;
    let listen = there.client().listen().await;
    assert_eq!((get.status, listen.status), (200, 200));
    assert_eq!(here.client().listen().await.status, 429);
    assert_eq!(there.h2().await.listen().await.status, 429);
    let again = there.client().get_stream(&session, None).await;
    assert_eq!(again.status, 429);
    let denied = WebSocket::connect(&here.client()).await;
    assert_eq!(denied.expect_err("a refusal").status, 429);
    let denied = there.client().request("GET", "/sse", &STREAM, b"").await;
    assert_eq!(denied.status, 429);
    assert_eq!(hits(&gate, "streams_per_principal").await, 5.0);
    let mut held = Vec::new();
    for person in [&other, &other, &nobody, &nobody, &nobody] {
        let stream = person.client().listen().await;
        assert_eq!(stream.status, 200);
        held.push(stream);
    }
    assert_eq!(here.client().whoami(&session).await, "today");
    drop(listen);
    let freed = eventually_some(Duration::from_secs(5), async || {
        let stream = here.client().listen().await;
        (stream.status == 200).then_some(stream)
    });
    assert!(freed.await.is_some());
    drop((get, held));
}

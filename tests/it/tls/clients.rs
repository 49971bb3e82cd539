//! Clients that prove themselves, and those that do not.

use rustls::pki_types::ServerName;
use serde_json::json;

use crate::support::authority::{Authority, Issued};
use crate::support::h2::H2Client;
use crate::support::tls::TlsDoor;
use crate::support::{Endpoint, Mcp, Outgoing, PATIENCE, Tidegate, eventually, text_of};

/// The authorities of the server and of its clients, and what the server shows.
pub(super) struct Parties {
    pub(super) server: Authority,
    pub(super) clients: Authority,
    pub(super) shown: Issued,
}

impl Parties {
    pub(super) fn new() -> Self {
        let server = Authority::new();
        Self {
            shown: server.issue(&["127.0.0.1"]),
            clients: Authority::new(),
            server,
        }
    }

    /// The keys of a listener.
    pub(super) fn listener(&self, more: &str) -> String {
        format!(
            "tls: {{ {}, client_ca: {}{more} }}",
            self.shown.keys(),
            self.clients.file()
        )
    }

    /// A door for a client that may prove itself.
    pub(super) async fn door(
        &self,
        gate: &Tidegate,
        protocol: &str,
        proof: Option<&Issued>,
    ) -> TlsDoor {
        self.door_at("127.0.0.1", gate, protocol, proof).await
    }

    /// The same for a client at this address.
    pub(super) async fn door_at(
        &self,
        client: &str,
        gate: &Tidegate,
        protocol: &str,
        proof: Option<&Issued>,
    ) -> TlsDoor {
        let config = self.server.trusted(&[protocol], proof);
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let client = client.parse().expect("an address");
        TlsDoor::at(client, gate.address(), config, name).await
    }

    /// Who answers such a client, over HTTP/1.1 and HTTP/2; `None` if it is refused.
    async fn served(&self, gate: &Tidegate, proof: Option<&Issued>) -> [bool; 2] {
        let door = self.door(gate, "http/1.1", proof).await;
        let first = door.client().try_request("GET", "/health", &[], b"").await;
        let door = self.door(gate, "h2", proof).await;
        let second = match H2Client::connect(door.address()).await {
            Ok(client) => client.try_request("GET", "/health", &[], b"").await.is_ok(),
            Err(_) => false,
        };
        [first.is_ok(), second]
    }
}

#[tokio::test]
async fn a_client_has_to_prove_itself_where_that_is_wanted() {
    let a = Endpoint::start("a").await;
    let parties = Parties::new();
    let strangers = Authority::new();
    let known = parties.clients.issue_client("worker");
    let stranger = strangers.issue_client("worker");
    let expired = parties.clients.issue_expired(&["worker.example"]);
    for (auth, without) in [("", false), (", client_auth: optional", true)] {
        let gate = Tidegate::build(&[&a])
            .listener(&parties.listener(auth))
            .start()
            .await;
        for (proof, served) in [
            (Some(&known), true),
            (None, without),
            (Some(&stranger), false),
            (Some(&expired), false),
        ] {
            assert_eq!(parties.served(&gate, proof).await, [served; 2], "{auth}");
        }
        let refused = if without { 4.0 } else { 6.0 };
        gate.metrics_when(|metrics| {
            let reason = [("reason", "protocol")];
            metrics.with("tidegate_tls_handshakes_failed_total", &reason) == refused
        })
        .await;
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn who_is_not_let_in_any_more_cannot_resume() {
    let a = Endpoint::start("a").await;
    let parties = Parties::new();
    let known = parties.clients.issue_client("worker");
    let gate = Tidegate::build(&[&a])
        .listener(&parties.listener(""))
        .start()
        .await;
    let door = parties.door(&gate, "http/1.1", Some(&known)).await;
    for _ in 0..2 {
        let answer = door.client().modern_call("whoami", json!({})).await;
        assert_eq!(text_of(&answer), "a");
    }
    let others = Authority::new();
    std::fs::copy(others.file(), parties.clients.file()).expect("a file of ours");
    gate.signal("HUP");
    let told = || gate.stderr().contains("reloaded in");
    assert!(eventually(PATIENCE, told).await);
    let refused = door.client().try_request("GET", "/health", &[], b"").await;
    assert!(refused.is_err());
    let welcome = others.issue_client("worker");
    let door = parties.door(&gate, "http/1.1", Some(&welcome)).await;
    assert_eq!(
        text_of(&door.client().modern_call("whoami", json!({})).await),
        "a"
    );
}

#[tokio::test]
async fn a_session_belongs_to_the_client_that_has_opened_it() {
    let a = Endpoint::start("a").await;
    let parties = Parties::new();
    let gate = Tidegate::build(&[&a])
        .listener(&parties.listener(", client_auth: optional"))
        .config("threads: 1")
        .start()
        .await;
    let (one, other) = (
        parties.clients.issue_client("one"),
        parties.clients.issue_client("other"),
    );
    let door = parties.door(&gate, "http/1.1", Some(&one)).await;
    let session = door.client().initialize().await;
    assert_eq!(door.client().whoami(&session).await, "a");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let status = async |proof: Option<&Issued>| {
        let door = parties.door(&gate, "http/1.1", proof).await;
        let call = Outgoing::in_session(&session, &call);
        door.client().send(call).await.status
    };
    assert_eq!(status(Some(&other)).await, 404);
    assert_eq!(status(None).await, 404);
    // Another certificate for the same name is the same client.
    let renewed = parties.clients.issue_client("one");
    assert_eq!(status(Some(&renewed)).await, 200);
    let door = parties.door(&gate, "h2", Some(&one)).await;
    let client = H2Client::connect(door.address()).await.expect("HTTP/2");
    assert_eq!(client.whoami(&session).await, "a");
}

//! Which certificate a client is shown, and how it is replaced.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::json;

use crate::support::authority::{Authority, Issued};
use crate::support::tls::{Carried, TlsDoor};
use crate::support::{Endpoint, Mcp, PATIENCE, Tidegate, eventually};

/// How a client fared that asked for this name.
async fn asked(gate: &Tidegate, config: &Arc<ClientConfig>, name: &str) -> Option<Carried> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let door = TlsDoor::with_config(gate.address(), Arc::clone(config), name).await;
    let _ = door.client().try_request("GET", "/health", &[], b"").await;
    door.carried().pop()
}

fn listed(certificates: &[&Issued]) -> String {
    let items: Vec<String> = certificates
        .iter()
        .map(|issued| format!("{{ {} }}", issued.keys()))
        .collect();
    format!("tls: {{ certificates: [{}] }}", items.join(", "))
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let a = Endpoint::start("a").await;
    let authority = Authority::new();
    let first = authority.issue(&["first.example", "127.0.0.1"]);
    let wild = authority.issue(&["*.wild.example"]);
    let exact = authority.issue(&["exact.wild.example", "other.example"]);
    let gate = Tidegate::build(&[&a])
        .listener(&listed(&[&first, &wild, &exact]))
        .start()
        .await;
    let config = authority.trusted(&["http/1.1"], None);
    for (name, shown) in [
        ("first.example", &first),
        ("127.0.0.1", &first),
        ("a.wild.example", &wild),
        ("A.Wild.Example", &wild),
        ("exact.wild.example", &exact),
        ("other.example", &exact),
    ] {
        let carried = asked(&gate, &config, name).await.expect(name);
        assert_eq!(carried.shown.as_deref(), Some(&*shown.der), "{name}");
    }
    // These are shown the first, which is not for them.
    for name in ["nobody.example", "wild.example", "a.b.wild.example"] {
        assert!(asked(&gate, &config, name).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn the_short_form_comes_before_the_list() {
    let a = Endpoint::start("a").await;
    let authority = Authority::new();
    let (first, second) = (
        authority.issue(&["127.0.0.1"]),
        authority.issue(&["second.example"]),
    );
    let keys = format!(
        "tls: {{ {}, certificates: [{{ {} }}] }}",
        first.keys(),
        second.keys()
    );
    let gate = Tidegate::build(&[&a]).listener(&keys).start().await;
    let config = authority.trusted(&["h2", "http/1.1"], None);
    for (name, shown) in [("127.0.0.1", &first), ("second.example", &second)] {
        let carried = asked(&gate, &config, name).await.expect(name);
        assert_eq!(carried.shown.as_deref(), Some(&*shown.der), "{name}");
    }
}

/// Has the file read again, and waits until that is done.
async fn reload(gate: &Tidegate, words: &str) {
    let told = || gate.stderr().matches(words).count();
    let before = told();
    gate.signal("HUP");
    assert!(eventually(PATIENCE, || told() > before).await, "{words}");
}

#[tokio::test]
async fn a_certificate_is_replaced_while_streams_live_and_clients_resume() {
    let a = Endpoint::start("a").await;
    let authority = Authority::new();
    let old = authority.issue(&["127.0.0.1"]);
    let gate = Tidegate::build(&[&a])
        .listener(&listed(&[&old]))
        .start()
        .await;
    let config = authority.trusted(&["http/1.1"], None);
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let door = TlsDoor::with_config(gate.address(), Arc::clone(&config), name).await;
    let client = door.client();
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;

    let new = authority.issue(&["127.0.0.1"]);
    std::fs::copy(&new.cert, &old.cert).expect("a file of ours");
    // Half of a pair changes nothing.
    reload(&gate, "not reloaded").await;
    let fresh = authority.trusted(&["http/1.1"], None);
    let carried = asked(&gate, &fresh, "127.0.0.1")
        .await
        .expect("a handshake");
    assert_eq!(carried.shown.as_deref(), Some(&*old.der));
    std::fs::copy(&new.key, &old.key).expect("a file of ours");
    reload(&gate, "reloaded in").await;
    let fresh = authority.trusted(&["http/1.1"], None);
    let carried = asked(&gate, &fresh, "127.0.0.1")
        .await
        .expect("a handshake");
    assert_eq!(carried.shown.as_deref(), Some(&*new.der));

    assert_eq!(client.whoami(&session).await, "a");
    let resumed = door.carried().pop().expect("a connection");
    assert_eq!(resumed.kind, Some(HandshakeKind::Resumed));
    let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    assert!(a.push(&a.sessions()[0].clone(), &note));
    assert_eq!(stream.events().next_json().await, note);
}

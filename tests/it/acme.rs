//! Certificates that are ordered: had, shown, kept and ordered anew, from a real authority; and what
//! happens while there are none.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::authority::Authority;
use crate::support::pebble::Pebble;
use crate::support::tls::TlsDoor;
use crate::support::{Endpoint, Mcp, Tidegate, eventually, eventually_some, text_of};
use crate::upgrade::upgrade;

/// How long an order may take: numbers are called bad, and Pebble sleeps before it looks.
const ORDERED: Duration = Duration::from_secs(30);
const NAME: &str = "gate.example.com";
const ISSUED: [(&str, &str); 1] = [("result", "issued")];

/// A socket for a listener whose port is to be known before it is there.
fn socket() -> (StdListener, SocketAddr) {
    let socket = StdListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// The certificate that a client is shown who asks for a name; `None` if it is refused, or refuses.
async fn shown(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(to).await.expect("a listener");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connector = TlsConnector::from(Arc::clone(config));
    let tls = connector.connect(name, stream).await.ok()?;
    let chain = tls.get_ref().1.peer_certificates()?;
    Some(chain.first()?.to_vec())
}

/// Waits until there is a certificate, and gives it.
async fn had(gate: &Tidegate, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let look = async || shown(gate.address(), config, name).await;
    match eventually_some(ORDERED, look).await {
        Some(certificate) => certificate,
        None => panic!("no certificate: {}", gate.stderr()),
    }
}

async fn issued(gate: &Tidegate) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_acme_orders_total", &ISSUED)
}

#[tokio::test]
async fn a_certificate_is_had_and_shown_and_kept_and_ordered_anew() {
    let a = Endpoint::start("a").await;
    let (socket, address) = socket();
    let pebble = Pebble::start(address.port(), Duration::from_secs(36)).await;
    let names = [NAME, "other.example.com"];
    let mut gate = Tidegate::build(&[&a])
        .hand_over(socket)
        .listener(&format!("tls: {{ {} }}", pebble.section(&names)))
        .start()
        .await;
    let config = pebble.trusted(&["http/1.1"], None);

    // At once there is none, and that is said to those who ask.
    assert_eq!(shown(address, &config, NAME).await, None);
    let bare = [("reason", "no_certificate")];
    let refused = gate
        .metrics_when(|all| all.with("tidegate_tls_handshakes_failed_total", &bare) >= 1.0)
        .await;
    assert_eq!(refused.with("tidegate_acme_orders_total", &ISSUED), 0.0);
    assert!(
        gate.stderr()
            .contains("there is no certificate for gate.example.com")
    );

    let first = had(&gate, &config, NAME).await;
    let begun = Instant::now();
    assert_eq!(
        shown(address, &config, names[1]).await.as_ref(),
        Some(&first)
    );
    let name = ServerName::try_from(NAME).expect("a name");
    let door = TlsDoor::with_config(address, Arc::clone(&config), name).await;
    assert_eq!(
        text_of(&door.client().modern_call("whoami", json!({})).await),
        "a"
    );
    let metrics = gate.metrics().await;
    assert_eq!(metrics.with("tidegate_acme_orders_total", &ISSUED), 1.0);
    let until = metrics.sum("tidegate_certificate_expiry_seconds");
    let now = std::time::UNIX_EPOCH
        .elapsed()
        .expect("a clock")
        .as_secs_f64();
    assert!(until > now && until < now + 60.0, "{until}");

    // What was had is the owner's alone.
    let kept = gate.places().state_dir().join("acme");
    for entry in std::fs::read_dir(&kept).expect("a directory") {
        let entry = entry.expect("a file");
        let mode = entry.metadata().expect("facts").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }

    // Who is no authority with something to look at comes nowhere by its protocol.
    for protocols in [&["acme-tls/1"][..], &["acme-tls/1", "acme-tls/2"]] {
        let posing = pebble.trusted(protocols, None);
        assert_eq!(shown(address, &posing, NAME).await, None, "{protocols:?}");
    }

    gate.restart().await;
    assert_eq!(shown(address, &config, NAME).await.as_ref(), Some(&first));
    assert_eq!(issued(&gate).await, 0.0, "{}", gate.stderr());

    // Two thirds of its life later there is another, and nobody was refused meanwhile.
    let renewed = async || {
        let one = shown(address, &config, NAME).await;
        let one = one.expect("a certificate that is good");
        (one != first).then_some(())
    };
    let waited = eventually_some(ORDERED, renewed).await;
    assert!(waited.is_some(), "{}", gate.stderr());
    assert!(begun.elapsed() > Duration::from_secs(12), "too early");
    assert_eq!(issued(&gate).await, 1.0);
    assert!(
        gate.stderr().contains("is in force until"),
        "{}",
        gate.stderr()
    );
}

#[tokio::test]
async fn it_stays_over_a_reload_and_an_upgrade_and_asks_nothing_of_the_authority() {
    let a = Endpoint::start("a").await;
    let (socket, address) = socket();
    let pebble = Pebble::start(address.port(), Duration::from_secs(3600)).await;
    // Clients have to prove themselves, and the authority cannot.
    let clients = Authority::new();
    let proof = clients.issue_client("one");
    let section = pebble.section(&[NAME]);
    let tls = format!("tls: {{ {section}, client_ca: {} }}", clients.file());
    let mut gate = Tidegate::build(&[&a]).hand_over(socket).listener(&tls);
    gate = gate.config("drain_timeout: 5s");
    let mut gate = gate.start().await;
    let config = pebble.trusted(&["http/1.1"], Some(&proof));
    let first = had(&gate, &config, NAME).await;

    gate.write_config(
        &gate
            .config()
            .replace("drain_timeout: 5s", "drain_timeout: 6s"),
    );
    gate.signal("HUP");
    let reloaded = || gate.stderr().contains("reloaded in");
    assert!(eventually(ORDERED, reloaded).await, "{}", gate.stderr());
    assert_eq!(shown(address, &config, NAME).await.as_ref(), Some(&first));
    assert_eq!(issued(&gate).await, 1.0);

    upgrade(&mut gate).await;
    assert_eq!(shown(address, &config, NAME).await.as_ref(), Some(&first));
    assert_eq!(issued(&gate).await, 0.0, "the new one has ordered nothing");

    // Other names are another certificate, with the account that there is.
    let other = pebble.section(&[NAME, "new.example.com"]);
    gate.write_config(&gate.config().replace(&section, &other));
    gate.signal("HUP");
    had(&gate, &config, "new.example.com").await;
    assert_eq!(issued(&gate).await, 1.0);
    let kept = std::fs::read_dir(gate.places().state_dir().join("acme"));
    let accounts = kept.expect("a directory").filter(|entry| {
        let name = entry.as_ref().expect("a file").file_name();
        name.to_string_lossy().starts_with("account-")
    });
    assert_eq!(accounts.count(), 1);
}

#[tokio::test]
async fn an_authority_that_finds_nothing_is_asked_again_later_and_says_why() {
    let a = Endpoint::start("a").await;
    // It looks where nobody is.
    let (nobody, elsewhere) = socket();
    drop(nobody);
    let pebble = Pebble::start(elsewhere.port(), Duration::from_secs(3600)).await;
    let gate = Tidegate::build(&[&a])
        .listener(&format!("tls: {{ {} }}", pebble.section(&[NAME])))
        .start()
        .await;
    let refused = [("result", "refused")];
    let look = async || {
        let metrics = gate.metrics().await;
        (metrics.with("tidegate_acme_orders_total", &refused) >= 1.0).then_some(())
    };
    assert!(
        eventually_some(ORDERED, look).await.is_some(),
        "{}",
        gate.stderr()
    );
    let said = gate.stderr();
    let said = said
        .lines()
        .find(|line| line.contains("no new certificate for"));
    let said = said.expect("it was said");
    for word in [
        "gate.example.com",
        "Failed to connect",
        "there has been none yet",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let wait = said.rsplit("ordered again in ").next().expect("a wait");
    let wait: u64 = wait.trim_end_matches(" s").parse().expect("seconds");
    assert!((60..=90).contains(&wait), "{said}");
}

#[tokio::test]
async fn without_its_authority_a_listener_shows_what_else_it_has() {
    let a = Endpoint::start("a").await;
    let (nobody, elsewhere) = socket();
    drop(nobody);
    let authority = Authority::new();
    let file = authority.issue(&["127.0.0.1", NAME]);
    let acme = format!(
        "acme: {{ names: [{NAME}, late.example.com], agree_to_terms: true, directory: \
         \"https://{elsewhere}/dir\", ca: {} }}",
        authority.file()
    );
    let gate = Tidegate::build(&[&a])
        .listener(&format!("tls: {{ {}, {acme} }}", file.keys()))
        .start()
        .await;
    let unreachable = [("result", "unreachable")];
    gate.metrics_when(|all| all.with("tidegate_acme_orders_total", &unreachable) >= 1.0)
        .await;
    let config = authority.trusted(&["http/1.1"], None);
    for name in ["127.0.0.1", NAME] {
        let found = shown(gate.address(), &config, name).await;
        assert_eq!(found.as_deref(), Some(&*file.der), "{name}");
    }
    let plain = gate.client().request("GET", "/mcp", &[], b"").await;
    assert_eq!(plain.status, 400);
    // It is shown the first, which is not for it.
    assert_eq!(
        shown(gate.address(), &config, "late.example.com").await,
        None
    );
    let said = gate.stderr();
    assert!(
        said.contains(&format!("GET https://{elsewhere}/dir: ")),
        "{said}"
    );
    assert!(said.contains("connection refused"), "{said}");
}

#[tokio::test]
async fn nothing_is_ordered_while_another_process_orders() {
    let a = Endpoint::start("a").await;
    let (socket, address) = socket();
    let pebble = Pebble::start(address.port(), Duration::from_secs(3600)).await;
    let builder = Tidegate::build(&[&a])
        .hand_over(socket)
        .listener(&format!("tls: {{ {} }}", pebble.section(&[NAME])))
        .log("{ access: @/access.log, level: trace }");
    let mut gate = builder.start().await;
    gate.kill().await;
    let directory = gate.places().state_dir().join("acme");
    // It may have begun.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).expect("a directory of ours");
    let lock = std::fs::File::create(directory.join("lock")).expect("a file of ours");
    lock.lock().expect("a lock");
    gate.start_again().await;
    let waits = || {
        gate.stderr()
            .contains("another process orders certificates")
    };
    assert!(eventually(ORDERED, waits).await, "{}", gate.stderr());
    let config = pebble.trusted(&["http/1.1"], None);
    assert_eq!(shown(address, &config, NAME).await, None);
    let left = std::fs::read_dir(&directory).expect("a directory").count();
    assert_eq!(left, 1, "no account was made");
    drop(lock);
    had(&gate, &config, NAME).await;
}

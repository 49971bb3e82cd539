//! An authority that speaks ACME: Pebble, which Let's Encrypt tests clients with, as a child on loopback.
//! It connects to one port for every name, rejects some numbers that it has given out itself, and writes
//! certificates that live as long as a test wants.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::Socket;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::authority::{Authority, Issued};
use super::endpoint::reserve_port;
use super::tls::TlsDoor;
use super::{PATIENCE, eventually_some};

/// How many of a hundred good numbers it calls bad.
const BAD_NONCES: &str = "10";

/// A running authority. Dropped, it is killed.
pub(crate) struct Pebble {
    address: SocketAddr,
    /// Vouches for its directory.
    vouches: Authority,
    /// The root of what it writes.
    root: CertificateDer<'static>,
    _dir: TempDir,
    _child: Child,
    _names: Names,
    _reservations: [Socket; 2],
}

impl Pebble {
    /// One that looks for every name at this port, and whose certificates live so long.
    pub(crate) async fn start(port: u16, life: Duration) -> Self {
        let names = Names::start().await;
        let vouches = Authority::new();
        let shown = vouches.issue(&["127.0.0.1"]);
        let dir = TempDir::with_prefix("tidegate-pebble-").expect("a directory");
        let (one, address) = reserve_port();
        let (other, management) = reserve_port();
        let config = serde_json::json!({"pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": shown.cert,
            "privateKey": shown.key,
            "httpPort": 1,
            "tlsPort": port,
            "certificateValidityPeriod": life.as_secs(),
        }});
        let file = dir.path().join("pebble.json");
        std::fs::write(&file, config.to_string()).expect("a file in our own directory");
        let log = std::fs::File::create(dir.path().join("log")).expect("a file of ours");
        let child = Command::new("pebble")
            .args([
                "-strict",
                "-dnsserver",
                &names.address.to_string(),
                "-config",
            ])
            .arg(&file)
            .env("PEBBLE_WFE_NONCEREJECT", BAD_NONCES)
            .env("PEBBLE_VA_SLEEPTIME", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        let child = child.expect("the Debian package `pebble`, which `make setup-tests` installs");
        let root = root(management, &vouches).await;
        Self {
            address,
            vouches,
            root,
            _dir: dir,
            _child: child,
            _names: names,
            _reservations: [one, other],
        }
    }

    /// The `acme` section of a listener with a certificate for these names.
    pub(crate) fn section(&self, names: &[&str]) -> String {
        format!(
            "acme: {{ names: [{}], agree_to_terms: true, contact: [\"mailto:ops@example.com\"], \
             directory: \"https://{}/dir\", ca: {} }}",
            names.join(", "),
            self.address,
            self.vouches.file()
        )
    }

    /// What a client needs that trusts what it writes, offers these protocols, and may prove itself.
    pub(crate) fn trusted(&self, protocols: &[&str], proof: Option<&Issued>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let mut config = ClientConfig::clone(&self.vouches.trusted(protocols, proof));
        let provider = Arc::clone(config.crypto_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().expect("a verifier");
        config.dangerous().set_certificate_verifier(verifier);
        Arc::new(config)
    }
}

/// Waits until it is there, and asks for its root.
async fn root(management: SocketAddr, vouches: &Authority) -> CertificateDer<'static> {
    let name = ServerName::IpAddress(management.ip().into());
    let door = TlsDoor::with_config(management, vouches.trusted(&["http/1.1"], None), name).await;
    let client = door.client();
    let asked = eventually_some(PATIENCE, async || {
        let answer = client.try_request("GET", "/roots/0", &[], b"").await;
        let mut answer = answer.ok().filter(|answer| answer.status == 200)?;
        Some(answer.text().await)
    });
    let text = asked.await.expect("Pebble is there");
    CertificateDer::from_pem_slice(text.as_bytes()).expect("a root")
}

/// A name server by which every name is at 127.0.0.1, and nowhere else.
struct Names {
    address: SocketAddr,
    answering: JoinHandle<()>,
}

impl Names {
    async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let socket = socket.expect("a port");
        let address = socket.local_addr().expect("an address");
        let answering = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                if let Some(answer) = answer(&question[..length]) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, answering }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// The answer to a question of one name (RFC 1035 section 4).
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let rest = question.get(12..)?;
    let name = rest.iter().position(|byte| *byte == 0)? + 1;
    let asked = rest.get(..name + 4)?;
    let is_a = asked[name..] == [0, 1, 0, 1];
    let mut answer = question[..2].to_vec();
    // An answer without an error, to one question, with so many records.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(asked);
    if is_a {
        // The name of the question, for a minute.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

//! TLS for the other clients: a door in front of a TLS listener that takes plain connections, carries
//! each over a TLS connection of its own, and notes how that began and ended.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Client;

/// Both versions that are spoken.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// A certificate for 127.0.0.1 with its key, in files of their own.
#[derive(Debug)]
pub(crate) struct Certificate {
    dir: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let dir = TempDir::with_prefix("tidegate-tls-").expect("a directory");
        let write = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).expect("a file in our own directory");
        };
        write("cert.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        let der = made.cert.der().clone();
        Self { dir, der }
    }

    /// Its file.
    pub(crate) fn file(&self) -> String {
        self.dir.path().join("cert.pem").display().to_string()
    }

    /// The key of a listener that shows it.
    pub(crate) fn listener(&self) -> String {
        let dir = self.dir.path().display();
        format!("tls: {{ cert: {dir}/cert.pem, key: {dir}/key.pem }}")
    }

    /// What a client needs that trusts it and nothing else, and offers these protocols.
    fn trusted(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that the provider knows")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }
}

/// How a TLS connection began, and how its server ended it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Carried {
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) kind: Option<HandshakeKind>,
    pub(crate) protocol: Option<String>,
    /// The certificate that the server has shown.
    pub(crate) shown: Option<Vec<u8>>,
    /// `None` while it is open, and when the client ended it first.
    pub(crate) end: Option<End>,
}

/// How a server ends a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It said that it was the end.
    Notified,
    /// The connection below ended.
    Cut,
}

/// A door; dropped, it takes no more connections.
#[derive(Debug)]
pub(crate) struct TlsDoor {
    address: SocketAddr,
    carried: Arc<Mutex<Vec<Carried>>>,
    accepting: JoinHandle<()>,
}

impl TlsDoor {
    /// A door to this listener, whose connections offer these protocols.
    pub(crate) async fn open(
        to: SocketAddr,
        certificate: &Certificate,
        protocols: &[&str],
    ) -> Self {
        Self::with_versions(to, certificate, protocols, &VERSIONS).await
    }

    /// The same, speaking these versions alone.
    pub(crate) async fn with_versions(
        to: SocketAddr,
        certificate: &Certificate,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let name = ServerName::IpAddress(to.ip().into());
        Self::with_config(to, certificate.trusted(protocols, versions), name).await
    }

    /// The same for a client that has its own mind, and asks for this name.
    pub(crate) async fn with_config(
        to: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), to, config, name).await
    }

    /// The same for a client that is at this address.
    pub(crate) async fn at(
        client: IpAddr,
        to: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Self {
        let connector = TlsConnector::from(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let carried = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&carried);
        let accepting = tokio::spawn(async move {
            while let Ok((plain, _)) = listener.accept().await {
                let (connector, name) = (connector.clone(), name.clone());
                let ends = (client, to);
                tokio::spawn(carry(plain, ends, (connector, name), Arc::clone(&notes)));
            }
        });
        Self {
            address,
            carried,
            accepting,
        }
    }

    /// A client of the listener.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection so far whose handshake went well.
    pub(crate) fn carried(&self) -> Vec<Carried> {
        self.carried.lock().expect("no holder panics").clone()
    }
}

impl Drop for TlsDoor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    plain: TcpStream,
    (from, to): (IpAddr, SocketAddr),
    (connector, name): (TlsConnector, ServerName<'static>),
    notes: Arc<Mutex<Vec<Carried>>>,
) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of ours");
    let Ok(stream) = socket.connect(to).await else {
        return;
    };
    let _ = (plain.set_nodelay(true), stream.set_nodelay(true));
    let Ok(tls) = connector.connect(name, stream).await else {
        return;
    };
    let index = {
        let session = tls.get_ref().1;
        let shown = session
            .peer_certificates()
            .and_then(|chain| Some(chain.first()?.to_vec()));
        let protocol = session
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into());
        let mut notes = notes.lock().expect("no holder panics");
        notes.push(Carried {
            version: session.protocol_version(),
            kind: session.handshake_kind(),
            protocol,
            shown,
            end: None,
        });
        notes.len() - 1
    };
    let end = both_ways(plain, tls).await;
    notes.lock().expect("no holder panics")[index].end = end;
}

/// Carries bytes until the server ends the connection; `None` if the client does.
async fn both_ways(plain: TcpStream, tls: TlsStream<TcpStream>) -> Option<End> {
    let (mut plain_read, mut plain_write) = plain.into_split();
    let (mut tls_read, mut tls_write) = tokio::io::split(tls);
    let up = async {
        let carried = tokio::io::copy(&mut plain_read, &mut tls_write).await;
        if carried.is_ok() {
            let _ = tls_write.shutdown().await;
        }
        carried.is_ok()
    };
    let down = async {
        let mut piece = vec![0; 16 * 1024];
        loop {
            match tls_read.read(&mut piece).await {
                Ok(0) => return Some(End::Notified),
                Ok(count) => plain_write.write_all(&piece[..count]).await.ok()?,
                Err(_) => return Some(End::Cut),
            }
        }
    };
    let mut down = std::pin::pin!(down);
    tokio::select! {
        end = &mut down => end,
        ended = up => match ended {
            true => down.await,
            // The client has reset its connection, so this one is dropped.
            false => None,
        },
    }
}

//! TLS in front of an [`Endpoint`](super::Endpoint): shakes hands as a server of its own, carries the
//! bytes to it, and notes what its clients have said.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::Endpoint;
use super::authority::{Authority, Issued};

/// A handshake that went well.
#[derive(Clone, Debug)]
pub(crate) struct Shaken {
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) kind: Option<HandshakeKind>,
    pub(crate) protocol: Option<String>,
    /// The name the client asked for.
    pub(crate) name: Option<String>,
    /// The certificate that the client has shown.
    pub(crate) client: Option<Vec<u8>>,
}

/// How a front shakes hands.
pub(crate) struct Manners<'a> {
    pub(crate) shows: &'a Issued,
    /// What it agrees to.
    pub(crate) protocols: &'a [&'a str],
    /// Whose clients it lets in, if it wants to know them.
    pub(crate) clients: Option<&'a Authority>,
}

/// A front; dropped, it takes no more connections.
pub(crate) struct Front {
    address: SocketAddr,
    shaken: Arc<Mutex<Vec<Shaken>>>,
    accepting: JoinHandle<()>,
}

impl Front {
    /// One that shows this certificate, and agrees to HTTP/1.1.
    pub(crate) async fn of(endpoint: &Endpoint, shows: &Issued) -> Self {
        let manners = Manners {
            shows,
            protocols: &["http/1.1"],
            clients: None,
        };
        Self::with(endpoint, manners).await
    }

    pub(crate) async fn with(endpoint: &Endpoint, manners: Manners<'_>) -> Self {
        Self::to(endpoint.address(), manners).await
    }

    /// The same in front of anything else.
    pub(crate) async fn to(to: SocketAddr, manners: Manners<'_>) -> Self {
        let acceptor = TlsAcceptor::from(config(&manners));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shaken = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&shaken);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, to, acceptor.clone(), Arc::clone(&notes)));
            }
        });
        Self {
            address,
            shaken,
            accepting,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every handshake so far that went well.
    pub(crate) fn shaken(&self) -> Vec<Shaken> {
        self.shaken.lock().expect("no holder panics").clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn config(manners: &Manners<'_>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions that the provider knows");
    let builder = match manners.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(authority.der().clone())
                .expect("a certificate of an authority");
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.expect("an authority"))
        }
    };
    let chain = vec![manners.shows.der.clone()];
    let mut config = builder
        .with_single_cert(chain, manners.shows.key_der.clone_key())
        .expect("a key that belongs to its certificate");
    let protocols = manners.protocols.iter();
    config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

async fn carry(
    stream: TcpStream,
    to: SocketAddr,
    acceptor: TlsAcceptor,
    notes: Arc<Mutex<Vec<Shaken>>>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(mut tls) = acceptor.accept(stream).await else {
        return;
    };
    let session = tls.get_ref().1;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    notes.lock().expect("no holder panics").push(Shaken {
        version: session.protocol_version(),
        kind: session.handshake_kind(),
        protocol: session.alpn_protocol().map(text),
        name: session.server_name().map(str::to_owned),
        client: session
            .peer_certificates()
            .and_then(|chain| Some(chain.first()?.to_vec())),
    });
    let Ok(mut plain) = TcpStream::connect(to).await else {
        return;
    };
    let _ = plain.set_nodelay(true);
    let _ = copy_bidirectional(&mut tls, &mut plain).await;
    let _ = (tls.shutdown().await, plain.shutdown().await);
}

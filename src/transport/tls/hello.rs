//! Handshakes with clients: how one is begun, goes on and ends.
//!
//! Where a certificate is managed, what the client says first is looked at before anything is said to
//! it: an authority that verifies a name is shown its proof by rules of its own, and that is all that
//! ever happens on its connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::server::{FallibleAccept, StartHandshake};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::listen::ByName;
use super::managed::{ACME_TLS, is_verifying};
use super::peer::Peer;
use super::{Socket, Tls};

/// What a listener looks at in the first words of a client.
pub(super) struct Manner {
    /// The rules for authorities.
    pub(super) proving: Arc<ServerConfig>,
    /// What everybody else is shown.
    pub(super) shown: Arc<ByName>,
}

/// A handshake on its way.
pub struct Handshake {
    stage: Stage,
    /// There is no certificate for the client, so this will come to nothing.
    bare: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is what every handshake comes to"
)]
enum Stage {
    /// Nothing was said to the client yet.
    Hello(Box<Hello>),
    Shaking(FallibleAccept<Socket>),
}

struct Hello {
    heard: LazyConfigAcceptor<Socket>,
    manner: Arc<Manner>,
    usual: Arc<ServerConfig>,
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub enum Failed {
    /// The client speaks plain HTTP. It was told nothing yet.
    Plain(TcpStream),
    /// The client closed or reset the connection.
    Closed,
    /// The client speaks no TLS that we do, or has not proved itself; it was told.
    Tls(io::Error),
    /// There is no certificate yet that the client could be shown; it was told.
    Bare,
    /// It has come to its end, and there is no more to it: an authority has seen what it wanted to see.
    Proved,
}

impl Handshake {
    pub(super) fn begin(
        config: &Arc<ServerConfig>,
        manner: Option<&Arc<Manner>>,
        stream: TcpStream,
    ) -> Self {
        let socket = Socket::new(stream);
        let stage = match manner {
            None => {
                let acceptor = TlsAcceptor::from(Arc::clone(config));
                Stage::Shaking(acceptor.accept(socket).into_fallible())
            }
            Some(manner) => Stage::Hello(Box::new(Hello {
                heard: LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket),
                manner: Arc::clone(manner),
                usual: Arc::clone(config),
            })),
        };
        Self { stage, bare: false }
    }

    /// Goes on with it.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Tls, Failed>> {
        loop {
            match &mut self.stage {
                Stage::Hello(hello) => match ready!(Pin::new(&mut hello.heard).poll(context)) {
                    Ok(start) => {
                        let (bare, shaking) = hello.answer(start);
                        self.bare = bare;
                        self.stage = Stage::Shaking(shaking);
                    }
                    Err(error) => {
                        let socket = hello.heard.take_io();
                        return Poll::Ready(Err(failed(error, socket)));
                    }
                },
                Stage::Shaking(shaking) => {
                    return Poll::Ready(match ready!(Pin::new(shaking).poll(context)) {
                        Ok(stream) => checked(Tls::new(stream.into())),
                        Err(_) if self.bare => Err(Failed::Bare),
                        Err((error, socket)) => Err(failed(error, Some(socket))),
                    });
                }
            }
        }
    }
}

impl Hello {
    /// Goes on by the rules that are for this client. Whether there is nothing to show it.
    fn answer(&self, start: StartHandshake<Socket>) -> (bool, FallibleAccept<Socket>) {
        let hello = start.client_hello();
        let (rules, bare) = match is_verifying(&hello) {
            true => (&self.manner.proving, false),
            false => (&self.usual, self.manner.shown.find(&hello).is_none()),
        };
        let shaking = start.into_stream(Arc::clone(rules)).into_fallible();
        (bare, shaking)
    }
}

fn failed(error: io::Error, socket: Option<Socket>) -> Failed {
    match socket {
        Some(socket) if socket.is_plain() => Failed::Plain(socket.stream),
        _ if error.kind() == io::ErrorKind::InvalidData => Failed::Tls(error),
        _ => Failed::Closed,
    }
}

/// What is agreed on with an authority is no HTTP. A session that is resumed was proved when it began, and
/// its certificate may have expired since.
fn checked(tls: Tls) -> Result<Tls, Failed> {
    if tls.stream.get_ref().1.alpn_protocol() == Some(ACME_TLS) {
        return Err(Failed::Proved);
    }
    match tls.certificate() {
        Some(certificate) if !Peer::is_current(certificate) => {
            let expired = "the client's certificate has expired since its session began";
            Err(Failed::Tls(io::Error::new(
                io::ErrorKind::InvalidData,
                expired,
            )))
        }
        _ => Ok(tls),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rustls::crypto::ring;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::super::{Acceptor, Clients, Managed, Proofs, Terms};
    use super::*;

    const NAME: &str = "a.example";

    fn certified() -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let chain = vec![made.cert.der().clone()];
        Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap())
    }

    /// What came of a handshake with a client that offers these protocols and trusts these certificates:
    /// here, and the certificate that the client was shown.
    async fn shaken(
        acceptor: &Acceptor,
        protocols: &[&str],
        trusted: &[&Arc<CertifiedKey>],
    ) -> (Result<Tls, Failed>, Option<CertificateDer<'static>>) {
        let mut roots = RootCertStore::empty();
        for one in trusted {
            roots.add(one.cert[0].clone()).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocols = protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from(NAME).unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            let tls = connector.connect(name, stream).await.ok()?;
            tls.get_ref().1.peer_certificates()?.first().cloned()
        };
        let here = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut handshake = acceptor.accept(stream);
            poll_fn(|context| handshake.poll(context)).await
        };
        tokio::join!(here, client)
    }

    #[tokio::test]
    async fn an_authority_is_shown_its_proof_and_comes_no_further() {
        let (proof, usual) = (certified(), certified());
        let proofs = Proofs::new();
        let managed = Managed::new(vec![NAME.to_owned()], Arc::clone(&proofs));
        managed.show(Arc::clone(&usual));
        let mut terms = Terms {
            certificates: Vec::new(),
            managed: Some(managed),
            clients: Clients::Required(usual.cert.clone()),
        };
        let strict = Acceptor::new(&terms).unwrap();
        terms.clients = Clients::Unasked;
        let open = Acceptor::new(&terms).unwrap();
        let trusted = [&proof, &usual];

        let (here, _) = shaken(&open, &["acme-tls/1"], &trusted).await;
        assert!(matches!(here, Err(Failed::Tls(_))), "nothing is ordered");

        proofs.show(NAME, Arc::clone(&proof));
        for acceptor in [&open, &strict] {
            let (here, there) = shaken(acceptor, &["acme-tls/1"], &trusted).await;
            assert!(matches!(here, Err(Failed::Proved)), "{here:?}");
            assert_eq!(there.as_ref(), proof.cert.first());
        }
        // Whoever names another protocol as well is no authority.
        let (here, there) = shaken(&open, &["acme-tls/1", "http/1.1"], &trusted).await;
        assert!(here.is_ok(), "{here:?}");
        assert_eq!(there.as_ref(), usual.cert.first());
        let (here, _) = shaken(&open, &["acme-tls/1", "acme-tls/2"], &trusted).await;
        assert!(matches!(here, Err(Failed::Tls(_))), "{here:?}");
    }

    #[tokio::test]
    async fn who_cannot_be_shown_anything_yet_is_told_apart() {
        let terms = Terms {
            certificates: Vec::new(),
            managed: Some(Managed::new(vec![NAME.to_owned()], Proofs::new())),
            clients: Clients::Unasked,
        };
        let acceptor = Acceptor::new(&terms).unwrap();
        let (here, there) = shaken(&acceptor, &["http/1.1"], &[]).await;
        assert!(matches!(here, Err(Failed::Bare)), "{here:?}");
        assert!(there.is_none());
    }
}

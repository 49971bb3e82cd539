//! TLS towards clients: one set of rules for a listener, shared by all threads, and the stream that
//! our own HTTP/1.1 reads and writes directly.
//!
//! What this module knows: records, handshakes, tickets, how a connection is closed so that the other
//! side can tell the end from a cut. What it does not know: files, HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::{FallibleAccept, TlsStream};

/// The name of HTTP/2 in ALPN (RFC 9113 section 3.2).
const H2: &[u8] = b"h2";
/// The name of HTTP/1.1 in ALPN (RFC 7301 section 6).
const HTTP_11: &[u8] = b"http/1.1";

/// Accepts TLS connections of one listener. A clone is another handle to the same rules and ticket
/// keys, so that a client may resume on whichever thread its next connection comes to.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Shows this certificate to everybody.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new(certificate: Arc<CertifiedKey>) -> Result<Self, rustls::Error> {
        let mut provider = ring::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_quick(*suite));
        let mut rules = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(One(certificate)));
        rules.ignore_client_order = true;
        rules.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
        // The keys of tickets change every six hours, and each is good for twice that. Nothing is
        // kept per client.
        rules.ticketer = ring::Ticketer::new()?;
        rules.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(TlsAcceptor::from(Arc::new(rules))))
    }

    /// Begins a handshake.
    pub fn accept(&self, stream: TcpStream) -> Handshake {
        let socket = Socket {
            stream,
            first: None,
            sent: 0,
        };
        Handshake(self.0.accept(socket).into_fallible())
    }
}

/// AES-128 with SHA-256, which processors have instructions for. Most clients would have AES-256 with
/// SHA-384, whose key schedule alone is an eighth of a handshake.
fn is_quick(suite: SupportedCipherSuite) -> bool {
    use rustls::CipherSuite as Suite;
    matches!(
        suite.suite(),
        Suite::TLS13_AES_128_GCM_SHA256
            | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The certificate for every client, whatever name it asks for.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A handshake on its way.
pub struct Handshake(FallibleAccept<Socket>);

/// Why a handshake came to nothing.
#[derive(Debug)]
pub enum Failed {
    /// The client speaks plain HTTP. It was told nothing yet.
    Plain(TcpStream),
    /// The client closed or reset the connection.
    Closed,
    /// The client speaks no TLS that we do; it was told.
    Tls(io::Error),
}

impl Handshake {
    /// Goes on with it.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Tls, Failed>> {
        let done = std::task::ready!(Future::poll(Pin::new(&mut self.0), context));
        Poll::Ready(match done {
            Ok(stream) => Ok(Tls {
                stream,
                whole: true,
            }),
            Err((_, socket)) if socket.is_plain() => Err(Failed::Plain(socket.stream)),
            Err((error, _)) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Failed::Tls(error))
            }
            Err(_) => Err(Failed::Closed),
        })
    }
}

/// A TLS connection. Dropped, it says that this was the end, unless [`Self::cut`] was called.
#[derive(Debug)]
pub struct Tls {
    stream: TlsStream<Socket>,
    /// What was sent so far is all there is.
    whole: bool,
}

impl Tls {
    /// Has HTTP/2 been agreed on?
    pub fn is_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(H2)
    }

    /// The version that has been agreed on, for the log.
    pub fn version(&self) -> &'static str {
        match self.stream.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.stream.get_ref().0.stream
    }

    /// Bytes that the socket has taken so far; tells a slow reader from one that stands still.
    pub fn sent(&self) -> u64 {
        self.stream.get_ref().0.sent
    }

    /// Lets the connection end without a word, so that the client can tell that something is missing.
    pub fn cut(&mut self) {
        self.whole = false;
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        if !self.whole {
            return;
        }
        // Whether it has been sent already is known there. A socket that is full is not waited for.
        let (socket, session) = self.stream.get_mut();
        session.send_close_notify();
        while session.wants_write() {
            match session.write_tls(&mut Now(&socket.stream)) {
                Ok(sent) if sent > 0 => {}
                _ => return,
            }
        }
    }
}

/// Writes what a socket takes at once.
struct Now<'a>(&'a TcpStream);

impl io::Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.whole {
            return Pin::new(&mut self.stream.get_mut().0.stream).poll_shutdown(context);
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The socket under a TLS connection.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    /// The first byte that the client has sent.
    first: Option<u8>,
    /// Bytes written.
    sent: u64,
}

impl Socket {
    /// Has the client begun with a letter? Methods of HTTP do, and no record of TLS.
    fn is_plain(&self) -> bool {
        self.first.is_some_and(|first| first.is_ascii_alphabetic())
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent += bytes as u64;
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.first.is_none() {
            self.first = buffer.filled().get(before).copied();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_plain() {
            // An alert would be noise in front of the answer.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_plain() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

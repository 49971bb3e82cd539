//! TLS: towards clients one set of rules per listener, towards endpoints one per pool, both shared by
//! all threads; and the stream that our own HTTP/1.1 reads and writes directly.
//!
//! What this module knows: records, handshakes, tickets, how a connection is closed so that the other
//! side can tell the end from a cut. What it does not know: files, HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ConnectionCommon;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

mod endpoint;
mod hello;
mod listen;
mod managed;
mod peer;
mod words;

pub use endpoint::{Client, Proof, Rules, Trust};
pub use hello::{Failed, Handshake};
pub use listen::{Acceptor, Clients, Shown, Terms};
pub use managed::{Managed, Proofs};
pub use peer::Peer;
pub(super) use words::alert;

/// The name of HTTP/2 in ALPN (RFC 9113 section 3.2).
const H2: &[u8] = b"h2";
/// The name of HTTP/1.1 in ALPN (RFC 7301 section 6).
const HTTP_11: &[u8] = b"http/1.1";

/// A TLS connection. Dropped, it says that this was the end, unless [`Self::cut`] was called.
#[derive(Debug)]
pub struct Tls {
    stream: TlsStream<Socket>,
    /// What was sent so far is all there is.
    whole: bool,
}

impl Tls {
    fn new(stream: TlsStream<Socket>) -> Self {
        Self {
            stream,
            whole: true,
        }
    }

    /// Has HTTP/2 been agreed on?
    pub fn is_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(H2)
    }

    /// The certificate that the other side has shown, if it has.
    fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.stream.get_ref().1.peer_certificates()?.first()
    }

    /// Who the other side has proved to be, if it has.
    pub fn peer(&self) -> Option<Peer> {
        Peer::of(self.certificate()?)
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
        match &mut self.stream {
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                take_leave(socket, session);
            }
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                take_leave(socket, session);
            }
        }
    }
}

/// Says that nothing follows. Whether that has been said already is known there. A socket that is full
/// is not waited for.
fn take_leave<D>(socket: &Socket, session: &mut ConnectionCommon<D>) {
    session.send_close_notify();
    while session.wants_write() {
        match session.write_tls(&mut Now(&socket.stream)) {
            Ok(sent) if sent > 0 => {}
            _ => return,
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
    /// The first byte that the other side has sent.
    first: Option<u8>,
    /// Bytes written.
    sent: u64,
}

impl Socket {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            first: None,
            sent: 0,
        }
    }

    /// Has the other side begun with a letter? Requests and responses of HTTP do, and no record of TLS.
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

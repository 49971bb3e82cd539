//! Connections as Pingora wants them, for what it carries: HTTP/2 on both sides, and the plain lane.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::l4::stream::Stream as TcpLayer;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::ConnInfo;
use super::tls::Tls;
use super::wire::Wire;

/// A client's wire as Pingora's stream; `ahead` was read from it and is read again. It has the addresses
/// that Pingora's sessions hand to the plain lane.
pub fn layered(wire: Wire, ahead: &[u8], info: &ConnInfo) -> Stream {
    match wire {
        Wire::Tcp(stream) => {
            let digest = digest(&stream, info);
            let mut layer = TcpLayer::from(stream);
            layer.set_socket_digest(digest);
            if !ahead.is_empty() {
                layer.rewind(ahead);
            }
            Box::new(layer)
        }
        Wire::Tls(tls) => Box::new(TlsLayer {
            digest: Arc::new(digest(tls.socket(), info)),
            ahead: BytesMut::from(ahead),
            tls,
        }),
        Wire::Layered(stream) => stream,
    }
}

/// A unix socket as a wire.
pub fn unix(stream: UnixStream) -> Wire {
    Wire::Layered(Box::new(TcpLayer::from(stream)))
}

/// The wire to an endpoint as Pingora's stream.
pub(super) fn towards_endpoint(wire: Wire) -> Stream {
    match wire {
        Wire::Tcp(stream) => Box::new(TcpLayer::from(stream)),
        Wire::Tls(tls) => Box::new(TlsLayer {
            digest: Arc::new(SocketDigest::from_raw_fd(tls.socket().as_raw_fd())),
            ahead: BytesMut::new(),
            tls,
        }),
        Wire::Layered(stream) => stream,
    }
}

fn digest(stream: &TcpStream, info: &ConnInfo) -> SocketDigest {
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let _ = digest.peer_addr.set(Some(info.client.into()));
    let _ = digest.local_addr.set(Some(info.local.into()));
    digest
}

/// Our TLS as Pingora's stream. It shows no TLS facts of its own: nothing here asks for them, and
/// with them Pingora would choose the HTTP version again.
#[derive(Debug)]
struct TlsLayer {
    tls: Box<Tls>,
    /// Read before, and to be read again.
    ahead: BytesMut,
    digest: Arc<SocketDigest>,
}

impl AsyncRead for TlsLayer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut *self.tls).poll_read(context, buffer);
        }
        let taken = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..taken]);
        self.ahead.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsLayer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.tls).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for TlsLayer {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(&mut *self.tls).await;
    }
}

impl UniqueID for TlsLayer {
    fn id(&self) -> UniqueIDType {
        self.tls.socket().as_raw_fd()
    }
}

impl Ssl for TlsLayer {}

impl Peek for TlsLayer {}

impl GetTimingDigest for TlsLayer {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for TlsLayer {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for TlsLayer {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

//! What bytes come over: a bare socket, one with TLS on it, or one that Pingora has put layers on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::Buffer;
use super::socket;
use super::tls::Tls;

/// A client's connection, or one to an endpoint.
pub enum Wire {
    /// A socket, with nothing between it and us.
    Tcp(TcpStream),
    /// TLS, spoken by us on either side. Boxed, for it is large, and a plain connection should not pay
    /// for it.
    Tls(Box<Tls>),
    /// Given back by Pingora, which has served an exchange on it.
    Layered(Stream),
}

impl Wire {
    /// Reads into the room of `buffer`; how much, 0 at the end.
    pub fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        if let Self::Tcp(stream) = self {
            let read = ready!(socket::poll_read(stream, context, buffer.spare()))?;
            buffer.advance(read);
            return Poll::Ready(Ok(read));
        }
        // TLS hands out all that it holds, as far as there is room, before it waits for the socket
        // again.
        let mut room = ReadBuf::new(buffer.spare());
        let read = Pin::new(self).poll_read(context, &mut room);
        let filled = room.filled().len();
        match read {
            Poll::Ready(Ok(())) => {
                buffer.advance(filled);
                Poll::Ready(Ok(filled))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Wire {
    /// Has HTTP/2 been agreed on? `None` where nothing was said about it.
    pub fn is_http2(&self) -> Option<bool> {
        match self {
            Self::Tls(stream) => Some(stream.is_http2()),
            Self::Tcp(_) | Self::Layered(_) => None,
        }
    }

    /// Bytes that have left what this wire holds back for itself: between two waits of a write, more
    /// of them are progress. Always 0 where nothing is held back.
    pub fn sent(&self) -> u64 {
        match self {
            Self::Tls(stream) => stream.sent(),
            Self::Tcp(_) | Self::Layered(_) => 0,
        }
    }

    /// The end of this connection will not be the proper end of what was sent on it; say so, where
    /// it can be said.
    pub fn cut(&mut self) {
        if let Self::Tls(stream) = self {
            stream.cut();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Layered(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => socket::poll_write(stream, context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Layered(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Layered(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Layered(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Layered(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Layered(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

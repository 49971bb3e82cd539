//! A listening socket as a thread accepts on it: an address and port, or a file.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use tokio::net::TcpStream;

use crate::config::Bind;

/// A listening socket, not blocking.
pub(super) enum Accepting {
    /// On an address and port.
    Ip(TcpListener),
    /// On a file.
    Unix(UnixListener),
}

/// The same, known to the reactor of its thread.
pub(super) enum Listening {
    Ip(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accepting {
    /// Another handle to it.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Ip(socket) => socket.try_clone().map(Self::Ip),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    /// Has accepting from it wait for nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Ip(socket) => socket.set_nonblocking(true),
            Self::Unix(socket) => socket.set_nonblocking(true),
        }
    }

    /// Is it a socket for this?
    pub(super) fn is_at(&self, bind: &Bind) -> bool {
        match (self, bind) {
            (Self::Ip(socket), Bind::Ip { address, .. }) => {
                socket.local_addr().is_ok_and(|at| at == *address)
            }
            (Self::Unix(socket), Bind::Unix { path, .. }) => {
                let at = socket.local_addr();
                at.is_ok_and(|at| at.as_pathname() == Some(path))
            }
            (Self::Ip(_), Bind::Unix { .. }) | (Self::Unix(_), Bind::Ip { .. }) => false,
        }
    }

    /// Its address.
    ///
    /// # Errors
    /// The operating system's, or that it has none.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Ip(socket) => socket.local_addr(),
            Self::Unix(_) => Err(io::Error::other("a unix socket has no address")),
        }
    }

    /// The next of the connections that wait, if there is one.
    pub(super) fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Ip(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                as_tcp(stream)
            }
        }
    }

    /// Makes it known to the reactor of this thread.
    pub(super) fn listen(self) -> io::Result<Listening> {
        Ok(match self {
            Self::Ip(socket) => Listening::Ip(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => Listening::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }
}

impl From<Accepting> for OwnedFd {
    fn from(socket: Accepting) -> Self {
        match socket {
            Accepting::Ip(socket) => socket.into(),
            Accepting::Unix(socket) => socket.into(),
        }
    }
}

impl fmt::Display for Accepting {
    /// Where it is, as a listener's `bind` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(socket) => match socket.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("no address"),
            },
            Self::Unix(socket) => match socket.local_addr() {
                Ok(at) => match at.as_pathname() {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => f.write_str("no file"),
                },
                Err(_) => f.write_str("no file"),
            },
        }
    }
}

impl Listening {
    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Ip(listener) => Ok(listener.accept().await?.0),
            Self::Unix(listener) => as_tcp(listener.accept().await?.0.into_std()?),
        }
    }

    /// Takes it from the reactor.
    pub(super) fn into_std(self) -> io::Result<Accepting> {
        match self {
            Self::Ip(listener) => listener.into_std().map(Accepting::Ip),
            Self::Unix(listener) => listener.into_std().map(Accepting::Unix),
        }
    }
}

/// A connection over a unix socket, as what all other code knows: a stream of bytes behind a file
/// descriptor is read, written and waited for in one way. Only its addresses are none.
fn as_tcp(stream: UnixStream) -> io::Result<TcpStream> {
    TcpStream::from_std(OwnedFd::from(stream).into())
}

//! What this host has run out of when no connection can be made: local ports, open files, memory.
//!
//! That is no word about the server: it may be well, and nobody has asked it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use pingora::Error as PingoraError;

use super::Error;

/// What there is no more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// Local ports towards this address of an endpoint (EADDRNOTAVAIL).
    #[error("no local port towards {0} is free")]
    Ports(SocketAddr),
    /// Open files of this process (EMFILE).
    #[error("this process has as many open files as it may")]
    Files,
    /// Open files of the whole host (ENFILE).
    #[error("this host has as many open files as it may")]
    HostFiles,
    /// Memory for sockets (ENOBUFS, ENOMEM).
    #[error("there is no memory for another socket")]
    Memory,
}

/// Numbers of Linux (errno(3)) for which the standard library has no kind.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

impl Lack {
    /// What is behind a connection to `towards` that could not be made, or behind one that could not
    /// be accepted, if it is that something has run out here.
    pub fn of(error: &io::Error, towards: Option<SocketAddr>) -> Option<Self> {
        match (error.raw_os_error(), error.kind(), towards) {
            (Some(EMFILE), ..) => Some(Self::Files),
            (Some(ENFILE), ..) => Some(Self::HostFiles),
            (Some(ENOBUFS), ..) | (_, io::ErrorKind::OutOfMemory, _) => Some(Self::Memory),
            (_, io::ErrorKind::AddrNotAvailable, Some(to)) if is_in_reach(to) => {
                Some(Self::Ports(to))
            }
            _ => None,
        }
    }

    /// The same for a connection that Pingora could not make.
    pub fn behind(error: &PingoraError, towards: Option<SocketAddr>) -> Option<Self> {
        let cause = error.root_cause();
        if let Some(Error::Lacking(lack)) = cause.downcast_ref() {
            return Some(*lack);
        }
        // What Pingora adds of its own may stand around it.
        let inner = || cause.source()?.downcast_ref();
        Self::of(cause.downcast_ref().or_else(inner)?, towards)
    }
}

/// Has this host an address from which that one could be asked? Without one, as for `[::1]` where IPv6
/// is off, the error is the same as without ports. A socket of UDP needs no port of TCP.
fn is_in_reach(address: SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let asked = UdpSocket::bind(any).and_then(|socket| socket.connect(address));
    !asked.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType;

    use super::*;

    const EADDRNOTAVAIL: i32 = 99;

    fn os(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn what_has_run_out_here_is_told_from_what_a_server_does() {
        let here = SocketAddr::from(([127, 0, 0, 1], 80));
        for (number, lack) in [
            (12, Some(Lack::Memory)),
            (23, Some(Lack::HostFiles)),
            (24, Some(Lack::Files)),
            (EADDRNOTAVAIL, Some(Lack::Ports(here))),
            (101, None),
            (104, None),
            (105, Some(Lack::Memory)),
            (110, None),
            (111, None),
            (113, None),
        ] {
            assert_eq!(Lack::of(&os(number), Some(here)), lack, "{number}");
        }
        assert_eq!(Lack::of(&os(EADDRNOTAVAIL), None), None, "no connection");
    }

    #[test]
    fn a_cause_is_found_behind_what_pingora_says() {
        let wrapped = PingoraError::because(ErrorType::SocketError, "socket", os(24));
        assert_eq!(Lack::behind(&wrapped, None), Some(Lack::Files));
        let again = wrapped.more_context("while connecting");
        assert_eq!(Lack::behind(&again, None), Some(Lack::Files));
        let ours = Error::Lacking(Lack::Memory);
        let ours = PingoraError::because(ErrorType::ConnectError, "ours", ours);
        assert_eq!(Lack::behind(&ours, None), Some(Lack::Memory));
        let refused = PingoraError::because(ErrorType::ConnectRefused, "no", os(111));
        assert_eq!(Lack::behind(&refused, None), None);
        assert_eq!(
            Lack::behind(&PingoraError::new(ErrorType::ConnectError), None),
            None
        );
    }
}

//! The PROXY protocol, versions 1 and 2: a few bytes at the beginning of a connection that say on
//! whose behalf it was made ("The PROXY protocol", HAProxy, 2020).
//!
//! It has no I/O: bytes are read into a [`Header`] and written from one. Of version 2 the additions
//! (TLVs) are passed over, the checksum among them.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is read; that of version 1 is shorter by itself.
pub const HEADER_MAX: usize = 4096;
/// Longest header of version 1, with its line end.
const LINE_MAX: usize = 107;
/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const WORD: &[u8; 6] = b"PROXY ";
/// Length of the part of version 2 that is always there.
const FIXED: usize = 16;

/// Which version is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection was made for a client.
    For {
        /// The client.
        source: SocketAddr,
        /// Where the client has connected to.
        destination: SocketAddr,
    },
    /// Nothing: the proxy speaks for itself, as in a health check, or of an address that is none of
    /// the Internet's.
    Itself,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// They do not begin like one.
    #[error("there is none")]
    Missing,
    /// They begin like one and go on otherwise, or are too long.
    #[error("it is malformed")]
    Malformed,
}

/// Reads a header, and how long it is. `None`: it is not complete, and all of these bytes belong to it.
///
/// # Errors
/// As soon as it is clear that they cannot become a header.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Wrong> {
    let begins = |with: &[u8]| {
        let common = bytes.len().min(with.len());
        bytes[..common] == with[..common]
    };
    if begins(SIGNATURE) {
        read_binary(bytes)
    } else if begins(WORD) {
        read_line(bytes)
    } else {
        Err(Wrong::Missing)
    }
}

fn read_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, Wrong> {
    let start = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = memchr::memchr(b'\n', start) else {
        return if bytes.len() < LINE_MAX {
            Ok(None)
        } else {
            Err(Wrong::Malformed)
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Wrong::Malformed)?;
    let line = str::from_utf8(line).map_err(|_| Wrong::Malformed)?;
    let header = parse_line(line).ok_or(Wrong::Malformed)?;
    Ok(Some((header, end + 1)))
}

fn parse_line(line: &str) -> Option<Header> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // What follows means nothing.
        return Some(Header::Itself);
    }
    let [source, destination, source_port, destination_port] = [(); 4].map(|()| words.next());
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| -> Option<u16> {
        let plain = text == "0" || !text.starts_with(['0', '+']);
        plain.then(|| text.parse().ok())?
    };
    let header = Header::between(
        SocketAddr::new(address(source?)?, port(source_port?)?),
        SocketAddr::new(address(destination?)?, port(destination_port?)?),
    );
    words.next().is_none().then_some(header)
}

fn read_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Wrong> {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0x0f);
    if version != 2 || command > 1 || length > HEADER_MAX {
        return Err(Wrong::Malformed);
    }
    let Some(rest) = bytes.get(FIXED..length) else {
        return Ok(None);
    };
    let header = match (command, fixed[13]) {
        (0, _) => Header::Itself,
        (_, 0x11) => addresses(rest, |bytes: [u8; 4]| Ipv4Addr::from(bytes).into())?,
        (_, 0x21) => addresses(rest, |bytes: [u8; 16]| Ipv6Addr::from(bytes).into())?,
        // Unix sockets and datagrams: a receiver may pass over what is of no use to it.
        (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Header::Itself,
        _ => return Err(Wrong::Malformed),
    };
    Ok(Some((header, length)))
}

/// Two addresses of `N` bytes, and two ports.
fn addresses<const N: usize>(
    bytes: &[u8],
    address: fn([u8; N]) -> IpAddr,
) -> Result<Header, Wrong> {
    fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], Wrong> {
        let (taken, rest) = bytes.split_first_chunk().ok_or(Wrong::Malformed)?;
        *bytes = rest;
        Ok(taken)
    }
    let mut rest = bytes;
    let (source, destination) = (*take::<N>(&mut rest)?, *take::<N>(&mut rest)?);
    let source_port = u16::from_be_bytes(*take(&mut rest)?);
    let destination_port = u16::from_be_bytes(*take(&mut rest)?);
    Ok(Header::between(
        SocketAddr::new(address(source), source_port),
        SocketAddr::new(address(destination), destination_port),
    ))
}

impl Header {
    /// For a client whose address is known, or else for nobody.
    pub fn between(source: SocketAddr, destination: SocketAddr) -> Self {
        match source.ip().to_canonical().is_unspecified() {
            true => Self::Itself,
            false => Self::For {
                source,
                destination,
            },
        }
    }

    /// Appends the header as it is sent.
    pub fn write(&self, version: Version, out: &mut Vec<u8>) {
        match version {
            Version::V1 => self.write_line(out),
            Version::V2 => self.write_binary(out),
        }
    }

    fn write_line(&self, out: &mut Vec<u8>) {
        // Writing into memory does not fail.
        let _ = match self.pair() {
            None => out.write_all(b"PROXY UNKNOWN\r\n"),
            Some((source, destination)) => {
                let family = if source.is_ipv4() { 4 } else { 6 };
                let (from, to) = (source.ip(), destination.ip());
                let ports = (source.port(), destination.port());
                write!(
                    out,
                    "PROXY TCP{family} {from} {to} {} {}\r\n",
                    ports.0, ports.1
                )
            }
        };
    }

    fn write_binary(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(SIGNATURE);
        let Some((source, destination)) = self.pair() else {
            // LOCAL, without addresses.
            return out.extend_from_slice(&[0x20, 0x00, 0, 0]);
        };
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
            }
            (source, destination) => {
                out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                out.extend_from_slice(&ipv6(source).octets());
                out.extend_from_slice(&ipv6(destination).octets());
            }
        }
        out.extend_from_slice(&source.port().to_be_bytes());
        out.extend_from_slice(&destination.port().to_be_bytes());
    }

    /// Both addresses, of one family.
    fn pair(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Self::For {
            source,
            destination,
        } = *self
        else {
            return None;
        };
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let mapped =
            |address: SocketAddr| SocketAddr::new(ipv6(address.ip()).into(), address.port());
        let (source, destination) = (plain(source), plain(destination));
        Some(match source.is_ipv4() == destination.is_ipv4() {
            true => (source, destination),
            false => (mapped(source), mapped(destination)),
        })
    }
}

/// The address in IPv6.
fn ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests;

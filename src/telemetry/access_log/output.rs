//! Where lines go: files and standard streams as they are, the journal and syslog as one datagram each.
//!
//! Both protocols of datagrams are a few words in front of a line, so they are written here: a crate
//! would bring a date library, or bindings to half of the system, for those words. A datagram that the
//! system does not take is a line lost and counted; a socket that broke is made anew, for the server
//! behind it may have been restarted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;
use std::time::SystemTime;

use super::line;
use super::queue::Sink;
use crate::config::{LogTarget, Syslog, SyslogServer};

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The severity of every line: information (RFC 5424, section 6.2.1).
const SEVERITY: u8 = 6;

/// Opens a target.
///
/// # Errors
/// A file cannot be opened. Sockets are not connected before there is a line.
pub(super) fn open(target: &LogTarget) -> io::Result<Box<dyn Sink>> {
    Ok(match target {
        LogTarget::Off => Box::new(Nowhere),
        LogTarget::Stdout => Box::new(Stdout),
        LogTarget::Stderr => Box::new(Stderr),
        LogTarget::File(path) => Box::new(Appended {
            file: append(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?,
            path: path.clone(),
        }),
        LogTarget::Journal => Box::new(Datagrams::new(
            SyslogServer::Unix(PathBuf::from(JOURNAL)),
            Frame::Journal,
        )),
        LogTarget::Syslog(syslog) => {
            let Syslog {
                server,
                facility,
                tag,
            } = syslog;
            let frame = Frame::Syslog {
                before: format!("<{}>1 ", facility * 8 + SEVERITY).into_bytes(),
                behind: format!(" {} {tag} {} access - ", host(), process::id()).into_bytes(),
            };
            Box::new(Datagrams::new(server.clone(), frame))
        }
    })
}

/// What is written while nothing should be.
#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn discards(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write(bytes)?;
        stdout.flush()?;
        Ok(written)
    }
}

#[derive(Debug)]
struct Stderr;

impl Sink for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes)
    }
}

/// A file that is appended to.
#[derive(Debug)]
struct Appended {
    path: PathBuf,
    file: File,
}

impl Sink for Appended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        Ok(())
    }
}

/// Appending, so that the two processes of an upgrade can write to one file: the kernel places each
/// batch whole. Not readable by everyone, for the addresses of clients are personal data.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// What stands around a line in its datagram.
#[derive(Debug)]
enum Frame {
    /// Fields, each on a line of its own (systemd's native journal protocol).
    Journal,
    /// The header of RFC 5424, before and behind the time.
    Syslog { before: Vec<u8>, behind: Vec<u8> },
}

#[derive(Debug)]
enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket, SocketAddr),
}

/// One datagram per line.
#[derive(Debug)]
struct Datagrams {
    server: SyslogServer,
    frame: Frame,
    socket: Option<Socket>,
    /// The datagram that is being made.
    message: Vec<u8>,
}

impl Datagrams {
    fn new(server: SyslogServer, frame: Frame) -> Self {
        Self {
            server,
            frame,
            socket: None,
            message: Vec::new(),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.socket.is_none() {
            self.socket = Some(connect(&self.server)?);
        }
        let sent = match &self.socket {
            Some(Socket::Unix(socket)) => socket.send(&self.message),
            Some(Socket::Udp(socket, server)) => socket.send_to(&self.message, server),
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        sent.map(|_| ())
    }
}

impl Sink for Datagrams {
    /// Takes one line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
        let taken = (length + 1).min(bytes.len());
        if length == 0 {
            return Ok(taken);
        }
        self.frame.write(&mut self.message, &bytes[..length]);
        if let Err(first) = self.send() {
            if first.kind() == io::ErrorKind::Interrupted {
                return Err(first);
            }
            // The server was restarted, and its old socket is nobody's.
            self.socket = None;
            self.send()?;
        }
        Ok(taken)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.socket = None;
        Ok(())
    }
}

fn connect(server: &SyslogServer) -> io::Result<Socket> {
    Ok(match server {
        SyslogServer::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            Socket::Unix(socket)
        }
        // Not connected: an answer that nobody listens would be an error of the next line.
        SyslogServer::Udp(server) => {
            let any = match server {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            Socket::Udp(UdpSocket::bind(any)?, *server)
        }
    })
}

impl Frame {
    fn write(&self, message: &mut Vec<u8>, line: &[u8]) {
        message.clear();
        match self {
            Self::Journal => {
                message.extend_from_slice(
                    b"PRIORITY=6\nSYSLOG_IDENTIFIER=tidegate\nTIDEGATE_LOG=access\nMESSAGE=",
                );
                message.extend_from_slice(line);
                message.push(b'\n');
            }
            Self::Syslog { before, behind } => {
                message.extend_from_slice(before);
                line::timestamp(message, SystemTime::now());
                message.extend_from_slice(behind);
                message.extend_from_slice(line);
            }
        }
    }
}

/// The name of this host, or the sign that it has none.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let fits = !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        name.to_owned()
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server behind a socket of this host hears when these lines are written.
    fn heard(frame: Frame, lines: &[u8]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let server = UnixDatagram::bind(&path).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut sink = Datagrams::new(SyslogServer::Unix(path), frame);
        let mut rest = lines;
        while !rest.is_empty() {
            rest = &rest[sink.write(rest).unwrap()..];
        }
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = server.recv(&mut buffer) {
            messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        messages
    }

    #[test]
    fn the_journal_hears_a_field_per_line_and_a_message_per_datagram() {
        let messages = heard(Frame::Journal, b"{\"a\":1}\n\n{\"b\":2}\n");
        let fields = "PRIORITY=6\nSYSLOG_IDENTIFIER=tidegate\nTIDEGATE_LOG=access\nMESSAGE=";
        let expected = ["{\"a\":1}", "{\"b\":2}"].map(|line| format!("{fields}{line}\n"));
        assert_eq!(messages, expected);
    }

    #[test]
    fn a_syslog_server_hears_the_header_and_the_line() {
        let frame = Frame::Syslog {
            before: b"<190>1 ".to_vec(),
            behind: b" host tidegate 7 access - ".to_vec(),
        };
        let messages = heard(frame, b"GET /\n");
        let words: Vec<&str> = messages[0].split(' ').collect();
        assert_eq!(words[0], "<190>1");
        assert_eq!(words[1].len(), "2026-07-28T09:05:03.042Z".len());
        assert_eq!(words[2..].join(" "), "host tidegate 7 access - GET /");
    }

    #[test]
    fn a_host_has_a_name_or_none() {
        let host = host();
        assert!(!host.is_empty() && !host.contains(char::is_whitespace));
    }
}

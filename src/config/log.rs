//! Where logs go and what their lines say, as checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::log_format::LogFormat;

/// Where logs go and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The line per request.
    pub access: AccessLog,
    /// The least important message that is still logged (default info).
    pub level: Level,
    /// How messages that are no line per request are written (default text).
    pub format: MessageFormat,
}

/// The line per request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it goes (default stdout).
    pub to: LogTarget,
    /// What it says (default JSON).
    pub format: LogFormat,
}

/// Where the line per request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error, where all other messages go.
    Stderr,
    /// This file, an absolute path, appended to.
    File(PathBuf),
    /// The journal of systemd, in its own protocol.
    Journal,
    /// A syslog server.
    Syslog(Syslog),
}

/// A syslog server, and what it is told in front of every line (RFC 5424).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Where it listens (default the socket `/dev/log`).
    pub server: SyslogServer,
    /// The number of the facility, 0 to 23 (default 23, `local7`).
    pub facility: u8,
    /// Who speaks: 1 to 48 visible characters (default tidegate).
    pub tag: String,
}

impl Default for Syslog {
    fn default() -> Self {
        Self {
            server: SyslogServer::Unix(PathBuf::from("/dev/log")),
            facility: 23,
            tag: "tidegate".to_owned(),
        }
    }
}

/// Where a syslog server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogServer {
    /// A datagram socket of this host, an absolute path.
    Unix(PathBuf),
    /// UDP (RFC 5426).
    Udp(SocketAddr),
}

/// How messages that are no line per request are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageFormat {
    /// For people; with the priority in front where standard error is the journal's.
    Text,
    /// One JSON object per line.
    Json,
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// A person should look.
    Error,
    /// Odd, and survived.
    Warn,
    /// What happens rarely and matters.
    Info,
    /// For hunting a problem.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word of the configuration file, which is also the one the `log` crate parses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Which of the requests of a route are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Share(
    /// Of 2^32 requests so many, on average.
    u64,
);

impl Share {
    /// No request, whatever comes of it.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(1 << 32);

    /// This part of all, above 0 and up to 1.
    pub(super) fn of(part: f64) -> Self {
        // A share that is too small to be counted is still one.
        let whole = Self::ALL.0 as f64;
        Self(((part * whole) as u64).clamp(1, Self::ALL.0))
    }

    /// Is this one of them? `lot` is drawn evenly from all numbers.
    pub fn takes(self, lot: u64) -> bool {
        lot >> 32 < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_that_part_of_all_lots() {
        let lots = || (0..10_000_u64).map(|n| n * (u64::MAX / 10_000));
        let taken = |share: Share| lots().filter(|lot| share.takes(*lot)).count();
        assert_eq!(taken(Share::ALL), 10_000);
        assert_eq!(taken(Share::NONE), 0);
        let hundredth = taken(Share::of(0.01));
        assert!((95..=105).contains(&hundredth), "{hundredth}");
        assert!(Share::of(1e-30).takes(0));
        assert!(Share::ALL.takes(u64::MAX));
    }
}

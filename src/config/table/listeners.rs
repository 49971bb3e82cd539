//! The keys of listeners.

use crate::config::keys::Kind::{self, Count, Text};
use crate::config::keys::Need::{Default, Optional, Required};
use crate::config::keys::{Section, key};

use super::tls::TLS;

pub(super) static LISTENER: Section = Section {
    noun: "listener",
    about: "An address to accept on.",
    keys: &[
        key(
            "name",
            Text,
            Optional,
            "Unique name for logs and metrics. Unless set: the text of `bind`.",
        ),
        key(
            "bind",
            Text,
            Required("bind: 0.0.0.0:8080"),
            "IP address and port, such as 0.0.0.0:8080 or \"[::]:8080\"; port 0 lets the \
             system choose.",
        ),
        key(
            "max_connections",
            Count(1, 1_000_000),
            Default("20000"),
            "Open connections at once; one over it is closed at once.",
        ),
        key(
            "max_connections_per_client",
            Count(1, 1_000_000),
            Optional,
            "The same for one client, an IPv4 address or a /64 of IPv6. Unless set: no limit but \
             `max_connections`.",
        ),
        key(
            "tls",
            Kind::Section(&TLS),
            Optional,
            "Speak TLS 1.2 and 1.3 here, and nothing else. Unless set: no TLS.",
        ),
    ],
};

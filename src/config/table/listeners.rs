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
            "IP address and port, such as 0.0.0.0:8080 or \"[::]:8080\", which takes IPv4 as well; \
             port 0 lets the system choose. Or a unix socket, such as unix:/run/tidegate/edge.sock.",
        ),
        key(
            "ipv6_only",
            Kind::Flag,
            Default("false"),
            "An IPv6 address takes no IPv4 connections.",
        ),
        key(
            "mode",
            Text,
            Optional,
            "The permissions of a unix socket in octal. Unless set: 0660.",
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
            "Open connections of one client at once, an IPv4 address or a /64 of IPv6; one over it is \
             closed at once. Unless set: no limit but `max_connections`.",
        ),
        key(
            "tls",
            Kind::Section(&TLS),
            Optional,
            "Speak TLS 1.2 and 1.3 here, and nothing else. Unless set: no TLS.",
        ),
        key(
            "proxy_protocol",
            Kind::Flag,
            Default("false"),
            "Connections begin with a header of the PROXY protocol, version 1 or 2, before any TLS; \
             one that does not is closed. Believed of `trusted_proxies`, or, where there are none, of \
             anybody.",
        ),
    ],
};

//! The keys of an endpoint.

use super::super::keys::Kind::{self, Choice, Count, Flag, Text};
use super::super::keys::Need::{Default, Optional};
use super::super::keys::{RESOLVES, STATES, Section, key, names};
use super::tls;

pub(super) static ENDPOINT: Section = Section {
    noun: "endpoint",
    about: "One server address.",
    keys: &[
        key(
            "name",
            Text,
            Optional,
            "Name within the pool, which sessions are bound to. Unless set: the address.",
        ),
        key(
            "address",
            Text,
            Optional,
            "host:port, \"[v6]:port\", http://host:port, or https://host:port for TLS; names are \
             resolved by DNS. Or a unix socket: unix:/run/app.sock.",
        ),
        key(
            "srv",
            Text,
            Optional,
            "In place of `address`, the name of a service such as _mcp._tcp.example.org: an endpoint for each \
             server in its SRV records, with the port and the weight that stand there; a backup, unless its \
             priority is the best.",
        ),
        key(
            "resolve",
            Choice(&names(&RESOLVES)),
            Default("one"),
            "What a name with several addresses stands for: one server, reached at any of them, or `all`: \
             an endpoint for each, called NAME@ADDRESS.",
        ),
        key(
            "weight",
            Count(1, 256),
            Default("1"),
            "Its share against the other endpoints.",
        ),
        key(
            "backup",
            Flag,
            Default("false"),
            "Used only when no other endpoint can be.",
        ),
        key(
            "state",
            Choice(&names(&STATES)),
            Default("up"),
            "What it begins with: `drain` keeps the sessions it has and gets no new ones, `maint` gets \
             nothing.",
        ),
        key(
            "http2",
            Flag,
            Default("false"),
            "Speaks HTTP/2: without TLS as it stands; with TLS it is agreed on, and HTTP/1.1 is spoken \
             where the endpoint prefers that.",
        ),
        key(
            "tls",
            Kind::SectionOrOff(&tls::ENDPOINT_TLS),
            Optional,
            "Speak TLS to it, by these keys over those of the pool; or `off`. Unless set: as the address \
             and the pool say.",
        ),
        key(
            "max_in_flight",
            Count(1, 1_000_000),
            Optional,
            "Calls at once; others wait, for `queue_timeout`. Unless set: any number.",
        ),
    ],
};

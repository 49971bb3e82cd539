//! The keys of logs.

use crate::config::keys::Kind::{self, Choice, Share, Text};
use crate::config::keys::Need::{Default, Optional};
use crate::config::keys::{ESCAPES, FACILITIES, LEVELS, MESSAGE_FORMATS, Section, key, names};

pub(super) static LOG: Section = Section {
    noun: "log section",
    about: "Where logs go, what they say, and how much is logged.",
    keys: &[
        key(
            "access",
            Kind::SectionOrText(&ACCESS),
            Optional,
            "The line per request. A single value stands for `to` alone.",
        ),
        key(
            "level",
            Choice(&names(&LEVELS)),
            Default("info"),
            "The least important message that is still logged.",
        ),
        key(
            "format",
            Choice(&names(&MESSAGE_FORMATS)),
            Default("text"),
            "How messages are written that are no line per request: for people, or as one JSON \
             object each.",
        ),
    ],
};

static ACCESS: Section = Section {
    noun: "access log section",
    about: "The line per request.",
    keys: &[
        key(
            "to",
            Text,
            Default("stdout"),
            "Where it goes: `stdout`, `stderr`, `off`, `journal`, `syslog`, or the absolute path \
             of a file.",
        ),
        key(
            "format",
            Text,
            Default("json"),
            "What it says: `json`, nginx's `combined`, or a text with variables such as \
             \"$remote_addr $status\".",
        ),
        key(
            "escape",
            Choice(&names(&ESCAPES)),
            Optional,
            "How values in a text are made safe: `default`, as nginx does it, or `json`, fit for JSON. \
             Unless set: default.",
        ),
        key(
            "syslog",
            Kind::Section(&SYSLOG),
            Optional,
            "The syslog server. Only with `to: syslog`.",
        ),
    ],
};

static SYSLOG: Section = Section {
    noun: "syslog section",
    about: "A syslog server that takes RFC 5424.",
    keys: &[
        key(
            "server",
            Text,
            Optional,
            "Absolute path of a datagram socket, or \"udp:ADDRESS:PORT\". Unless set: /dev/log.",
        ),
        key(
            "facility",
            Choice(&names(&FACILITIES)),
            Optional,
            "The facility of its lines. Unless set: local7.",
        ),
        key(
            "tag",
            Text,
            Optional,
            "Who speaks: 1 to 48 letters, digits and `.`, `_`, `-`. Unless set: tidegate.",
        ),
    ],
};

pub(super) static ROUTE: Section = Section {
    noun: "access_log section",
    about: "Which requests of a route are logged.",
    keys: &[key(
        "sample",
        Share,
        Default("1"),
        "The part of its requests that is logged, above 0 and up to 1. Failures are always logged.",
    )],
};

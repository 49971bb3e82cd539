//! The keys that bound what clients may have.

use crate::config::keys::Kind::{self, Choice, Count, Duration, Flag, Rate, Size, Text};
use crate::config::keys::Need::{Default, Optional, Required};
use crate::config::keys::{Section, TOOL_RETRIES, key, names};

pub(super) static RATE: Section = Section {
    noun: "rate section",
    about: "How many requests a route takes; one over it is answered 429. `server/discover`, `ping` \
            and DELETE always pass.",
    keys: &[
        key(
            "per_client",
            Rate,
            Optional,
            "From each client: an IPv4 address, or a /64 of IPv6.",
        ),
        key(
            "per_principal",
            Rate,
            Optional,
            "From each client that has proved who it is by a certificate, from all its addresses.",
        ),
        key(
            "burst",
            Count(1, 1_000_000),
            Optional,
            "How many requests of one client, and of one principal, at once. Unless set: as many as \
             the rate allows in one second, at least 1.",
        ),
        key(
            "total",
            Rate,
            Optional,
            "From all clients together, as many as in one second at once.",
        ),
    ],
};

pub(super) static TOOL: Section = Section {
    noun: "tool",
    about: "What holds for calls of some tools, on whatever route: how often there may be one (one over it \
            is answered 429), how long it may take, whether it is sent again, or that there is none.",
    keys: &[
        key(
            "name",
            Text,
            Required("name: \"slow_*\""),
            "The name of a tool, in which * stands for any characters. The first entry that takes a \
             tool counts, for all tools that it takes together.",
        ),
        key(
            "per_client",
            Rate,
            Optional,
            "By each client, as many as in one second at once.",
        ),
        key(
            "per_principal",
            Rate,
            Optional,
            "By each client that has proved who it is by a certificate, as many as in one second at \
             once.",
        ),
        key(
            "total",
            Rate,
            Optional,
            "By all clients together, as many as in one second at once.",
        ),
        key(
            "concurrent",
            Count(1, 1_000_000),
            Optional,
            "Calls at once, over all endpoints.",
        ),
        key(
            "deny",
            Flag,
            Optional,
            "They are not called: a call is answered here with error -32602, and no WebSocket is opened to \
             the pool. `false`, which is what it is unless set, lets through what a later entry denies.",
        ),
        key(
            "timeout",
            Duration("100ms", "1d"),
            Optional,
            "From the end of a call to the end of its answer, on an event stream, too; then 504, or an error \
             on the stream. Unless set: `timeouts.header` to the answer's head and to its end, and \
             `timeouts.total` on a stream.",
        ),
        key(
            "retry",
            Choice(&names(&TOOL_RETRIES)),
            Optional,
            "Whether a call is sent again, as a list is, when no answer came from a server that it may have \
             reached: not even if the server calls that harmless; if it does and \
             `retries.trust_annotations` believes it; or whatever it says. Unless set: `safe`.",
        ),
    ],
};

pub(super) static SESSIONS: Section = Section {
    noun: "sessions section",
    about: "Where session keys come from and how many sessions are kept.",
    keys: &[
        key(
            "key_files",
            Kind::Texts(16),
            Optional,
            "Absolute paths of key files; the first seals, all open. Unless set: one key is \
             made once and kept in the state directory.",
        ),
        key(
            "idle_ttl",
            Duration("1s", "30d"),
            Default("1h"),
            "A session unused for this long is forgotten and deleted on its server; an open stream counts as \
             use.",
        ),
        key(
            "max",
            Count(1, 100_000_000),
            Default("1000000"),
            "Sessions in the table at once. One over it is answered 503, and the others go on.",
        ),
        key(
            "max_per_pool",
            Count(1, 100_000_000),
            Default("1000000"),
            "Sessions of one pool in the table at once, never above `max`. One over it is answered 503.",
        ),
        key(
            "max_per_client",
            Count(1, 100_000_000),
            Optional,
            "Sessions that one client, an IPv4 address or a /64 of IPv6, has opened here and not ended; \
             one over it is answered 429. Unless set: any number.",
        ),
        key(
            "max_per_principal",
            Count(1, 100_000_000),
            Optional,
            "The same of one client that has proved who it is by a certificate, from all its addresses. \
             Unless set: any number.",
        ),
        key(
            "recovery_memory",
            Size("1KiB", "64GiB"),
            Default("64MiB"),
            "Memory for what it takes to begin lost sessions again, over all pools with \
             `on_endpoint_loss: reinitialize`; a session for which there is none is lost.",
        ),
        key(
            "context_sizes",
            Count(0, 10_000),
            Default("0"),
            "Sessions that have a series each in the metric `mcp_context_size_bytes`, those that come \
             first; 0 for none. Monitoring keeps every series that it has seen.",
        ),
    ],
};

pub(super) static LIMITS: Section = Section {
    noun: "limits section",
    about: "What one client may send at most, and how slowly.",
    keys: &[
        key(
            "body",
            Size("1KiB", "64GiB"),
            Default("4MiB"),
            "Longest request body; a longer one is answered 413. Not in pools of kind http.",
        ),
        key(
            "header_block",
            Size("1KiB", "1MiB"),
            Default("32KiB"),
            "Longest request head; a longer one is answered 431.",
        ),
        key(
            "headers",
            Count(8, 1000),
            Default("100"),
            "Most header fields in a request; with more it is answered 431.",
        ),
        key(
            "head_timeout",
            Duration("100ms", "5m"),
            Default("10s"),
            "Until a request head that was begun is complete, or the next piece of a body is there; then \
             408. A TLS handshake is part of the first head.",
        ),
        key(
            "idle_timeout",
            Duration("100ms", "1d"),
            Default("75s"),
            "Until the next request on a connection that was kept alive; then it is closed.",
        ),
        key(
            "write_timeout",
            Duration("100ms", "1h"),
            Default("30s"),
            "How long one write to a client may stand still, before its connection is closed. One that \
             acknowledges nothing for twice as long (at least 3s) is taken to be gone.",
        ),
        key(
            "peek",
            Size("1KiB", "16MiB"),
            Default("64KiB"),
            "Most bytes of a body that are held to understand a call, never above `body`.",
        ),
    ],
};

//! The keys of event streams.

use crate::config::keys::Kind::{self, Count, Duration, DurationOrOff, Size};
use crate::config::keys::Need::{Default, Optional};
use crate::config::keys::{Section, key};

pub(super) static STREAMS: Section = Section {
    noun: "streams section",
    about: "How event streams are kept alive and bounded.",
    keys: &[
        key(
            "keep_alive",
            Duration("100ms", "10m"),
            Default("15s"),
            "A comment is sent on a stream that was silent for this long.",
        ),
        key(
            "reconnect",
            DurationOrOff("100ms", "1d"),
            Default("60s"),
            "How long a client's GET stream or `subscriptions/listen` is held open, and asked for \
             again, when its server is lost; `off`: it ends with the server's.",
        ),
        key(
            "max_event",
            Size("1KiB", "1GiB"),
            Default("16MiB"),
            "Longest single event; a longer one ends its stream with an error.",
        ),
        key(
            "max_per_session",
            Count(1, 1_000_000),
            Default("16"),
            "GET streams of one session at once; one over it is answered 429.",
        ),
        key(
            "max_per_client",
            Count(1, 1_000_000),
            Optional,
            "GET streams, `subscriptions/listen` and WebSockets of one client at once; one over it is \
             answered 429. Unless set: any number.",
        ),
        key(
            "max_per_principal",
            Count(1, 1_000_000),
            Optional,
            "The same of one client that has proved who it is by a certificate, from all its addresses. \
             Unless set: any number.",
        ),
        key(
            "resume",
            Kind::SectionOrOff(&RESUME),
            Optional,
            "Let clients come back to streams of session-era servers that give no event ids: they are \
             lent some. Unless set: off.",
        ),
    ],
};

static RESUME: Section = Section {
    noun: "resume section",
    about: "How much is kept for clients that come back to a stream.",
    keys: &[
        key(
            "events",
            Count(1, 100_000),
            Default("256"),
            "Events of one stream; the oldest go first.",
        ),
        key(
            "bytes",
            Size("1KiB", "1GiB"),
            Default("1MiB"),
            "Bytes of the events of one stream; the oldest go first, and one that is longer is not kept.",
        ),
        key(
            "keep",
            Duration("1s", "1h"),
            Default("60s"),
            "How long the server's stream is read on for a client that was lost, and how long the events \
             of one that has ended are kept.",
        ),
        key(
            "memory",
            Size("64KiB", "64GiB"),
            Default("64MiB"),
            "Bytes of events for all streams, and 16KiB for each that waits for its client; beyond it a \
             stream keeps fewer events, or is not kept when its client is lost.",
        ),
    ],
};

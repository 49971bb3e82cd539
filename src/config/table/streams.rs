//! The keys of event streams.

use crate::config::keys::Kind::{Duration, DurationOrOff, Size};
use crate::config::keys::Need::Default;
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
            "Longest single event.",
        ),
    ],
};

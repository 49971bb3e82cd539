//! The keys that say how endpoints are watched, and what becomes of those that fail.

use super::super::keys::Kind::{Choice, Count, Duration, Percent, Text};
use super::super::keys::Need::{Default, Optional};
use super::super::keys::{CHECKS, Section, key, names};

pub(super) static HEALTH: Section = Section {
    noun: "health check",
    about: "How endpoints are watched.",
    keys: &[
        key(
            "check",
            Choice(&names(&CHECKS)),
            Optional,
            "What is sent: an MCP question, a GET that wants 2xx or 3xx, a bare connection, \
             or nothing. Unless set: `mcp` in a pool of kind mcp, `tcp` in a pool of kind \
             http.",
        ),
        key(
            "path",
            Text,
            Optional,
            "Where to ask. Unless set: for `mcp` the path of the first route to this pool \
             (/mcp when that is /), for `http` /health.",
        ),
        key(
            "interval",
            Duration("100ms", "1h"),
            Default("2s"),
            "Pause between two checks of one endpoint.",
        ),
        key(
            "timeout",
            Duration("10ms", "1m"),
            Default("1s"),
            "How long one check may take.",
        ),
        key(
            "rise",
            Count(1, 100),
            Default("2"),
            "Good checks in a row until a lost endpoint is up again.",
        ),
        key(
            "fall",
            Count(1, 100),
            Default("3"),
            "Bad checks in a row until an endpoint is down.",
        ),
    ],
};

pub(super) static EJECTION: Section = Section {
    noun: "ejection section",
    about: "When an endpoint whose calls fail one after the other gets no new work for a while.",
    keys: &[
        key(
            "failures",
            Count(1, 1000),
            Default("5"),
            "Failures in a row that eject an endpoint.",
        ),
        key(
            "base_time",
            Duration("100ms", "1h"),
            Default("10s"),
            "How long the first ejection lasts; the n-th lately lasts n times as long.",
        ),
        key(
            "max_time",
            Duration("100ms", "1d"),
            Default("5m"),
            "The longest that one ejection lasts, never below `base_time`.",
        ),
        key(
            "max_share",
            Percent(1, 100),
            Default("50%"),
            "How much of the pool may be ejected at once, rounded down; but always one of two or \
             more endpoints, and never the only one.",
        ),
    ],
};

pub(super) static BREAKER: Section = Section {
    noun: "breaker section",
    about: "When nothing is sent to an endpoint whose calls fail.",
    keys: &[
        key(
            "failure_ratio",
            Percent(1, 100),
            Default("50%"),
            "How many of the calls in the window must have failed.",
        ),
        key(
            "min_calls",
            Count(1, 1_000_000),
            Default("20"),
            "Calls in the window below which nothing is concluded.",
        ),
        key(
            "window",
            Duration("1s", "10m"),
            Default("10s"),
            "How far back calls count.",
        ),
        key(
            "open_time",
            Duration("100ms", "1h"),
            Default("5s"),
            "How long nothing is sent before a few calls are let through to see.",
        ),
        key(
            "trials",
            Count(1, 100),
            Default("3"),
            "Calls let through at once then; after as many good ones all are.",
        ),
    ],
};

//! The keys that say how endpoints are watched, and what becomes of those that fail.

use super::super::keys::Kind::{self, Choice, Count, Duration, DurationOrOff, Flag, Percent, Text};
use super::super::keys::Need::{Default, Optional};
use super::super::keys::{CHECK_METHODS, CHECKS, ON_DOWN, Section, key, names};

pub(super) static HEALTH: Section = Section {
    noun: "health check",
    about: "How endpoints are watched.",
    keys: &[
        key(
            "check",
            Choice(&names(&CHECKS)),
            Optional,
            "What is sent: an MCP question, one HTTP request, a bare connection, or nothing. Unless set: `mcp` in a pool of kind mcp, `tcp` in a pool of kind \
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
            "method",
            Choice(&names(&CHECK_METHODS)),
            Optional,
            "How to ask. For `mcp`: `auto` (what suits the server, as it is learned), `discover` \
             (server/discover), `ping` (on one session that is kept) or `initialize` (a session that \
             is deleted again). For `http`: GET, HEAD, OPTIONS, or POST with an empty body. Unless set: \
             auto, and GET.",
        ),
        key(
            "host",
            Text,
            Optional,
            "The Host to ask for, with a port or without. Only with `check: http`. Unless set: the \
             endpoint's address.",
        ),
        key(
            "expect",
            Kind::Section(&EXPECT),
            Optional,
            "What a good answer is. Only with `check: http`.",
        ),
        key(
            "interval",
            Duration("100ms", "1h"),
            Default("2s"),
            "Pause between two checks of one endpoint.",
        ),
        key(
            "interval_fast",
            Duration("100ms", "1h"),
            Optional,
            "The same while an endpoint is not checked yet, about to be up or down, or has just \
             refused a connection; never above `interval`. Unless set: a quarter of that, at least 100ms.",
        ),
        key(
            "interval_down",
            Duration("100ms", "1h"),
            Optional,
            "The same while an endpoint is down or unwell. Unless set: `interval`.",
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
            "Bad checks in a row until an endpoint is down, or unwell if it answers them.",
        ),
        key(
            "on_down",
            Choice(&names(&ON_DOWN)),
            Default("keep"),
            "What becomes of what is open on an endpoint that is found down: WebSockets, streams and calls \
             go on as long as their connections do something, or end at once.",
        ),
    ],
};

static EXPECT: Section = Section {
    noun: "expect section",
    about: "What a good answer to an HTTP check is.",
    keys: &[
        key(
            "status",
            Text,
            Default("200-399"),
            "Statuses and ranges of them, with commas between.",
        ),
        key(
            "body",
            Text,
            Optional,
            "What must stand in the first 64KiB of the body, byte for byte; at most 4096 bytes.",
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

pub(super) static RETRIES: Section = Section {
    noun: "retries section",
    about: "When calls are tried again.",
    keys: &[
        key(
            "ratio",
            Percent(0, 100),
            Default("20%"),
            "How many of the calls of the last 10s may be second attempts.",
        ),
        key(
            "floor",
            Count(0, 1_000_000),
            Default("10"),
            "Second attempts per second that are allowed besides `ratio`.",
        ),
        key(
            "trust_annotations",
            Flag,
            Default("false"),
            "Believe a tool that says `readOnlyHint` or `idempotentHint` of itself: it is called \
             again where a list would be asked for again.",
        ),
        key(
            "hedge_after",
            DurationOrOff("1ms", "1m"),
            Default("off"),
            "Ask a second endpoint for a list, too, when the first has not answered for so long; \
             the first answer counts.",
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

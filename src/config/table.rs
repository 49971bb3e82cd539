//! The table of all keys; see `keys` for what it is made of.
//!
//! Names, bounds, defaults and meaning stand here once, in the order in which `conf/full.yaml`
//! shows them. A bound is where a value stops being a setting and becomes a mistake.

mod admin;
mod edge;
mod endpoint;
mod limits;
mod listeners;
mod log;
mod streams;
mod tls;
mod tracing;

use super::keys::Kind::{self, Choice, Count, Duration, DurationOrOff, Text, Texts};
use super::keys::Need::{Default, Optional, Required};
use super::keys::{
    BALANCES, CLIENT_HEADERS, ERAS, LOSSES, POOL_KINDS, PROXY_HEADERS, SCHEMES, SEND_PROXY,
    Section, TRANSPORTS, key, names,
};

mod watch;

use watch::{BREAKER, EJECTION, HEALTH, RETRIES};

/// The file as a whole.
pub(super) static ROOT: Section = Section {
    noun: "configuration",
    about: "The configuration of Tidegate.",
    keys: &[
        key(
            "listeners",
            Kind::Sections(&listeners::LISTENER, 64),
            Required("listeners: [{ bind: 0.0.0.0:8080 }]"),
            "The addresses to accept on.",
        ),
        key(
            "routes",
            Kind::Sections(&ROUTE, 1000),
            Required("routes: [{ path: /mcp, pool: NAME }]"),
            "Which request goes to which pool; the first match wins.",
        ),
        key(
            "pools",
            Kind::Named(&POOL, 1000),
            Required("pools: { NAME: { endpoints: [127.0.0.1:9001] } }"),
            "Endpoints that can serve one another's calls, by name.",
        ),
        key(
            "include",
            Texts(100),
            Optional,
            "Further files, by name or with the wildcards * ? [...], from this file's directory on. Their \
             listeners, routes and pools are added to those here, in the order of the files' names.",
        ),
        key(
            "sessions",
            Kind::Section(&limits::SESSIONS),
            Optional,
            "Where session keys come from and how many sessions are kept.",
        ),
        key(
            "streams",
            Kind::Section(&streams::STREAMS),
            Optional,
            "How event streams are kept alive and bounded.",
        ),
        key(
            "limits",
            Kind::Section(&limits::LIMITS),
            Optional,
            "What one client may send at most, and how slowly.",
        ),
        key(
            "trusted_proxies",
            Texts(1000),
            Optional,
            "Networks of proxies that are believed when they say who the client is, such as \
             10.0.0.0/8 or \"2001:db8::/32\"; `unix` for our unix sockets. Unless set: nobody.",
        ),
        key(
            "trusted_header",
            Choice(&names(&PROXY_HEADERS)),
            Default("x_forwarded"),
            "Which headers of `trusted_proxies` say who the client is: X-Forwarded-For, -Proto and -Host, or \
             Forwarded (RFC 7239). The others do not count.",
        ),
        key(
            "admin",
            Kind::SectionOrOff(&admin::ADMIN),
            Optional,
            "The address and the socket for health, metrics and operators, or `off`.",
        ),
        key(
            "log",
            Kind::Section(&log::LOG),
            Optional,
            "Where logs go and how much is logged.",
        ),
        key(
            "tracing",
            Kind::SectionOrOff(&tracing::TRACING),
            Optional,
            "Spans for requests, sent to a collector over OTLP. Unless set: off.",
        ),
        key(
            "state_dir",
            Text,
            Optional,
            "Absolute path of the directory for what must outlive a restart. Unless set: \
             $STATE_DIRECTORY, which systemd gives, else /var/lib/tidegate for root, else \
             $XDG_STATE_HOME/tidegate or ~/.local/state/tidegate.",
        ),
        key(
            "pid_file",
            Text,
            Optional,
            "Absolute path of a file for the id of the process that serves, which is written once it does. \
             Unless set: none.",
        ),
        key(
            "watch",
            DurationOrOff("1s", "1h"),
            Default("off"),
            "How often it is looked whether the configuration's files, or those of certificates, keys and \
             authorities, have changed. A change is reloaded once two looks have found the same.",
        ),
        key(
            "threads",
            Count(1, 1024),
            Optional,
            "Worker threads, each with sockets and connections of its own. Unless set: one per core.",
        ),
        key(
            "drain_timeout",
            Duration("0s", "1d"),
            Default("30s"),
            "How long a leaving process waits for exchanges and streams to end, and how long an endpoint \
             that a reload has left out keeps its sessions.",
        ),
        key(
            "drain_jitter",
            Duration("0s", "1d"),
            Default("10s"),
            "The most time over which the ends of streams are spread, before `drain_timeout` is \
             over; 10ms for each are enough. Never above `drain_timeout`; unless set, no more than a \
             third of it.",
        ),
    ],
};

static ROUTE: Section = Section {
    noun: "route",
    about: "A rule from a request to a pool. Exactly one of `path` and `path_prefix` must be set.",
    keys: &[
        key(
            "host",
            Text,
            Optional,
            "Host without port, in any case; \"*.example.com\" takes every name below \
             example.com. Unless set: every host.",
        ),
        key("path", Text, Optional, "Exactly this path."),
        key(
            "path_prefix",
            Text,
            Optional,
            "This path and everything below it, by whole segments: /mcp takes /mcp and \
             /mcp/x, not /mcpx; / takes everything.",
        ),
        key(
            "scheme",
            Choice(&names(&SCHEMES)),
            Optional,
            "Only requests that came over TLS, or only those that did not. Unless set: both.",
        ),
        key(
            "pool",
            Text,
            Optional,
            "Name of the pool its requests go to. A route has either this or `return` or `redirect`.",
        ),
        key(
            "return",
            Kind::Section(&edge::RETURN),
            Optional,
            "An answer that is always the same, in place of a pool.",
        ),
        key(
            "redirect",
            Kind::Section(&edge::REDIRECT),
            Optional,
            "Where clients are sent, in place of a pool.",
        ),
        key(
            "transport",
            Choice(&names(&TRANSPORTS)),
            Default("auto"),
            "MCP transport spoken here: `streamable` is Streamable HTTP and WebSocket, `sse` \
             is HTTP+SSE of 2024-11-05. `auto` means `sse` when the last segment of the path \
             is `sse`, else `streamable`.",
        ),
        key(
            "origins",
            Texts(1000),
            Optional,
            "Values of the Origin header that are let in, each scheme://host[:port], or \"*\" \
             alone for any.",
        ),
        key(
            "rate",
            Kind::Section(&limits::RATE),
            Optional,
            "How many requests it takes; one over it is answered 429, but `server/discover`, `ping` and \
             DELETE always pass. Unless set: any number.",
        ),
        key(
            "access_log",
            Kind::SectionOrOff(&log::ROUTE),
            Optional,
            "Which of its requests are logged, or `off` for none. Unless set: all.",
        ),
        key(
            "rewrite",
            Kind::Section(&edge::REWRITE),
            Optional,
            "What the path becomes on its way to a server: `prefix` takes the place of the route's own, or \
             `to` that of what `regex` finds. Only with `pool`.",
        ),
        key(
            "cors",
            Kind::Section(&edge::CORS),
            Optional,
            "CORS in the servers' place: preflights are answered here, and what servers say of it is left \
             out. Only with `pool`.",
        ),
        key(
            "request_headers",
            Kind::Section(&edge::HEADERS),
            Optional,
            "Changes to the fields of requests on their way to a server. Values may have the variables \
             $remote_addr, $host, $http_host, $scheme, $request_id, $path, $query and $request_uri; $$ is \
             a dollar. Only with `pool`.",
        ),
        key(
            "response_headers",
            Kind::Section(&edge::HEADERS),
            Optional,
            "Changes to the fields of responses, also of answers of Tidegate itself. Values may have the same \
             variables as in `request_headers`.",
        ),
    ],
};

static POOL: Section = Section {
    noun: "pool",
    about: "Endpoints that can serve one another's calls.",
    keys: &[
        key(
            "kind",
            Choice(&names(&POOL_KINDS)),
            Default("mcp"),
            "What the endpoints speak.",
        ),
        key(
            "balance",
            Choice(&names(&BALANCES)),
            Default("least_load"),
            "How an endpoint is chosen when no session decides: the less loaded of two drawn \
             at random, the one of two whose answers take less time for its load, one drawn at random, \
             in turn, or by a hash of something of the request.",
        ),
        key(
            "hash_on",
            Text,
            Default("client_ip"),
            "What consistent_hash looks at: `client_ip`, `path`, or \"header:NAME\", \"cookie:NAME\" or \
             \"query:NAME\". A request without it is sent anywhere. Only with `balance: consistent_hash`.",
        ),
        key(
            "on_endpoint_loss",
            Choice(&names(&LOSSES)),
            Default("not_found"),
            "What a session hears when its endpoint is lost: its next request gets 404, and \
             the client begins a new session; or nothing, for it is begun again on another \
             endpoint in the client's name. Only with `kind: mcp`.",
        ),
        key(
            "eras",
            Choice(&names(&ERAS)),
            Default("auto"),
            "Which eras of MCP the endpoints speak: with sessions (up to 2025-11-25), \
             stateless (from 2026-07-28), or both; `auto` learns it by probing. Only with \
             `kind: mcp`.",
        ),
        key(
            "endpoints",
            Kind::SectionsOrTexts(&endpoint::ENDPOINT, 1000),
            Required("endpoints: [127.0.0.1:9001]"),
            "The servers, each as an address or as a map.",
        ),
        key(
            "tls",
            Kind::SectionOrOff(&tls::ENDPOINT_TLS),
            Optional,
            "Speak TLS to all endpoints whose address does not begin with http://, by these keys; or \
             `off`. Unless set: only to those whose address begins with https://, or that have a `tls` \
             of their own.",
        ),
        key(
            "resolve_every",
            Duration("1s", "1h"),
            Default("30s"),
            "How often DNS names are looked up again.",
        ),
        key(
            "name_servers",
            Texts(8),
            Optional,
            "Name servers that names are looked up at, each an address with a port or without. Unless set: \
             the system's own way, `/etc/hosts` included.",
        ),
        key(
            "resolve_hold",
            DurationOrOff("1s", "30d"),
            Default("off"),
            "How long endpoints keep their addresses when their name cannot be looked up any more; then \
             they get nothing. `off` is for ever.",
        ),
        key(
            "health",
            Kind::Section(&HEALTH),
            Optional,
            "How the endpoints are watched.",
        ),
        key(
            "ejection",
            Kind::SectionOrOff(&EJECTION),
            Optional,
            "When an endpoint whose calls fail one after the other is set aside, or `off`.",
        ),
        key(
            "breaker",
            Kind::SectionOrOff(&BREAKER),
            Optional,
            "When nothing is sent to an endpoint whose calls fail, or `off`.",
        ),
        key(
            "retries",
            Kind::SectionOrOff(&RETRIES),
            Optional,
            "When calls are tried again, or `off`: then only what never reached a server.",
        ),
        key(
            "slow_start",
            DurationOrOff("0s", "1h"),
            Default("10s"),
            "How long an endpoint that comes back takes from a tenth of its weight to all of it.",
        ),
        key(
            "timeouts",
            Kind::Section(&TIMEOUTS),
            Optional,
            "How long the steps of an exchange may take.",
        ),
        key(
            "affinity",
            Kind::Section(&AFFINITY),
            Optional,
            "How a browser is kept on its endpoint. Only with `kind: http`; MCP sessions are \
             always kept on theirs.",
        ),
        key(
            "keep_alive",
            Duration("100ms", "1h"),
            Default("4s"),
            "How long an unused connection to an endpoint is kept. Must be less than the \
             endpoint's own idle time, which is 5s in many servers.",
        ),
        key(
            "queue_timeout",
            Duration("10ms", "10m"),
            Default("5s"),
            "How long a call waits for a place where endpoints have a `max_in_flight`; then it is \
             answered 503.",
        ),
        key(
            "queue_max",
            Count(0, 65_536),
            Default("1024"),
            "How many calls wait for a place at once; one over it is answered 503.",
        ),
        key(
            "tools",
            Kind::Sections(&limits::TOOL, 100),
            Optional,
            "What holds for calls of its tools; the first entry that takes a tool counts. Only with `kind: mcp`.",
        ),
        key(
            "client_headers",
            Choice(&names(&CLIENT_HEADERS)),
            Default("x_forwarded"),
            "Which headers tell the endpoints who the client is: X-Forwarded-For, -Proto and -Host \
             with X-Real-IP; Forwarded (RFC 7239); both; or none.",
        ),
        key(
            "send_proxy",
            Choice(&names(&SEND_PROXY)),
            Default("off"),
            "Begin connections to the endpoints with a header of the PROXY protocol of this version. They \
             are then kept for requests of the same client alone.",
        ),
    ],
};

static TIMEOUTS: Section = Section {
    noun: "timeouts section",
    about: "How long the steps of an exchange may take.",
    keys: &[
        key(
            "connect",
            Duration("10ms", "5m"),
            Default("1s"),
            "Until the connection to an endpoint stands, its TLS handshake included; then it counts as one \
             that could not be made.",
        ),
        key(
            "header",
            Duration("100ms", "1d"),
            Default("5m"),
            "From the end of the request to the head of the response; then 504. GET streams may take as \
             long as they like.",
        ),
        key(
            "stream_idle",
            DurationOrOff("100ms", "30d"),
            Default("off"),
            "Silence of an endpoint on an event stream or in a response body, after which it ends.",
        ),
        key(
            "total",
            DurationOrOff("100ms", "30d"),
            Default("off"),
            "The whole exchange, streams included, after which it ends.",
        ),
        key(
            "write",
            Duration("100ms", "1h"),
            Default("30s"),
            "How long one write to an endpoint may stand still, before its connection is closed. One that \
             acknowledges nothing for twice as long (at least 3s) is taken to be gone.",
        ),
    ],
};

static AFFINITY: Section = Section {
    noun: "affinity section",
    about: "How a browser is kept on its endpoint.",
    keys: &[key(
        "cookie",
        Text,
        Required("cookie: TIDEGATE"),
        "Name of the cookie that holds the endpoint.",
    )],
};

//! The keys of traces.

use crate::config::keys::Kind::{Choice, Count, Duration, Pairs, ShareOrNone, Text};
use crate::config::keys::Need::{Optional, Required};
use crate::config::keys::{Section, TRACE_PROTOCOLS, key, names};

pub(super) static TRACING: Section = Section {
    noun: "tracing section",
    about: "Spans for requests, sent to a collector over OTLP.",
    keys: &[
        key(
            "endpoint",
            Text,
            Required("endpoint: http://127.0.0.1:4318"),
            "Where the collector listens: http:// or https://, a host and a port. Unless written, the port is \
             4318, or 4317 with `protocol: grpc`, and the path over HTTP is /v1/traces.",
        ),
        key(
            "protocol",
            Choice(&names(&TRACE_PROTOCOLS)),
            Optional,
            "How it is spoken to: protobuf in HTTP requests, or gRPC. Unless set: http.",
        ),
        key(
            "headers",
            Pairs(32),
            Optional,
            "Fields that go with every batch, such as a key of the collector. Values are never shown.",
        ),
        key(
            "ca",
            Text,
            Optional,
            "Absolute path of a PEM file with the authorities that vouch for the collector. Unless set: those \
             of the system. Only with https://.",
        ),
        key(
            "timeout",
            Duration("100ms", "1m"),
            Optional,
            "How long one batch may take to be sent and answered; 10s unless set.",
        ),
        key(
            "sample",
            ShareOrNone,
            Optional,
            "The part that is recorded of the traces that begin here; all unless set. A request that comes \
             with a trace is recorded if its caller says that it is.",
        ),
        key(
            "service_name",
            Text,
            Optional,
            "What this process is called in traces (`service.name`), 1 to 128 characters. Unless set: tidegate.",
        ),
        key(
            "queue",
            Count(16, 1_000_000),
            Optional,
            "The most spans that wait to be sent, 2048 unless set; one over it is dropped and counted.",
        ),
    ],
};

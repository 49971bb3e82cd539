//! Traces: what is read of the section, and what is said of mistakes in it.

use std::time::Duration;

use super::super::{Share, TraceProtocol, Tracing};
use super::{In, check_table, good};

fn tracing(keys: &str) -> Tracing {
    let config = good(In::Root, &format!("tracing: {{ {keys} }}"));
    config.tracing.expect("it is on")
}

#[test]
fn traces_are_off_unless_set_and_have_their_defaults() {
    assert_eq!(good(In::Root, "tracing: off").tracing, None);
    let read = tracing("endpoint: \"http://collector\"");
    assert_eq!(read.protocol, TraceProtocol::Http);
    assert_eq!(read.endpoint.authority, "collector:4318");
    assert_eq!(read.endpoint.path, "/v1/traces");
    assert!(read.endpoint.trust.is_none());
    assert_eq!(read.timeout, Duration::from_secs(10));
    assert_eq!(read.sample, Share::ALL);
    assert_eq!((read.service_name.as_str(), read.queue), ("tidegate", 2048));
}

#[test]
fn an_endpoint_is_read_with_its_parts() {
    let read = tracing("endpoint: \"http://[::1]:99/otlp\"").endpoint;
    assert_eq!((read.host.as_str(), read.port), ("::1", 99));
    assert_eq!(
        (read.authority.as_str(), read.path.as_str()),
        ("[::1]:99", "/otlp")
    );
    let read = tracing("endpoint: \"http://collector/\", protocol: grpc, sample: 0");
    assert_eq!(read.endpoint.port, 4317);
    assert_eq!(read.sample, Share::NONE);
}

#[test]
fn the_values_of_fields_are_never_shown() {
    let text = "tracing: { endpoint: \"http://c\", headers: { X-Team: the-key } }";
    let config = good(In::Root, text);
    let read = config.tracing.as_ref().expect("it is on");
    assert_eq!(
        read.headers.0,
        [("x-team".to_owned(), "the-key".to_owned())]
    );
    assert!(!format!("{config:?}").contains("the-key"));
    assert!(config.to_text().contains("X-Team"));
}

#[test]
fn mistakes_in_traces_are_told_with_their_place() {
    check_table(&[
        (In::Root, "tracing: { endpoint: «x» }", "is no collector"),
        (
            In::Root,
            "tracing: { endpoint: «\"ftp://collector\"» }",
            "write for example http://127.0.0.1:4318",
        ),
        (
            In::Root,
            "tracing: { endpoint: «\"http://user@collector\"» }",
            "is no collector",
        ),
        (
            In::Root,
            "tracing: { endpoint: «\"http://c/x\"», protocol: grpc }",
            "gRPC has a path of its own",
        ),
        (
            In::Root,
            "tracing: { endpoint: \"http://c\", protocol: «udp» }",
            "takes http | grpc",
        ),
        (
            In::Root,
            "tracing: { endpoint: \"http://c\", sample: «1.5» }",
            "from 0 to 1",
        ),
        (
            In::Root,
            "tracing: { endpoint: \"http://c\", sample: «-0» }",
            "from 0 to 1",
        ),
        (
            In::Root,
            "tracing: { endpoint: \"http://c\", queue: «1» }",
            "16",
        ),
        (
            In::Root,
            "tracing: { endpoint: \"http://c\", «ca»: /x.pem }",
            "begins with https://",
        ),
        (
            In::Root,
            "tracing: { endpoint: \"http://c\", headers: { «Content-Type»: x } }",
            "written by Tidegate itself",
        ),
        (
            In::Root,
            "tracing: { endpoint: \"http://c\", service_name: «\"\"» }",
            "is no name of a service",
        ),
        (In::Root, "«tracing»: { sample: 1 }", "endpoint"),
    ]);
}

//! Traces: to whom they are sent, and how.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::endpoint_tls::System;
use super::pem;
use crate::config::fields::Fields;
use crate::config::keys::TRACE_PROTOCOLS;
use crate::config::log::Share;
use crate::config::problem::{Report, quoted};
use crate::config::secure::Trust;
use crate::config::tracing::{Collector, TraceHeaders, TraceProtocol, Tracing};
use crate::config::units;

/// How long a batch may take, unless something else is written.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Spans that wait at most, unless something else is written.
const QUEUE: usize = 2048;
/// The name of a service that has none.
const NAME: &str = "tidegate";
/// Longest name of a service, in characters.
const NAME_MAX: usize = 128;
/// What OTLP posts to over HTTP.
const PATH: &str = "/v1/traces";
/// Fields that an exporter writes itself.
const OURS: [&str; 6] = [
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
];

/// What a `tracing` section says. `None` if there is none, it is `off`, or its collector is wrong.
pub(super) fn tracing(root: &Fields<'_>, report: &Report) -> Option<Tracing> {
    root.written("tracing")?;
    let fields = root.section_or_off("tracing")?;
    let protocol = fields.choice("protocol", &TRACE_PROTOCOLS);
    let protocol = protocol.unwrap_or(TraceProtocol::Http);
    let endpoint = endpoint(&fields, protocol);
    let name = fields.text("service_name");
    let name = name.and_then(|word| fields.parsed(word, service_name));
    let sample = fields.text("sample");
    let sample = sample.and_then(|word| fields.parsed(word, units::share_or_none));
    let tracing = Tracing {
        protocol,
        headers: headers(&fields, report),
        timeout: match fields.written("timeout") {
            Some(_) => fields.duration("timeout"),
            None => TIMEOUT,
        },
        sample: sample.unwrap_or(Share::ALL),
        service_name: name.unwrap_or_else(|| NAME.to_owned()),
        queue: fields.count("queue").unwrap_or(QUEUE),
        endpoint: endpoint?,
    };
    Some(tracing)
}

/// The collector; `None` when anything about it was reported.
fn endpoint(fields: &Fields<'_>, protocol: TraceProtocol) -> Option<Collector> {
    let word = fields.text("endpoint");
    let uri = word.and_then(|word| fields.parsed(word, |text| url(text, protocol)));
    let is_tls = uri.as_ref().map(|uri| uri.scheme_str() == Some("https"));
    let ca = match (fields.written("ca"), is_tls) {
        (Some(at), Some(false)) => {
            fields.error(at, "`ca` is for an `endpoint` that begins with https://");
            None
        }
        _ => pem::authorities(fields, "ca"),
    };
    let (uri, is_tls) = (uri?, is_tls?);
    let trust = match (is_tls, ca) {
        (false, _) => None,
        (true, Some((path, found))) => Some(Trust::File(path, found)),
        (true, None) if fields.written("ca").is_some() => return None,
        (true, None) => Some(system(fields)?),
    };
    let usual = match protocol {
        TraceProtocol::Http => 4318,
        TraceProtocol::Grpc => 4317,
    };
    let port = uri.port_u16().unwrap_or(usual);
    let host = uri.host()?;
    let path = match uri.path() {
        "" | "/" => PATH,
        path => path,
    };
    Some(Collector {
        authority: format!("{host}:{port}"),
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        path: path.to_owned(),
        trust,
    })
}

fn system(fields: &Fields<'_>) -> Option<Trust> {
    let found = System::default().authorities().map_err(|why| {
        let message = format!(
            "the collector cannot be verified by the authorities of the system, {why}; write `ca: \
             /etc/tidegate/ca.pem`"
        );
        fields.error(fields.place_of("endpoint"), message);
    });
    found.ok().map(Trust::System)
}

/// The address of a collector.
fn url(text: &str, protocol: TraceProtocol) -> Result<Uri, String> {
    let shown = quoted(text);
    let example = match protocol {
        TraceProtocol::Http => "http://127.0.0.1:4318",
        TraceProtocol::Grpc => "http://127.0.0.1:4317",
    };
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let authority = uri.authority().map_or("", |found| found.as_str());
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && !authority.contains('@')
            && uri.port_u16() != Some(0)
            && uri.query().is_none()
    });
    let uri = uri.ok_or_else(|| format!("{shown} is no collector; write for example {example}"))?;
    match protocol {
        TraceProtocol::Grpc if !matches!(uri.path(), "" | "/") => Err(format!(
            "{shown}: gRPC has a path of its own; write for example {example}"
        )),
        _ => Ok(uri),
    }
}

fn headers(fields: &Fields<'_>, report: &Report) -> TraceHeaders {
    let mut headers = TraceHeaders::default();
    for (name, value) in fields.pairs("headers") {
        report.conceal(value.span);
        let at = name.span;
        let name = fields.parsed(name, field_name);
        let value = fields.parsed(value, |text| match HeaderValue::from_str(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("this cannot stand in the value of a field".to_owned()),
        });
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        if headers.0.iter().any(|(other, _)| *other == name) {
            fields.error(at, format!("{} is here twice", quoted(&name)));
        }
        headers.0.push((name, value));
    }
    headers
}

fn field_name(text: &str) -> Result<String, String> {
    let shown = quoted(text);
    let name = HeaderName::from_bytes(text.as_bytes());
    let name = name.map_err(|_| format!("{shown} is no name of a field"))?;
    match OURS.contains(&name.as_str()) {
        true => Err(format!("{shown} is written by Tidegate itself")),
        false => Ok(name.as_str().to_owned()),
    }
}

fn service_name(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    match (1..=NAME_MAX).contains(&length) && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{} is no name of a service; one has 1 to {NAME_MAX} characters",
            quoted(text)
        )),
    }
}

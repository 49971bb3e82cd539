//! From records to spans: one for the request, and below it what it waited for and each attempt at an
//! endpoint, with the connection that was made for it.
//!
//! Names and attributes follow the semantic conventions for MCP and for HTTP; what they have no name
//! for begins with `tidegate.`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::attributes::Attributes;
use super::record::{Attempt, Record};

/// What the lowest byte of a span's flags says: its trace is recorded.
const RECORDED: u32 = 1;
/// It is known whether the parent is another process's (`SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`),
const KNOWS_PARENT: u32 = 0x100;
/// and it is.
const PARENT_IS_REMOTE: u32 = 0x200;

/// A batch as a collector takes it.
pub fn request(service: &str, records: &[Box<Record>]) -> ExportTraceServiceRequest {
    let mut resource = Attributes::default();
    resource.text("service.name", service);
    resource.text("service.version", env!("CARGO_PKG_VERSION"));
    resource.number("process.pid", std::process::id());
    let scope = ScopeSpans {
        scope: Some(InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        spans: records.iter().flat_map(|record| spans(record)).collect(),
        ..ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource.0,
                ..Resource::default()
            }),
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        }],
    }
}

/// The spans of one request, its own first.
pub(super) fn spans(record: &Record) -> Vec<Span> {
    let clock = Clock::of(record);
    let mut spans = vec![served(record, &clock)];
    if record.has_queued() {
        let first = record.traced.attempts.first();
        let until = first.map_or(record.times.queue, |first| first.asked);
        let began = until.saturating_sub(record.times.queue);
        let mut queue = clock.span(record, "queue", SpanKind::Internal, (began, until));
        queue.span_id = random_span();
        queue.parent_span_id = record.traced.span.to_vec();
        spans.push(queue);
    }
    for attempt in &record.traced.attempts {
        spans.push(asked(record, attempt, &clock));
        spans.extend(connected(record, attempt, &clock));
    }
    spans
}

/// When things have happened on the clock of the world. The request's own is steady.
struct Clock {
    began: u64,
}

impl Clock {
    fn of(record: &Record) -> Self {
        let began = record.at.checked_sub(record.times.duration);
        let since = began.unwrap_or(SystemTime::UNIX_EPOCH);
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            began: nanos(since),
        }
    }

    fn at(&self, since: Duration) -> u64 {
        self.began.saturating_add(nanos(since))
    }

    fn span(
        &self,
        record: &Record,
        name: &str,
        kind: SpanKind,
        (began, until): (Duration, Duration),
    ) -> Span {
        Span {
            trace_id: record.traced.trace.to_vec(),
            flags: RECORDED | KNOWS_PARENT,
            name: name.to_owned(),
            kind: kind as i32,
            start_time_unix_nano: self.at(began),
            end_time_unix_nano: self.at(until.max(began)),
            ..Span::default()
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn random_span() -> Vec<u8> {
    fastrand::u64(1..).to_be_bytes().to_vec()
}

/// The span of the request itself.
fn served(record: &Record, clock: &Clock) -> Span {
    let traced = &record.traced;
    let name = match (&record.mcp_method, &record.tool, &traced.route) {
        (Some(method), Some(tool), _) => format!("{method} {tool}"),
        (Some(method), None, _) => method.to_string(),
        (None, _, Some(route)) => format!("{} {route}", record.method),
        (None, _, None) => record.method.to_string(),
    };
    let whole = (Duration::ZERO, record.times.duration);
    let mut span = clock.span(record, &name, SpanKind::Server, whole);
    span.span_id = traced.span.to_vec();
    span.trace_state = traced.state.to_string();
    if let Some(parent) = traced.parent {
        span.parent_span_id = parent.to_vec();
        span.flags |= PARENT_IS_REMOTE;
    }
    let mut says = Attributes::default();
    of_http(record, &mut says);
    of_mcp(record, &mut says);
    of_ours(record, &mut says);
    says.maybe("error.type", traced.error.as_deref());
    span.attributes = says.0;
    span.events
        .extend(record.times.first_byte.map(|since| Event {
            time_unix_nano: clock.at(since),
            name: "first_byte".to_owned(),
            ..Event::default()
        }));
    // A refusal that the client has brought upon itself is no failure of ours (HTTP conventions).
    let is_failure = traced.error.is_some() && !(400..500).contains(&record.status);
    span.status = is_failure.then(failed);
    span
}

fn of_http(record: &Record, says: &mut Attributes) {
    says.text("http.request.method", &record.method);
    if record.status != 0 {
        says.number("http.response.status_code", record.status);
    }
    says.maybe("http.route", record.traced.route.as_deref());
    says.text("url.path", &record.path);
    says.text("url.scheme", if record.is_tls { "https" } else { "http" });
    if let Some(host) = record.host.as_deref() {
        let (name, port) = host_and_port(host);
        says.text("server.address", name);
        if let Some(port) = port {
            says.number("server.port", port);
        }
    }
    if let Some(client) = record.client {
        says.text("client.address", &client.ip().to_canonical().to_string());
    }
    says.text("network.protocol.name", "http");
    says.text("network.protocol.version", record.http_version);
    says.maybe("user_agent.original", record.user_agent.as_deref());
    says.number("http.request.body.size", record.request_bytes);
    says.number("http.response.body.size", record.response_bytes);
}

fn of_mcp(record: &Record, says: &mut Attributes) {
    says.maybe("mcp.method.name", record.mcp_method.as_deref());
    says.maybe("mcp.protocol.version", record.traced.version.as_deref());
    if let Some(session) = record.session {
        says.text("mcp.session.id", &format!("{session:08x}"));
    }
    says.maybe("jsonrpc.request.id", record.traced.rpc_id.as_deref());
    if let Some(code) = record.rpc_code {
        says.text("rpc.response.status_code", &code.to_string());
    }
    if let Some(tool) = record.tool.as_deref() {
        says.text("gen_ai.tool.name", tool);
        says.text("gen_ai.operation.name", "execute_tool");
    }
}

fn of_ours(record: &Record, says: &mut Attributes) {
    says.text("tidegate.listener", &record.listener);
    says.maybe("tidegate.era", record.era);
    says.maybe("tidegate.pool", record.pool.as_deref());
    says.maybe("tidegate.endpoint", record.endpoint.as_deref());
    says.number("tidegate.retries", record.traced.retries);
    says.text("tidegate.request_id", &record.request_id);
    says.text("tidegate.end_reason", record.end_reason);
}

/// The span of one attempt at an endpoint.
fn asked(record: &Record, attempt: &Attempt, clock: &Clock) -> Span {
    let took = (attempt.asked, attempt.until);
    let mut span = clock.span(record, "upstream", SpanKind::Client, took);
    span.span_id = attempt.span.to_vec();
    span.parent_span_id = record.traced.span.to_vec();
    let mut says = Attributes::default();
    says.text("http.request.method", &record.method);
    says.maybe("mcp.method.name", record.mcp_method.as_deref());
    says.maybe("gen_ai.tool.name", record.tool.as_deref());
    says.maybe("tidegate.pool", record.pool.as_deref());
    says.maybe("tidegate.endpoint", attempt.endpoint.as_deref());
    if let Some(address) = attempt.address {
        says.text("server.address", &address.ip().to_string());
        says.number("server.port", address.port());
    }
    if attempt.number > 0 {
        says.number("http.request.resend_count", attempt.number);
    }
    if let Some(status) = attempt.status {
        says.number("http.response.status_code", status);
    }
    says.maybe("error.type", attempt.error.as_deref());
    span.attributes = says.0;
    if let (Some(connect), Some(header)) = (attempt.connect, attempt.header) {
        span.events.push(Event {
            time_unix_nano: clock.at(attempt.asked + connect + header),
            name: "head".to_owned(),
            ..Event::default()
        });
    }
    span.status = attempt.error.as_ref().map(|_| failed());
    span
}

/// The span of the connection that was made for an attempt; none where one was there.
fn connected(record: &Record, attempt: &Attempt, clock: &Clock) -> Option<Span> {
    let took = attempt.has_connected()?;
    let took = (attempt.asked, attempt.asked + took);
    let mut span = clock.span(record, "connect", SpanKind::Internal, took);
    span.span_id = random_span();
    span.parent_span_id = attempt.span.to_vec();
    Some(span)
}

fn failed() -> Status {
    Status {
        code: StatusCode::Error as i32,
        ..Status::default()
    }
}

/// The parts of an authority. An IPv6 address keeps no brackets.
fn host_and_port(host: &str) -> (&str, Option<u16>) {
    let split = host.rsplit_once(':').filter(|(name, _)| {
        // A bare IPv6 address has no port.
        !name.contains(':') || name.ends_with(']')
    });
    let (name, port) = match split {
        Some((name, port)) => (name, port.parse().ok()),
        None => (host, None),
    };
    (name.trim_matches(['[', ']']), port)
}

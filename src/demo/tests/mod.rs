//! Requests in, replies out: the pure part of the server, in tables. No time passes but what a test
//! says.

mod session_era;
mod stateless_era;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::feed::{Feed, Step};
use super::reply::{Body, Opened, Reply, Whole};
use super::request::understand;
use super::state::State;
use crate::transport::fields::Name;
use crate::transport::{Headers, Http, RequestHead};

/// Header fields as a test writes them.
pub(super) type Fields<'a> = &'a [(&'a str, &'a str)];

/// A request head for tests.
#[derive(Debug, Clone)]
pub(super) struct FakeHead {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
}

impl FakeHead {
    pub(super) fn new(method: &str, target: &str, fields: Fields<'_>) -> Self {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields,
        }
    }
}

impl Headers for FakeHead {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(value.as_bytes())
    }

    fn count(&self, name: &str) -> usize {
        let fields = self.fields.iter();
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .count()
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        for (name, value) in &self.fields {
            f(Name::new(name.as_bytes()), value.as_bytes());
        }
    }
}

impl RequestHead for FakeHead {
    fn method(&self) -> &str {
        &self.method
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn authority(&self) -> Option<&str> {
        Some("localhost")
    }

    fn version(&self) -> Http {
        Http::V11
    }
}

/// One copy and its clock.
pub(super) struct Fixture {
    pub(super) state: State,
    pub(super) now: Instant,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self {
            state: State::new("one"),
            now: Instant::now(),
        }
    }

    pub(super) fn after(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn ask(&mut self, head: &FakeHead, body: &[u8]) -> Reply {
        match understand(head, body) {
            Ok(call) => self.state.answer(call, self.now),
            Err(whole) => whole.into(),
        }
    }

    /// A POST to the endpoint with these fields beside those that every client sends.
    pub(super) fn post(&mut self, fields: Fields<'_>, body: &str) -> Reply {
        let mut head = FakeHead::new("POST", "/mcp", fields);
        for (name, value) in [
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ] {
            if head.count(name) == 0 {
                head.fields.push((name.to_owned(), value.to_owned()));
            }
        }
        self.ask(&head, body.as_bytes())
    }

    pub(super) fn bare(&mut self, method: &str, target: &str, fields: Fields<'_>) -> Whole {
        whole(self.ask(&FakeHead::new(method, target, fields), b""))
    }
}

pub(super) fn whole(reply: Reply) -> Whole {
    match reply {
        Reply::Whole(whole) => whole,
        Reply::Stream(opened) => panic!("a stream: {opened:?}"),
    }
}

pub(super) fn stream(reply: Reply) -> Opened {
    match reply {
        Reply::Stream(opened) => opened,
        Reply::Whole(whole) => panic!("no stream: {whole:?}"),
    }
}

/// The JSON of an answer; `null` if it has none.
pub(super) fn json_of(whole: &Whole) -> Value {
    match &whole.body {
        Body::Json(json) => serde_json::from_slice(json).expect("an answer is JSON"),
        Body::None | Body::Text(_) => Value::Null,
    }
}

/// Status and JSON-RPC code, 0 for none: what most rows are about.
pub(super) fn verdict(reply: Reply) -> (u16, i64) {
    let whole = whole(reply);
    let code = json_of(&whole)["error"]["code"].as_i64();
    (whole.status, code.unwrap_or(0))
}

/// The message in an event of ours.
pub(super) fn message(event: &[u8]) -> Value {
    let text = str::from_utf8(event).expect("events are UTF-8");
    let data = text
        .strip_prefix("event: message\ndata: ")
        .and_then(|rest| rest.strip_suffix("\n\n"));
    serde_json::from_str(data.expect("one message per event")).expect("the data is JSON")
}

/// Everything that a stream says by itself, and how long it waits in all.
pub(super) fn play(feed: &mut Feed) -> (Vec<Value>, Duration) {
    let (mut said, mut waited) = (Vec::new(), Duration::ZERO);
    loop {
        match feed.step() {
            Step::Event(event) => said.push(message(&event)),
            Step::Wait(time) => waited += time,
            Step::Rest | Step::Done => return (said, waited),
        }
    }
}

#[test]
fn health_answers_and_other_paths_do_not_exist() {
    let rows = [
        ("GET", "/health", 200, None),
        ("HEAD", "/health", 200, None),
        ("GET", "/health?verbose", 200, None),
        ("POST", "/health", 405, Some("GET, HEAD")),
        ("GET", "/", 404, None),
        ("POST", "/mcp/", 404, None),
        ("PUT", "/mcp", 405, Some("GET, POST, DELETE")),
        ("OPTIONS", "/mcp", 405, Some("GET, POST, DELETE")),
        ("HEAD", "/mcp?x", 405, Some("GET, POST, DELETE")),
    ];
    for (method, target, status, allow) in rows {
        let whole = Fixture::new().bare(method, target, &[]);
        assert_eq!(
            (whole.status, whole.allow),
            (status, allow),
            "{method} {target}"
        );
    }
}

#[test]
fn a_body_that_is_no_message_is_refused() {
    let rows = [
        ("", -32700),
        ("{", -32700),
        ("nonsense", -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#, -32700),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"n":1e999}}"#,
            -32700,
        ),
        ("[]", -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
        (r#"[{"id":1,"id":2}]"#, -32600),
        ("1", -32600),
        ("{}", -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"initialize"}"#, -32600),
        (r#"{"id":1,"method":"initialize"}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"initialize"}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":true,"method":"initialize"}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"initialize"}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":[]}"#,
            -32600,
        ),
        (r#"{"jsonrpc":"2.0","method":"initialize"}"#, -32600),
    ];
    for (body, code) in rows {
        assert_eq!(
            verdict(Fixture::new().post(&[], body)),
            (400, code),
            "{body}"
        );
    }
}

#[test]
fn headers_are_checked_before_the_body() {
    let rows: [(Fields<'_>, u16); 14] = [
        (&[], 200),
        (&[("Content-Type", "Application/JSON; charset=utf-8")], 200),
        (&[("Content-Type", "text/plain")], 415),
        (&[("Content-Type", "application/jsonp")], 415),
        (&[("Accept", "*/*")], 200),
        (
            &[("Accept", "text/*;q=0.5"), ("Accept", "application/*")],
            200,
        ),
        (&[("Accept", "application/json")], 406),
        (&[("Accept", "text/event-stream")], 406),
        (&[("Origin", "http://localhost:6274")], 200),
        (&[("Origin", "https://[::1]")], 200),
        (&[("Origin", "https://localhost.example.com")], 403),
        (&[("Origin", "null")], 403),
        (&[("Mcp-Method", "a"), ("Mcp-Method", "a")], 400),
        (&[("Mcp-Session-Id", "a"), ("mcp-session-id", "b")], 400),
    ];
    for (fields, status) in rows {
        let whole = whole(Fixture::new().post(fields, INITIALIZE));
        assert_eq!(whole.status, status, "{fields:?}");
    }
    let mut fixture = Fixture::new();
    let head = FakeHead::new("POST", "/mcp", &[]);
    assert_eq!(whole(fixture.ask(&head, INITIALIZE.as_bytes())).status, 415);
    assert_eq!(fixture.state.sessions.len(), 0);
}

#[test]
fn both_eras_have_the_same_tools_and_their_schemas() {
    let tools = super::tools::catalog();
    let names: Vec<_> = tools
        .as_array()
        .into_iter()
        .flatten()
        .map(|tool| &tool["name"])
        .collect();
    assert_eq!(names, ["whoami", "counter", "echo", "ticks"]);
    for tool in tools.as_array().into_iter().flatten() {
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert!(tool["description"].is_string(), "{tool}");
    }
}

#[test]
fn tools_say_what_is_wrong_with_their_arguments() {
    use super::tools::{Outcome, call};
    let rows = [
        (json!({"name": "echo"}), Some("text must be a string")),
        (
            json!({"name": "echo", "arguments": {"text": 1}}),
            Some("text must be a string"),
        ),
        (ticks(0, 0), Some("n must be an integer from 1 to 1000")),
        (ticks(1001, 0), Some("n must be an integer from 1 to 1000")),
        (
            ticks(1, -1),
            Some("every_ms must be an integer from 0 to 60000"),
        ),
        (
            ticks(1, 60_001),
            Some("every_ms must be an integer from 0 to 60000"),
        ),
        (
            json!({"name": "ticks", "arguments": {"n": 1}}),
            Some("every_ms must be an integer from 0 to 60000"),
        ),
        (
            json!({"name": "ticks", "arguments": {"n": 1.5, "every_ms": 0}}),
            Some("n must be an integer from 1 to 1000"),
        ),
        (
            json!({"name": "ticks", "arguments": {"n": "1", "every_ms": 0}}),
            Some("n must be an integer from 1 to 1000"),
        ),
        (json!({"name": "nothing"}), None),
        (json!({"name": 5}), None),
        (json!({}), None),
        (json!({"name": "whoami", "arguments": []}), None),
    ];
    for (params, text) in rows {
        let params = params.as_object().expect("params are an object");
        match (call(params, "one", &mut 0), text) {
            (Outcome::Failed(told), Some(text)) => assert_eq!(told, text, "{params:?}"),
            (Outcome::Invalid(_), None) => {}
            (other, _) => panic!("{params:?}: {other:?}"),
        }
    }
    for params in [
        ticks(1, 0),
        ticks(1000, 60_000),
        json!({"name": "ticks", "arguments": {"n": 2.0, "every_ms": 5}}),
    ] {
        let params = params.as_object().expect("params are an object");
        assert!(
            matches!(call(params, "one", &mut 0), Outcome::Ticks { .. }),
            "{params:?}"
        );
    }
}

fn ticks(n: i64, every_ms: i64) -> Value {
    json!({"name": "ticks", "arguments": {"n": n, "every_ms": every_ms}})
}

pub(super) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

proptest! {
    #[test]
    fn no_request_breaks_the_server(
        fields in proptest::collection::vec(("mcp-(method|name|session-id|protocol-version)|accept|origin|content-type", "\\PC{0,12}|2026-07-28|2025-11-25|tools/call"), 0..6),
        method in "GET|POST|DELETE|PUT",
        body in "\\PC{0,40}|\\{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"(ping|tools/call|tools/list)\",\"params\":\\PC{0,9}\\}",
    ) {
        let head = FakeHead { method, target: "/mcp".to_owned(), fields };
        if let Reply::Whole(whole) = Fixture::new().ask(&head, body.as_bytes()) {
            prop_assert!((200..500).contains(&whole.status));
        }
    }
}

//! What an event stream says, and when: a state machine that is asked for its next step.

use std::time::Duration;

use serde_json::{Value, json};

use super::reply::{result_text, tool_result};
use crate::mcp::sse::write_message_event;
use crate::mcp::{Era, RawId, answer};

/// A stream.
#[derive(Debug, PartialEq)]
pub(super) enum Feed {
    /// A session's own stream. There is never anything to say on it.
    Silent,
    /// A subscription of the stateless era.
    Listen(Listen),
    /// The answer of the tool `ticks`.
    Ticks(Ticks),
}

/// What to do next for a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this event.
    Event(Vec<u8>),
    /// Wait so long.
    Wait(Duration),
    /// There will be nothing more to say until the stream is ended from outside.
    Rest,
    /// All is said.
    Done,
}

/// Why a stream is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client has cancelled the request.
    Cancelled,
    /// The session has ended.
    SessionOver,
    /// The server closes.
    Closing,
}

impl Feed {
    /// The next step.
    pub(super) fn step(&mut self) -> Step {
        match self {
            Self::Silent => Step::Rest,
            Self::Listen(listen) => listen.step(),
            Self::Ticks(ticks) => ticks.step(),
        }
    }

    /// The last event of a stream that is ended from outside, so that no request stays unanswered.
    pub(super) fn last_words(&self, ending: Ending) -> Option<Vec<u8>> {
        match (self, ending) {
            // Whoever cancels does not want an answer.
            (Self::Silent, _) | (_, Ending::Cancelled) => None,
            (Self::Listen(listen), _) => Some(listen.result()),
            (Self::Ticks(ticks), Ending::SessionOver) => Some(ticks.failure("the session is over")),
            (Self::Ticks(ticks), Ending::Closing) => Some(ticks.failure("the server is closing")),
        }
    }
}

/// A subscription: confirmed first, then open until its end.
#[derive(Debug, PartialEq)]
pub(super) struct Listen {
    id: RawId,
    /// What was asked for and can be granted.
    granted: Value,
    is_confirmed: bool,
}

impl Listen {
    /// Grants what is asked for as far as there is such a thing here: changes of the list of tools.
    pub(super) fn new(id: RawId, wanted: &Value) -> Self {
        let mut granted = json!({});
        if wanted.get("toolsListChanged") == Some(&Value::Bool(true)) {
            granted["toolsListChanged"] = json!(true);
        }
        Self {
            id,
            granted,
            is_confirmed: false,
        }
    }

    fn step(&mut self) -> Step {
        if std::mem::replace(&mut self.is_confirmed, true) {
            return Step::Rest;
        }
        // Written by hand around the id, which must go back exactly as it came.
        let (id, granted) = (self.id.as_json(), &self.granted);
        let meta = format!(r#"{{"{SUBSCRIPTION_ID}":{id}}}"#);
        let params = format!(r#"{{"_meta":{meta},"notifications":{granted}}}"#);
        let method = "notifications/subscriptions/acknowledged";
        let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
        Step::Event(event(text.as_bytes()))
    }

    /// The proper end: the answer to the request.
    fn result(&self) -> Vec<u8> {
        let text = result_text(Era::Stateless, json!({}));
        let meta = format!(r#""_meta":{{"{SUBSCRIPTION_ID}":{},"#, self.id.as_json());
        let text = text.replacen(r#""_meta":{"#, &meta, 1);
        event(&answer::result(&self.id, &text))
    }
}

/// Names, in every message of a subscription, the request that began it.
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// A number of ticks, told one by one, and then the result.
#[derive(Debug, PartialEq)]
pub(super) struct Ticks {
    era: Era,
    id: RawId,
    count: u32,
    every: Duration,
    report: Report,
    /// How many have been waited for.
    waited: u32,
    /// How many have been told.
    told: u32,
    is_answered: bool,
}

/// How the ticks before the result are told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Report {
    /// As progress of the request, under the client's token.
    Progress(Value),
    /// As log messages.
    Messages,
    /// Not at all: the client wants no such log messages.
    Nothing,
}

impl Report {
    /// The way for a request with this progress token, from a client with this wish for messages.
    ///
    /// In the stateless era a client that names no level must not be sent any message.
    pub(super) fn new(token: Option<&Value>, level: Option<Level>) -> Self {
        match token {
            Some(token @ (Value::String(_) | Value::Number(_))) => Self::Progress(token.clone()),
            _ if level.is_some_and(|level| level <= Level::Info) => Self::Messages,
            _ => Self::Nothing,
        }
    }
}

impl Ticks {
    /// `count` ticks, one after each `every`, as the answer to the request `id`.
    pub(super) fn new(era: Era, id: RawId, count: u32, every: Duration, report: Report) -> Self {
        Self {
            era,
            id,
            count,
            every,
            report,
            waited: 0,
            told: 0,
            is_answered: false,
        }
    }

    fn step(&mut self) -> Step {
        if self.waited == self.told && self.told < self.count {
            self.waited += 1;
            return Step::Wait(self.every);
        }
        if self.told < self.count {
            self.told += 1;
            return match self.notification() {
                Some(text) => Step::Event(event(text.to_string().as_bytes())),
                // Silence is no step; the next one is a wait or the result.
                None => self.step(),
            };
        }
        if std::mem::replace(&mut self.is_answered, true) {
            return Step::Done;
        }
        let result = tool_result(&format!("{} ticks", self.count), false);
        let text = result_text(self.era, result);
        Step::Event(event(&answer::result(&self.id, &text)))
    }

    fn notification(&self) -> Option<Value> {
        let (told, count) = (self.told, self.count);
        let text = format!("tick {told} of {count}");
        let (method, params) = match &self.report {
            Report::Progress(token) => (
                "notifications/progress",
                json!({"progressToken": token, "progress": told, "total": count, "message": text}),
            ),
            Report::Messages => (
                "notifications/message",
                json!({"level": "info", "logger": "ticks", "data": text}),
            ),
            Report::Nothing => return None,
        };
        Some(json!({"jsonrpc": "2.0", "method": method, "params": params}))
    }

    fn failure(&self, text: &str) -> Vec<u8> {
        event(&answer::error(Some(&self.id), answer::INTERNAL, text, None))
    }
}

/// How grave a log message is (RFC 5424 section 6.2.1), the least grave first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    /// The level with this name on the wire.
    pub(super) fn parse(name: &Value) -> Option<Self> {
        Some(match name.as_str()? {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "notice" => Self::Notice,
            "warning" => Self::Warning,
            "error" => Self::Error,
            "critical" => Self::Critical,
            "alert" => Self::Alert,
            "emergency" => Self::Emergency,
            _ => return None,
        })
    }
}

fn event(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 24);
    write_message_event(&mut out, json);
    out
}

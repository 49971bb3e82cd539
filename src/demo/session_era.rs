//! The methods of the session era: 2025-03-26, 2025-06-18 and 2025-11-25.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::feed::{Feed, Level, Report, Ticks};
use super::reply::{
    INSTRUCTIONS, Opened, Reply, SESSION_REVISIONS, Whole, capabilities, server_info, tool_result,
};
use super::request::{Ask, Said};
use super::session::{Lease, Purpose, SessionId, StreamRefused};
use super::state::State;
use super::tools::{Outcome, call, catalog};
use crate::mcp::{Era, RawId, Revision, answer};

/// Begins a session. A revision that is not served is answered with the newest that is, and the
/// client decides whether it can go on with that.
pub(super) fn initialize(state: &mut State, ask: &Ask, now: Instant) -> Whole {
    let Some(wanted) = ask.params.get("protocolVersion").and_then(Value::as_str) else {
        let text = "params.protocolVersion must be a string";
        return Whole::invalid_params(&ask.id, text);
    };
    let Some(session) = state.sessions.begin(now) else {
        let text = "no room for another session";
        return Whole::error(503, Some(&ask.id), answer::INTERNAL, text);
    };
    let served = |revision: &Revision| SESSION_REVISIONS.contains(revision);
    let revision = Revision::parse(wanted.as_bytes()).filter(served);
    let [.., newest] = SESSION_REVISIONS;
    let result = json!({
        "protocolVersion": revision.unwrap_or(newest).as_str(),
        "capabilities": capabilities(),
        "serverInfo": server_info(),
        "instructions": INSTRUCTIONS,
    });
    Whole::result(Era::Session, &ask.id, result).within(session)
}

/// Answers a message within a session.
pub(super) fn message(
    state: &mut State,
    session: Option<String>,
    said: Said,
    now: Instant,
) -> Reply {
    let Some(named) = session else {
        return no_session(said.id()).into();
    };
    let Some((session, _)) = state.sessions.touch(&named, now) else {
        return unknown_session(said.id()).into();
    };
    match said {
        Said::Request(ask) => request(state, session, ask, now),
        Said::Notification { method, params } => {
            if method == "notifications/cancelled" {
                cancel(state, &session, &params);
            }
            Whole::accepted().within(session).into()
        }
        Said::Response { .. } => Whole::accepted().within(session).into(),
    }
}

/// Opens the session's own stream.
pub(super) fn open(state: &mut State, session: Option<String>, now: Instant) -> Reply {
    let Some(named) = session else {
        return no_session(None).into();
    };
    match state.sessions.open_stream(&named, Purpose::Standalone, now) {
        Ok(lease) => stream(lease, Feed::Silent),
        Err(StreamRefused::UnknownSession) => unknown_session(None).into(),
        Err(error @ (StreamRefused::AlreadyOpen | StreamRefused::TooMany)) => {
            Whole::error(409, None, answer::INVALID_REQUEST, &error.to_string()).into()
        }
    }
}

/// Ends a session.
pub(super) fn end(state: &mut State, session: Option<String>, now: Instant) -> Whole {
    match session {
        None => no_session(None),
        Some(named) if state.sessions.end(&named, now) => Whole::empty(200),
        Some(_) => unknown_session(None),
    }
}

fn request(state: &mut State, session: SessionId, ask: Ask, now: Instant) -> Reply {
    let result = match ask.method.as_str() {
        "ping" => json!({}),
        "tools/list" if ask.params.contains_key("cursor") => {
            return invalid(&ask.id, "unknown cursor", session);
        }
        "tools/list" => json!({"tools": catalog()}),
        "logging/setLevel" => {
            let Some(level) = ask.params.get("level").and_then(Level::parse) else {
                return invalid(&ask.id, "params.level is not a log level", session);
            };
            if let Some((_, session)) = state.sessions.touch(session.as_str(), now) {
                session.level = level;
            }
            json!({})
        }
        "tools/call" => return tools_call(state, session, ask, now),
        "initialize" => {
            let text = "the session has been initialized already";
            let whole = Whole::error(400, Some(&ask.id), answer::INVALID_REQUEST, text);
            return whole.within(session).into();
        }
        _ => {
            let text = "method not found";
            let whole = Whole::error(200, Some(&ask.id), answer::METHOD_NOT_FOUND, text);
            return whole.within(session).into();
        }
    };
    let whole = Whole::result(Era::Session, &ask.id, result);
    whole.within(session).into()
}

fn tools_call(state: &mut State, named: SessionId, ask: Ask, now: Instant) -> Reply {
    let Some((_, session)) = state.sessions.touch(named.as_str(), now) else {
        return unknown_session(Some(&ask.id)).into();
    };
    let level = session.level;
    let (text, is_error) = match call(&ask.params, &state.name, &mut session.calls) {
        Outcome::Text(text) => (text, false),
        Outcome::Failed(text) => (text, true),
        Outcome::Invalid(text) => return invalid(&ask.id, &text, named),
        Outcome::Ticks { count, every } => {
            let purpose = Purpose::Answer(ask.id.clone());
            match state.sessions.open_stream(named.as_str(), purpose, now) {
                Ok(lease) => {
                    let report = Report::new(ask.meta("progressToken"), Some(level));
                    let ticks = Ticks::new(Era::Session, ask.id, count, every, report);
                    return stream(lease, Feed::Ticks(ticks));
                }
                Err(error) => (error.to_string(), true),
            }
        }
    };
    let result = tool_result(&text, is_error);
    Whole::result(Era::Session, &ask.id, result)
        .within(named)
        .into()
}

fn cancel(state: &mut State, session: &SessionId, params: &Map<String, Value>) {
    let request = params.get("requestId").map(Value::to_string);
    if let Some(request) = request.as_deref().and_then(RawId::parse) {
        state.sessions.cancel(session.as_str(), &request);
    }
}

fn stream(lease: Lease, feed: Feed) -> Reply {
    Reply::Stream(Opened {
        lease: Some(lease),
        feed,
    })
}

fn invalid(id: &RawId, text: &str, session: SessionId) -> Reply {
    Whole::invalid_params(id, text).within(session).into()
}

fn no_session(id: Option<&RawId>) -> Whole {
    Whole::error(
        400,
        id,
        answer::INVALID_REQUEST,
        "Mcp-Session-Id is missing",
    )
}

/// The one status that tells a client to begin again.
fn unknown_session(id: Option<&RawId>) -> Whole {
    Whole::error(404, id, answer::SESSION_NOT_FOUND, "Session not found")
}

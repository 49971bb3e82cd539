//! The methods of the stateless era: 2026-07-28.

use serde_json::{Value, json};

use super::feed::{Feed, Level, Listen, Report, Ticks};
use super::reply::{
    INSTRUCTIONS, Opened, Reply, STATELESS_REVISIONS, Whole, capabilities, tool_result,
};
use super::request::Ask;
use super::state::State;
use super::tools::{Outcome, call, catalog};
use crate::mcp::{Era, answer};

/// How long answers that never change may be kept, in milliseconds. Short, so that a client that
/// outlives an update of the binary notices.
const TTL_MS: u32 = 60_000;

/// The key in `_meta` for the least level of log messages that a request wants.
const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// Answers a request.
pub(super) fn request(state: &mut State, ask: Ask) -> Reply {
    let result = match ask.method.as_str() {
        "server/discover" => json!({
            "supportedVersions": STATELESS_REVISIONS.map(|revision| revision.as_str()),
            "capabilities": capabilities(),
            "instructions": INSTRUCTIONS,
            "ttlMs": TTL_MS,
            "cacheScope": "public",
        }),
        "tools/list" if ask.params.contains_key("cursor") => {
            return Whole::invalid_params(&ask.id, "unknown cursor").into();
        }
        "tools/list" => json!({"tools": catalog(), "ttlMs": TTL_MS, "cacheScope": "public"}),
        "tools/call" => return tools_call(state, ask),
        "subscriptions/listen" => return listen(ask),
        _ => {
            let text = "method not found";
            return Whole::error(404, Some(&ask.id), answer::METHOD_NOT_FOUND, text).into();
        }
    };
    Whole::result(Era::Stateless, &ask.id, result).into()
}

/// Answers a message that is no request. There is nothing left that it could change: a request is
/// cancelled by closing its stream.
pub(super) fn unasked() -> Whole {
    Whole::accepted()
}

fn tools_call(state: &mut State, ask: Ask) -> Reply {
    let (text, is_error) = match call(&ask.params, &state.name, &mut state.calls) {
        Outcome::Text(text) => (text, false),
        Outcome::Failed(text) => (text, true),
        Outcome::Invalid(text) => return Whole::invalid_params(&ask.id, &text).into(),
        Outcome::Ticks { count, every } => {
            let level = ask.meta(META_LOG_LEVEL).and_then(Level::parse);
            let report = Report::new(ask.meta("progressToken"), level);
            let ticks = Ticks::new(Era::Stateless, ask.id, count, every, report);
            return stream(Feed::Ticks(ticks));
        }
    };
    Whole::result(Era::Stateless, &ask.id, tool_result(&text, is_error)).into()
}

fn listen(ask: Ask) -> Reply {
    match ask.params.get("notifications") {
        Some(wanted @ Value::Object(_)) => stream(Feed::Listen(Listen::new(ask.id, wanted))),
        _ => Whole::invalid_params(&ask.id, "params.notifications must be an object").into(),
    }
}

fn stream(feed: Feed) -> Reply {
    Reply::Stream(Opened { lease: None, feed })
}

//! The revisions with `initialize`: sessions, the GET stream, server requests, resumption.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};

use super::reply::{Extra, Flow, Reply, message_event};
use super::session::{EventLog, Session};
use super::state::{Request, State};
use super::tools::{Call, Sink};

/// How long a client with an event store behind it should wait before it resumes.
const RETRY_MS: u64 = 50;

pub(super) async fn serve(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    if !state.manners.session_era {
        return refuse_method(state, reply, "POST").await;
    }
    match request.method.as_str() {
        "POST" => post(state, request, reply).await,
        "GET" => get(state, request, reply).await,
        "DELETE" => delete(state, request, reply).await,
        _ => refuse_method(state, reply, "GET, POST, DELETE").await,
    }
}

/// An error reply; a leaky server opens a session with every one.
pub(super) async fn refuse(
    state: &State,
    reply: &mut Reply,
    status: u16,
    extra: Extra<'_>,
    body: &[u8],
) -> Flow {
    let leaked = state.manners.leaky.then(|| state.open_session());
    let mut lines = extra.to_vec();
    if let Some(session) = &leaked {
        lines.push(("mcp-session-id", &session.id));
    }
    reply.fixed(status, "application/json", &lines, body).await
}

async fn refuse_method(state: &State, reply: &mut Reply, allow: &str) -> Flow {
    let body = error_body(-32000, "Method not allowed.");
    refuse(state, reply, 405, &[("allow", allow)], body.as_bytes()).await
}

async fn refuse_with(state: &State, reply: &mut Reply, status: u16, code: i64, why: &str) -> Flow {
    refuse(state, reply, status, &[], error_body(code, why).as_bytes()).await
}

fn error_body(code: i64, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}}).to_string()
}

/// What keeps a request from having a session.
enum NoSession {
    /// This server gives out none.
    Unused,
    Missing,
    Unknown,
}

fn session_of(state: &State, request: &Request) -> Result<Arc<Session>, NoSession> {
    if !state.manners.session_ids {
        return Err(NoSession::Unused);
    }
    let id = request.header("mcp-session-id").ok_or(NoSession::Missing)?;
    state.session(id).ok_or(NoSession::Unknown)
}

async fn refuse_session(state: &State, reply: &mut Reply, why: NoSession) -> Flow {
    match why {
        NoSession::Missing => {
            refuse_with(state, reply, 400, -32600, "Bad Request: Missing session ID").await
        }
        NoSession::Unknown | NoSession::Unused => {
            refuse_with(state, reply, 404, -32001, "Session not found").await
        }
    }
}

async fn post(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    let accept = |kind| request.headers.has_token("accept", kind);
    if !accept("application/json") || !accept("text/event-stream") {
        return refuse_with(state, reply, 406, -32000, "Not Acceptable").await;
    }
    let json = |value: &str| value.starts_with("application/json");
    if !request.header("content-type").is_some_and(json) {
        return refuse_with(state, reply, 415, -32000, "Unsupported Media Type").await;
    }
    let Some(message) = request.rpc.clone() else {
        return refuse_with(state, reply, 400, -32700, "Parse error").await;
    };
    let mut call = Call {
        state: state.clone(),
        session: None,
        message,
    };
    if call.method() == "initialize" {
        return initialize(call, reply).await;
    }
    call.session = match session_of(state, request) {
        Ok(session) => Some(session),
        Err(NoSession::Unused) => None,
        Err(why) => return refuse_session(state, reply, why).await,
    };
    match &call.message {
        Value::Array(messages) => batch(&call, messages, reply).await,
        Value::Object(message) if !message.contains_key("method") => {
            let stray = match &call.session {
                Some(session) => session.answered(call.message.clone()).err(),
                None => Some(call.message.clone()),
            };
            if let Some(stray) = stray {
                state.stray_answer(stray);
            }
            reply.empty(202, &[]).await
        }
        Value::Object(message) if !message.contains_key("id") => reply.empty(202, &[]).await,
        _ => respond(&call, reply).await,
    }
}

async fn initialize(mut call: Call, reply: &mut Reply) -> Flow {
    if call.state.manners.session_ids {
        call.session = Some(call.state.open_session());
    }
    respond(&call, reply).await
}

async fn respond(call: &Call, reply: &mut Reply) -> Flow {
    let id = call.session.as_ref().map(|session| session.id.clone());
    let header = id.as_deref().map(|id| ("mcp-session-id", id));
    let extra = header.as_slice();
    if !call.streams() {
        let response = call.respond(&mut Sink::Nobody).await?;
        return reply.json(200, extra, &response).await;
    }
    reply.open_stream(extra).await?;
    match &call.session {
        Some(session) if call.state.manners.event_store => {
            let log = begin_resumable(call, session);
            let close_after = &call.message["params"]["arguments"]["close_after"];
            let until = close_after.as_u64().map(|count| count as usize + 1);
            send_log(reply, &log, 0, until).await
        }
        _ => {
            let response = call.respond(&mut Sink::Reply(reply)).await?;
            reply.message(&response).await?;
            reply.end().await
        }
    }
}

/// Runs the call by itself, so that it goes on when its client is gone.
fn begin_resumable(call: &Call, session: &Session) -> Arc<EventLog> {
    let log = session.new_log();
    log.add(String::new());
    let (call, filled) = (call.clone(), log.clone());
    tokio::spawn(async move {
        let response = call.respond(&mut Sink::Log(filled.clone())).await;
        if let Ok(response) = response {
            filled.add(response.to_string());
        }
        filled.finish();
    });
    log
}

/// Sends the entries from `at`, up to `until` or the end of the log, and ends the stream.
async fn send_log(reply: &mut Reply, log: &EventLog, mut at: usize, until: Option<usize>) -> Flow {
    while until != Some(at) {
        let Some(entry) = log.entry(at).await else {
            break;
        };
        at += 1;
        send_entry(reply, entry.id, &entry.data).await?;
    }
    reply.end().await
}

async fn send_entry(reply: &mut Reply, id: Option<u64>, data: &str) -> Flow {
    match id {
        Some(id) if data.is_empty() => {
            let priming = format!("id: {id}\nretry: {RETRY_MS}\ndata: \n\n");
            reply.block(&priming).await
        }
        _ if reply.drops(&serde_json::from_str(data).unwrap_or_default()) => Ok(()),
        _ => reply.block(&message_event(id, data)).await,
    }
}

/// Answers a 2025-03-26 batch: an array of responses, or 202 when nothing in it asks for one.
async fn batch(call: &Call, messages: &[Value], reply: &mut Reply) -> Flow {
    let mut responses = Vec::new();
    for message in messages {
        if message.get("method").is_some() && message.get("id").is_some() {
            let mut one = call.clone();
            one.message = message.clone();
            responses.push(one.respond(&mut Sink::Nobody).await?);
        }
    }
    match responses.is_empty() {
        true => reply.empty(202, &[]).await,
        false => reply.json(200, &[], &Value::Array(responses)).await,
    }
}

async fn get(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    if !request.headers.has_token("accept", "text/event-stream") {
        return refuse_with(state, reply, 406, -32000, "Not Acceptable").await;
    }
    let session = match session_of(state, request) {
        Ok(session) => session,
        // Such servers hold an open, silent stream.
        Err(NoSession::Unused) => {
            reply.open_stream(&[]).await?;
            return std::future::pending().await;
        }
        Err(why) => return refuse_session(state, reply, why).await,
    };
    if state.manners.event_store
        && let Some(last) = request.header("last-event-id")
    {
        return resume(state, &session, last, reply).await;
    }
    let from = session.pushes.len();
    if state.manners.event_store {
        session.pushes.add(String::new());
    }
    send_pushes(state, &session, from, reply).await
}

async fn resume(state: &State, session: &Arc<Session>, last: &str, reply: &mut Reply) -> Flow {
    let found = last.parse().ok().and_then(|id| session.resume(id));
    let Some((log, at)) = found else {
        // A foreign event id looks like success and hangs, in both big SDKs.
        reply
            .open_stream(&[("mcp-session-id", &session.id)])
            .await?;
        return std::future::pending().await;
    };
    if Arc::ptr_eq(&log, &session.pushes) {
        return send_pushes(state, session, at, reply).await;
    }
    reply
        .open_stream(&[("mcp-session-id", &session.id)])
        .await?;
    send_log(reply, &log, at, None).await
}

/// The GET stream: what is pushed, until the session or the stream is ended.
pub(super) async fn send_pushes(
    state: &State,
    session: &Arc<Session>,
    mut at: usize,
    reply: &mut Reply,
) -> Flow {
    let Some(_place) = session.take_get() else {
        let why = "Conflict: Only one SSE stream is allowed per session";
        return refuse_with(state, reply, 409, -32000, why).await;
    };
    let mut ends = session.get_ends();
    reply
        .open_stream(&[("mcp-session-id", &session.id)])
        .await?;
    loop {
        tokio::select! {
            Some(entry) = session.pushes.entry(at) => {
                at += 1;
                send_entry(reply, entry.id, &entry.data).await?;
            }
            _ = ends.changed() => return reply.end().await,
        }
    }
}

async fn delete(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    match session_of(state, request) {
        Ok(session) => {
            state.counts.sessions_deleted.fetch_add(1, SeqCst);
            state.close_session(&session.id);
            reply.empty(200, &[]).await
        }
        Err(NoSession::Unused) => refuse_method(state, reply, "GET, POST").await,
        Err(why) => refuse_session(state, reply, why).await,
    }
}

//! What the mock answers to each request.

use std::borrow::Cow;
use std::io::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::feed::Open;
use super::request::Request;
use super::sessions::{NoStream, SessionId};
use super::{Form, State};
use crate::mcp::{SESSION_VERSION, SESSION_VERSIONS, STATELESS_VERSION};
use crate::websocket::accept;

/// What to do with the connection after the answer.
pub(super) enum Next {
    Keep,
    Close,
    /// The head of an event stream was written; send the events.
    Feed(Open),
    /// The connection is a WebSocket from here on.
    Talk,
}

const TOOLS: &str = concat!(
    r#""tools":[{"name":"echo","description":"Answers with the text","inputSchema":{"type":"object","#,
    r#""properties":{"text":{"type":"string"}},"required":["text"]}},"#,
    r#"{"name":"whoami","description":"Names this server","inputSchema":{"type":"object","properties":{}}},"#,
    r#"{"name":"counter","description":"Counts its calls in a session","inputSchema":{"type":"object","properties":{}}}]"#,
);

/// Writes the answer to `request`.
pub(super) fn answer(state: &State, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let next = match (request.path, request.method) {
        ("/mcp", "POST") => post(state, request, out),
        ("/mcp", "GET") if request.socket_key.is_some() => return upgrade(request, out),
        ("/mcp", "GET") => return stream(state, request, out),
        ("/mcp", "DELETE") => delete(state, request, out),
        ("/mcp", _) => plain(out, 405, "Allow: GET, POST, DELETE\r\n", ""),
        ("/_stats", "GET") => stats(state, out),
        _ => plain(out, 404, "", ""),
    };
    if request.close { Next::Close } else { next }
}

/// Answers what could not be read; the connection ends with it.
pub(super) fn refuse(out: &mut Vec<u8>, status: u16) {
    plain(out, status, "Connection: close\r\n", "");
}

/// A message as received, with what is looked at.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    name: Option<String>,
    #[serde(borrow)]
    arguments: Option<Arguments<'a>>,
    #[serde(rename = "protocolVersion")]
    protocol_version: Option<String>,
}

#[derive(Default, Deserialize)]
struct Arguments<'a> {
    /// A JSON string, sent back as it is.
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

fn post(state: &State, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let Ok(message) = serde_json::from_slice::<Message<'_>>(&request.body) else {
        return error(out, 400, "null", -32700, "Parse error");
    };
    let id = message.id.map_or("null", RawValue::get);
    let method = message.method.as_deref().unwrap_or_default();
    let params = message.params.map_or_else(
        || Ok(Params::default()),
        |raw| serde_json::from_str(raw.get()),
    );
    let Ok(params) = params else {
        return error(out, 200, id, -32602, "Invalid params");
    };
    let known = |version: &[u8]| {
        SESSION_VERSIONS
            .iter()
            .any(|known| known.as_bytes() == version)
    };
    match request.version {
        Some(version) if version == STATELESS_VERSION.as_bytes() => {
            if message.id.is_none() {
                return plain(out, 202, "", "");
            }
            stateless(state, request, id, method, &params, out)
        }
        Some(version) if !known(version) => {
            error(out, 400, id, -32022, "Unsupported protocol version")
        }
        _ if method == "initialize" && message.id.is_some() => initialize(state, id, &params, out),
        _ => {
            let session = match session(state, request) {
                Ok(session) => session,
                Err(status) => return error(out, status, id, -32001, "Session not found"),
            };
            // Notifications, and answers to requests, which this server never makes.
            if message.id.is_none() || method.is_empty() {
                return plain(out, 202, "", "");
            }
            in_session(state, session, id, method, &params, out)
        }
    }
}

fn initialize(state: &State, id: &str, params: &Params<'_>, out: &mut Vec<u8>) -> Next {
    let Some(session) = state.sessions.open() else {
        return error(out, 503, id, -32603, "Too many sessions");
    };
    reply(
        state,
        out,
        &format!("Mcp-Session-Id: {session:032x}\r\n"),
        id,
        &initialized(state, params),
    )
}

/// The result of `initialize`.
fn initialized(state: &State, params: &Params<'_>) -> String {
    let asked = params.protocol_version.as_deref().unwrap_or_default();
    let version = SESSION_VERSIONS
        .into_iter()
        .find(|known| *known == asked)
        .unwrap_or(SESSION_VERSION);
    format!(
        r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{}},"logging":{{}}}},"serverInfo":{{"name":"{}","version":"{}"}}}}"#,
        state.name,
        env!("CARGO_PKG_VERSION")
    )
}

fn in_session(
    state: &State,
    session: SessionId,
    id: &str,
    method: &str,
    params: &Params<'_>,
    out: &mut Vec<u8>,
) -> Next {
    match session_result(state, session, method, params) {
        Ok(result) => reply(state, out, "", id, &result),
        Err((code, message)) => error(out, 200, id, code, message),
    }
}

/// The result of a request in a session, or the code and text of an error.
fn session_result(
    state: &State,
    session: SessionId,
    method: &str,
    params: &Params<'_>,
) -> Result<String, (i32, &'static str)> {
    match method {
        "tools/call" => called(state, params, || state.sessions.count_call(session))
            .map(|content| format!("{{{content}}}"))
            .ok_or((-32602, "Unknown tool, or no text")),
        "tools/list" => Ok(format!("{{{TOOLS}}}")),
        "ping" | "logging/setLevel" => Ok("{}".to_owned()),
        _ => Err((-32601, "Method not found")),
    }
}

/// Answers a message that came over a WebSocket, whose session is `session`; `None` for one that
/// wants no answer.
pub(super) fn message(state: &State, session: SessionId, text: &[u8]) -> Option<String> {
    let Ok(message) = serde_json::from_slice::<Message<'_>>(text) else {
        return Some(failed("null", -32700, "Parse error"));
    };
    let (id, method) = (message.id?.get(), message.method.as_deref()?);
    let params = message.params.map_or_else(
        || Ok(Params::default()),
        |raw| serde_json::from_str(raw.get()),
    );
    let result = match params {
        Err(_) => Err((-32602, "Invalid params")),
        Ok(params) if method == "initialize" => Ok(initialized(state, &params)),
        Ok(params) => session_result(state, session, method, &params),
    };
    Some(match result {
        Ok(result) => answered(id, &result),
        Err((code, message)) => failed(id, code, message),
    })
}

fn upgrade(request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let accept = accept(request.socket_key.unwrap_or_default());
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
    );
    Next::Talk
}

fn stateless(
    state: &State,
    request: &Request<'_>,
    id: &str,
    method: &str,
    params: &Params<'_>,
    out: &mut Vec<u8>,
) -> Next {
    let name = params.name.as_deref().filter(|_| method == "tools/call");
    if request.mcp_method != Some(method.as_bytes()) || request.mcp_name != name.map(str::as_bytes)
    {
        return error(out, 400, id, -32020, "Headers and body differ");
    }
    let tail = format!(
        r#""resultType":"complete","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"{}","version":"{}"}}}}"#,
        state.name,
        env!("CARGO_PKG_VERSION")
    );
    let lasting = r#""ttlMs":60000,"cacheScope":"public""#;
    match method {
        "server/discover" => {
            let facts = format!(
                r#""supportedVersions":["{STATELESS_VERSION}"],"capabilities":{{"tools":{{}}}}"#
            );
            reply(state, out, "", id, &format!("{{{facts},{lasting},{tail}}}"))
        }
        "tools/call" => match called(state, params, || Some(1)) {
            Some(content) => reply(state, out, "", id, &format!("{{{content},{tail}}}")),
            None => error(out, 200, id, -32602, "Unknown tool, or no text"),
        },
        "tools/list" => reply(state, out, "", id, &format!("{{{TOOLS},{lasting},{tail}}}")),
        _ => error(out, 404, id, -32601, "Method not found"),
    }
}

/// The content a tool answers with.
fn called(
    state: &State,
    params: &Params<'_>,
    count: impl FnOnce() -> Option<u64>,
) -> Option<String> {
    let text = match params.name.as_deref()? {
        "echo" => Cow::Borrowed(params.arguments.as_ref()?.text?.get()),
        "whoami" => Cow::Owned(format!("\"{}\"", state.name)),
        "counter" => Cow::Owned(format!("\"{}\"", count()?)),
        _ => return None,
    };
    text.starts_with('"')
        .then(|| format!(r#""content":[{{"type":"text","text":{text}}}]"#))
}

fn stream(state: &State, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let session = match session(state, request) {
        Ok(session) => session,
        Err(status) => return error(out, status, "null", -32001, "Session not found"),
    };
    match state.sessions.open_stream(session) {
        Ok(ended) => {
            out.extend_from_slice(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
                  X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            Next::Feed(Open { session, ended })
        }
        Err(NoStream::UnknownSession) => error(out, 404, "null", -32001, "Session not found"),
        Err(NoStream::Taken) => error(out, 409, "null", -32000, "The session has a stream already"),
    }
}

fn delete(state: &State, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    match session(state, request) {
        Ok(session) if state.sessions.close(session) => plain(out, 200, "", ""),
        Ok(_) => error(out, 404, "null", -32001, "Session not found"),
        Err(status) => error(out, status, "null", -32001, "Session not found"),
    }
}

/// The session a request belongs to; otherwise the status: 400 without one, 404 when unknown.
fn session(state: &State, request: &Request<'_>) -> Result<SessionId, u16> {
    let id = std::str::from_utf8(request.session.ok_or(400_u16)?).map_err(|_| 404_u16)?;
    let id = SessionId::from_str_radix(id, 16).map_err(|_| 404_u16)?;
    if state.sessions.contains(id) {
        Ok(id)
    } else {
        Err(404)
    }
}

fn stats(state: &State, out: &mut Vec<u8>) -> Next {
    let (sessions, streams) = state.sessions.counts();
    let body = format!(r#"{{"sessions":{sessions},"streams":{streams}}}"#);
    plain(out, 200, "Content-Type: application/json\r\n", &body)
}

fn reply(state: &State, out: &mut Vec<u8>, headers: &str, id: &str, result: &str) -> Next {
    let message = answered(id, result);
    match state.form {
        Form::Json => plain(
            out,
            200,
            &format!("Content-Type: application/json\r\n{headers}"),
            &message,
        ),
        Form::Sse => {
            let event = format!("event: message\ndata: {message}\n\n");
            // Writing to a vector cannot fail.
            let _ = write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
                 {headers}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n",
                event.len()
            );
            Next::Keep
        }
    }
}

fn answered(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn failed(id: &str, code: i32, message: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
}

fn error(out: &mut Vec<u8>, status: u16, id: &str, code: i32, message: &str) -> Next {
    let data = if code == -32022 {
        format!(r#","data":{{"supported":["{STATELESS_VERSION}"]}}"#)
    } else {
        String::new()
    };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"{data}}}}}"#
    );
    plain(out, status, "Content-Type: application/json\r\n", &body)
}

fn plain(out: &mut Vec<u8>, status: u16, headers: &str, body: &str) -> Next {
    let reason = if status < 300 { "OK" } else { "Refused" };
    let _ = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Next::Keep
}

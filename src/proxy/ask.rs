//! One request of ours to an endpoint: the questions of the health check, the deletion of sessions
//! that nobody uses, the beginning of one again elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::kept::Kept;
use super::shortage;
use super::state::PoolState;
use crate::mcp::headers::MCP_SESSION_ID;
use crate::pool::Endpoint;
use crate::pool::lateness::Failure;
use crate::transport::dial::{Dialer, Target, Up};
use crate::transport::fields::Names;
use crate::transport::proxy_protocol::Header;
use crate::transport::{Edits, Error, Length, Outgoing, Upstream};

/// Bound on the answer to a probe; a longer one is cut off and counts as read.
const ANSWER_MAX: usize = 512 * 1024;
/// The revision named where a session's own is not known.
pub const SESSION_REVISION: &str = "2025-11-25";

/// Why a question has no answer that is good.
#[derive(Debug)]
pub struct NotWell {
    /// For the log.
    pub why: String,
    /// Whether the server is to blame for certain.
    pub failure: Failure,
}

impl NotWell {
    /// It has answered, and not as a server does that is well.
    pub fn told(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            failure: Failure::Told,
        }
    }

    /// No answer came in time.
    pub fn silent(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            failure: Failure::Silent,
        }
    }
}

impl From<String> for NotWell {
    fn from(why: String) -> Self {
        Self {
            why,
            failure: Failure::Broken,
        }
    }
}

impl From<Error> for NotWell {
    fn from(error: Error) -> Self {
        shortage::tell(&error);
        match error {
            Error::ConnectTimeout | Error::ReadTimeout | Error::WriteTimeout => {
                Self::silent(error.to_string())
            }
            Error::Lacking(_) => Self {
                why: error.to_string(),
                failure: Failure::Unasked,
            },
            Error::Refused
            | Error::Connect(_)
            | Error::Closed
            | Error::Alert(_)
            | Error::Malformed(_) => error.to_string().into(),
        }
    }
}

/// An answer to a probe.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The session id it showed, if any.
    pub session: Option<String>,
    /// The JSON-RPC message, if there was one.
    pub message: Option<Value>,
}

impl Answer {
    /// The message's `result`, if it has one.
    pub fn result(&self) -> Option<&Value> {
        self.message.as_ref()?.get("result")
    }

    /// The server wants credentials that we do not have: it is alive, and that is all we can ask.
    pub fn wants_credentials(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}

/// What is asked.
pub struct Question<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The request target.
    pub path: &'a str,
    /// Fields of a client's request that go along, if it is asked on somebody's behalf.
    pub from: Option<&'a Kept>,
    /// Those of its fields that do not.
    pub drop: Names,
    /// Fields of ours.
    pub fields: &'a [(&'static str, &'a [u8])],
    /// A JSON-RPC message, for a POST.
    pub body: Option<&'a [u8]>,
}

impl<'a> Question<'a> {
    /// A question with nobody's fields but ours.
    pub fn own(method: &'a str, path: &'a str, fields: &'a [(&'static str, &'a [u8])]) -> Self {
        Self {
            method,
            path,
            from: None,
            drop: Names::NONE,
            fields,
            body: None,
        }
    }

    /// The same with a message.
    pub fn with_body(self, body: Option<&'a [u8]>) -> Self {
        Self { body, ..self }
    }
}

/// Asks an endpoint on a connection of its own, and reads the answer as far as it is of use. The
/// caller bounds the time.
///
/// # Errors
/// What went wrong on the wire, for the log.
pub async fn ask(
    pool: &PoolState,
    endpoint: &Endpoint,
    dialer: &Arc<Dialer>,
    address: SocketAddr,
    question: Question<'_>,
) -> Result<Answer, NotWell> {
    let client = question.from.map_or(Header::Itself, Kept::client);
    let dialed = pool.target(endpoint.id(), address, client);
    let (target, authority) = dialed.ok_or_else(|| NotWell::from("unknown endpoint".to_owned()))?;
    // On a connection of its own: what a question finds must not depend on an older one.
    let target = Target {
        idle: Duration::from_secs(1),
        reuse: false,
        ..target
    };
    let mut up = dialer.open(target, None).await?;
    let mut fields: Vec<(&'static str, &[u8])> =
        vec![("accept", b"application/json, text/event-stream")];
    if question.body.is_some() {
        fields.push(("content-type", b"application/json"));
    }
    fields.extend_from_slice(question.fields);
    let method = question.method;
    let question = Question {
        fields: &fields,
        ..question
    };
    send(&mut up, authority, question).await?;
    let head = up.head();
    let status = head.status();
    let text = |name: &str| {
        head.get(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let session = text(MCP_SESSION_ID);
    let events = text("content-type").is_some_and(|value| value.starts_with("text/event-stream"));
    let mut bytes = Vec::new();
    let mut message = None;
    while bytes.len() < ANSWER_MAX {
        match up.read_body().await? {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => break,
        }
        if events {
            message = first_response(&bytes);
            if message.is_some() || method == "GET" {
                break;
            }
        }
    }
    if !events {
        message = serde_json::from_slice(&bytes).ok();
    }
    Ok(Answer {
        status,
        session,
        message,
    })
}

/// Sends a question on an exchange that was opened for it, and reads the head of the answer.
///
/// # Errors
/// What went wrong on the wire.
pub async fn send(up: &mut Up, authority: &str, question: Question<'_>) -> Result<(), Error> {
    let body = question.body;
    let nobody = Kept::default();
    let out = Outgoing {
        head: question.from.unwrap_or(&nobody),
        method: question.method,
        target: question.path,
        authority: question.from.and_then(Kept::host).unwrap_or(authority),
        edits: Edits {
            set: question.fields,
            drop: question.drop,
            ..Edits::default()
        },
        length: body.map_or(Length::None, |body| Length::Exact(body.len() as u64)),
    };
    up.put_head(&out)?;
    if let Some(body) = body {
        up.send_body(body).await?;
    }
    up.finish().await?;
    up.read_head().await
}

/// The first JSON-RPC response in an event stream, if it is complete.
fn first_response(bytes: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let (complete, _) = text.rsplit_once("\n\n")?;
    complete.split("\n\n").find_map(|event| {
        let data: String = event
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim_start)
            .collect();
        let value: Value = serde_json::from_str(&data).ok()?;
        (value.get("result").is_some() || value.get("error").is_some()).then_some(value)
    })
}

/// Deletes a session on a server on behalf of nobody; best effort, bounded in time.
pub async fn delete_session(
    pool: &PoolState,
    endpoint: &Endpoint,
    dialer: &Arc<Dialer>,
    path: &str,
    server_id: &str,
) {
    let Some(address) = endpoint.address() else {
        return;
    };
    let fields: [(&'static str, &[u8]); 2] = [
        (MCP_SESSION_ID, server_id.as_bytes()),
        ("mcp-protocol-version", SESSION_REVISION.as_bytes()),
    ];
    let question = Question::own("DELETE", path, &fields);
    let asking = ask(pool, endpoint, dialer, address, question);
    match timeout(Duration::from_secs(5), asking).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            log::debug!(endpoint = endpoint.name(); "cannot delete a session: {}", error.why)
        }
        Err(_) => log::debug!(endpoint = endpoint.name(); "a session was not deleted in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_is_found_among_events() {
        let stream = b": hi\n\nid: 1\ndata:\n\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\r\ndata: \"result\":{}}\r\n\r\n";
        assert!(first_response(stream).is_some());
        assert!(first_response(&stream[..stream.len() - 3]).is_none());
    }
}

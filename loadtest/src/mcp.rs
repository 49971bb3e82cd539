//! What the client side says, and whether the answer is the right one.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::conn::{Failure, Reply};
use crate::sse::Events;
use crate::target::Target;
use crate::websocket::KEY;

/// The newest revision with sessions.
pub(crate) const SESSION_VERSION: &str = "2025-11-25";
/// The revision without.
pub(crate) const STATELESS_VERSION: &str = "2026-07-28";
/// Every revision with sessions, oldest first.
pub(crate) const SESSION_VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", SESSION_VERSION];

/// What a client says once it has been answered to `initialize`.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// An open session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// The revision agreed on.
    version: String,
}

/// Writes requests to one target.
pub(crate) struct Speaker {
    target: Target,
    /// The tool that is called; it takes a `text` and answers with it.
    tool: String,
    text_bytes: usize,
}

impl Speaker {
    pub(crate) fn new(target: Target, tool: String, text_bytes: usize) -> Self {
        Self {
            target,
            tool,
            text_bytes,
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn initialize(&self) -> Vec<u8> {
        self.post("", &self.initialize_message())
    }

    /// The message alone, as a WebSocket carries it.
    pub(crate) fn initialize_message(&self) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{SESSION_VERSION}","capabilities":{{}},"clientInfo":{{"name":"loadtest","version":"{}"}}}}}}"#,
            env!("CARGO_PKG_VERSION")
        )
    }

    pub(crate) fn initialized(&self, session: &Session) -> Vec<u8> {
        self.post(&headers(session), INITIALIZED)
    }

    /// Asks for a WebSocket.
    pub(crate) fn upgrade(&self) -> Vec<u8> {
        format!(
            "GET {}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: mcp\r\n\r\n",
            self.start()
        )
        .into_bytes()
    }

    pub(crate) fn open_stream(&self, session: &Session) -> Vec<u8> {
        format!(
            "GET {}Accept: text/event-stream\r\n{}\r\n",
            self.start(),
            headers(session)
        )
        .into_bytes()
    }

    pub(crate) fn delete(&self, session: &Session) -> Vec<u8> {
        format!("DELETE {}{}\r\n", self.start(), headers(session)).into_bytes()
    }

    pub(crate) fn discover(&self) -> Vec<u8> {
        let headers =
            format!("MCP-Protocol-Version: {STATELESS_VERSION}\r\nMcp-Method: server/discover\r\n");
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{{}}}}}"#,
            meta()
        );
        self.post(&headers, &body)
    }

    /// A call of the tool: in a session, or in the stateless era.
    pub(crate) fn call(&self, session: Option<&Session>, id: u64) -> Vec<u8> {
        let tool = &self.tool;
        let (headers, meta) = match session {
            Some(session) => (headers(session), String::new()),
            None => {
                let standard = format!(
                    "MCP-Protocol-Version: {STATELESS_VERSION}\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"
                );
                (standard, format!(",{}", meta()))
            }
        };
        self.post(&headers, &self.call_message(id, &meta))
    }

    /// The message of a call alone; `meta` is the rest of its params.
    pub(crate) fn call_message(&self, id: u64, meta: &str) -> String {
        let (tool, text) = (&self.tool, self.text(id));
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{text}"}}{meta}}}}}"#
        )
    }

    /// Whether a reply answers the call `id`: its id, no error, and the text that was sent.
    pub(crate) fn check(&self, reply: &Reply, id: u64) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Called {
            #[serde(default, rename = "isError")]
            is_error: bool,
        }
        let result = result(reply, id)?;
        let called: Called = serde_json::from_str(result.get()).map_err(|_| Failure::Wrong)?;
        if called.is_error {
            return Err(Failure::Error);
        }
        let text = self.text(id);
        if result.get().contains(&text) {
            Ok(())
        } else {
            Err(Failure::Wrong)
        }
    }

    /// Different for every call, so that crossed replies are seen. Needs no escaping in JSON.
    fn text(&self, id: u64) -> String {
        let mut text = String::with_capacity(self.text_bytes + 24);
        let _ = write!(text, "call-{id}-");
        let rest = self.text_bytes.saturating_sub(text.len());
        text.extend(std::iter::repeat_n('x', rest));
        text
    }

    fn start(&self) -> String {
        format!(
            "{} HTTP/1.1\r\nHost: {}\r\n",
            self.target.path, self.target.authority
        )
    }

    fn post(&self, headers: &str, body: &str) -> Vec<u8> {
        format!(
            "POST {}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            self.start(),
            body.len()
        )
        .into_bytes()
    }
}

/// Reads the answer to `initialize`: the revision agreed on.
pub(crate) fn initialized(reply: &Reply) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Initialized {
        #[serde(rename = "protocolVersion")]
        protocol_version: String,
    }
    let result = result(reply, 0)?;
    let initialized: Initialized =
        serde_json::from_str(result.get()).map_err(|_| Failure::Wrong)?;
    Ok(initialized.protocol_version)
}

/// Reads the answer to `initialize` where it opens a session.
pub(crate) fn session(reply: &Reply) -> Result<Session, Failure> {
    let version = initialized(reply)?;
    // Both go into request heads as they are.
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    match &reply.head.session {
        Some(id) if visible(id) && visible(&version) => Ok(Session {
            id: id.clone(),
            version,
        }),
        _ => Err(Failure::Wrong),
    }
}

/// Whether a reply to `server/discover` names the revision that calls will be made in.
pub(crate) fn discovered(reply: &Reply) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Discovered {
        #[serde(rename = "supportedVersions")]
        supported_versions: Vec<String>,
    }
    let result = result(reply, 0)?;
    let found: Discovered = serde_json::from_str(result.get()).map_err(|_| Failure::Wrong)?;
    if found
        .supported_versions
        .iter()
        .any(|version| version == STATELESS_VERSION)
    {
        Ok(())
    } else {
        Err(Failure::Wrong)
    }
}

fn headers(session: &Session) -> String {
    format!(
        "MCP-Protocol-Version: {}\r\nMcp-Session-Id: {}\r\n",
        session.version, session.id
    )
}

fn meta() -> String {
    format!(
        r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{STATELESS_VERSION}","io.modelcontextprotocol/clientInfo":{{"name":"loadtest","version":"{}"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}"#,
        env!("CARGO_PKG_VERSION")
    )
}

/// The result that answers the request `id`, whether the reply is JSON or an event stream.
fn result(reply: &Reply, id: u64) -> Result<Box<RawValue>, Failure> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        id: Option<u64>,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        error: Option<IgnoredAny>,
    }
    if reply.head.status != 200 {
        return Err(Failure::Status(reply.head.status));
    }
    let mut found = Err(Failure::Wrong);
    let mut message = |bytes: &[u8]| {
        // Requests and notifications of the server may stand before the answer.
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(bytes) else {
            return;
        };
        if answer.error.is_some() {
            found = Err(Failure::Error);
        } else if let (true, Some(result)) = (answer.id == Some(id), answer.result) {
            found = Ok(result.to_owned());
        }
    };
    if reply.head.event_stream {
        Events::default()
            .feed(&reply.body, message)
            .map_err(|_| Failure::Malformed)?;
    } else {
        message(&reply.body);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Framing, Head};

    fn speaker() -> Speaker {
        Speaker::new(
            "http://127.0.0.1:1/mcp".parse().unwrap(),
            "echo".to_owned(),
            4,
        )
    }

    fn reply(status: u16, event_stream: bool, body: &str) -> Reply {
        let head = Head {
            status,
            framing: Framing::Chunked,
            close: false,
            event_stream,
            session: Some("s".to_owned()),
        };
        Reply {
            head,
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn only_the_right_answer_passes() {
        let right =
            r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"call-7-"}]}}"#;
        let event = format!(
            "data: {{\"jsonrpc\":\"2.0\",\"method\":\"x\"}}\n\nevent: message\ndata: {right}\n\n"
        );
        for (reply, expected) in [
            (reply(200, false, right), Ok(())),
            (reply(200, true, &event), Ok(())),
            (reply(503, false, right), Err(Failure::Status(503))),
            (
                reply(200, false, &right.replace(":7", ":8")),
                Err(Failure::Wrong),
            ),
            (
                reply(200, false, &right.replace("call-7", "call-8")),
                Err(Failure::Wrong),
            ),
            (
                reply(
                    200,
                    false,
                    r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"x"}}"#,
                ),
                Err(Failure::Error),
            ),
            (
                reply(
                    200,
                    false,
                    r#"{"jsonrpc":"2.0","id":7,"result":{"isError":true,"content":[]}}"#,
                ),
                Err(Failure::Error),
            ),
            (reply(200, true, ""), Err(Failure::Wrong)),
        ] {
            assert_eq!(
                speaker().check(&reply, 7),
                expected,
                "{}",
                String::from_utf8_lossy(&reply.body)
            );
        }
    }

    #[test]
    fn a_session_needs_an_id_and_a_version() {
        let body = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;
        let opened = session(&reply(200, false, body)).unwrap();
        assert_eq!(
            (opened.id.as_str(), opened.version.as_str()),
            ("s", "2025-06-18")
        );
        let mut without = reply(200, false, body);
        without.head.session = None;
        assert_eq!(session(&without).unwrap_err(), Failure::Wrong);
    }

    #[test]
    fn requests_carry_the_headers_of_their_era() {
        let session = Session {
            id: "s".to_owned(),
            version: SESSION_VERSION.to_owned(),
        };
        let in_session = String::from_utf8(speaker().call(Some(&session), 3)).unwrap();
        assert!(in_session.contains("\r\nMcp-Session-Id: s\r\n") && !in_session.contains("_meta"));
        let stateless = String::from_utf8(speaker().call(None, 3)).unwrap();
        assert!(
            stateless.contains("\r\nMcp-Name: echo\r\n")
                && stateless.contains("clientCapabilities")
        );
        for request in [in_session, stateless] {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }
}

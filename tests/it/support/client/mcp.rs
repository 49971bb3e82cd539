//! MCP as a client speaks it, over whichever HTTP version.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::super::{Endpoint, SESSION_VERSION, STATELESS_VERSION};
use super::{NoAnswer, Response};

/// The session id as the client was given it; empty when the server gives out none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(pub(crate) String);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request that is not on any wire yet. Its path is the client's own.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) http_method: &'static str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Outgoing {
    /// A POST of one message without a session, as `initialize` is.
    pub(crate) fn post(message: &Value) -> Self {
        Self {
            http_method: "POST",
            headers: vec![
                ("content-type".into(), "application/json".into()),
                (
                    "accept".into(),
                    "application/json, text/event-stream".into(),
                ),
            ],
            body: message.to_string().into_bytes(),
        }
    }

    /// A POST of one message in a session.
    pub(crate) fn in_session(session: &SessionId, message: &Value) -> Self {
        Self::post(message).with_session(session)
    }

    /// A POST of one request of the stateless era: all its headers, and `_meta` beside the given
    /// parameters. `name` goes into `Mcp-Name`, coded if it must be.
    pub(crate) fn stateless(id: &Value, method: &str, name: Option<&str>, params: Value) -> Self {
        let mut params = match params {
            Value::Null => json!({}),
            params => params,
        };
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = STATELESS_VERSION.into();
        meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "it", "version": "1"});
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {}});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut outgoing = Self::post(&message)
            .with("mcp-protocol-version", STATELESS_VERSION)
            .with("mcp-method", method);
        if let Some(name) = name {
            outgoing = outgoing.with("mcp-name", &header_value(name));
        }
        outgoing
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same without a header.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    fn with_session(self, session: &SessionId) -> Self {
        let versioned = self.with("mcp-protocol-version", SESSION_VERSION);
        match session.0.is_empty() {
            true => versioned,
            false => versioned.with("mcp-session-id", &session.0),
        }
    }

    pub(crate) fn header_lines(&self) -> Vec<(&str, &str)> {
        let lines = self.headers.iter();
        lines.map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }
}

/// What an MCP client does. Methods that return a [`Value`] return the whole JSON-RPC response, and
/// panic when none came; those that return a [`Response`] leave everything to the test.
pub(crate) trait Mcp {
    /// Sends one request and reads the response head.
    async fn try_send(&self, outgoing: Outgoing) -> Result<Response, NoAnswer>;

    /// The JSON-RPC id of the next request.
    fn next_id(&self) -> u64;

    /// A new session on this endpoint. Those that come to lie elsewhere stay there.
    async fn session_on(&self, endpoint: &Endpoint) -> SessionId {
        loop {
            let session = self.initialize().await;
            if self.whoami(&session).await == endpoint.name() {
                return session;
            }
        }
    }

    /// [`Mcp::try_send`], with a panic when no response head comes.
    async fn send(&self, outgoing: Outgoing) -> Response {
        match self.try_send(outgoing.clone()).await {
            Ok(response) => response,
            Err(e) => panic!("no answer ({e:?}) to {outgoing:?}"),
        }
    }

    // Session era.

    /// Opens a session: `initialize` and `notifications/initialized`.
    async fn initialize(&self) -> SessionId {
        let mut response = self.send_initialize().await;
        let message = response.rpc().await;
        assert_eq!(response.status, 200, "initialize was answered {message}");
        assert!(message.get("result").is_some(), "initialize: {message}");
        let session = SessionId(response.header("mcp-session-id").unwrap_or_default().into());
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let response = self.post(&session, &initialized).await;
        assert_eq!(response.status, 202, "notifications/initialized");
        session
    }

    /// Sends `initialize` alone.
    async fn send_initialize(&self) -> Response {
        let params = json!({"protocolVersion": SESSION_VERSION,
            "capabilities": {"elicitation": {}}, "clientInfo": {"name": "it", "version": "1"}});
        let message = json!({"jsonrpc": "2.0", "id": self.next_id(), "method": "initialize", "params": params});
        self.send(Outgoing::post(&message)).await
    }

    /// Posts any message in a session.
    async fn post(&self, session: &SessionId, message: &Value) -> Response {
        self.send(Outgoing::in_session(session, message)).await
    }

    /// Sends a request in a session.
    async fn rpc(&self, session: &SessionId, method: &str, params: Value) -> Response {
        let id = self.next_id();
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.post(session, &message).await
    }

    /// Calls a tool; returns with the head, so that a stream can be read.
    async fn start_call(&self, session: &SessionId, tool: &str, arguments: Value) -> Response {
        let params = json!({"name": tool, "arguments": arguments});
        self.rpc(session, "tools/call", params).await
    }

    /// Calls a tool and waits for the response message.
    async fn call(&self, session: &SessionId, tool: &str, arguments: Value) -> Value {
        self.start_call(session, tool, arguments).await.rpc().await
    }

    /// Which endpoint answers in this session.
    async fn whoami(&self, session: &SessionId) -> String {
        text_of(&self.call(session, "whoami", json!({})).await)
    }

    /// Answers a request of the server.
    async fn answer(&self, session: &SessionId, id: &Value, result: Value) -> Response {
        let message = json!({"jsonrpc": "2.0", "id": id, "result": result});
        self.post(session, &message).await
    }

    /// Opens the GET stream, after an event of an earlier one if given.
    async fn get_stream(&self, session: &SessionId, last_event_id: Option<&str>) -> Response {
        let mut outgoing = Outgoing {
            http_method: "GET",
            headers: vec![("accept".into(), "text/event-stream".into())],
            body: Vec::new(),
        }
        .with_session(session);
        if let Some(id) = last_event_id {
            outgoing = outgoing.with("last-event-id", id);
        }
        self.send(outgoing).await
    }

    /// Ends a session.
    async fn delete(&self, session: &SessionId) -> Response {
        let outgoing = Outgoing {
            http_method: "DELETE",
            headers: Vec::new(),
            body: Vec::new(),
        };
        self.send(outgoing.with_session(session)).await
    }

    // Stateless era.

    /// Sends a request of the stateless era.
    async fn modern(&self, method: &str, name: Option<&str>, params: Value) -> Response {
        let id = self.next_id().into();
        self.send(Outgoing::stateless(&id, method, name, params))
            .await
    }

    /// Calls a tool in the stateless era and waits for the response message.
    async fn modern_call(&self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let mut response = self.modern("tools/call", Some(tool), params).await;
        response.rpc().await
    }

    /// Opens a `subscriptions/listen` for changes of the tool list.
    async fn listen(&self) -> Response {
        let params = json!({"notifications": {"toolsListChanged": true}});
        self.modern("subscriptions/listen", None, params).await
    }
}

/// The text of a tool's result; panics with the message when there is none.
pub(crate) fn text_of(message: &Value) -> String {
    match message.pointer("/result/content/0/text") {
        Some(Value::String(text)) => text.clone(),
        _ => panic!("not a tool result: {message}"),
    }
}

/// A header value in the plain form, or coded when the plain form cannot carry it.
fn header_value(text: &str) -> String {
    let printable = text.bytes().all(|b| matches!(b, 0x20..=0x7e | b'\t'));
    let looks_coded = text.starts_with("=?base64?") && text.ends_with("?=");
    match printable && text.trim() == text && !looks_coded {
        true => text.to_owned(),
        false => format!("=?base64?{}?=", BASE64.encode(text)),
    }
}

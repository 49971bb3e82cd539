//! What the server can do, without regard to how a message reached it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{PATIENCE, SESSION_VERSION};
use super::reply::{Flow, Reply};
use super::session::{EventLog, Session};
use super::state::State;

/// One JSON-RPC request and where it belongs.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) state: Arc<State>,
    pub(super) session: Option<Arc<Session>>,
    pub(super) message: Value,
}

/// Where a tool sends what it has to say before its result.
pub(super) enum Sink<'a> {
    /// Straight to the client.
    Reply(&'a mut Reply),
    /// To a log that a stream reads.
    Log(Arc<EventLog>),
    /// Nowhere.
    Nobody,
}

impl Sink<'_> {
    pub(super) async fn message(&mut self, message: &Value) -> Flow {
        match self {
            Self::Reply(reply) => reply.message(message).await,
            Self::Log(log) => {
                log.add(message.to_string());
                Ok(())
            }
            Self::Nobody => Ok(()),
        }
    }
}

impl Call {
    pub(super) fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }

    pub(super) fn tool(&self) -> &str {
        self.message["params"]["name"].as_str().unwrap_or_default()
    }

    pub(super) fn argument(&self, name: &str) -> u64 {
        self.message["params"]["arguments"][name]
            .as_u64()
            .unwrap_or_default()
    }

    /// Whether the answer comes on a stream.
    pub(super) fn streams(&self) -> bool {
        let speaks_first = matches!(self.tool(), "ticks" | "ask");
        self.method() == "tools/call" && (speaks_first || self.state.manners.streams_everything)
    }

    /// The response message to this request, in session-era shape.
    pub(super) async fn respond(&self, sink: &mut Sink<'_>) -> Flow<Value> {
        let params = &self.message["params"];
        Ok(match self.method() {
            "initialize" => self.result(initialize(&self.state, params)),
            "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
                self.result(json!({}))
            }
            "tools/list" => self.result(json!({"tools": tool_list()})),
            "resources/list" => self.result(json!({"resources": []})),
            "prompts/list" => self.result(json!({"prompts": []})),
            "tools/call" => match self.run_tool(sink).await? {
                Some(result) => self.result(result),
                None => self.error(-32602, &format!("Unknown tool: {}", self.tool())),
            },
            method => self.error(-32601, &format!("Method not found: {method}")),
        })
    }

    /// A response message that carries `result`.
    pub(super) fn result(&self, result: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": self.message["id"], "result": result})
    }

    /// A response message that carries an error.
    pub(super) fn error(&self, code: i64, message: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": self.message["id"],
            "error": {"code": code, "message": message}})
    }

    /// Runs the tool; nothing when there is no such tool.
    pub(super) async fn run_tool(&self, sink: &mut Sink<'_>) -> Flow<Option<Value>> {
        let arguments = &self.message["params"]["arguments"];
        Ok(Some(match self.tool() {
            "whoami" => text(&self.state.name),
            "echo" => text(arguments["text"].as_str().unwrap_or_default()),
            "counter" => {
                let counter = match &self.session {
                    Some(session) => &session.counter,
                    None => &self.state.counter,
                };
                text(&(counter.fetch_add(1, SeqCst) + 1).to_string())
            }
            "big" => text(&"x".repeat(self.argument("bytes") as usize)),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(self.argument("ms"))).await;
                text("done")
            }
            "fail" => json!({"content": [{"type": "text", "text": "failed"}], "isError": true}),
            "ticks" => self.ticks(sink).await?,
            "ask" => self.ask(sink).await?,
            _ => return Ok(None),
        }))
    }

    async fn ticks(&self, sink: &mut Sink<'_>) -> Flow<Value> {
        let total = self.argument("n");
        let pause = Duration::from_millis(self.argument("every_ms"));
        // Without a token a server would stay silent; a test wants to see the ticks all the same.
        let token = match &self.message["params"]["_meta"]["progressToken"] {
            Value::Null => &self.message["id"],
            token => token,
        };
        for done in 1..=total {
            tokio::time::sleep(pause).await;
            let params = json!({"progressToken": token, "progress": done, "total": total});
            let message =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
            sink.message(&message).await?;
        }
        Ok(text(&format!("{total} ticks")))
    }

    async fn ask(&self, sink: &mut Sink<'_>) -> Flow<Value> {
        let Some(session) = &self.session else {
            return Ok(text("nobody to ask"));
        };
        let (id, answer) = session.ask();
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create",
            "params": {"message": "What is your name?", "requestedSchema": schema}});
        sink.message(&request).await?;
        Ok(match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => text(&answer["result"].to_string()),
            Ok(Err(_)) | Err(_) => text("no answer came"),
        })
    }
}

/// A tool result of one text.
pub(super) fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": false})
}

pub(super) fn tool_list() -> Value {
    let names = [
        "whoami", "echo", "counter", "big", "slow", "fail", "ticks", "ask",
    ];
    // What they say of themselves is true: `counter` counts, and `whoami` only tells.
    let tool = |name: &str| {
        let annotations = json!({"readOnlyHint": name == "whoami", "idempotentHint": false});
        json!({"name": name, "inputSchema": {"type": "object"}, "annotations": annotations})
    };
    names.into_iter().map(tool).collect()
}

pub(super) fn server_info(state: &State) -> Value {
    json!({"name": state.name, "version": "1.0.0"})
}

fn initialize(state: &State, params: &Value) -> Value {
    let known = ["2024-11-05", "2025-03-26", "2025-06-18", SESSION_VERSION];
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version = if known.contains(&asked) {
        asked
    } else {
        SESSION_VERSION
    };
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": true}, "logging": {}},
        "serverInfo": server_info(state),
    })
}

//! The revision of 2026-07-28: every request carries its own metadata, and the server checks it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::super::STATELESS_VERSION;
use super::reply::{Flow, Reply};
use super::session_era::refuse;
use super::state::{Request, State, Told};
use super::tools::{self, Call, Sink};

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// Whether this request is one of the stateless era, for a server that may speak both.
pub(super) fn claims(state: &State, request: &Request) -> bool {
    if !state.manners.stateless_era || !state.manners.session_era {
        return state.manners.stateless_era;
    }
    if request.method != "POST" {
        return false;
    }
    match request.header("mcp-protocol-version") {
        Some(STATELESS_VERSION) => true,
        Some("2024-11-05" | "2025-03-26" | "2025-06-18" | super::super::SESSION_VERSION) => false,
        _ if request.headers.has("mcp-session-id") => false,
        Some(_) => true,
        None => request.headers.has("mcp-method") || meta(request).get(META_VERSION).is_some(),
    }
}

pub(super) async fn serve(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    if request.method != "POST" {
        let body = error(&Value::Null, -32601, "Only POST is served here", None);
        let body = body.to_string();
        return refuse(state, reply, 405, &[("allow", "POST")], body.as_bytes()).await;
    }
    if let Err((code, why)) = check(request) {
        let data = (code == -32022).then(|| {
            let requested = request.header("mcp-protocol-version");
            json!({"supported": [STATELESS_VERSION], "requested": requested})
        });
        let body = error(&request.rpc_id(), code, &why, data).to_string();
        return refuse(state, reply, 400, &[], body.as_bytes()).await;
    }
    let message = request.rpc.clone().unwrap_or_default();
    if message.get("id").is_none() {
        return reply.empty(202, &[]).await;
    }
    let call = Call {
        state: state.clone(),
        session: None,
        message,
    };
    dispatch(state, &call, reply).await
}

async fn dispatch(state: &Arc<State>, call: &Call, reply: &mut Reply) -> Flow {
    match (call.method(), call.tool()) {
        ("server/discover", _) => {
            let discovered = json!({
                "supportedVersions": [STATELESS_VERSION],
                "capabilities": {"tools": {"listChanged": true}},
            });
            reply
                .json(200, &[], &call.result(cacheable(state, discovered)))
                .await
        }
        ("tools/list", _) => {
            let list = cacheable(state, json!({"tools": tools::tool_list()}));
            reply.json(200, &[], &call.result(list)).await
        }
        ("resources/list", _) => {
            let list = cacheable(state, json!({"resources": []}));
            reply.json(200, &[], &call.result(list)).await
        }
        ("subscriptions/listen", _) => listen(state, call, reply).await,
        ("tools/call", "ask") => {
            let response = ask(state, call);
            reply.json(200, &[], &response).await
        }
        ("tools/call", _) if call.streams() => {
            reply.open_stream(&[]).await?;
            let response = run(call, &mut Sink::Reply(reply)).await?;
            reply.message(&response).await?;
            reply.end().await
        }
        ("tools/call", _) => {
            let response = run(call, &mut Sink::Nobody).await?;
            reply.json(200, &[], &response).await
        }
        (method, _) => {
            let body = call.error(-32601, &format!("Method not found: {method}"));
            refuse(state, reply, 404, &[], body.to_string().as_bytes()).await
        }
    }
}

async fn run(call: &Call, sink: &mut Sink<'_>) -> Flow<Value> {
    Ok(match call.run_tool(sink).await? {
        Some(result) => call.result(complete(&call.state, result)),
        None => call.error(-32602, &format!("Unknown tool: {}", call.tool())),
    })
}

/// The round trip by `input_required`: the state that comes back must be one of this process.
fn ask(state: &State, call: &Call) -> Value {
    let params = &call.message["params"];
    let key = state.state_key.lock().expect("no holder panics").clone();
    let Some(answers) = params.get("inputResponses") else {
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        return call.result(json!({
            "resultType": "input_required",
            "inputRequests": {"name": {"method": "elicitation/create",
                "params": {"message": "What is your name?", "requestedSchema": schema}}},
            "requestState": key,
            "_meta": {META_SERVER: tools::server_info(state)},
        }));
    };
    if params["requestState"] != key.as_str() {
        return call.error(-32602, "Invalid or expired requestState");
    }
    call.result(complete(state, tools::text(&answers["name"].to_string())))
}

async fn listen(state: &State, call: &Call, reply: &mut Reply) -> Flow {
    let mut told = state.listen();
    let subscription = json!({META_SUBSCRIPTION: call.message["id"]});
    let notice = |method: &str, mut params: Value| {
        params["_meta"] = subscription.clone();
        json!({"jsonrpc": "2.0", "method": method, "params": params})
    };
    reply.open_stream(&[]).await?;
    let wants_tools = &call.message["params"]["notifications"]["toolsListChanged"];
    let granted = match wants_tools.as_bool() {
        Some(true) => json!({"toolsListChanged": true}),
        _ => json!({}),
    };
    let acknowledged = json!({"notifications": granted});
    let first = notice("notifications/subscriptions/acknowledged", acknowledged);
    reply.message(&first).await?;
    while let Ok(Told::ToolsChanged) = told.recv().await {
        let changed = notice("notifications/tools/list_changed", json!({}));
        reply.message(&changed).await?;
    }
    let last = json!({"resultType": "complete", "_meta": subscription});
    reply.message(&call.result(last)).await?;
    reply.end().await
}

fn complete(state: &State, mut result: Value) -> Value {
    result["resultType"] = "complete".into();
    result["_meta"] = json!({META_SERVER: tools::server_info(state)});
    result
}

fn cacheable(state: &State, result: Value) -> Value {
    let mut result = complete(state, result);
    result["ttlMs"] = state.manners.cache_ttl_ms.into();
    result["cacheScope"] = state.manners.cache_scope.into();
    result
}

fn error(id: &Value, code: i64, message: &str, data: Option<Value>) -> Value {
    let mut error = json!({"code": code, "message": message});
    if let Some(data) = data {
        error["data"] = data;
    }
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

fn meta(request: &Request) -> &Value {
    let meta = request
        .rpc
        .as_ref()
        .and_then(|rpc| rpc.pointer("/params/_meta"));
    meta.unwrap_or(&Value::Null)
}

/// What a server of this revision must verify before it acts.
fn check(request: &Request) -> Result<(), (i64, String)> {
    let mismatch = |what: &str| Err((-32020, format!("Header mismatch: {what}")));
    let header = |name| request.header(name);
    let Some(message) = &request.rpc else {
        return Err((-32700, "Parse error".into()));
    };
    for name in ["mcp-protocol-version", "mcp-method", "mcp-name"] {
        if request.headers.all(name).count() > 1 {
            return mismatch(&format!("{name} is repeated"));
        }
    }
    let method = request.rpc_method().unwrap_or_default();
    match header("mcp-protocol-version") {
        Some(STATELESS_VERSION) => {}
        None if method != "initialize" => return mismatch("no MCP-Protocol-Version"),
        _ => {
            let why = format!("Unsupported protocol version; supported: {STATELESS_VERSION}");
            return Err((-32022, why));
        }
    }
    if message.get("id").is_none() {
        return Ok(());
    }
    let (version, capabilities) = (meta(request).get(META_VERSION), META_CAPABILITIES);
    if version.is_none() || meta(request).get(capabilities).is_none() {
        return Err((-32602, "Missing _meta".into()));
    }
    if version.and_then(Value::as_str) != Some(STATELESS_VERSION) {
        return mismatch("MCP-Protocol-Version and _meta");
    }
    if header("mcp-method") != Some(method) {
        return mismatch("Mcp-Method");
    }
    let key = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Ok(()),
    };
    match header("mcp-name").and_then(decode) == message["params"][key].as_str().map(Into::into) {
        true => Ok(()),
        false => mismatch("Mcp-Name"),
    }
}

/// The plain form of a header value that may be in Base64.
fn decode(value: &str) -> Option<String> {
    let coded = value.strip_prefix("=?base64?");
    match coded.and_then(|rest| rest.strip_suffix("?=")) {
        Some(coded) => String::from_utf8(BASE64.decode(coded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

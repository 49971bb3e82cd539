//! The stateless era: every request on its own.

use serde_json::json;

use super::*;
use crate::demo::feed::Ending;

const VERSION: (&str, &str) = ("MCP-Protocol-Version", "2026-07-28");

fn with_envelope(mut params: Value) -> Value {
    let mut meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    if let Some(Value::Object(more)) = params.get("_meta") {
        meta.as_object_mut()
            .expect("an object")
            .extend(more.clone());
    }
    params["_meta"] = meta;
    params
}

/// A request with the headers that belong to it.
fn ask(fixture: &mut Fixture, method: &str, params: Value) -> Reply {
    let params = with_envelope(params);
    let mut fields = vec![VERSION, ("Mcp-Method", method)];
    fields.extend(params["name"].as_str().map(|name| ("Mcp-Name", name)));
    let body = json!({"jsonrpc": "2.0", "id": "q", "method": method, "params": params});
    fixture.post(&fields, &body.to_string())
}

fn result(fixture: &mut Fixture, method: &str, params: Value) -> Value {
    let whole = whole(ask(fixture, method, params));
    assert_eq!((whole.status, &whole.session), (200, &None), "{whole:?}");
    let answer = json_of(&whole);
    assert_eq!(answer["id"], "q");
    let result = answer["result"].clone();
    assert_eq!(result["resultType"], "complete", "{result}");
    assert!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"].is_string());
    result
}

#[test]
fn discover_tells_what_a_client_must_know() {
    let result = result(&mut Fixture::new(), "server/discover", json!({}));
    assert_eq!(result["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(result["cacheScope"], "public");
    assert!(result["ttlMs"].is_u64() && result["capabilities"]["tools"].is_object());
}

#[test]
fn tools_are_listed_and_called() {
    let mut fixture = Fixture::new();
    let list = result(&mut fixture, "tools/list", json!({}));
    assert_eq!(list["tools"], crate::demo::tools::catalog());
    assert!(list["ttlMs"].is_u64() && list["cacheScope"].is_string());
    let rows = [
        (json!({"name": "whoami"}), "one", false),
        (json!({"name": "counter"}), "1", false),
        (json!({"name": "counter"}), "2", false),
        (
            json!({"name": "echo", "arguments": {"text": "a"}}),
            "a",
            false,
        ),
        (json!({"name": "echo"}), "text must be a string", true),
    ];
    for (params, text, is_error) in rows {
        let result = result(&mut fixture, "tools/call", params.clone());
        assert_eq!(
            result["content"],
            json!([{"type": "text", "text": text}]),
            "{params}"
        );
        assert_eq!(result["isError"], is_error, "{params}");
    }
    assert_eq!(fixture.state.sessions.len(), 0);
}

#[test]
fn methods_that_the_era_does_not_have_are_404() {
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/list",
        "nonsense",
    ] {
        let reply = ask(&mut Fixture::new(), method, json!({}));
        assert_eq!(verdict(reply), (404, -32601), "{method}");
    }
    let rows = [
        ("tools/call", json!({"name": "nothing"})),
        ("tools/list", json!({"cursor": "x"})),
        ("subscriptions/listen", json!({})),
        ("subscriptions/listen", json!({"notifications": []})),
    ];
    for (method, params) in rows {
        let reply = ask(&mut Fixture::new(), method, params);
        assert_eq!(verdict(reply), (200, -32602), "{method}");
    }
}

#[test]
fn headers_must_agree_with_the_body() {
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": with_envelope(json!({"name": "whoami"})),
    });
    let method = ("Mcp-Method", "tools/call");
    let name = ("Mcp-Name", "whoami");
    let rows: [(Fields<'_>, (u16, i64)); 12] = [
        (&[VERSION, method, name], (200, 0)),
        (
            &[VERSION, method, ("Mcp-Name", "=?base64?d2hvYW1p?=")],
            (200, 0),
        ),
        (
            &[VERSION, method, name, ("Mcp-Session-Id", "stray")],
            (200, 0),
        ),
        (&[VERSION, name], (400, -32020)),
        (&[VERSION, method], (400, -32020)),
        (
            &[VERSION, ("Mcp-Method", "tools/list"), name],
            (400, -32020),
        ),
        (&[VERSION, method, ("Mcp-Name", "Whoami")], (400, -32020)),
        (
            &[VERSION, method, ("Mcp-Name", "=?base64?!?=")],
            (400, -32020),
        ),
        (&[method, name], (400, -32020)),
        (&[], (400, -32020)),
        (&[("MCP-Protocol-Version", "2025-11-25")], (400, -32020)),
        (&[VERSION, VERSION, method, name], (400, -32600)),
    ];
    for (fields, expected) in rows {
        let reply = Fixture::new().post(fields, &call.to_string());
        assert_eq!(verdict(reply), expected, "{fields:?}");
    }
}

#[test]
fn an_unknown_version_is_answered_with_those_that_are_served() {
    let fields = [
        ("MCP-Protocol-Version", "2031-01-01"),
        ("Mcp-Method", "server/discover"),
    ];
    let body = r#"{"jsonrpc":"2.0","id":4,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01"}}}"#;
    let whole = whole(Fixture::new().post(&fields, body));
    let answer = json_of(&whole);
    assert_eq!((whole.status, &answer["id"]), (400, &json!(4)));
    assert_eq!(answer["error"]["code"], -32022);
    assert_eq!(
        answer["error"]["data"],
        json!({"supported": ["2026-07-28"], "requested": "2031-01-01"})
    );
}

#[test]
fn the_envelope_must_be_complete() {
    let rows = [
        json!({}),
        json!({"_meta": {}}),
        json!({"_meta": 1}),
        json!({"_meta": {"io.modelcontextprotocol/clientCapabilities": {}}}),
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}),
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": true}}),
    ];
    for params in rows {
        let fields = [VERSION, ("Mcp-Method", "tools/list")];
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params});
        let reply = Fixture::new().post(&fields, &body.to_string());
        assert_eq!(verdict(reply), (400, -32602), "{params}");
    }
}

#[test]
fn notifications_are_accepted_and_what_has_gone_is_refused() {
    let mut fixture = Fixture::new();
    let told = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(verdict(fixture.post(&[VERSION], told)), (202, 0));
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(verdict(fixture.post(&[VERSION], response)), (400, -32020));
    assert_eq!(verdict(fixture.post(&[VERSION], "[]")), (400, -32600));
    for method in ["GET", "DELETE"] {
        let whole = fixture.bare(method, "/mcp", &[VERSION]);
        assert_eq!((whole.status, whole.allow), (405, Some("POST")), "{method}");
    }
}

#[test]
fn ticks_are_progress_or_messages_that_were_wished_for() {
    let level = "io.modelcontextprotocol/logLevel";
    let rows = [
        (json!({"progressToken": "p"}), "notifications/progress", 3),
        (json!({level: "debug"}), "notifications/message", 3),
        (json!({level: "error"}), "", 0),
        (json!({}), "", 0),
    ];
    for (meta, method, count) in rows {
        let params = json!({"name": "ticks", "arguments": {"n": 3, "every_ms": 0}, "_meta": meta});
        let mut opened = stream(ask(&mut Fixture::new(), "tools/call", params));
        assert!(opened.lease.is_none());
        let (events, _) = play(&mut opened.feed);
        let (answer, ticks) = events.split_last().expect("there is an answer");
        assert_eq!(answer["result"]["resultType"], "complete");
        assert_eq!(answer["result"]["content"][0]["text"], "3 ticks");
        assert_eq!(ticks.len(), count, "{meta}");
        assert!(ticks.iter().all(|tick| tick["method"] == method), "{meta}");
    }
}

#[test]
fn a_subscription_is_confirmed_first_and_ends_with_its_result() {
    let wanted = json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a"]});
    let rows = [
        (wanted, json!({"toolsListChanged": true})),
        (json!({"toolsListChanged": false}), json!({})),
    ];
    for (wanted, granted) in rows {
        let params = json!({"notifications": wanted});
        let mut opened = stream(ask(&mut Fixture::new(), "subscriptions/listen", params));
        let (events, _) = play(&mut opened.feed);
        assert_eq!(events.len(), 1);
        assert_eq!(
            events[0]["method"],
            "notifications/subscriptions/acknowledged"
        );
        assert_eq!(events[0]["params"]["notifications"], granted);
        let subscription = "io.modelcontextprotocol/subscriptionId";
        assert_eq!(events[0]["params"]["_meta"][subscription], "q");
        assert_eq!(opened.feed.step(), Step::Rest);
        let last = message(&opened.feed.last_words(Ending::Closing).expect("a result"));
        assert_eq!(
            (&last["id"], &last["result"]["resultType"]),
            (&json!("q"), &json!("complete"))
        );
        assert_eq!(last["result"]["_meta"][subscription], "q");
        assert!(last["result"]["_meta"]["io.modelcontextprotocol/serverInfo"].is_object());
    }
}

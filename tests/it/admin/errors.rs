//! Messages that were refused, as `tidegate errors` shows them.

use serde_json::{Value, json};

use super::{pair, said};
use crate::support::{Endpoint, Fault, Mcp, Tidegate, eventually_some};

/// The newest, once there are so many.
async fn newest(gate: &Tidegate, total: u64) -> Value {
    let found = eventually_some(crate::support::PATIENCE, async || {
        let errors = gate.ask(&["errors"]).await;
        (errors["total"] == total).then(|| errors["errors"][0].clone())
    });
    found
        .await
        .unwrap_or_else(|| panic!("there are not {total}"))
}

#[tokio::test]
async fn a_request_that_is_refused_is_shown_with_what_is_wrong_and_without_secrets() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let none = gate.ask(&["errors"]).await;
    assert_eq!(none, json!({ "total": 0, "errors": [] }));
    let before = "POST /mcp?token=hush HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hush\r\n\
                  Mcp-Session-Id: hush\r\n";
    let bad = format!("{before}Content-Length: 2, 2\r\nCookie: a=hush\r\n\r\n{{}}");
    let answer = client.raw(bad.as_bytes()).await.expect("an answer");
    assert_eq!(answer.status, 400);
    let shown = newest(&gate, 1).await;
    for (field, value) in [
        ("side", json!("client")),
        ("pool", Value::Null),
        ("position", json!(before.len())),
        ("byte", json!("C")),
        (
            "what",
            json!("ambiguous framing: Content-Length is not a number"),
        ),
        (
            "head",
            json!([
                "POST /mcp[11 bytes] HTTP/1.1",
                "Host: [1 bytes]",
                "Authorization: [11 bytes]",
                "Mcp-Session-Id: [4 bytes]",
                "Content-Length: 2, 2",
                "Cookie: [6 bytes]",
            ]),
        ),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert!(
        shown["listener"].is_string() && shown["peer"].is_string(),
        "{shown}"
    );
    let bad = b"GET /mcp HTTP/1.1\r\nHost: x\r\nX-Token: hu\0sh\r\n\r\n";
    client.raw(bad).await.expect("an answer");
    let shown = newest(&gate, 2).await;
    assert_eq!(shown["byte"], "\\x00");
    assert_eq!(shown["head"][2], "X-Token: [5 bytes]");
    let chunk = "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                 Accept: application/json, text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\nhush\r\n";
    client.raw(chunk.as_bytes()).await.expect("an answer");
    let shown = newest(&gate, 3).await;
    let what = shown["what"].as_str().expect("a text");
    assert!(shown["head"][0] == "POST /mcp HTTP/1.1", "{shown}");
    let text = said(&gate.verb(&["errors"]).await);
    for part in [
        "3 of 3 messages",
        "at byte 39 (\\x00)",
        what,
        "Authorization: [11 bytes]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hush"), "{text}");
    assert!(!gate.ask(&["errors"]).await.to_string().contains("hush"));
}

#[tokio::test]
async fn an_answer_that_is_refused_is_shown_with_its_endpoint() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    a.fault_next(1, Fault::GarbageHead);
    client.start_call(&session, "whoami", json!({})).await;
    let shown = newest(&gate, 1).await;
    for (field, value) in [
        ("side", json!("server")),
        ("listener", Value::Null),
        ("pool", json!("main")),
        ("endpoint", json!("a")),
        ("peer", json!(a.address().to_string())),
    ] {
        assert_eq!(shown[field], value, "{field}: {shown}");
    }
    let length = || Fault::ExtraHeader("content-length".to_owned(), "7".to_owned());
    a.fault_next(1, length());
    client.start_call(&session, "whoami", json!({})).await;
    let shown = newest(&gate, 2).await;
    let head = shown["head"].to_string();
    assert!(head.contains("HTTP/1.1 200"), "{shown}");
    assert!(
        shown["what"]
            .as_str()
            .expect("a text")
            .contains("Content-Length"),
        "{shown}"
    );
    let text = said(&gate.verb(&["errors"]).await);
    assert!(text.contains("endpoint main/a"), "{text}");
}

#[tokio::test]
async fn the_last_are_kept_and_a_good_request_leaves_nothing() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    client.initialize().await;
    for number in 0..70 {
        let bad = format!("GET /{number} HTTP/1.1\r\n\r\n");
        client.raw(bad.as_bytes()).await.expect("an answer");
    }
    let last = newest(&gate, 70).await;
    assert_eq!(last["head"], json!(["GET /69 HTTP/1.1"]));
    let errors = gate.ask(&["errors"]).await;
    let kept = errors["errors"].as_array().expect("a list");
    assert_eq!(kept.len(), 64);
    assert_eq!(kept[63]["head"], json!(["GET /6 HTTP/1.1"]));
}

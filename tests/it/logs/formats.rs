//! Lines in the operator's own words.

use serde_json::{Value, json};

use super::call;
use crate::support::{Endpoint, Mcp, Tidegate, eventually_some};

/// Waits for so many lines of the access log, and returns all there are.
pub(super) async fn lines(gate: &Tidegate, count: usize) -> Vec<String> {
    let look = async || {
        let text = std::fs::read_to_string(gate.places().access_log()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    };
    let found = eventually_some(std::time::Duration::from_secs(10), look).await;
    found.unwrap_or_else(|| panic!("never were there {count} lines"))
}

#[tokio::test]
async fn a_line_reads_as_nginx_would_write_it() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .log("{ access: { to: @/access.log, format: combined } }")
        .start()
        .await;
    let client = gate
        .client()
        .with_header("user-agent", "curl/8 \"x\"")
        .with_header("referer", "https://h/page?token=s3cr3t");
    client.request("GET", "/nothing?q=s3cr3t", &[], b"").await;
    let line = lines(&gate, 1).await.remove(0);
    let (before, rest) = line.split_once(" [").expect("a time");
    assert_eq!(before, "127.0.0.1 - -");
    let (time, rest) = rest.split_once("] ").expect("its end");
    assert_eq!(time.len(), "28/Nov/2026:09:05:03 +0000".len(), "{time}");
    assert!(time.ends_with(" +0000"), "{time}");
    let (request, rest) = rest.split_at("\"GET /nothing HTTP/1.1\" 404 ".len());
    assert_eq!(request, "\"GET /nothing HTTP/1.1\" 404 ");
    let (bytes, rest) = rest.split_once(' ').expect("bytes");
    assert!(bytes.parse::<u64>().is_ok_and(|bytes| bytes > 10), "{line}");
    assert_eq!(rest, "\"https://h/page\" \"curl/8 \\x22x\\x22\"");
}

#[tokio::test]
async fn names_of_nginx_and_of_mcp_stand_side_by_side() {
    let a = Endpoint::start("a").await;
    let format = "$mcp_method|$mcp_tool|$mcp_era|$mcp_session|$pool|$endpoint|$upstream_addr|\
                  $status|$termination|$end_reason|$retries|$http_x_tenant|$scheme|$host";
    let gate = Tidegate::build(&[&a])
        // Lines of one thread are in order.
        .config("threads: 1")
        .log(&format!(
            "{{ access: {{ to: @/access.log, format: \"{format}\" }} }}"
        ))
        .start()
        .await;
    let client = gate.client().with_header("x-tenant", "acme\u{e9}");
    client.send(call("whoami", json!({}))).await;
    let session = gate.client().initialize().await;
    let lines = lines(&gate, 3).await;
    let address = a.address();
    assert_eq!(
        lines[0],
        format!(
            "tools/call|whoami|stateless|-|main|a|{address}|200|--|complete|0|acme\\xC3\\xA9|http|127.0.0.1"
        )
    );
    let tag = lines[1].split('|').nth(3).expect("a session");
    assert_eq!(tag.len(), 8, "{}", lines[1]);
    assert!(!session.0.contains(tag));
    assert_eq!(
        lines[2].split('|').nth(3),
        Some(tag),
        "one session, one tag"
    );
}

#[tokio::test]
async fn times_are_in_seconds_and_what_was_not_reached_is_a_dash() {
    let a = Endpoint::start("a").await;
    let format = "$status $request_time $upstream_connect_time $upstream_header_time \
                  $upstream_response_time $queue_time $first_byte_time $msec $time_iso8601";
    let gate = Tidegate::build(&[&a])
        .log(&format!(
            "{{ access: {{ to: @/access.log, format: \"{format}\" }} }}"
        ))
        .start()
        .await;
    gate.client().send(call("whoami", json!({}))).await;
    gate.client().request("GET", "/x", &[], b"").await;
    let lines = lines(&gate, 2).await;
    for line in &lines {
        let words: Vec<&str> = line.split(' ').collect();
        let reached = words[0] == "200";
        assert_eq!(words.len(), 9, "{line}");
        for (at, word) in words[1..7].iter().enumerate() {
            let is_upstream = (1..4).contains(&at);
            let time = word.split_once('.').is_some_and(|(seconds, millis)| {
                millis.len() == 3 && format!("{seconds}{millis}").parse::<u64>().is_ok()
            });
            assert_eq!(time, reached || !is_upstream, "{at} of {line}");
            assert!(time || *word == "-", "{line}");
        }
        assert!(
            words[8].ends_with("+00:00") && words[8].len() == 25,
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_text_can_be_json_of_the_operators_own() {
    let a = Endpoint::start("a").await;
    let format =
        r#"{"tool":"$mcp_tool","agent":"$http_user_agent","status":$status,"none":"$rpc_code"}"#;
    let gate = Tidegate::build(&[&a])
        .log(&format!(
            "{{ access: {{ to: @/access.log, escape: json, format: '{format}' }} }}"
        ))
        .start()
        .await;
    let client = gate.client().with_header("user-agent", "a\"b\\c");
    client.send(call("whoami", json!({}))).await;
    let line = &lines(&gate, 1).await[0];
    let read: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let expected = json!({"tool": "whoami", "agent": "a\"b\\c", "status": 200, "none": ""});
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_line_of_text_cannot_be_forged() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .log("{ access: { to: @/access.log, format: \"$mcp_tool $http_user_agent $http_x_b\" } }")
        .start()
        .await;
    let client = gate
        .client()
        .with_header("user-agent", "x\ty\"")
        .with_header("x-b", "é\\");
    let tool = "e\n127.0.0.1 forged";
    let params = json!({"name": tool, "arguments": {}});
    client.modern("tools/call", Some(tool), params).await;
    let lines = lines(&gate, 1).await;
    assert_eq!(
        lines,
        ["e\\x0A127.0.0.1 forged x\\x09y\\x22 \\xC3\\xA9\\x5C"]
    );
}

#[tokio::test]
async fn a_long_stream_is_logged_with_the_fields_it_came_with() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .log("{ access: { to: @/access.log, format: \"$request_method $http_x_tenant $http_host $termination\" } }")
        .start()
        .await;
    let client = gate.client().with_header("x-tenant", "acme");
    let session = client.initialize().await;
    client.get_stream(&session, None).await.reset();
    let lines = lines(&gate, 3).await;
    let address = gate.address();
    let wanted = format!("GET acme {address} CD");
    assert!(lines.contains(&wanted), "{lines:?}");
}

#[tokio::test]
async fn an_unknown_variable_is_told_with_line_and_caret() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("c.yaml");
    let text = "listeners: [{ bind: 127.0.0.1:0 }]\nroutes: [{ path: /mcp, pool: a }]\n\
                pools: { a: { endpoints: [127.0.0.1:1] } }\nlog:\n  access:\n    \
                format: '$remote_addr $requst_time'\n";
    std::fs::write(&file, text).expect("a file of ours");
    let path = file.display().to_string();
    let output = Tidegate::command(&["-t", "-c", &path]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("did you mean `$request_time`?"), "{said}");
    assert!(said.contains("c.yaml:6:27"), "{said}");
    assert!(said.contains("^^^^^^^^^^^^"), "{said}");
}

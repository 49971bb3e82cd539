//! Bodies that somebody has written to be read in two ways, or to be too much: each is answered at
//! once, with its id as far as that can be read, and no server sees one that was refused.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{BodyEnd, Client, Endpoint, Mcp, Outgoing, Tidegate, eventually};

/// The heads under which every body is tried: of the session era, where the body routes, and of the
/// stateless era, where the head does.
fn heads() -> [Outgoing; 2] {
    let call = json!({"name": "whoami", "arguments": {}});
    [
        Outgoing::post(&Value::Null),
        Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), call),
    ]
}

fn with_body(mut head: Outgoing, body: &[u8]) -> Outgoing {
    head.body = body.to_vec();
    head
}

/// Sends a body and returns the status and the bytes of the answer, which comes at once.
async fn ask(client: &Client, outgoing: Outgoing) -> (u16, String) {
    let started = Instant::now();
    let mut answer = client.send(outgoing).await;
    let text = answer.text().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{text}");
    (answer.status, text)
}

/// `initialize` with this id, or whatever stands there.
fn initialize(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"it","version":"1"}}}}}}"#
    )
}

/// A call of the stateless era with these members around its name.
fn call(members: &str, params: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0",{members}"params":{{{params}"arguments":{{}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"it","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

#[tokio::test]
async fn an_id_comes_back_letter_by_letter_when_the_server_cannot_answer() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).pool("breaker: off").start().await;
    a.kill().await;
    let long = format!("\"{}\"", "i".repeat(250));
    for id in [
        "0",
        "-0",
        "1",
        "-1",
        "1.5",
        "1.0",
        "1e400",
        "-1E+400",
        "1e-400",
        "123456789012345678901234567890123456789012345678901234567890",
        "9007199254740993",
        r#""""#,
        r#""1""#,
        r#""a b""#,
        r#""null""#,
        r#""\u0061""#,
        r#""\ud83d\ude00""#,
        "\"\u{1f600}\"",
        "\"\u{e9}\u{2028}\"",
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0000""#,
        r#""</script>""#,
        &long,
    ] {
        let outgoing = with_body(heads()[0].clone(), initialize(id).as_bytes());
        let (status, text) = ask(&gate.client(), outgoing).await;
        assert_eq!(status, 502, "{id}: {text}");
        assert!(
            text.contains(&format!("\"id\":{id},")) || text.contains(&format!("\"id\":{id}}}")),
            "{id}: {text}"
        );

        let body = call(
            &format!(r#""id":{id},"method":"tools/call","#),
            r#""name":"whoami","#,
        );
        let outgoing = with_body(heads()[1].clone(), body.as_bytes());
        let (status, text) = ask(&gate.client(), outgoing).await;
        assert_eq!(status, 502, "{id}: {text}");
        assert!(text.contains(&format!("\"id\":{id}")), "{id}: {text}");
    }
}

/// Bodies that no server may see, by name, and the code of the answer.
fn refused() -> Vec<(&'static str, Vec<u8>, i64)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let id = |id: &str| initialize(id).into_bytes();
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":{open}{close}}}}}"#)
    };
    let objects = |depth: usize| {
        let (open, close) = (r#"{"a":"#.repeat(depth), "}".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{open}1{close}}}"#)
    };
    let padding = "x".repeat(3 << 20);
    let late = |member: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"x":"{padding}"}},{member}}}"#
        )
    };
    let batch = |count: usize| {
        let item = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        format!("[{}]", vec![item; count].join(","))
    };
    let utf16: Vec<u8> = initialize("1")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    vec![
        // Ids.
        ("an id that is true", id("true"), -32600),
        ("an id that is an object", id("{}"), -32600),
        ("an id that is a list", id("[1]"), -32600),
        (
            "an id that is nested",
            id(&format!("{}{}", "[".repeat(200), "]".repeat(200))),
            -32600,
        ),
        (
            "an id of 64 KiB",
            id(&format!("\"{}\"", "i".repeat(65_536))),
            -32600,
        ),
        ("an id of 64 KiB of digits", id(&"7".repeat(65_536)), -32600),
        ("an id of half a pair", id(r#""\ud83d""#), -32700),
        ("an id of the other half", id(r#""\ude00""#), -32700),
        ("an id with a line end", id("\"a\nb\""), -32700),
        ("an id with a bad escape", id(r#""\x""#), -32700),
        ("an id that is not a number", id("NaN"), -32700),
        ("an id with a plus", id("+1"), -32700),
        ("an id with a zero before it", id("01"), -32700),
        ("an id in hexadecimal", id("0x1"), -32700),
        ("an id without its digits", id("1."), -32700),
        ("an id without quotes", id("a"), -32700),
        // Members that stand twice.
        (
            "two ids",
            text(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#),
            -32600,
        ),
        (
            "two ids that agree",
            text(r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#),
            -32600,
        ),
        (
            "two methods",
            text(r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"initialize"}"#),
            -32600,
        ),
        (
            "two methods, one escaped",
            text(r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"ping","method":"initialize"}"#),
            -32600,
        ),
        (
            "two params",
            text(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#,
            ),
            -32600,
        ),
        (
            "two names",
            text(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
            ),
            -32600,
        ),
        (
            "two names, one escaped",
            text(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","\u006eame":"b"}}"#,
            ),
            -32600,
        ),
        (
            "two ids, the second behind megabytes",
            late(r#""id":2"#).into(),
            -32600,
        ),
        (
            "two methods, the second behind megabytes",
            late(r#""method":"ping""#).into(),
            -32600,
        ),
        // What is no JSON.
        ("nothing", text(""), -32700),
        ("spaces", text("   \r\n\t "), -32700),
        (
            "a mark of byte order",
            [b"\xef\xbb\xbf", initialize("1").as_bytes()].concat(),
            -32700,
        ),
        ("UTF-16", utf16, -32700),
        (
            "a byte over ASCII in a text",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"p\xffng\"}".to_vec(),
            -32700,
        ),
        (
            "an overlong slash",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xc0\xaf\"}".to_vec(),
            -32700,
        ),
        (
            "a surrogate in UTF-8",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xed\xa0\x80\"}".to_vec(),
            -32700,
        ),
        (
            "half a letter",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xe2\x82\"}".to_vec(),
            -32700,
        ),
        (
            "a NUL behind",
            [initialize("1").as_bytes(), b"\0"].concat(),
            -32700,
        ),
        (
            "two messages",
            format!("{0}{0}", initialize("1")).into(),
            -32700,
        ),
        (
            "two lines",
            format!("{0}\n{0}", initialize("1")).into(),
            -32700,
        ),
        (
            "a comma too many",
            text(r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#),
            -32700,
        ),
        (
            "a comment",
            text(r#"{"jsonrpc":"2.0",/**/"id":1,"method":"ping"}"#),
            -32700,
        ),
        (
            "single quotes",
            text("{'jsonrpc':'2.0','id':1,'method':'ping'}"),
            -32700,
        ),
        ("half a message", initialize("1")[..40].into(), -32700),
        (
            "all but the last byte",
            initialize("1").as_bytes()[..initialize("1").len() - 1].into(),
            -32700,
        ),
        // What is no message.
        ("a number", text("42"), -32600),
        ("a text", text(r#""ping""#), -32600),
        ("null", text("null"), -32600),
        ("no method", text(r#"{"jsonrpc":"2.0","id":1}"#), -32600),
        (
            "a method that is a number",
            text(r#"{"jsonrpc":"2.0","id":1,"method":1}"#),
            -32600,
        ),
        (
            "a method that is null",
            text(r#"{"jsonrpc":"2.0","id":1,"method":null}"#),
            -32600,
        ),
        (
            "a method of 64 KiB",
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
                "m".repeat(65_536)
            )
            .into(),
            -32600,
        ),
        // Too much.
        ("lists of 128 levels", nested(126).into(), -32600),
        (
            "lists of a million levels",
            nested(1_000_000).into(),
            -32600,
        ),
        ("objects of 200,000 levels", objects(200_000).into(), -32600),
        ("an empty batch", text("[]"), -32600),
        (
            "a batch in a batch",
            text(r#"[[{"jsonrpc":"2.0","id":1,"method":"ping"}]]"#),
            -32600,
        ),
        ("a batch of 129", batch(129).into(), -32600),
        ("a batch of 50,000", batch(50_000).into(), -32600),
        ("a batch of numbers", text("[1,2,3]"), -32600),
    ]
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_seen_by_nobody() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let mut wrong = Vec::new();
    for (what, body, code) in refused() {
        for (era, head) in ["session", "stateless"].into_iter().zip(heads()) {
            let (status, text) = ask(&client, with_body(head, &body)).await;
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            let answered = message["error"]["code"].as_i64();
            // Where the head routes, it may be the contradiction that is told first.
            let right = answered == Some(code) || (era == "stateless" && answered == Some(-32020));
            if status != 400 || !right || message["jsonrpc"] != "2.0" {
                wrong.push(format!("{what}, {era}: {status} {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(a.requests().is_empty(), "{:?}", a.requests().len());
    let metrics = gate.metrics().await;
    let hits = metrics.with("tidegate_limits_hit_total", &[("limit", "message")]);
    assert!(hits >= 10.0, "{hits}");
}

#[tokio::test]
async fn a_contradiction_behind_megabytes_is_cut_off_before_its_end() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let padding = "x".repeat(3 << 20);
    for (what, member) in [
        ("another method", r#""method":"tools/list""#),
        ("another id", r#""id":2"#),
        ("a result", r#""result":{}"#),
        ("other params", r#""params":{"name":"echo"}"#),
        ("no JSON", "x"),
    ] {
        let body = call(r#""id":1,"method":"tools/call","#, r#""name":"whoami","#);
        let open = body.strip_suffix('}').expect("an object");
        let body = format!(r#"{open},"pad":"{padding}",{member}}}"#);
        let (status, text) = ask(
            &gate.client(),
            with_body(heads()[1].clone(), body.as_bytes()),
        )
        .await;
        assert_eq!(status, 400, "{what}: {text}");
        let message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(message["id"], 1, "{what}: {text}");
    }
    assert!(a.requests().is_empty(), "no server has seen the end of one");
}

#[tokio::test]
async fn a_method_behind_megabytes_is_found() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let padding = "x".repeat(3 << 20);
    let late = initialize("\"late\"").replacen(r#""method":"initialize","#, "", 1);
    let open = late.strip_suffix('}').expect("an object");
    let body = format!(r#"{open},"pad":"{padding}","method":"initialize"}}"#);
    let (status, text) = ask(
        &gate.client(),
        with_body(heads()[0].clone(), body.as_bytes()),
    )
    .await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains(r#""id":"late""#), "{text}");
    assert_eq!(a.sessions_opened(), 1);
}

#[tokio::test]
async fn odd_and_harmless_bodies_arrive_unchanged() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let key = "k".repeat(65_536);
    let bodies = [
        format!("{}{}", " ".repeat(1 << 20), initialize("1")),
        format!("{}{}", initialize("1"), "\n".repeat(1 << 20)),
        initialize("1").replacen(r#""jsonrpc""#, r#""__proto__":{"id":9},"jsonrpc""#, 1),
        initialize("1").replacen(r#""jsonrpc""#, &format!(r#""{key}":1e300,"jsonrpc""#), 1),
        initialize("1").replacen(r#""jsonrpc""#, r#""":null,"x":1,"x":2,"jsonrpc""#, 1),
        initialize("1").replacen(r#""jsonrpc""#, r#""j\u0073onrpc""#, 1),
    ];
    for (count, body) in bodies.iter().enumerate() {
        let (status, text) = ask(
            &gate.client(),
            with_body(heads()[0].clone(), body.as_bytes()),
        )
        .await;
        assert_eq!(status, 200, "{count}: {text}");
        assert_eq!(
            a.requests().last().expect("seen").body,
            body.as_bytes(),
            "{count}"
        );
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_request() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for head in heads() {
        let body = initialize("1");
        let length = (body.len() + 10).to_string();
        let lengthy = head.clone().with("content-length", &length);
        let chunked = head.clone().with("transfer-encoding", "chunked");
        let part = format!("{:x}\r\n{body}\r\n", body.len());
        for (outgoing, body) in [(lengthy, body.as_str()), (chunked, part.as_str())] {
            let bytes = client.encode("POST", "/mcp", &outgoing.header_lines(), body.as_bytes());
            let connection = client.connect().await.expect("a connection");
            connection.raw(&bytes).await.expect("sent");
            let wire = connection.into_wire();
            wire.shutdown_write();
            // There may be a refusal; then the end.
            if let Ok(head) = wire.response_head().await {
                assert!((400..500).contains(&head.status), "{}", head.status);
            }
            crate::support::within("the end", wire.closed()).await;
        }
    }
    assert!(eventually(Duration::from_secs(5), || a.in_flight() == 0).await);
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_connection_goes_on_behind_a_body_that_was_refused() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let mut bytes = Vec::new();
    let bodies = [
        "{",
        "[]",
        r#"{"id":1,"id":2}"#,
        "\u{feff}{}",
        &initialize("7"),
    ];
    for body in bodies {
        let outgoing = with_body(heads()[0].clone(), body.as_bytes());
        bytes.extend(client.encode("POST", "/mcp", &outgoing.header_lines(), &outgoing.body));
    }
    let mut connection = client.connect().await.expect("a connection");
    connection.raw(&bytes).await.expect("sent");
    for status in [400, 400, 400, 400, 200] {
        let mut answer = connection.response(false).await.expect("an answer");
        assert_eq!(answer.status, status);
        assert_eq!(answer.read_to_end().await.end, BodyEnd::Complete);
        connection = answer.into_connection();
    }
    assert_eq!(a.requests().len(), 1);
}

//! What stands in a line of JSON, whatever it is made of.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{Entry, Proved, SessionTag, Times, line as write};
use super::{entry, json, line};

#[test]
fn a_line_holds_the_fields_in_order() {
    let expected = concat!(
        r#"{"timestamp":"2026-07-28T09:05:03.042Z","listener":"edge","client":"192.0.2.7","#,
        r#""tls":"1.3","principal":"00c0ffee","client_name":"w1.example","http_version":"HTTP/1.1","host":"tools.example.com","method":"POST","path":"/mcp","mcp_method":"tools/call","#,
        r#""tool_name":"get_tide","era":"session","pool":"weather","server":"w1","#,
        r#""server_address":"10.0.0.1:9001","session":"TAG","status":200,"rpc_code":-32602,"#,
        r#""duration_ms":12.005,"queue_ms":2.000,"connect_ms":0.400,"header_ms":7.000,"#,
        r#""first_byte_ms":9.900,"retries":1,"request_bytes":120,"response_bytes":4096,"request_id":"a1b2c3","#,
        r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
        r#""termination":"--","end_reason":"complete","user_agent":"client/1.0"}"#,
        "\n"
    );
    let tag = format!(
        "{:08x}",
        SessionTag::of("3fa85f64-5717-4562-b3fc-2c963f66afa6").bits()
    );
    assert_eq!(line(&entry()), expected.replace("TAG", &tag));
}

#[test]
fn absent_values_are_left_out() {
    let bare = Entry {
        client: None,
        mcp_method: None,
        tool_name: None,
        era: None,
        pool: None,
        server: None,
        session: None,
        tls: None,
        proved: None,
        host: None,
        server_address: None,
        rpc_code: None,
        times: Times::default(),
        request_id: "",
        trace_id: None,
        user_agent: Some(b""),
        ..entry()
    };
    let json = json(&bare);
    let keys: Vec<&str> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = vec![
        "timestamp",
        "listener",
        "http_version",
        "method",
        "path",
        "status",
        "duration_ms",
        "queue_ms",
        "retries",
        "termination",
        "request_bytes",
        "response_bytes",
        "end_reason",
    ];
    let mut keys_sorted = keys.clone();
    keys_sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys_sorted, expected);
}

#[test]
fn the_tag_of_a_session_is_the_same_everywhere_and_short() {
    // Fixed values, for logs of different versions are compared too.
    assert_eq!(SessionTag::of("").bits(), 0xECBA_3DF2);
    assert_eq!(SessionTag::of("session-1").bits(), 0x9DC2_C14A);
    assert_ne!(SessionTag::of("a"), SessionTag::of("b"));
    let json = json(&Entry {
        session: Some(SessionTag::of("a")),
        ..entry()
    });
    assert_eq!(
        json["session"],
        format!("{:08x}", SessionTag::of("a").bits())
    );
}

#[test]
fn the_longest_line_keeps_its_bound() {
    let nasty = "\u{1}".repeat(4096);
    let worst = Entry {
        listener: &nasty,
        client: Some(SocketAddr::from(([0xFFFF_u16; 8], 1))),
        proved: Some(Proved {
            tag: u32::MAX,
            name: &nasty,
            subject: &nasty,
            issuer: &nasty,
            fingerprint: &nasty,
        }),
        host: Some(&nasty),
        method: &nasty,
        path: &nasty,
        mcp_method: Some(&nasty),
        tool_name: Some(&nasty),
        pool: Some(&nasty),
        server: Some(&nasty),
        status: u16::MAX,
        rpc_code: Some(i64::MIN),
        times: Times {
            duration: Duration::MAX,
            queue: Duration::MAX,
            asked: None,
            connect: Some(Duration::MAX),
            header: Some(Duration::MAX),
            first_byte: Some(Duration::MAX),
        },
        retries: u32::MAX,
        request_bytes: u64::MAX,
        response_bytes: u64::MAX,
        request_id: &nasty,
        user_agent: Some(nasty.as_bytes()),
        ..entry()
    };
    assert!(line(&worst).len() <= write::LINE_BYTES_MAX);
    assert_eq!(json(&worst)["tool_name"], nasty[..128]);
    assert_eq!(json(&worst)["path"], nasty[..512]);
}

proptest! {
    #[test]
    fn any_text_makes_a_valid_line(
        path in any::<String>(),
        tool in any::<String>(),
        method in "[\\x00-\\x7f\u{80}-\u{9f}\u{2028}\\\\\"]{0,20}",
        agent in proptest::collection::vec(any::<u8>(), 0..300),
        duration in any::<Duration>(),
        (status, bytes) in any::<(u16, u64)>(),
    ) {
        let made = Entry {
            path: &path,
            tool_name: Some(&tool),
            mcp_method: Some(&method),
            user_agent: Some(&agent),
            status,
            times: Times { duration, ..Times::default() },
            response_bytes: bytes,
            ..entry()
        };
        let text = line(&made);
        prop_assert!(text.len() <= write::LINE_BYTES_MAX);
        let inner = &text[..text.len() - 1];
        prop_assert!(!inner.chars().any(char::is_control), "{inner}");
        let json = json(&made);
        prop_assert_eq!(&json["status"], status);
        prop_assert_eq!(json["response_bytes"].as_u64(), Some(bytes));
        // Within the bounds, what is read is what was written.
        prop_assert_eq!(json["mcp_method"].as_str().unwrap_or(""), method.as_str());
        if tool.len() <= 128 {
            prop_assert_eq!(json["tool_name"].as_str().unwrap_or(""), tool.as_str());
        }
        let bare = path.split('?').next().unwrap();
        if bare.len() <= 512 {
            prop_assert_eq!(json["path"].as_str().unwrap_or(""), bare);
        }
        let agent = String::from_utf8_lossy(&agent[..agent.len().min(128)]).into_owned();
        prop_assert_eq!(json["user_agent"].as_str().unwrap_or(""), agent);
    }
}

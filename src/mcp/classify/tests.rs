use proptest::prelude::*;

use super::*;
use crate::mcp::peek::Peek;

const OLD: &str = "2025-06-18";
const NEW: &str = "2026-07-28";

fn message(json: &str) -> Message {
    let mut peek = Peek::new();
    peek.feed(json.as_bytes()).expect(json);
    peek.message().clone()
}

/// A request body; `{v}` stands for an envelope of the stateless era.
fn body(json: &str) -> String {
    let envelope = format!(r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{NEW}"}}"#);
    json.replace("{v}", &envelope)
}

const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"größe",{v}}}"#;
const OLD_CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"add"}}"#;
const LIST: &str = r#"{"id":1,"method":"tools/list","params":{{v}}}"#;
const INITIALIZE: &str =
    r#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
const NOTE: &str = r#"{"method":"notifications/cancelled","params":{{v}}}"#;
const WRAPPED: &str = "=?base64?Z3LDtsOfZQ==?=";

/// What a row expects, in a word.
fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Stateless => "stateless".into(),
        Verdict::Session { revision } => format!("session {}", revision.as_str()),
        Verdict::Handshake => "handshake".into(),
        Verdict::NeedBody => "body?".into(),
        Verdict::Refuse(Refusal::HeaderMismatch(_)) => "mismatch".into(),
        Verdict::Refuse(Refusal::UnsupportedVersion) => "unsupported".into(),
        Verdict::Refuse(Refusal::UnsupportedVersionLegacy) => "unsupported, legacy".into(),
    }
}

/// Version header, session header?, `Mcp-Method`, `Mcp-Name`, body, verdict.
type Row<'a> = (&'a str, bool, &'a str, &'a str, &'a str, &'a str);

fn check(method: HttpMethod, rows: &[Row<'_>]) {
    for row in rows {
        let (version, session, mcp_method, mcp_name, json, expected) = *row;
        let some = |text: &'static str| (!text.is_empty()).then_some(text.as_bytes());
        let leak = |text: &str| -> &'static str { Box::leak(text.into()) };
        let message = (!json.is_empty()).then(|| message(&body(json)));
        let seen = Seen {
            method,
            version: some(leak(version)),
            session,
            mcp_method: some(leak(mcp_method)),
            mcp_name: some(leak(mcp_name)),
            body: message.as_ref(),
        };
        assert_eq!(word(classify(&seen)), expected, "{row:?}");
    }
}

#[test]
fn what_is_no_post_belongs_to_the_session_era() {
    for method in [HttpMethod::Get, HttpMethod::Delete, HttpMethod::Other] {
        check(
            method,
            &[
                ("", true, "", "", "", "session 2025-03-26"),
                (OLD, true, "", "", "", "session 2025-06-18"),
                (NEW, false, "", "", "", "session 2025-03-26"),
                (
                    "2031-01-01",
                    false,
                    "tools/call",
                    "",
                    "",
                    "session 2025-03-26",
                ),
            ],
        );
    }
}

#[test]
fn a_stateless_header_is_checked_against_the_body() {
    check(
        HttpMethod::Post,
        &[
            (NEW, false, "tools/call", "add", "", "stateless"),
            (NEW, true, "tools/call", "add", "", "stateless"),
            (NEW, false, "tools/list", "", "", "stateless"),
            (NEW, false, "", "", "", "body?"),
            (NEW, false, "tools/call", "", "", "body?"),
            (NEW, false, "tools/call", "=?base64?%?=", "", "mismatch"),
            (NEW, false, "tools/call", WRAPPED, CALL, "stateless"),
            (NEW, true, "tools/call", WRAPPED, CALL, "stateless"),
            (NEW, false, "tools/call", "add", CALL, "mismatch"),
            (NEW, false, "tools/call", "", CALL, "mismatch"),
            (NEW, false, "", WRAPPED, CALL, "mismatch"),
            (NEW, false, "tools/list", "", CALL, "mismatch"),
            (NEW, false, "Tools/call", WRAPPED, CALL, "mismatch"),
            (
                NEW,
                false,
                "tools/call",
                "=?base64?YWRk?=",
                OLD_CALL,
                "stateless",
            ),
            (NEW, false, "tools/list", "", LIST, "stateless"),
            (NEW, false, "tools/list", "unasked", LIST, "stateless"),
            (
                NEW,
                false,
                "x/y",
                "",
                r#"{"id":1,"method":"x/y"}"#,
                "stateless",
            ),
            (
                NEW,
                false,
                "tools/call",
                "a",
                r#"{"id":1,"method":"tools/call","params":{{v}}}"#,
                "mismatch",
            ),
            (
                NEW,
                false,
                "ping",
                "",
                r#"{"id":1,"method":"ping"}"#,
                "stateless",
            ),
            (
                NEW,
                false,
                "resources/subscribe",
                "",
                r#"{"id":1,"method":"resources/subscribe","params":{"uri":"a"}}"#,
                "stateless",
            ),
            (NEW, false, "initialize", "", INITIALIZE, "mismatch"),
            (NEW, false, "", "", r#"{"id":1,"result":{}}"#, "mismatch"),
            (
                NEW,
                false,
                "",
                "",
                r#"[{"id":1,"method":"ping"}]"#,
                "mismatch",
            ),
            (
                NEW,
                false,
                "tools/list",
                "",
                r#"{"id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2025-06-18"}}}"#,
                "mismatch",
            ),
        ],
    );
}

#[test]
fn notifications_need_no_header_but_the_version_and_may_not_lie() {
    check(
        HttpMethod::Post,
        &[
            (NEW, false, "", "", NOTE, "stateless"),
            (NEW, false, "notifications/cancelled", "", NOTE, "stateless"),
            (NEW, false, "tools/list", "", NOTE, "mismatch"),
        ],
    );
}

#[test]
fn an_invalid_message_cannot_carry_another_request_past_the_headers() {
    let call = r#"{"id":null,"method":"tools/call","params":{"name":"secret"}}"#;
    let both = r#"{"id":1,"method":"tools/call","result":1,"params":{"name":"secret"}}"#;
    check(
        HttpMethod::Post,
        &[
            (NEW, false, "tools/call", "add", call, "mismatch"),
            (NEW, false, "tools/list", "", call, "mismatch"),
            (NEW, false, "tools/call", "add", both, "mismatch"),
            (NEW, false, "tools/list", "", r#"{"id":1}"#, "stateless"),
        ],
    );
}

#[test]
fn a_session_header_names_the_revision_and_excludes_envelopes() {
    check(
        HttpMethod::Post,
        &[
            (OLD, true, "", "", "", "session 2025-06-18"),
            (OLD, true, "tools/list", "x", OLD_CALL, "session 2025-06-18"),
            ("2025-11-25", false, "", "", OLD_CALL, "session 2025-11-25"),
            ("2024-11-05", false, "", "", OLD_CALL, "session 2024-11-05"),
            (OLD, false, "", "", "", "body?"),
            (OLD, false, "", "", INITIALIZE, "handshake"),
            (OLD, true, "", "", INITIALIZE, "session 2025-06-18"),
            (OLD, true, "", "", CALL, "mismatch"),
            (OLD, false, "tools/call", WRAPPED, CALL, "mismatch"),
            (
                OLD,
                true,
                "",
                "",
                r#"{"id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01"}}}"#,
                "mismatch",
            ),
        ],
    );
}

#[test]
fn without_a_version_header_the_session_then_the_body_decides() {
    check(
        HttpMethod::Post,
        &[
            ("", true, "", "", "", "session 2025-03-26"),
            ("", true, "tools/call", "", OLD_CALL, "session 2025-03-26"),
            ("", true, "", "", CALL, "mismatch"),
            ("", false, "tools/call", "add", "", "mismatch"),
            ("", false, "initialize", "", INITIALIZE, "mismatch"),
            ("", false, "", "", "", "body?"),
            ("", false, "", "", INITIALIZE, "handshake"),
            ("", false, "", "", CALL, "mismatch"),
            ("", false, "", "", OLD_CALL, "session 2025-03-26"),
            (
                "",
                false,
                "",
                "",
                r#"[{"id":1,"method":"ping"}]"#,
                "session 2025-03-26",
            ),
        ],
    );
}

#[test]
fn an_unknown_version_is_refused_in_the_shape_of_its_era() {
    check(
        HttpMethod::Post,
        &[
            ("2031-01-01", false, "", "", "", "unsupported"),
            (
                "2031-01-01",
                false,
                "tools/call",
                "add",
                CALL,
                "unsupported",
            ),
            ("2031-01-01", true, "", "", "", "unsupported, legacy"),
            (
                "2025-06-18, 2025-06-18",
                true,
                "",
                "",
                OLD_CALL,
                "unsupported, legacy",
            ),
        ],
    );
}

fn header(values: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        2 => Just(None),
        4 => proptest::sample::select(values).prop_map(|value| Some(value.as_bytes().to_vec())),
        1 => proptest::collection::vec(any::<u8>(), 0..12).prop_map(Some),
    ]
}

fn any_body() -> impl Strategy<Value = Message> {
    proptest::sample::select(
        &[
            CALL,
            OLD_CALL,
            LIST,
            INITIALIZE,
            NOTE,
            "[]",
            "1",
            "{}",
            r#"[{"method":"ping"}]"#,
            r#"{"id":1,"result":{}}"#,
            r#"{"id":null,"method":"tools/call"}"#,
            r#"{"id":1,"method":1}"#,
            r#"{"id":1,"method":"initialize","params":{{v}}}"#,
            r#"{"id":1,"method":"tools/call","params":{"name":"add",{v}}}"#,
        ][..],
    )
    .prop_map(|json| message(&body(json)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn knowing_the_body_never_turns_a_refusal_into_consent(
        version in header(&[OLD, NEW, "2025-11-25", "2031-01-01"]),
        session in any::<bool>(),
        mcp_method in header(&["tools/call", "tools/list", "initialize", "notifications/cancelled"]),
        mcp_name in header(&["add", WRAPPED, "=?base64?%?="]),
        method in proptest::sample::select(&[HttpMethod::Post, HttpMethod::Get][..]),
        body in any_body(),
    ) {
        let mut seen = Seen {
            method,
            version: version.as_deref(),
            session,
            mcp_method: mcp_method.as_deref(),
            mcp_name: mcp_name.as_deref(),
            body: None,
        };
        let before = classify(&seen);
        seen.body = Some(&body);
        let after = classify(&seen);
        prop_assert_ne!(after, Verdict::NeedBody);
        if matches!(before, Verdict::Refuse(_)) {
            prop_assert!(matches!(after, Verdict::Refuse(_)), "{:?} then {:?}", before, after);
        } else if before != Verdict::NeedBody {
            // The body may only confirm the rules that the head named.
            prop_assert!(after == before || matches!(after, Verdict::Refuse(_)), "{:?} then {:?}", before, after);
        }
    }
}

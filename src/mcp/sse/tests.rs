//! The scan against a plain parser of whole streams that follows the specification line by line.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What a client has after an empty line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    event: Vec<u8>,
    /// The lines of data joined by `\n`; `None` when there were none.
    data: Option<Vec<u8>>,
    has_id: bool,
    /// The id from which the client would resume now.
    last_id: Vec<u8>,
}

/// What a client makes of a stream, and whether it ends between events.
fn parse_all(stream: &[u8]) -> (Vec<Event>, bool) {
    let mut rest = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut events = Vec::new();
    let new = |last_id: &[u8]| Event {
        event: vec![],
        data: None,
        has_id: false,
        last_id: last_id.to_vec(),
    };
    let mut open = new(b"");
    let mut has_field = false;
    while let Some(len) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let line = &rest[..len];
        let after = &rest[len..];
        rest = after.strip_prefix(b"\r\n").unwrap_or_else(|| &after[1..]);
        if line.is_empty() {
            if std::mem::take(&mut has_field) {
                let next = new(&open.last_id);
                events.push(std::mem::replace(&mut open, next));
            }
            continue;
        }
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"" => continue,
            b"event" => open.event = value.to_vec(),
            b"data" => match &mut open.data {
                Some(data) => data.extend([b"\n", value].concat()),
                None => open.data = Some(value.to_vec()),
            },
            b"id" if !value.contains(&0) => {
                open.has_id = true;
                open.last_id = value.to_vec();
            }
            _ => {}
        }
        has_field = true;
    }
    (events, rest.is_empty() && !has_field)
}

/// A note in words, to compare.
fn words(note: &EventNote<'_>) -> String {
    let text = match note.note {
        Note::Response {
            id,
            is_error,
            is_tool_error,
            error_code: _,
        } => {
            let tool = if is_tool_error { " failed" } else { "" };
            format!(
                "response {} {is_error}{tool}",
                id.map_or("-", RawId::as_json)
            )
        }
        Note::Request { id, method } => format!("request {} {method}", id.as_json()),
        Note::Notification { method } => format!("notification {method}"),
        Note::Batch(items) => format!("batch {}", items.len()),
        Note::Endpoint(uri) => format!("endpoint {uri}"),
        Note::Priming => "priming".to_owned(),
        Note::EventTooLarge => "too large".to_owned(),
        Note::Other => "other".to_owned(),
    };
    format!("{text}{}", if note.has_id { " with id" } else { "" })
}

fn expected_words(event: &Event) -> String {
    let data = event.data.clone().unwrap_or_default();
    let is_message = matches!(&event.event[..], b"" | b"message");
    let id = if event.has_id { " with id" } else { "" };
    let text = match serde_json::from_slice::<Value>(&data) {
        _ if data.is_empty() && event.has_id => "priming".to_owned(),
        _ if data.is_empty() || !is_message => "other".to_owned(),
        Ok(Value::Array(items)) if !items.is_empty() => format!("batch {}", items.len()),
        Ok(value) => match (&value["method"], &value["id"], value["error"].is_object()) {
            (Value::String(method), Value::Null, _) => format!("notification {method}"),
            (Value::String(method), id, _) => format!("request {id} {method}"),
            (_, Value::Null, true) => format!(
                "response {} true",
                if value.get("id").is_some() {
                    "null"
                } else {
                    "-"
                }
            ),
            (_, id @ (Value::Number(_) | Value::String(_)), is_error)
                if is_error || value.get("result").is_some() =>
            {
                let has_failed = value["result"]["isError"] == true;
                let tool = if has_failed { " failed" } else { "" };
                format!("response {id} {is_error}{tool}")
            }
            _ => "other".to_owned(),
        },
        Err(_) => "other".to_owned(),
    };
    text + id
}

fn scan<'a>(mode: Mode, pieces: impl IntoIterator<Item = &'a [u8]>) -> (SseScan, Vec<String>) {
    let mut scan = SseScan::new(mode);
    let mut notes = Vec::new();
    for piece in pieces {
        scan.feed(piece, &mut |note| notes.push(words(note)));
    }
    (scan, notes)
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("\n"), 3 => Just("\r\n"), 1 => Just("\r")]
}

fn line() -> impl Strategy<Value = String> {
    let message = prop_oneof![
        Just(r#"{"jsonrpc":"2.0","id":1,"result":{"x":"漢🌊é"}}"#),
        Just(r#"{"result":{"content":[],"isError": true},"id":2}"#),
        Just(r#"{"error":{"code":1},"id":"a"}"#),
        Just(r#"{"error":{"code":1},"id":null}"#),
        Just(r#"{"error":{}}"#),
        Just(r#"{"method":"notifications/message"}"#),
        Just(r#"{"id":7,"method":"ping"}"#),
        Just(r#"[{"id":1,"result":{}},{"method":"x"}]"#),
        Just(r#"{"id":1,"#),
        Just(r#""result":{}}"#),
        Just("/messages?sessionId=1"),
        Just(""),
        Just("🌊"),
    ];
    let field = prop_oneof![
        6 => (prop_oneof![Just("data: "), Just("data:"), Just("data:  ")], message)
            .prop_map(|(name, message)| format!("{name}{message}")),
        2 => prop_oneof![Just("event: message"), Just("event:message"), Just("event"), Just("event: ping"), Just("event: messagesofmine"), Just("event:  message")]
            .prop_map(str::to_owned),
        2 => prop_oneof![Just("id: 1"), Just("id:"), Just("id"), Just("id:é"), Just("id: a\0b"), Just("retry: 3000"), Just("idx: 1"), Just(" id: 4")]
            .prop_map(str::to_owned),
        1 => prop_oneof![Just(": keep-alive"), Just(":"), Just(":data: 1"), Just("data"), Just("datafile: x"), Just("x"), Just("\u{feff}data: 1")]
            .prop_map(str::to_owned),
        1 => "[ -~]{0,6}",
    ];
    (field, line_end()).prop_map(|(field, end)| field + end)
}

fn stream() -> impl Strategy<Value = String> {
    let block = (proptest::collection::vec(line(), 0..4), line_end())
        .prop_map(|(lines, end)| lines.concat() + end);
    let start = prop_oneof![8 => Just(""), 1 => Just("\u{feff}"), 1 => Just("\u{feff}\u{feff}")];
    (
        start,
        proptest::collection::vec(block, 0..6),
        proptest::option::of(line()),
    )
        .prop_map(|(start, blocks, tail)| {
            start.to_owned() + &blocks.concat() + &tail.unwrap_or_default()
        })
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        proptest::sample::select(b"\r\n: \0\xef\xbb\xbf".to_vec()),
        any::<u8>()
    ];
    (stream(), any::<proptest::sample::Index>(), byte).prop_map(|(stream, index, byte)| {
        let mut bytes = stream.into_bytes();
        bytes.insert(index.index(bytes.len() + 1), byte);
        bytes
    })
}

fn check_every_way(bytes: &[u8]) {
    let (events, is_between) = parse_all(bytes);
    let expected: Vec<_> = events.iter().map(expected_words).collect();
    let check = |scan: &SseScan, notes: &[String], how: &str| {
        assert_eq!(notes, expected, "{how}");
        let last_id = events
            .last()
            .map(|event| &event.last_id[..])
            .unwrap_or_default();
        assert_eq!(scan.ids.last().unwrap_or_default(), last_id, "{how}");
        assert_eq!(
            scan.event_id_seen(),
            events.iter().any(|event| event.has_id),
            "{how}"
        );
        let is_mark_cut = matches!(bytes, b"\xef" | b"\xef\xbb");
        assert_eq!(scan.at_boundary(), is_between && !is_mark_cut, "{how}");
    };
    let (whole, notes) = scan(Mode::Messages, [bytes]);
    check(&whole, &notes, "whole");
    let (single, notes) = scan(Mode::Messages, bytes.chunks(1));
    check(&single, &notes, "byte by byte");
    for place in 0..bytes.len() {
        let (first, second) = bytes.split_at(place);
        let (cut, notes) = scan(Mode::Messages, [first, second]);
        check(&cut, &notes, "cut in two");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn events_are_those_of_a_parser_in_any_split(stream in stream()) {
        check_every_way(stream.as_bytes());
    }

    #[test]
    fn damaged_streams_are_read_as_a_parser_reads_them(stream in damaged()) {
        check_every_way(&stream);
    }

    #[test]
    fn every_event_ends_where_it_is_told(stream in stream()) {
        let bytes = stream.as_bytes();
        let (events, _) = parse_all(bytes);
        let mut start = 0;
        let mut index = 0;
        SseScan::new(Mode::Messages).feed(bytes, &mut |note| {
            let (seen, is_between) = parse_all(&bytes[..note.end]);
            index += 1;
            assert_eq!((&seen[..], is_between), (&events[..index], true));
            assert!(note.size <= (note.end - start) as u64);
            start = note.end;
        });
        prop_assert_eq!(index, events.len());
    }

    #[test]
    fn a_comment_at_a_boundary_changes_nothing(stream in stream()) {
        let bytes = stream.as_bytes();
        let (events, _) = parse_all(bytes);
        let mut scan = SseScan::default();
        for place in 0..=bytes.len() {
            let begins_with_mark = place == 0 && bytes.starts_with(b"\xef\xbb\xbf");
            if scan.at_boundary() && !begins_with_mark {
                let longer = [&bytes[..place], KEEP_ALIVE, &bytes[place..]].concat();
                prop_assert_eq!(&parse_all(&longer).0, &events, "at {}", place);
            }
            scan.feed(&bytes[place..bytes.len().min(place + 1)], &mut |_| {});
        }
    }

    #[test]
    fn a_poisoned_event_is_ignored_and_the_next_one_is_ours(stream in stream()) {
        let bytes = stream.as_bytes();
        let mut scan = SseScan::default();
        for place in 0..=bytes.len() {
            let (seen, is_between) = parse_all(&bytes[..place]);
            let mut after = bytes[..place].to_vec();
            scan.poison_partial(&mut after);
            write_message_event(&mut after, br#"{"id":1,"error":{}}"#);
            let (mut events, ended) = parse_all(&after);
            prop_assert!(ended);
            prop_assert!(str::from_utf8(&after).is_ok(), "a character is cut at {}", place);
            let ours = events.pop().expect("ours");
            prop_assert_eq!(ours.data.as_deref(), Some(&br#"{"id":1,"error":{}}"#[..]));
            let last_id = seen.last().map(|event| event.last_id.clone()).unwrap_or_default();
            prop_assert_eq!(ours.last_id, last_id);
            if events.len() > seen.len() {
                prop_assert_eq!(events.pop().expect("poisoned").event, b"aborted");
            } else {
                prop_assert!(is_between);
            }
            prop_assert_eq!(events, seen);
            scan.feed(&bytes[place..bytes.len().min(place + 1)], &mut |_| {});
        }
    }

    #[test]
    fn written_messages_are_read_back(text in "[ -~\n\r]{0,40}", uri in any::<String>()) {
        let mut out = Vec::new();
        write_message_event(&mut out, text.as_bytes());
        let (events, _) = parse_all(&out);
        prop_assert_eq!(events.len(), 1);
        let data = String::from_utf8(events[0].data.clone().expect("data")).expect("UTF-8");
        prop_assert_eq!(data, text.replace('\r', "\n"));
        let (events, _) = parse_all(&endpoint_event(&uri));
        prop_assert_eq!(events.len(), 1);
    }
}

#[test]
fn an_endpoint_event_is_told_once_and_only_when_asked_for() {
    let stream = b"event: endpoint\r\ndata: /m?s=1\r\n\r\nevent: endpoint\ndata: /m?s=2\n\n";
    for size in 1..=stream.len() {
        let (_, notes) = scan(Mode::Endpoint, stream.chunks(size));
        assert_eq!(notes, ["endpoint /m?s=1", "other"]);
    }
    assert_eq!(scan(Mode::Messages, [&stream[..]]).1, ["other", "other"]);
    let late = b"data: /m\nevent: endpoint\n\n";
    assert_eq!(scan(Mode::Endpoint, [&late[..]]).1, ["endpoint /m"]);
    for (len, told) in [
        (ENDPOINT_BYTES_MAX, "endpoint /"),
        (ENDPOINT_BYTES_MAX + 1, "other"),
    ] {
        let stream = endpoint_event(&"/".repeat(len));
        assert!(scan(Mode::Endpoint, stream.chunks(1000)).1[0].starts_with(told));
    }
}

#[test]
fn lines_of_data_are_joined_by_a_line_end() {
    let cases: [(&[u8], &str); 4] = [
        (
            b"data: {\"id\":1,\ndata: \"result\":{}}\n\n",
            "response 1 false",
        ),
        (b"data: {\"method\":\"a\ndata: b\"}\n\n", "other"),
        (b"data: {\"id\":1\ndata: 2,\"result\":{}}\n\n", "other"),
        (
            b"data:\ndata:\ndata: {\"method\":\"a\"}\ndata\n\n",
            "notification a",
        ),
    ];
    for (stream, expected) in cases {
        assert_eq!(scan(Mode::Messages, [stream]).1, [expected]);
        assert_eq!(scan(Mode::Messages, stream.chunks(1)).1, [expected]);
    }
}

#[test]
fn borders_mode_looks_into_nothing() {
    let stream = b"id: 1\ndata:\n\ndata: {\"id\":1,\"result\":{}}\n\n";
    assert_eq!(
        scan(Mode::Borders, [&stream[..]]).1,
        ["priming with id", "other"]
    );
}

#[test]
fn an_event_past_the_limit_is_told_before_it_ends() {
    let mut scan = SseScan::new(Mode::Messages).with_event_max(1000);
    let mut notes = Vec::new();
    scan.feed(b"data: 1\n\n", &mut |note| notes.push(words(note)));
    scan.feed(b"data: \"", &mut |note| notes.push(words(note)));
    for _ in 0..20 {
        scan.feed(&[b'x'; 100], &mut |note| notes.push(words(note)));
    }
    assert_eq!(notes, ["other", "too large"]);
    scan.feed(b"\"\n\n: a comment\n\ndata: 1\n\n", &mut |note| {
        notes.push(words(note))
    });
    assert_eq!(notes, ["other", "too large", "other", "other"]);
    // Comments between events are no event, however many there are.
    for _ in 0..1000 {
        scan.feed(KEEP_ALIVE, &mut |note| panic!("{note:?}"));
    }
}

#[test]
fn the_end_after_a_priming_event_is_meant() {
    let cases: [(&[u8], bool); 6] = [
        (b"id: 1\nretry: 3000\ndata:\n\n", true),
        (b"id: 1\ndata:\n\nretry: 3000\n\n: x\n", true),
        (b"id: 1\ndata:\n\ndata: {}\n\n", false),
        (b"id: 1\ndata:\n\ndata: {", false),
        (b"id: 1\ndata: {}\n\n", false),
        (b"", false),
    ];
    for (stream, expected) in cases {
        assert_eq!(
            scan(Mode::Messages, [stream]).0.last_was_priming(),
            expected
        );
    }
}

#[test]
fn an_id_too_long_to_keep_is_not_mistaken_for_another() {
    let stream = format!(
        "id: a\ndata: 1\n\nid: {}\ndata: 1\n\n",
        "b".repeat(EVENT_ID_BYTES_MAX + 1)
    );
    let (scan, _) = scan(Mode::Messages, stream.as_bytes().chunks(100));
    assert!(scan.event_id_seen());
    assert_eq!(scan.ids.last(), None);
}

#[test]
fn an_answer_with_a_cut_emoji_is_an_answer() {
    let stream = br#"data: {"result":{"content":[{"type":"text","text":"a\ud83c"}]},"jsonrpc":"2.0","id":4}"#;
    let (_, notes) = scan(Mode::Messages, [&stream[..], b"\n\n"]);
    assert_eq!(notes, ["response 4 false"]);
}

#[test]
fn a_failed_tool_is_told() {
    let stream = b"data: {\"id\":1,\"result\":{\ndata: \"isError\":\ndata: true}}\n\ndata: {\"id\":2,\"result\":{}}\n\n";
    for size in 1..=stream.len() {
        let (_, notes) = scan(Mode::Messages, stream.chunks(size));
        assert_eq!(notes, ["response 1 false failed", "response 2 false"]);
    }
}

#[test]
fn a_scan_holds_little_while_the_stream_is_quiet() {
    assert!(size_of::<SseScan>() <= 104, "{}", size_of::<SseScan>());
    for mode in [Mode::Messages, Mode::Endpoint, Mode::Borders] {
        let (quiet, _) = scan(mode, [&b"data: {}\n\nevent: message\n"[..]]);
        assert!(quiet.open.is_none());
        let (open, _) = scan(mode, [&b"data: {}\n\ndata: {"[..]]);
        assert_eq!(open.open.is_some(), mode != Mode::Borders);
        assert_eq!(open.ids.capacity(), 0);
    }
}

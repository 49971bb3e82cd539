//! The scan against a parser: `serde_json` reads the whole text, and what it finds must be what the
//! scan finds in the same text cut into pieces, whatever the pieces.

#[path = "../../../../tests/parsers/budget.rs"]
mod budget;
mod parser;
mod random;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::mcp::message::{
    BATCH_ITEMS_MAX, BatchItem, Class, ID_BYTES_MAX, METHOD_BYTES_MAX, RawId, Shape,
};
use parser::{META_VERSION, Wrong, expected};
use random::{document, mutated};

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Message, PeekError> {
    let mut peek = Peek::new();
    for piece in pieces {
        peek.feed(piece)?;
    }
    peek.finish()?;
    Ok(peek.message().clone())
}

/// Whole, byte by byte, cut in two at every place (or at some, when the text is long), and in
/// pieces of a few sizes: always the same result.
fn scan_every_way(text: &[u8]) -> Result<Message, PeekError> {
    let whole = scan([text]);
    assert_eq!(scan(text.chunks(1)), whole, "byte by byte");
    let step = 1 + text.len() / 300;
    for place in (0..=text.len()).step_by(step) {
        let (first, second) = text.split_at(place);
        assert_eq!(scan([first, second]), whole, "cut at {place}");
    }
    for size in [2, 3, 7, 31, 64, 1000] {
        assert_eq!(scan(text.chunks(size)), whole, "pieces of {size}");
    }
    whole
}

fn check_against_parser(text: &[u8]) {
    let scanned = scan_every_way(text);
    match serde_json::from_slice::<Value>(text) {
        // We never compute a number, so none is too large.
        Err(error) if error.to_string().starts_with("number out of range") => {}
        Err(error) => assert!(scanned.is_err(), "{error} is not found: {scanned:?}"),
        Ok(_) => {
            let mut wrong = Wrong::new();
            let message = expected(str::from_utf8(text).expect("accepted"), &mut wrong);
            match scanned {
                Ok(scanned) => assert_eq!((&scanned, &wrong[..]), (&message, &[][..])),
                Err(error) => assert!(
                    wrong
                        .iter()
                        .any(|name| format!("{error:?}").starts_with(name)),
                    "{error:?} is not among {wrong:?}"
                ),
            }
        }
    }
}

mod properties {
    use super::budget::spend;
    use super::*;

    #[test]
    fn valid_messages_are_read_as_a_parser_reads_them() {
        spend(400, |config| {
            proptest!(config, |(text in document())| {
                check_against_parser(text.as_bytes());
            });
        });
    }

    #[test]
    fn damaged_messages_are_refused_as_a_parser_refuses_them() {
        spend(400, |config| {
            proptest!(config, |(text in mutated())| {
                check_against_parser(&text);
            });
        });
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        spend(400, |config| {
            proptest!(config, |(text in proptest::collection::vec(any::<u8>(), 0..60))| {
                check_against_parser(&text);
            });
        });
    }

    #[test]
    fn lenient_differs_only_in_lone_surrogates() {
        spend(400, |config| {
            proptest!(config, |(text in document())| {
                let mut lenient = Peek::lenient();
                let result = lenient.feed(text.as_bytes()).and_then(|_| lenient.finish());
                match scan([text.as_bytes()]) {
                    Ok(message) => prop_assert_eq!((result, lenient.message()), (Ok(()), &message)),
                    Err(PeekError::Malformed { .. }) if text.contains("\\ud") => {}
                    Err(error) => prop_assert_eq!(result, Err(error)),
                }
            });
        });
    }

    #[test]
    fn a_settled_message_keeps_what_was_settled() {
        spend(400, |config| {
            proptest!(config, |(text in document())| {
                let whole = scan([text.as_bytes()]);
                let mut peek = Peek::new();
                for byte in text.as_bytes().chunks(1) {
                    if peek.feed(byte).is_err() {
                        break;
                    }
                    let early = peek.message().clone();
                    if let (true, Ok(whole)) = (peek.settled(), &whole) {
                        prop_assert_eq!(&early.id, &whole.id);
                        prop_assert_eq!(&early.meta_version, &whole.meta_version);
                        prop_assert!(peek.routable() || early.class() != Class::Request);
                    }
                    if let (true, Ok(whole)) = (peek.settled() || peek.routable(), &whole) {
                        prop_assert!(early.method == whole.method || early.has_result || early.has_error);
                        prop_assert!(early.name == whole.name || early.method.is_none());
                    }
                }
            });
        });
    }
}

#[test]
fn depth_limit_is_that_of_the_parser() {
    for depth in [1, 126, 127, 128, 129, 500] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        check_against_parser(text.as_bytes());
        let text = r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
        check_against_parser(text.as_bytes());
    }
    assert_eq!(
        scan([b"[".repeat(200).as_slice()]),
        Err(PeekError::TooDeep { at: 127 })
    );
}

#[test]
fn every_short_text_is_accepted_or_refused_as_by_the_parser() {
    for (alphabet, len_max) in [
        (&b"{}[],:\"0-e. \\"[..], 4),
        (b"-+01.eE", 5),
        (b"\"\\ud8cC\n", 5),
    ] {
        for len in 0..=len_max {
            for number in 0..alphabet.len().pow(len) {
                let digit = |place| alphabet[number / alphabet.len().pow(place) % alphabet.len()];
                let text: Vec<u8> = (0..len).map(digit).collect();
                let accepted = serde_json::from_slice::<Value>(&text);
                let is_range =
                    |error: &serde_json::Error| error.to_string().contains("out of range");
                let expected = accepted.as_ref().map_or_else(is_range, |_| true);
                let shown = String::from_utf8_lossy(&text);
                assert_eq!(scan([&text[..]]).is_ok(), expected, "{shown}");
                assert_eq!(scan(text.chunks(1)).is_ok(), expected, "{shown}");
            }
        }
    }
}

#[test]
fn members_count_only_in_their_own_place() {
    let decoys = r#""isError":true,"method":"decoy","id":"decoy","name":"decoy","protocolVersion":"decoy","io.modelcontextprotocol/protocolVersion":"decoy","requestState":"decoy","result":"decoy","error":"decoy""#;
    let text = format!(
        r#"{{"x":{{"params":{{{decoys},"_meta":{{{decoys}}}}},{decoys}}},"y":[{{{decoys}}},"decoy"],
        "params":{{"x":{{{decoys}}},"_meta":{{"x":{{{decoys}}}}},"arguments":{{{decoys},"_meta":{{{decoys}}}}},"y":[[{{{decoys}}}]]}},
        "_meta":{{{decoys}}},"arguments":{{{decoys}}},"name":"decoy","uri":"decoy","z":{{"x":{{{decoys}}}}},
        "id":1,"method":"tools/call"}}"#
    );
    let message = scan_every_way(text.as_bytes()).expect("valid");
    let expected = Message {
        shape: Shape::Object,
        id: Some(RawId::number(1)),
        method: Some("tools/call".into()),
        ..Message::default()
    };
    assert_eq!(message, expected);
    let batch = scan_every_way(format!("[[{{{decoys}}}],{text},{{}}]").as_bytes()).expect("valid");
    assert_eq!(batch.batch.len(), 3);
    assert_eq!(
        (&batch.batch[1].id, &batch.batch[1].method),
        (&expected.id, &expected.method)
    );
    assert_eq!(
        (&batch.batch[0], &batch.batch[2]),
        (&BatchItem::default(), &BatchItem::default())
    );
}

#[test]
fn a_tool_has_failed_when_its_result_says_so_itself() {
    let rows = [
        (r#"{"id":1,"result":{"content":[],"isError":true}}"#, true),
        (r#"{"result":{"isError" :\n true ,"x":{}},"id":1}"#, true),
        (r#"{"id":1,"result":{"is\u0045rror":true}}"#, true),
        (
            r#"{"id":1,"result":{"isError":false,"isError":true}}"#,
            true,
        ),
        (
            r#"{"id":1,"result":{"isError":true,"isError":false}}"#,
            false,
        ),
        (r#"{"id":1,"result":{"isError":false}}"#, false),
        (r#"{"id":1,"result":{"isError":"true"}}"#, false),
        (r#"{"id":1,"result":{"isError":1}}"#, false),
        (r#"{"id":1,"result":{"isError":[true]}}"#, false),
        (r#"{"id":1,"result":{"x":{"isError":true}}}"#, false),
        (r#"{"id":1,"result":{"x":"\"isError\":true"}}"#, false),
        (r#"{"id":1,"result":[{"isError":true}]}"#, false),
        (r#"{"id":1,"isError":true,"result":{}}"#, false),
        (r#"{"id":1,"result":{},"x":{"isError":true}}"#, false),
        (r#"{"id":1,"error":{"isError":true}}"#, false),
        (r#"{"id":1,"method":"x","params":{"isError":true}}"#, false),
    ];
    for (text, failed) in rows {
        let message = scan_every_way(text.replace("\\n", "\n").as_bytes()).expect(text);
        assert_eq!(message.is_tool_error, failed, "{text}");
    }
}

#[test]
fn the_code_of_an_error_is_read_and_of_nothing_else() {
    let rows = [
        (
            r#"{"id":1,"error":{"code":-32603,"message":"x"}}"#,
            Some(-32603),
        ),
        (r#"{"error":{"data":{"code":1},"code": 7},"id":1}"#, Some(7)),
        (r#"{"id":1,"error":{"code":1,"code":2}}"#, Some(2)),
        (r#"{"id":1,"error":{"code":1,"code":"2"}}"#, None),
        (r#"{"id":1,"error":{"code":1e3}}"#, None),
        (r#"{"id":1,"error":{"code":-2147483649}}"#, None),
        (r#"{"id":1,"error":{"code":123456789012345678901}}"#, None),
        (r#"{"id":1,"error":[{"code":1}]}"#, None),
        (r#"{"id":1,"error":{"data":{"code":1}}}"#, None),
        (r#"{"id":1,"result":{"code":1},"code":2}"#, None),
        (r#"{"id":1,"result":{"error":{"code":1}}}"#, None),
    ];
    for (text, code) in rows {
        let message = scan_every_way(text.as_bytes()).expect(text);
        assert_eq!(message.error_code, code, "{text}");
    }
}

/// One is made for every request, and moved about with it.
#[test]
fn a_scan_and_what_it_finds_are_small() {
    assert!(size_of::<Peek>() <= 512, "{}", size_of::<Peek>());
    assert!(size_of::<Message>() <= 280, "{}", size_of::<Message>());
}

#[test]
fn huge_texts_pass_and_leave_nothing_behind() {
    let filler = "x".repeat(300_000) + &"漢字é🌊".repeat(20_000);
    let text = format!(
        r#"{{"params":{{"arguments":{{"name":"{filler}","{filler}":1}},"name":"{filler}","uri":"file:///a"}},"id":"a","method":"resources/read"}}"#
    );
    let message = scan_every_way(text.as_bytes()).expect("valid");
    assert_eq!(message.name.as_deref(), Some("file:///a"));
    let text = text.replace("resources/read", "tools/call");
    let message = scan([text.as_bytes()]).expect("valid");
    assert_eq!((message.name, message.name_too_long), (None, true));
}

#[test]
fn duplicates_are_found_behind_escapes_and_only_where_they_matter() {
    let refused = [
        (r#"{"method":"a","m\u0065thod":"b"}"#, "method"),
        (r#"{"id":1,"method":"a","id":2}"#, "id"),
        (r#"{"params":{},"params":{}}"#, "params"),
        (r#"{"params":{"name":"a","\u006eame":"b"}}"#, "name"),
        (r#"{"params":{"uri":1,"uri":"b"}}"#, "uri"),
        (r#"{"params":{"taskId":{},"taskId":"b"}}"#, "taskId"),
        (r#"{"params":{"_meta":{},"_meta":[]}}"#, "_meta"),
        (r#"{"result":{},"result":[]}"#, "result"),
        (r#"[{"id":1},{"id":1,"id":2}]"#, "id"),
        (
            r#"{"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"","io.modelcontextprotocol\/protocolVersion":""}}}"#,
            META_VERSION,
        ),
    ];
    for (text, expected) in refused {
        match scan_every_way(text.as_bytes()) {
            Err(PeekError::DuplicateKey { key, .. }) => assert_eq!(key, expected),
            other => panic!("{text}: {other:?}"),
        }
    }
    let taken = [
        r#"{"jsonrpc":1,"jsonrpc":2,"x":{"id":1,"id":2}}"#,
        r#"{"params":{"arguments":{"name":1,"name":2,"_meta":{"id":1,"id":2}}}}"#,
        r#"{"result":{"name":1,"name":2},"params":[{"name":1,"name":2}]}"#,
        r#"[{"id":1},{"id":1}]"#,
    ];
    for text in taken {
        assert!(scan_every_way(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn bounds_refuse_at_one_byte_more() {
    let with = |id: usize, method: usize| {
        let text = format!(
            r#"{{"id":"{}","method":"{}"}}"#,
            "i".repeat(id),
            "m".repeat(method)
        );
        scan_every_way(text.as_bytes()).map(|_| ())
    };
    assert_eq!(with(ID_BYTES_MAX - 2, METHOD_BYTES_MAX), Ok(()));
    assert_eq!(
        with(ID_BYTES_MAX - 1, METHOD_BYTES_MAX),
        Err(PeekError::IdTooLong)
    );
    assert_eq!(with(1, METHOD_BYTES_MAX + 1), Err(PeekError::MethodTooLong));
    let batch = |len: usize| {
        let text = format!("[{}]", vec!["{}"; len].join(","));
        scan_every_way(text.as_bytes()).map(|message| message.batch.len())
    };
    assert_eq!(batch(BATCH_ITEMS_MAX), Ok(BATCH_ITEMS_MAX));
    assert_eq!(batch(BATCH_ITEMS_MAX + 1), Err(PeekError::BatchTooLong));
}

/// The shortest start of a text with which it is settled.
fn settled_at(text: &str) -> &str {
    let mut peek = Peek::new();
    for place in 0..text.len() {
        peek.feed(&text.as_bytes()[place..=place]).expect("valid");
        if peek.settled() {
            return &text[..=place];
        }
    }
    panic!("never settled: {text}");
}

#[test]
fn settled_as_soon_as_nothing_that_matters_is_open() {
    let marked = [
        r#"{"id":1,"method":"tools/list","params":{"a":1}|,"x":[]}"#,
        r#"{"id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"|,"x":1}}}"#,
        r#"{"id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name":"a"|,"arguments":{}}}"#,
        r#"{"params":{"name":"a","arguments":{}},"id":"1","method":"tools/call"|}"#,
        r#"{"method":"tools/call","params":{"name":"a"},"id":1,|"x":1}"#,
        r#"{"method":"notifications/initialized","params":{},"x":1}|"#,
        r#"{"id":1,"result":{|"a":1}}"#,
        r#"{"result":{"a":1},"jsonrpc":"2.0","id":"1"|}"#,
        r#"[{"id":1,"method":"ping","params":{}}]|"#,
    ];
    for text in marked {
        let (start, _) = text.split_once('|').expect("marked");
        assert_eq!(settled_at(&text.replace('|', "")), start);
    }
}

#[test]
fn errors_stay_and_reset_forgets_them() {
    let mut peek = Peek::new();
    let error = peek.feed(br#"{"id":1,]"#).expect_err("malformed");
    assert_eq!(error, PeekError::Malformed { at: 8 });
    assert_eq!(peek.feed(b"}"), Err(error));
    assert_eq!(peek.finish(), Err(error));
    assert!(!peek.settled() && !peek.routable());
    peek.reset();
    assert_eq!(peek.message(), &Message::default());
    assert_eq!(peek.feed(br#"{"method":"ping"}"#), Ok(Progress::Complete));
    assert_eq!(peek.feed(b" \n"), Ok(Progress::Complete));
    assert_eq!(peek.message().id, None);
    assert_eq!(peek.feed(b"1"), Err(PeekError::Malformed { at: 19 }));
}

#[test]
fn an_unfinished_text_is_an_error_at_its_end() {
    for text in [
        "",
        " ",
        "{",
        "[1",
        "\"a",
        "-",
        "1.",
        "1e",
        "nul",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1,",
    ] {
        let at = text.len() as u64;
        assert_eq!(
            scan_every_way(text.as_bytes()),
            Err(PeekError::Malformed { at }),
            "{text}"
        );
    }
    for text in ["0", "-1", "1.5", "1e5", "1e999", "null ", "\"a\""] {
        assert!(scan_every_way(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn lenient_reads_a_cut_emoji_as_a_replacement_character() {
    let mut peek = Peek::lenient();
    peek.feed(br#"{"method":"tools/call","params":{"name":"a\ud83c","x":"\udf0a\ud83c\ud83c\n\ud83cx"},"id":"\ud83c\u0061"}"#)
        .expect("lenient");
    assert_eq!(peek.finish(), Ok(()));
    assert_eq!(peek.message().name.as_deref(), Some("a\u{fffd}"));
    let id = peek.message().id.clone().expect("an id");
    assert_eq!(id.as_json(), r#""\ud83c\u0061""#);
    assert_eq!(id.text().as_deref(), Some("\u{fffd}a"));
}

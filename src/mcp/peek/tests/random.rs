//! Random messages: valid ones in every spelling, and damaged ones.

use proptest::prelude::*;
use proptest::sample::Index;

use super::parser::META_VERSION;

/// A key or a string as JSON, some of its characters written as escapes.
fn quoted(text: &str, escapes: u64) -> String {
    let mut out = String::from('"');
    for (index, char) in text.chars().enumerate() {
        let is_escaped = escapes.rotate_right(index as u32) & 1 == 1;
        if is_escaped || char < ' ' || matches!(char, '"' | '\\') {
            for unit in char.encode_utf16(&mut [0; 2]) {
                out += &format!("\\u{unit:04x}");
            }
        } else {
            out.push(char);
        }
    }
    out + "\""
}

fn string() -> impl Strategy<Value = String> {
    let text = prop_oneof!["[ -~]{0,12}", "[aé漢🌊\n\"\\\\/]{0,40}", "[a-z]{30,90}"];
    let escapes = prop_oneof![Just(0_u64), any::<u64>()];
    let odd = prop_oneof![
        Just(r#""\b\f\n\r\t\/\\\"""#),
        Just(r#""\ud83c\udf0a""#),
        Just(r#""\ud83c""#),
        Just(r#""\udf0a""#),
        Just(r#""\ud83c\n""#),
        Just(r#""\ud83cx""#),
        Just(r#""\ud83c\ud83c\udf0a""#),
        Just(r#""\u00e""#),
        Just(r#""\x""#),
    ];
    prop_oneof![
        12 => (text, escapes).prop_map(|(text, escapes)| quoted(&text, escapes)),
        1 => odd.prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        "[-+.0-9eE]{1,5}"
    ]
}

fn json() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("null"),
        Just("true"),
        Just("false"),
        Just("{}"),
        Just("[]")
    ];
    let leaf = prop_oneof![string(), number(), word.prop_map(str::to_owned)];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let object = object(
            prop_oneof![any_key(), "[a-z]{0,3}".prop_map(|key| quoted(&key, 0))],
            inner.clone(),
        );
        let array = proptest::collection::vec(inner, 0..5);
        prop_oneof![
            object,
            array.prop_map(|items| format!("[{}]", items.join(",")))
        ]
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t ")]
}

fn object(
    key: impl Strategy<Value = String>,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    let member = (space(), key, space(), value, space())
        .prop_map(|(a, key, b, value, c)| format!("{a}{key}{b}:{value}{c}"));
    proptest::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")))
}

fn key(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let escapes = prop_oneof![4 => Just(0_u64), 1 => any::<u64>()];
    (proptest::sample::select(names), escapes).prop_map(|(name, escapes)| quoted(name, escapes))
}

fn any_key() -> impl Strategy<Value = String> {
    key(&[
        "id",
        "method",
        "params",
        "result",
        "error",
        "name",
        "uri",
        "taskId",
        "_meta",
        "isError",
        META_VERSION,
    ])
}

/// The result of a tool, now and then told twice whether it failed.
fn result() -> impl Strategy<Value = String> {
    let value = prop_oneof![Just("true".to_owned()), Just("false".to_owned()), json()];
    object(key(&["isError", "content", "x"]), value)
}

/// An error, with a code in most cases, now and then with two.
fn error() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("-32603".to_owned()),
        any::<i64>().prop_map(|code| code.to_string()),
        json()
    ];
    object(key(&["code", "message", "data"]), value)
}

fn method() -> impl Strategy<Value = String> {
    key(&[
        "tools/call",
        "resources/read",
        "tasks/get",
        "ping",
        "tools/list",
        "x/y",
        "initialize",
    ])
}

/// Members of three levels in every order, mostly with values of the right type.
fn message() -> impl Strategy<Value = String> {
    let meta_key = prop_oneof![
        key(&[META_VERSION]),
        key(&["progressToken", "name", "traceparent"]),
    ];
    let meta = prop_oneof![4 => object(meta_key, prop_oneof![
        Just("\"2026-07-28\"".to_owned()),
        Just("\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"".to_owned()),
        json(),
    ]), 1 => json()];
    let params_key = key(&[
        "name",
        "uri",
        "taskId",
        "arguments",
        "_meta",
        "protocolVersion",
        "requestState",
        "x",
    ]);
    let params = prop_oneof![
        4 => object(params_key, prop_oneof![string(), meta, json()]),
        1 => json(),
    ];
    let value = prop_oneof![
        string(),
        number(),
        method(),
        params.clone(),
        result(),
        json()
    ];
    let answer = (number(), result())
        .prop_map(|(id, result)| format!(r#"{{"result": {result},"id":{id}}}"#));
    let failure = (number(), prop_oneof![4 => error(), 1 => json()])
        .prop_map(|(id, error)| format!(r#"{{"error": {error},"id":{id}}}"#));
    let odd = object(any_key(), value);
    let usual = (
        method(),
        prop_oneof![number(), string(), Just("null".to_owned())],
        params,
        json(),
        any::<[Index; 4]>(),
    )
        .prop_map(|(method, id, params, other, order)| {
            let mut members = [
                r#""jsonrpc":"2.0""#.to_owned(),
                format!(r#""method":{method}"#),
                format!(r#""id": {id}"#),
                format!(r#""params":{params}"#),
                format!(r#""other":{other}"#),
            ];
            for (place, index) in order.iter().enumerate() {
                let other = index.index(members.len());
                members.swap(place, other);
            }
            format!("{{{}}}", members.join(","))
        });
    prop_oneof![3 => usual, 2 => odd, 1 => answer, 1 => failure]
}

pub(super) fn document() -> impl Strategy<Value = String> {
    let batch = proptest::collection::vec(prop_oneof![3 => message(), 1 => json()], 0..4)
        .prop_map(|items| format!("[{}]", items.join(" , ")));
    let body = prop_oneof![6 => message(), 1 => batch, 1 => json()];
    (space(), body, space()).prop_map(|(a, body, b)| format!("{a}{body}{b}"))
}

pub(super) fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        proptest::sample::select(
            b"{}[]\",:\\u0123456789.eE+-truefalsn \n\x00\x1f\x7f\x80\xbf\xc3\xe0\xed\xf0\xff"
                .to_vec()
        ),
        any::<u8>(),
    ];
    let change = (any::<Index>(), byte, 0..4_u8);
    (document(), proptest::collection::vec(change, 1..4)).prop_map(|(document, changes)| {
        let mut text = document.into_bytes();
        for (index, byte, kind) in changes {
            let place = index.index(text.len().max(1));
            match kind {
                0 => text.insert(place, byte),
                1 if place < text.len() => text[place] = byte,
                2 if place < text.len() => drop(text.remove(place)),
                _ => text.truncate(place),
            }
        }
        text
    })
}

//! Endpoints whose answers could be taken apart in two ways. Their connection serves nothing else,
//! and the client gets an answer that is whole: theirs, where the doubt lies behind it, or ours.

use crate::gate::{Client, Endpoint, Gate, Reply, call, good, good_body, id_of};

/// What a client is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    /// 502, and an error with the id of its call.
    Fault,
    /// The answer.
    Answer,
}

fn with(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}\r\n{body}").into_bytes()
}

type Case = (&'static str, Gets, fn(&str) -> Vec<u8>);

const CASES: &[Case] = &[
    ("length and coding", Gets::Fault, |request| {
        let body = good_body(request);
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let length = chunk.len();
        with(
            &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            &chunk,
        )
    }),
    ("two lengths that agree", Gets::Fault, |request| {
        let body = good_body(request);
        let line = format!("Content-Length: {}\r\n", body.len());
        with(&line.repeat(2), &body)
    }),
    ("two lengths that differ", Gets::Fault, |request| {
        let body = good_body(request);
        let length = body.len();
        with(
            &format!("Content-Length: {length}\r\nContent-Length: 1\r\n"),
            &body,
        )
    }),
    ("a list of lengths", Gets::Fault, |request| {
        let body = good_body(request);
        let length = body.len();
        with(&format!("Content-Length: {length}, {length}\r\n"), &body)
    }),
    ("two codings", Gets::Fault, |request| {
        let body = good_body(request);
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        with("Transfer-Encoding: gzip, chunked\r\n", &chunk)
    }),
    ("a coding in HTTP/1.0", Gets::Fault, |request| {
        let body = good_body(request);
        format!(
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
        .into_bytes()
    }),
    ("a folded line", Gets::Fault, |request| {
        let body = good_body(request);
        with(
            &format!("X: a\r\n b\r\nContent-Length: {}\r\n", body.len()),
            &body,
        )
    }),
    ("a space before a colon", Gets::Fault, |request| {
        let body = good_body(request);
        with(&format!("Content-Length : {}\r\n", body.len()), &body)
    }),
    ("a flood of 1xx", Gets::Fault, |request| {
        let mut bytes = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(17);
        bytes.extend(good(request).bytes);
        bytes
    }),
    ("101 unasked", Gets::Fault, |_| {
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
            .to_vec()
    }),
    ("a head over 64 KiB", Gets::Fault, |request| {
        let body = good_body(request);
        let long = "x".repeat(1000);
        let fields = format!("X-Long: {long}\r\n").repeat(70);
        with(
            &format!("{fields}Content-Length: {}\r\n", body.len()),
            &body,
        )
    }),
    ("a head without an end, over 64 KiB", Gets::Fault, |_| {
        format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200_000)).into_bytes()
    }),
    ("no HTTP", Gets::Fault, |_| b"+OK ready\r\n\r\n".to_vec()),
    ("bytes behind the body", Gets::Answer, |request| {
        [
            &good(request).bytes,
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad".as_slice(),
        ]
        .concat()
    }),
    ("one byte behind the last chunk", Gets::Answer, |request| {
        let body = good_body(request);
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n\n", body.len());
        with("Transfer-Encoding: chunked\r\n", &chunk)
    }),
    ("Connection: close", Gets::Answer, |request| {
        let body = good_body(request);
        let length = body.len();
        let fields =
            format!("Connection: keep-alive\r\nConnection: close\r\nContent-Length: {length}\r\n");
        with(&fields, &body)
    }),
    ("HTTP/1.0", Gets::Answer, |request| {
        let body = good_body(request);
        let head = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        format!("HTTP/1.0 200 OK\r\n{head}\r\n{body}").into_bytes()
    }),
];

/// The status and the id of the answer to a call.
fn ask(client: &mut Client, id: u64) -> (String, String) {
    client.send(&call(id));
    let response = client.response().unwrap();
    (
        Client::status(&response).to_owned(),
        id_of(&response).to_owned(),
    )
}

#[test]
fn a_connection_in_doubt_serves_nothing_else() {
    for &(what, gets, answer) in CASES {
        let endpoint = Endpoint::start(move |number, request| match number {
            1 => Reply {
                bytes: answer(request),
                closes: false,
            },
            _ => good(request),
        });
        let gate = Gate::before(&endpoint);
        let mut client = gate.connect();
        let right = |id: u64| ("200".to_owned(), id.to_string());
        assert_eq!(ask(&mut client, 40), right(40), "{what}");
        let status = if gets == Gets::Fault { "502" } else { "200" };
        let expected = (status.to_owned(), "41".to_owned());
        assert_eq!(ask(&mut client, 41), expected, "{what}");
        assert_eq!(ask(&mut client, 42), right(42), "{what}");
        assert_eq!(ask(&mut client, 43), right(43), "{what}");
        let connections: Vec<usize> = endpoint.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(connections, [0, 0, 1, 1], "{what}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    for chunk in [
        "5\r\nhello\nx",
        "5 \r\nhello\r\n0\r\n\r\n",
        "zz\r\n",
        "5\r\nhello\r\n0\n\n",
    ] {
        let endpoint = Endpoint::start(move |number, request| match number {
            0 => Reply {
                bytes: with("Transfer-Encoding: chunked\r\n", chunk),
                closes: false,
            },
            _ => good(request),
        });
        let gate = Gate::before(&endpoint);
        let mut client = gate.connect();
        client.send(&call(1));
        // Ended early, or answered by us.
        if let Some(response) = client.response() {
            assert_ne!(Client::status(&response), "200", "{chunk:?}: {response}");
        }
        let mut client = gate.connect();
        assert_eq!(
            ask(&mut client, 2),
            ("200".to_owned(), "2".to_owned()),
            "{chunk:?}"
        );
        let connections: Vec<usize> = endpoint.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(connections, [0, 1], "{chunk:?}");
    }
}

//! Requests in a row over loopback: each is answered in its turn, and none is made of another.

use proptest::prelude::*;

use crate::corpus::{CHUNKS, SMUGGLING};
use crate::gate::{CALL_HEAD, Client, Endpoint, Gate, call, call_body, good, id_of};

/// One call, framed in one of the ways that are right.
fn framed(id: u64, way: u8) -> Vec<u8> {
    let body = call_body(id);
    let (one, two) = body.split_at(body.len() / 2);
    match way {
        0 => call(id),
        1 => format!(
            "{CALL_HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
        .into_bytes(),
        2 => format!(
            "{CALL_HEAD}Transfer-Encoding: chunked\r\n\r\n{:X};a=b\r\n{one}\r\n0{:x}\r\n{two}\r\n00\r\nX: y\r\n\r\n",
            one.len(),
            two.len()
        )
        .into_bytes(),
        // Empty lines before a request are allowed (RFC 9112 section 2.2).
        3 => [b"\r\n", call(id).as_slice()].concat(),
        _ => [b"\r\n\r\n\r\n", call(id).as_slice()].concat(),
    }
}

#[test]
fn requests_in_a_row_are_answered_in_order_however_they_are_cut() {
    let endpoint = Endpoint::start(|_, request| good(request));
    let gate = Gate::before(&endpoint);
    let ways = proptest::collection::vec(0u8..5, 2..9);
    let cuts = proptest::collection::vec(any::<usize>(), 0..5);
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(ways in ways, cuts in cuts)| {
        let mut bytes = Vec::new();
        for (id, way) in (0..).zip(&ways) {
            bytes.extend(framed(id, *way));
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let before = endpoint.seen().len();
        let mut client = gate.connect();
        let mut from = 0;
        for cut in cuts {
            client.send(&bytes[from..cut]);
            from = cut;
        }
        for id in 0..ways.len() {
            let response = client.response().unwrap();
            prop_assert_eq!(Client::status(&response), "200");
            prop_assert_eq!(id_of(&response), id.to_string());
        }
        let seen = &endpoint.seen()[before..];
        let ids: Vec<&str> = seen.iter().map(|seen| id_of(&seen.text)).collect();
        let all: Vec<String> = (0..ways.len()).map(|id| id.to_string()).collect();
        prop_assert_eq!(ids, all);
    });
}

/// `bytes` are answered with 400 alone, and the connection ends behind it.
fn refused(gate: &Gate, what: &str, bytes: &[u8], before: usize) {
    let mut client = gate.connect();
    client.send(bytes);
    for _ in 0..before {
        let response = client.response().unwrap();
        assert_eq!(Client::status(&response), "200", "{what}");
    }
    let response = client.response();
    let response = response.unwrap_or_else(|| panic!("{what}: no answer"));
    assert_eq!(Client::status(&response), "400", "{what}: {response}");
    assert!(
        response
            .to_lowercase()
            .contains("\r\nconnection: close\r\n"),
        "{what}: {response}"
    );
    assert_eq!(client.response(), None, "{what}");
}

#[test]
fn what_is_smuggled_is_refused_and_seen_by_nobody() {
    let endpoint = Endpoint::start(|_, request| good(request));
    let gate = Gate::before(&endpoint);
    for (what, text) in SMUGGLING {
        refused(&gate, what, text.as_bytes(), 0);
        assert!(endpoint.seen().is_empty(), "{what}: {:?}", endpoint.seen());
    }
    // The same behind a request that is right.
    for (number, (what, text)) in SMUGGLING.iter().enumerate() {
        let bytes = [call(7).as_slice(), text.as_bytes()].concat();
        refused(&gate, what, &bytes, 1);
        assert_eq!(endpoint.seen().len(), number + 1, "{what}");
    }
}

#[test]
fn chunks_of_two_meanings_are_refused_and_nothing_behind_them_is_read() {
    let endpoint = Endpoint::start(|_, request| good(request));
    let gate = Gate::before(&endpoint);
    for (what, body) in CHUNKS {
        for behind in ["", "GET /two HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"] {
            let text = format!("{CALL_HEAD}Transfer-Encoding: chunked\r\n\r\n{body}{behind}");
            refused(&gate, what, text.as_bytes(), 0);
            assert!(endpoint.seen().is_empty(), "{what}: {:?}", endpoint.seen());
        }
    }
}

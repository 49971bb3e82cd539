use super::*;

fn parse(text: &str) -> Result<Head, Refusal> {
    Head::parse(text.as_bytes(), 100)
}

#[test]
fn a_plain_head_is_read() {
    let head = parse("POST /mcp?a=b HTTP/1.1\r\nHost: h:1\r\nX-A: 1\r\nx-a: 2\r\n\r\n").unwrap();
    assert_eq!(head.method(), "POST");
    assert_eq!(head.path(), "/mcp");
    assert_eq!(head.query(), Some("a=b"));
    assert_eq!(head.authority(), Some("h:1"));
    assert_eq!(head.get("x-a"), Some(&b"1"[..]));
    assert_eq!(head.count("x-a"), 2);
    assert_eq!(head.version(), Http::V11);
}

#[test]
fn an_absolute_target_becomes_its_path() {
    let head = parse("GET http://H/x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!((head.target(), head.authority()), ("/x", Some("H")));
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    let cases = [
        (
            "length and coding",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        ),
        (
            "list of lengths",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
        ),
        (
            "signed length",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
        ),
        (
            "two codings",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "other coding",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
        ),
        (
            "coding list",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            "coding in 1.0",
            "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "space before colon",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 1\r\n\r\n",
        ),
        (
            "folded line",
            "POST / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        ),
        ("bare LF", "POST / HTTP/1.1\nHost: h\r\n\r\n"),
        ("bare CR", "POST / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("host differs", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
        ("host empty", "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n"),
        ("odd host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "authority form",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        ),
        (
            "CONNECT to a path",
            "CONNECT /mcp HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "hidden field",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, Mcp-Method\r\n\r\n",
        ),
        ("nul in value", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
    ];
    for (what, text) in cases {
        assert!(parse(text).is_err(), "{what} was accepted");
    }
}

#[test]
fn the_field_limit_holds() {
    let fields: String = (0..11).map(|n| format!("X-{n}: 1\r\n")).collect();
    let text = format!("GET / HTTP/1.0\r\n{fields}\r\n");
    assert_eq!(
        Head::parse(text.as_bytes(), 10).unwrap_err(),
        Refusal::TooManyFields
    );
    assert!(Head::parse(text.as_bytes(), 11).is_ok());
}

#[test]
fn an_upgrade_needs_all_its_fields() {
    let with = |fields: &str| {
        parse(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
            .unwrap()
            .wants_websocket()
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let asked = "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n";
    assert!(with(&format!("{asked}{key}")));
    assert!(!with(asked));
    assert!(!with("Connection: upgrade\r\n"));
    assert!(!with("Upgrade: websocket\r\n"));
}

#[test]
fn close_counts_on_any_line() {
    let closes = |fields: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        parse(&text).unwrap().closes()
    };
    assert!(closes("Connection: keep-alive, Close\r\n"));
    assert!(closes("Connection: keep-alive\r\nConnection: close\r\n"));
    assert!(!closes("Connection: keep-alive\r\nX: close\r\n"));
    assert!(!closes(""));
}

#[test]
fn a_host_is_a_name_or_an_address_and_a_port() {
    for good in [
        "h",
        "h:1",
        "h:",
        "a-b_c.d:65535",
        "h%41",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:80",
        "[fe80::1%1]:",
    ] {
        assert!(is_authority(good.as_bytes()), "{good}");
    }
    for bad in [
        "", ":", ":80", "h:80:80", "h:x", "h:+1", "h:123456", "[::1", "::1", "[]", "[::1]x",
        "[::1]:x", "h]", "u@h", "h/x", "h,g", "h h", "h?x", "h#x", "h\\x", "http://h",
    ] {
        assert!(!is_authority(bad.as_bytes()), "{bad}");
    }
}

#[test]
fn an_upgrade_to_anything_is_seen() {
    let with = |fields: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        parse(&text).unwrap().wants_upgrade()
    };
    assert!(with(
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    ));
    assert!(!with("Upgrade: h2c\r\n"));
    assert!(!with("Connection: upgrade\r\n"));
}

use super::*;
use crate::transport::buffer::Buffer;
use crate::transport::h1::answer::Answer;
use crate::transport::h1::head::Head;

fn request(head: &[u8]) -> Excerpt {
    let why = Head::parse(head, 100).expect_err("it is wrong").to_string();
    Excerpt::of(Kind::Request, head, &why)
}

fn response(head: &[u8]) -> Excerpt {
    let mut answer = Answer::default();
    let why = match answer.fill(Buffer::of(head)) {
        Err(why) => why,
        Ok(()) => answer.framing("POST").expect_err("it is wrong"),
    };
    Excerpt::of(Kind::Response, head, why)
}

#[test]
fn the_position_is_that_of_the_first_thing_that_is_wrong() {
    for (before, wrong) in [
        ("GET /a", "\x01b HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("GET / HTTP/", "3.1\r\nHost: x\r\n\r\n"),
        ("GET / HTTP/1.1", "\nHost: x\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r\nA", " B: c\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: b", "\0c\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r\n", "Host: y\r\n\r\n"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\n",
            "content-length: five\r\nA: b\r\n\r\n",
        ),
        ("GET ", "nowhere HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let head = format!("{before}{wrong}");
        let excerpt = request(head.as_bytes());
        assert_eq!(excerpt.position, Some(before.len()), "{head:?} {excerpt:?}");
        let byte = escaped(&wrong.as_bytes()[..1]);
        assert_eq!(excerpt.byte, Some(byte), "{head:?}");
    }
    for (before, wrong) in [
        ("HTTP/1.1 2", "x0 OK\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nA", " B: c\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "Content-Length: 6\r\n\r\n",
        ),
        ("", "<html>\r\n\r\n"),
    ] {
        let head = format!("{before}{wrong}");
        assert_eq!(
            response(head.as_bytes()).position,
            Some(before.len()),
            "{head:?}"
        );
    }
    let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let body = Excerpt::of(
        Kind::Request,
        head,
        "malformed chunk: a line end is missing",
    );
    assert_eq!((body.position, body.byte), (None, None));
    assert_eq!(body.lines, ["GET / HTTP/1.1", "Host: [1 bytes]"]);
}

#[test]
fn the_line_that_is_wrong_is_shown_where_it_frames_the_message_and_of_others_the_length() {
    let excerpt = request(
        b"POST /mcp?key=abc HTTP/1.1\r\nHost: x\r\nX-Own: some value\r\nContent-Length: 5, 5\r\nAccept: */*\r\n\r\n",
    );
    assert_eq!(
        excerpt.lines,
        [
            "POST /mcp[8 bytes] HTTP/1.1",
            "Host: [1 bytes]",
            "X-Own: [10 bytes]",
            "Content-Length: 5, 5",
            "Accept: [3 bytes]",
        ]
    );
}

#[test]
fn no_secret_is_shown_wherever_the_head_breaks() {
    const SECRET: &str = "s3cr3t";
    let fields = [
        "Authorization: Bearer s3cr3t",
        "authorization : s3cr3t",
        "Cookie: a=s3cr3t",
        "Set-Cookie: s3cr3t",
        "Mcp-Session-Id: s3cr3t",
        "Proxy-Authorization: s3cr3t",
        "X-Api-Key: s3cr3t",
        "X-Anything: s3cr3t",
        "Host: me:s3cr3t@x",
        " s3cr3t",
        "s3cr3t",
        "\"token\": \"s3cr3t\"",
    ];
    let breaks = ["\x01", "\0", "\n", "\r", " ", "\t", ":", "é", "@"];
    let mut refused = 0;
    for field in fields {
        for wrong in breaks {
            for at in 0..=field.len() {
                let field = format!("{}{wrong}{}", &field[..at], &field[at..]);
                let head = format!("POST /mcp?t=1 HTTP/1.1\r\nHost: x\r\n{field}\r\nA: b\r\n\r\n");
                let Err(why) = Head::parse(head.as_bytes(), 100) else {
                    continue;
                };
                refused += 1;
                let excerpt = Excerpt::of(Kind::Request, head.as_bytes(), &why.to_string());
                let shown = excerpt.lines.concat();
                // Four in a row are more than chance.
                for from in 0..SECRET.len() - 3 {
                    let piece = &SECRET[from..from + 4];
                    assert!(!shown.contains(piece), "{head:?} {excerpt:?}");
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
    for line in [
        "POST /mcp?token=s3cr3t\x01 HTTP/1.1",
        "POST http://me:s3cr3t@x/ HTTP/1.1 ",
        "POST http://me:s3cr3t\n@x/ HTTP/1.1",
        "POST /mcp?a HTTP/1.1 token=s3cr3t HTTP/1.1",
        "POST /mcp?a HTTP/1.1 token=s3cr3t",
        "POST /mcp token=s3cr3t HTTP/1.1",
        "{\"arguments\":{\"password\":\"s3cr3t\"}}",
        "not HTTP at all, and with a s3cr3t",
    ] {
        let head = format!("{line}\r\nHost: x\r\n\r\n");
        let excerpt = request(head.as_bytes());
        assert!(!excerpt.lines.concat().contains(SECRET), "{excerpt:?}");
    }
}

#[test]
fn whatever_is_refused_is_shown_within_the_bound_and_with_nothing_that_a_terminal_obeys() {
    let long = "x".repeat(10_000);
    let fields = format!("A{}: b\r\n", "y".repeat(50)).repeat(300);
    let bodies: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    for head in [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03secret".as_slice(),
        b"",
        b"\r\n\r\n",
        format!("GET /{long} HTTP/1.1\r\nHost: \x01\r\n\r\n").as_bytes(),
        format!("GET / HTTP/1.1\r\n{fields}Host: \x01\r\n\r\n").as_bytes(),
        format!("GET / HTTP/1.1\r\nContent-Length: {long}\r\n\r\n").as_bytes(),
        &bodies,
    ] {
        for kind in [Kind::Request, Kind::Response] {
            let excerpt = Excerpt::of(kind, head, "anything");
            let shown: usize = excerpt.lines.iter().map(String::len).sum();
            assert!(
                shown <= SHOWN_MAX.max(4 * LINE_MAX + 2 * NAME_MAX),
                "{excerpt:?}"
            );
            for line in &excerpt.lines {
                assert!(
                    line.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                    "{line}"
                );
            }
        }
    }
    let handshake = request(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03secretsecret\r\n\r\n");
    assert_eq!(handshake.position, Some(0));
    assert!(
        handshake.lines[0].starts_with("\\x16\\x03\\x01"),
        "{handshake:?}"
    );
}

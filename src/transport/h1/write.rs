//! Heads as they are sent, written straight into the buffer that goes out.

use crate::transport::buffer::Buffer;
use crate::transport::fields::{HOST, Names, Stays};
use crate::transport::{Edits, Headers, Length, Outgoing};

/// The head of a request to an endpoint.
pub(super) fn request(out: &mut Buffer, request: &Outgoing<'_>) {
    out.put(request.method.as_bytes());
    out.put(b" ");
    out.put(request.target.as_bytes());
    out.put(b" HTTP/1.1\r\n");
    request.with_authority(&mut |authority| field(out, b"Host", authority));
    fields(out, Some(request.head), request.edits, Names::of(&[HOST]));
    match request.length {
        // A server is owed a length with every method that has a meaning for content (RFC 9110
        // section 8.6).
        Length::None if request.method == "POST" => out.put(b"Content-Length: 0\r\n"),
        Length::None => {}
        Length::Exact(bytes) => number(out, b"Content-Length", bytes),
        Length::Unknown => out.put(b"Transfer-Encoding: chunked\r\n"),
    }
    out.put(b"\r\n");
}

/// What a response says of its end and of the connection's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) length: Length,
    /// The client understands chunks.
    pub(super) chunks: bool,
    pub(super) closes: bool,
}

/// The head of a response to a client.
pub(super) fn response(
    out: &mut Buffer,
    status: u16,
    from: Option<&dyn Headers>,
    edits: Edits<'_>,
    ends: Ends,
) {
    status_line(out, status);
    fields(out, from, edits, Names::NONE);
    match ends.length {
        // RFC 9110 section 8.6: neither 1xx, 204 nor 304 carries a length.
        Length::None if status >= 200 && status != 204 && status != 304 => {
            out.put(b"Content-Length: 0\r\n");
        }
        Length::None => {}
        Length::Exact(bytes) => number(out, b"Content-Length", bytes),
        Length::Unknown if ends.chunks => out.put(b"Transfer-Encoding: chunked\r\n"),
        Length::Unknown => {}
    }
    if ends.closes {
        out.put(b"Connection: close\r\n");
    }
    out.put(b"\r\n");
}

fn status_line(out: &mut Buffer, status: u16) {
    if status == 200 {
        return out.put(b"HTTP/1.1 200 OK\r\n");
    }
    let code = http::StatusCode::from_u16(status).ok();
    out.put(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.put(b" ");
    let reason = code.and_then(|code| code.canonical_reason());
    out.put(reason.unwrap_or_default().as_bytes());
    out.put(b"\r\n");
}

/// The fields that are sent on, then those that are set. Names stay as they were written.
fn fields(out: &mut Buffer, from: Option<&dyn Headers>, edits: Edits<'_>, also: Names) {
    if let Some(from) = from {
        let stays = Stays::new(from, edits, also);
        from.each(&mut |name, value| {
            if !stays.has(name) {
                line(out, name.as_bytes(), value);
            }
        });
    }
    edits.each(&mut |name, value| field(out, name.as_bytes(), value));
}

/// A field of ours. Its value is put together from names and ids that are checked where they enter;
/// this is the last place where a line end could split the head.
fn field(out: &mut Buffer, name: &[u8], value: &[u8]) {
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        line(out, name, value);
    }
}

/// A field as it came from a head, where no value has a line end.
fn line(out: &mut Buffer, name: &[u8], value: &[u8]) {
    let size = name.len() + value.len() + 4;
    if size > out.room() {
        [name, b": ", value, b"\r\n"]
            .iter()
            .for_each(|part| out.put(part));
        return;
    }
    let (to, rest) = out.spare().split_at_mut(name.len());
    to.copy_from_slice(name);
    let (to, rest) = rest.split_at_mut(2);
    to.copy_from_slice(b": ");
    let (to, rest) = rest.split_at_mut(value.len());
    to.copy_from_slice(value);
    rest[..2].copy_from_slice(b"\r\n");
    out.advance(size);
}

fn number(out: &mut Buffer, name: &[u8], value: u64) {
    out.put(name);
    out.put(b": ");
    decimal(out, value);
    out.put(b"\r\n");
}

fn decimal(out: &mut Buffer, value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.put(&digits[at..]);
}

/// The line before a chunk: its size in hexadecimal. Returns where in `room` it begins.
pub(super) fn chunk_size(size: usize, room: &mut [u8; 18]) -> usize {
    let mut at = room.len() - 2;
    room[at..].copy_from_slice(b"\r\n");
    let mut left = size;
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::RequestHead;
    use crate::transport::fields::ORIGIN;
    use crate::transport::h1::head::Head;

    fn sent(text: &str, edits: Edits<'_>, length: Length) -> String {
        let head = Head::parse(text.as_bytes(), 100).unwrap();
        let mut out = Buffer::take();
        request(
            &mut out,
            &Outgoing {
                head: &head,
                method: head.method(),
                target: head.target(),
                authority: "up:1",
                edits,
                length,
            },
        );
        String::from_utf8(out.filled().to_vec()).unwrap()
    }

    #[test]
    fn what_belongs_to_one_connection_stays_behind() {
        let text = "POST /a HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nConnection: x-two, close\r\nX-Two: 2\r\nTE: trailers\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\nOrigin: o\r\n\r\n";
        let edits = Edits {
            set: &[("mcp-session-id", b"s")],
            drop: Names::of(&[ORIGIN]),
            ..Edits::default()
        };
        assert_eq!(
            sent(text, edits, Length::Exact(10)),
            "POST /a HTTP/1.1\r\nHost: up:1\r\nX-One: 1\r\nmcp-session-id: s\r\nContent-Length: 10\r\n\r\n"
        );
    }

    #[test]
    fn a_value_cannot_begin_another_line() {
        let edits = Edits {
            set: &[("a", b"1\r\nb: 2"), ("c", b"3")],
            drop: Names::NONE,
            ..Edits::default()
        };
        let text = sent("GET / HTTP/1.1\r\nHost: h\r\n\r\n", edits, Length::None);
        assert_eq!(text, "GET / HTTP/1.1\r\nHost: up:1\r\nc: 3\r\n\r\n");
    }

    #[test]
    fn numbers_are_written_as_the_library_does() {
        for value in [0, 1, 9, 10, 255, 4096, 1 << 40, usize::MAX] {
            let mut out = Buffer::take();
            decimal(&mut out, value as u64);
            assert_eq!(out.filled(), value.to_string().as_bytes());
            let mut room = [0; 18];
            let at = chunk_size(value, &mut room);
            assert_eq!(&room[at..], format!("{value:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn a_response_says_how_it_ends() {
        let cases = [
            (
                200,
                Length::Unknown,
                true,
                false,
                "Transfer-Encoding: chunked\r\n",
            ),
            (200, Length::Unknown, false, true, "Connection: close\r\n"),
            (200, Length::None, true, false, "Content-Length: 0\r\n"),
            (204, Length::None, true, false, ""),
            (
                404,
                Length::Exact(12),
                true,
                true,
                "Content-Length: 12\r\nConnection: close\r\n",
            ),
        ];
        for (status, length, chunks, closes, fields) in cases {
            let mut out = Buffer::take();
            let ends = Ends {
                length,
                chunks,
                closes,
            };
            response(&mut out, status, None, Edits::default(), ends);
            let text = String::from_utf8(out.filled().to_vec()).unwrap();
            let (line, rest) = text.split_once("\r\n").unwrap();
            assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
            assert_eq!(rest, format!("{fields}\r\n"));
        }
    }
}

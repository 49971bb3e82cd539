//! The part of HTTP/1.1 that both sides of the tool need: reply heads and body framing (RFC 9112).
//!
//! Everything here works on bytes already read and accepts them in any split: gateways cut chunks
//! anew as they please.

use std::fmt;

/// Longest accepted head. A proxy that sends more has a fault worth seeing.
pub(crate) const HEAD_MAX: usize = 32 * 1024;
/// Most header lines of a message.
pub(crate) const HEADERS_MAX: usize = 64;
/// Longest line with a chunk's size, and longest trailer line.
const CHUNK_LINE_MAX: u16 = 1024;

/// The bytes are not HTTP/1.1 as we know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// What is needed of a reply's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The connection ends with this reply.
    pub(crate) close: bool,
    pub(crate) event_stream: bool,
    pub(crate) session: Option<String>,
}

impl Head {
    /// Reads a reply's head; `None` until all of it is there. Also tells its length.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut reply = httparse::Response::new(&mut headers);
        let length = match reply.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() > HEAD_MAX => {
                return Err(Malformed("head too long"));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed("bad reply head")),
        };
        let status = reply.code.ok_or(Malformed("no status"))?;
        let mut head = Self {
            status,
            framing: Framing::UntilClose,
            close: reply.version == Some(0),
            event_stream: false,
            session: None,
        };
        for header in reply.headers.iter() {
            head.take(header)?;
        }
        if status < 200 || status == 204 || status == 304 {
            head.framing = Framing::Length(0);
        }
        head.close |= head.framing == Framing::UntilClose;
        Ok(Some((head, length)))
    }

    fn take(&mut self, header: &httparse::Header<'_>) -> Result<(), Malformed> {
        let (name, value) = (header.name, header.value);
        if name.eq_ignore_ascii_case("content-length") {
            if self.framing != Framing::Chunked {
                self.framing = Framing::Length(length(value)?);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            self.close |= value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case("content-type") {
            self.event_stream = is_event_stream(value);
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            let id = std::str::from_utf8(value).map_err(|_| Malformed("bad session id"))?;
            self.session = Some(id.to_owned());
        }
        Ok(())
    }
}

/// Reads a `Content-Length`.
pub(crate) fn length(value: &[u8]) -> Result<u64, Malformed> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or(Malformed("bad content-length"))
}

fn is_event_stream(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    content_type
        .get(..NAME.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(NAME))
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Takes the payload out of a framed body, in whatever pieces it arrives.
pub(crate) struct Decoder {
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many payload bytes, then the end.
    Length(u64),
    UntilClose,
    /// In a chunk's size: its value so far, how many digits.
    Size(u64, u8),
    /// In the rest of that line: the size, how many bytes to skip at most.
    SizeRest(u64, u16),
    /// In a chunk: bytes left.
    Chunk(u64),
    /// In the line end that follows a chunk.
    ChunkEnd,
    /// In the trailer: length of this line, of the lines so far at most.
    Trailer(u16),
    Done,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::Size(0, 0),
        };
        Self { state }
    }

    /// The body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The connection may end here without loss.
    pub(crate) fn may_close(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Feeds `bytes`, hands each piece of payload to `payload`, and tells how many bytes were
    /// used: all of them, unless the body ended before.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            at += match self.state {
                State::Length(left) | State::Chunk(left) => {
                    let piece = bytes
                        .len()
                        .saturating_sub(at)
                        .min(usize::try_from(left).unwrap_or(usize::MAX));
                    payload(&bytes[at..at + piece]);
                    self.state = after(self.state, left - piece as u64);
                    piece
                }
                State::UntilClose => {
                    payload(&bytes[at..]);
                    bytes.len() - at
                }
                State::Size(..)
                | State::SizeRest(..)
                | State::ChunkEnd
                | State::Trailer(_)
                | State::Done => {
                    self.state = step(self.state, bytes[at])?;
                    1
                }
            };
        }
        Ok(at)
    }
}

fn after(state: State, left: u64) -> State {
    match (state, left) {
        (State::Length(_), 0) => State::Done,
        (State::Length(_), left) => State::Length(left),
        (_, 0) => State::ChunkEnd,
        (_, left) => State::Chunk(left),
    }
}

/// One byte outside the payload of a chunked body.
fn step(state: State, byte: u8) -> Result<State, Malformed> {
    Ok(match (state, byte) {
        (State::Size(value, digits), byte) if byte.is_ascii_hexdigit() => {
            // Sixteen digits would overflow; nobody sends a chunk of that size.
            if digits == 15 {
                return Err(Malformed("chunk too large"));
            }
            let digit = (byte as char).to_digit(16).unwrap_or_default();
            State::Size(value << 4 | u64::from(digit), digits + 1)
        }
        (State::Size(_, 0), _) => return Err(Malformed("bad chunk size")),
        (State::Size(value, _), b'\r' | b';' | b' ' | b'\t') => {
            State::SizeRest(value, CHUNK_LINE_MAX)
        }
        (State::Size(value, _) | State::SizeRest(value, _), b'\n') => match value {
            0 => State::Trailer(0),
            value => State::Chunk(value),
        },
        (State::SizeRest(value, left), _) if left > 0 => State::SizeRest(value, left - 1),
        (State::ChunkEnd, b'\r') => State::ChunkEnd,
        (State::ChunkEnd, b'\n') => State::Size(0, 0),
        (State::Trailer(0), b'\n') => State::Done,
        (State::Trailer(_), b'\n') => State::Trailer(0),
        (State::Trailer(length), b'\r') => State::Trailer(length),
        (State::Trailer(length), _) if length < CHUNK_LINE_MAX => State::Trailer(length + 1),
        _ => return Err(Malformed("bad chunk")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_head_is_read_only_when_complete() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMCP-Session-Id: s-1\r\nContent-Length: 5\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(Head::parse(&text.as_bytes()[..end]), Ok(None));
        }
        let (read, length) = Head::parse(format!("{text}hello").as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!(length, text.len());
        assert_eq!(
            read,
            Head {
                status: 200,
                framing: Framing::Length(5),
                close: false,
                event_stream: false,
                session: Some("s-1".into())
            }
        );
    }

    #[test]
    fn framing_follows_the_headers() {
        for (text, framing, close) in [
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
                Framing::Chunked,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
                Framing::Chunked,
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, true),
            ("HTTP/1.1 204 No Content\r\n\r\n", Framing::Length(0), false),
            (
                "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n",
                Framing::Length(0),
                true,
            ),
        ] {
            let head = head(text);
            assert_eq!((head.framing, head.close), (framing, close), "{text}");
        }
        assert!(
            head("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n")
                .event_stream
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "FTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
        ] {
            assert!(Head::parse(text.as_bytes()).is_err(), "{text}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX));
        assert!(Head::parse(long.as_bytes()).is_err());
    }

    fn decoded(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut decoder = Decoder::new(framing);
        let (mut payload, mut used) = (Vec::new(), 0);
        for piece in pieces {
            used += decoder.feed(piece, |bytes| payload.extend_from_slice(bytes))?;
        }
        Ok((payload, used, decoder.is_done()))
    }

    #[test]
    fn chunks_are_joined_at_every_split() {
        let body = b"5;ext=1\r\nhello\r\n0B\r\n, all world\r\n0\r\nTrailer: x\r\n\r\nNEXT";
        let length = body.len() - 4;
        for first in 0..body.len() {
            for second in first..body.len() {
                let pieces = [&body[..first], &body[first..second], &body[second..]];
                let got = decoded(Framing::Chunked, &pieces);
                assert_eq!(
                    got,
                    Ok((b"hello, all world".to_vec(), length, true)),
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn other_framings_end_where_they_should() {
        assert_eq!(
            decoded(Framing::Length(3), &[b"ab", b"cd"]),
            Ok((b"abc".to_vec(), 3, true))
        );
        assert_eq!(
            decoded(Framing::Length(0), &[b"ab"]),
            Ok((Vec::new(), 0, true))
        );
        assert_eq!(
            decoded(Framing::UntilClose, &[b"ab", b"cd"]),
            Ok((b"abcd".to_vec(), 4, false))
        );
        assert_eq!(
            decoded(Framing::Chunked, &[b"3\r\nab"]),
            Ok((b"ab".to_vec(), 5, false))
        );
    }

    #[test]
    fn broken_chunks_are_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "3\r\nabcd\r\n",
            "fffffffffffffffff\r\n",
            "-1\r\n",
        ] {
            assert!(
                decoded(Framing::Chunked, &[body.as_bytes()]).is_err(),
                "{body}"
            );
        }
    }
}

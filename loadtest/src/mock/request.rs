//! Reads one HTTP request, as much of it as the mock needs.

use std::borrow::Cow;

use crate::http::{Decoder, Framing, HEAD_MAX, HEADERS_MAX, Malformed, length};

/// Longest body that is taken; a longer one is answered 413.
const BODY_MAX: u64 = 4 * 1024 * 1024;

/// A request, borrowed from the connection's bytes. Absent headers are `None`.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) session: Option<&'a [u8]>,
    pub(super) version: Option<&'a [u8]>,
    pub(super) mcp_method: Option<&'a [u8]>,
    pub(super) mcp_name: Option<&'a [u8]>,
    /// `Sec-WebSocket-Key`: the client asks for a WebSocket.
    pub(super) socket_key: Option<&'a [u8]>,
    /// The connection ends after the answer.
    pub(super) close: bool,
    pub(super) body: Cow<'a, [u8]>,
}

/// What bytes turned out to be.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    /// The beginning of a request.
    Partial,
    /// A request, and its length.
    Complete(Request<'a>, usize),
    /// Not a request; the status to answer with.
    Bad(u16),
}

impl<'a> Request<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Parsed<'a> {
        if bytes.is_empty() {
            return Parsed::Partial;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let head = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if bytes.len() > HEAD_MAX => return Parsed::Bad(431),
            Ok(httparse::Status::Partial) => return Parsed::Partial,
            Err(_) => return Parsed::Bad(400),
        };
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Parsed::Bad(400);
        };
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let mut request = Self {
            method,
            path,
            close: parsed.version == Some(0),
            ..Self::default()
        };
        let mut framing = Framing::Length(0);
        for header in parsed.headers.iter() {
            if request.take(header, &mut framing).is_err() {
                return Parsed::Bad(400);
            }
        }
        match framing {
            Framing::Length(length) if length > BODY_MAX => Parsed::Bad(413),
            Framing::Length(length) => match bytes.get(head..head + length as usize) {
                Some(body) => {
                    request.body = Cow::Borrowed(body);
                    Parsed::Complete(request, head + length as usize)
                }
                None => Parsed::Partial,
            },
            Framing::Chunked | Framing::UntilClose => request.chunked(bytes, head),
        }
    }

    fn chunked(mut self, bytes: &'a [u8], head: usize) -> Parsed<'a> {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut body = Vec::new();
        match decoder.feed(&bytes[head..], |piece| body.extend_from_slice(piece)) {
            Err(_) => Parsed::Bad(400),
            Ok(_) if body.len() as u64 > BODY_MAX => Parsed::Bad(413),
            Ok(used) if decoder.is_done() => {
                self.body = Cow::Owned(body);
                Parsed::Complete(self, head + used)
            }
            Ok(_) => Parsed::Partial,
        }
    }

    fn take(
        &mut self,
        header: &httparse::Header<'a>,
        framing: &mut Framing,
    ) -> Result<(), Malformed> {
        let (name, value) = (header.name, header.value);
        let slot = if name.eq_ignore_ascii_case("mcp-session-id") {
            &mut self.session
        } else if name.eq_ignore_ascii_case("mcp-protocol-version") {
            &mut self.version
        } else if name.eq_ignore_ascii_case("mcp-method") {
            &mut self.mcp_method
        } else if name.eq_ignore_ascii_case("mcp-name") {
            &mut self.mcp_name
        } else if name.eq_ignore_ascii_case("sec-websocket-key") {
            &mut self.socket_key
        } else {
            if name.eq_ignore_ascii_case("content-length") {
                *framing = Framing::Length(length(value)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                *framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                self.close |= value.eq_ignore_ascii_case(b"close");
            }
            return Ok(());
        };
        // A proxy that doubles one of these has a fault.
        if slot.replace(value).is_some() {
            Err(Malformed("repeated header"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_only_when_complete() {
        for (text, body) in [
            (
                "POST /mcp?x=1 HTTP/1.1\r\nHost: a\r\nMcp-Session-Id: 5\r\nContent-Length: 4\r\n\r\nbody",
                "body",
            ),
            (
                "POST /mcp HTTP/1.1\r\nMCP-SESSION-ID: 5\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
                "body",
            ),
            ("GET /mcp HTTP/1.1\r\nmcp-session-id: 5\r\n\r\n", ""),
        ] {
            for end in 0..text.len() {
                assert!(
                    matches!(Request::parse(&text.as_bytes()[..end]), Parsed::Partial),
                    "{end} of {text}"
                );
            }
            let more = format!("{text}GET");
            let Parsed::Complete(request, length) = Request::parse(more.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(
                (length, &*request.body, request.path),
                (text.len(), body.as_bytes(), "/mcp")
            );
            assert_eq!((request.session, request.close), (Some(&b"5"[..]), false));
        }
    }

    #[test]
    fn what_cannot_be_taken_is_refused() {
        for (text, status) in [
            ("nonsense\r\n\r\n", 400),
            ("POST /mcp HTTP/1.1\r\nContent-Length: 4194305\r\n\r\n", 413),
            ("POST /mcp HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
            (
                "GET /mcp HTTP/1.1\r\nMcp-Session-Id: 1\r\nmcp-session-id: 1\r\n\r\n",
                400,
            ),
        ] {
            assert!(
                matches!(Request::parse(text.as_bytes()), Parsed::Bad(told) if told == status),
                "{text}"
            );
        }
        let long = format!("GET /{}", "x".repeat(HEAD_MAX));
        assert!(matches!(Request::parse(long.as_bytes()), Parsed::Bad(431)));
    }
}

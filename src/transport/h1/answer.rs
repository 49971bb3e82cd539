//! The head of a response, and how its body is framed.
//!
//! A server is trusted with what it says, not with how it says it: a head that two readers could
//! frame differently is refused like that of a request, for the bytes behind it would be taken for
//! the answer to somebody else's (RFC 9112 section 6.3).

use std::mem::MaybeUninit;

use super::framing::Framing;
use super::{Fields, content_length};
use crate::transport::buffer::Buffer;
use crate::transport::fields::{CONTENT_LENGTH, Known, Name, TRANSFER_ENCODING};
use crate::transport::{Headers, ResponseHead};

/// Header fields in a response head.
const FIELDS_MAX: usize = 128;

/// A parsed response head. Holds the buffer it was read into.
#[derive(Debug, Default)]
pub struct Answer {
    fields: Fields,
    status: u16,
    /// The server will keep the connection open, as far as the head says.
    keeps: bool,
}

impl Answer {
    /// Parses exactly one head in place, `bytes` ending with its empty line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn fill(&mut self, bytes: Buffer) -> Result<(), &'static str> {
        self.fields.refill(bytes);
        let version = self.read()?;
        let closes = self.fields.connection_says("close");
        self.keeps = !closes && (version == 1 || self.fields.connection_says("keep-alive"));
        if version == 0 && self.fields.times(TRANSFER_ENCODING) > 0 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        Ok(())
    }

    fn read(&mut self) -> Result<u8, &'static str> {
        let Fields {
            bytes,
            list,
            present,
            repeated,
        } = &mut self.fields;
        let bytes = bytes.filled();
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut fields,
        );
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err("too many header fields"),
            _ => return Err("not an HTTP response head"),
        }
        self.status = response.code.unwrap_or_default();
        let version = response.version.unwrap_or_default();
        Fields::note(bytes, list, present, repeated, response.headers);
        if !(100..=999).contains(&self.status) {
            return Err("a status that is none");
        }
        Ok(version)
    }

    /// The head as it was read, whether it was good or not; nothing once it was let go.
    pub fn bytes(&self) -> &[u8] {
        self.fields.bytes.filled()
    }

    /// May another request follow on the connection, as far as the head says?
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// How the body is framed, for the answer to a request of this method.
    ///
    /// # Errors
    /// What two readers could understand differently.
    pub fn framing(&self, method: &str) -> Result<Framing, &'static str> {
        let lengths = self.fields.times(CONTENT_LENGTH);
        let codings = self.fields.times(TRANSFER_ENCODING);
        if lengths > 1 || codings > 1 {
            return Err("repeated Content-Length or Transfer-Encoding");
        }
        if lengths > 0 && codings > 0 {
            return Err("both Content-Length and Transfer-Encoding");
        }
        let length = match self.fields.value(CONTENT_LENGTH).map(content_length) {
            Some(None) => return Err("Content-Length is not a number"),
            Some(length) => length,
            None => None,
        };
        let coding = self.fields.value(TRANSFER_ENCODING);
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
            return Err("Transfer-Encoding other than chunked");
        }
        if method == "HEAD" || self.status == 204 || self.status == 304 {
            return Ok(Framing::exact(0));
        }
        Ok(match (coding, length) {
            (Some(_), _) => Framing::chunked(),
            (None, Some(length)) => Framing::exact(length),
            (None, None) => Framing::ToClose,
        })
    }

    /// Lets go of everything that was read but the status, and keeps the room for the fields of
    /// another head.
    pub fn clear(&mut self) {
        self.fields.clear();
    }

    /// Lets go of that room as well.
    pub fn release(&mut self) {
        self.fields.release();
    }
}

impl Headers for Answer {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }

    fn known(&self, name: Known) -> Option<&[u8]> {
        self.fields.value(name)
    }

    fn count(&self, name: &str) -> usize {
        self.fields.count(name)
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        self.fields.each(f);
    }
}

impl ResponseHead for Answer {
    fn status(&self) -> u16 {
        self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &str) -> Result<Answer, &'static str> {
        let mut answer = Answer::default();
        answer.fill(Buffer::of(text.as_bytes()))?;
        Ok(answer)
    }

    fn framing(fields: &str) -> Result<Framing, &'static str> {
        take(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))?.framing("POST")
    }

    #[test]
    fn the_framing_follows_from_the_head() {
        assert_eq!(framing("Content-Length: 5\r\n"), Ok(Framing::exact(5)));
        assert_eq!(
            framing("transfer-encoding: Chunked\r\n"),
            Ok(Framing::chunked())
        );
        assert_eq!(framing(""), Ok(Framing::ToClose));
        for status in [204, 304] {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(take(&text).unwrap().framing("GET"), Ok(Framing::exact(0)));
        }
        let head = take("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!(head.framing("HEAD"), Ok(Framing::exact(0)));
    }

    #[test]
    fn a_framing_that_could_be_read_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: \r\n",
        ] {
            assert!(framing(fields).is_err(), "{fields}");
        }
        assert!(take("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn keep_alive_is_what_the_version_and_connection_say() {
        let keeps = |text: &str| take(text).unwrap().keeps();
        assert!(keeps("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(keeps(
            "HTTP/1.0 200 OK\r\nConnection: x, keep-alive\r\n\r\n"
        ));
        assert!(!keeps(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"
        ));
    }
}

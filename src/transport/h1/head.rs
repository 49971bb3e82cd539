//! The head of an HTTP/1 request: finding its end, parsing it, and refusing what is ambiguous.
//!
//! Whatever two parsers could read differently is refused here, before any other code sees the
//! request (RFC 9112 sections 2.2, 3, 5 and 6): a request that is smuggled past this point would
//! be smuggled past every policy above it. The parser is `httparse`; the refusals are ours.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::framing::Framing;
use super::{Field, Fields, content_length};
use crate::transport::buffer::Buffer;
use crate::transport::fields::{
    CONNECTION, CONTENT_LENGTH, HOST, Known, Name, TRANSFER_ENCODING, UPGRADE, is_nominated, tokens,
};
use crate::transport::{Headers, Http, RequestHead};

/// Header fields that the parser can hold; the configured limit is at most this.
pub const FIELDS_MAX: usize = 256;

/// Why a request head was refused. Every one of them is answered and the connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not HTTP/1: the parser's view.
    #[error("malformed request head: {0}")]
    Syntax(&'static str),
    /// More fields than allowed.
    #[error("too many header fields")]
    TooManyFields,
    /// Framing that two servers could understand differently.
    #[error("ambiguous framing: {0}")]
    Framing(&'static str),
    /// `Host` missing, repeated or not matching the target (RFC 9112 section 3.2).
    #[error("bad host: {0}")]
    Host(&'static str),
    /// A target that is neither a path nor an absolute `http` URI.
    #[error("bad request target: {0}")]
    Target(&'static str),
}

/// Length of the head in `bytes` including its empty line, if it is complete.
///
/// Only CR LF ends a line. A head whose lines end in bare LF ends here as well, for the parser to
/// refuse it at once.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes.get(at + 1)? {
        b'\n' => Some(at + 2),
        b'\r' if bytes.get(at + 2) == Some(&b'\n') => Some(at + 3),
        _ => None,
    })
}

/// Looks at bytes that arrive in pieces for the end of a head, each byte once.
#[derive(Debug, Default)]
pub struct EndOfHead {
    seen: usize,
}

impl EndOfHead {
    /// The same as [`end_of_head`] on what has arrived so far, which only ever grows.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        // An empty line may have begun in the last three bytes that were seen.
        let from = self.seen.saturating_sub(3).min(bytes.len());
        self.seen = bytes.len();
        end_of_head(&bytes[from..]).map(|end| from + end)
    }
}

/// A parsed HTTP/1 request head. Holds the buffer it was read into; fields are ranges in it.
#[derive(Debug, Default)]
pub struct Head {
    fields: Fields,
    method: Method,
    target: Range<usize>,
    authority: Option<Range<usize>>,
    version: Http,
    /// The target that a server is asked for, where it is another.
    pub(super) onward: Option<Box<str>>,
}

/// The method, which is one of a few in nearly every request.
#[derive(Debug)]
enum Method {
    Common(&'static str),
    Other(Range<usize>),
}

impl Default for Method {
    fn default() -> Self {
        Self::Common("")
    }
}

impl Method {
    fn of(method: &str, range: impl FnOnce() -> Range<usize>) -> Self {
        const COMMON: [&str; 5] = ["POST", "GET", "DELETE", "HEAD", "OPTIONS"];
        match COMMON.iter().find(|common| **common == method) {
            Some(common) => Self::Common(common),
            None => Self::Other(range()),
        }
    }
}

impl Head {
    /// Parses exactly one head, `bytes` ending with its empty line.
    ///
    /// # Errors
    /// Everything in [`Refusal`]. `fields_max` bounds the number of field lines.
    pub fn parse(bytes: &[u8], fields_max: usize) -> Result<Self, Refusal> {
        let mut head = Self::default();
        head.fill(Buffer::of(bytes), fields_max)?;
        Ok(head)
    }

    /// The same in place, with the buffer where the head was read, and the room for fields that an
    /// earlier head has left.
    ///
    /// # Errors
    /// As [`Self::parse`]. What is in the head then means nothing.
    pub fn fill(&mut self, bytes: Buffer, fields_max: usize) -> Result<(), Refusal> {
        self.fields.refill(bytes);
        self.version = Http::V11;
        self.onward = None;
        self.read(fields_max)?;
        self.refuse_ambiguous_framing()?;
        self.refuse_hidden_fields()?;
        self.settle_target()
    }

    fn read(&mut self, fields_max: usize) -> Result<(), Refusal> {
        let Fields {
            bytes,
            list,
            present,
            repeated,
        } = &mut self.fields;
        let bytes = bytes.filled();
        refuse_bare_line_ends(bytes)?;
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let room = &mut fields[..fields_max.min(FIELDS_MAX)];
        match request.parse_with_uninit_headers(bytes, room) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Refusal::Syntax("the head does not end where its lines end")),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
            Err(error) => return Err(Refusal::Syntax(syntax(error))),
        }
        let base = bytes.as_ptr().addr();
        let range = |part: &str| {
            let start = part.as_ptr().addr() - base;
            start..start + part.len()
        };
        let method = request.method.unwrap_or_default();
        self.method = Method::of(method, || range(method));
        self.target = range(request.path.unwrap_or_default());
        if request.version == Some(0) {
            self.version = Http::V10;
        }
        Fields::note(bytes, list, present, repeated, request.headers);
        Ok(())
    }

    /// The head as it was read.
    pub fn bytes(&self) -> &[u8] {
        self.fields.bytes.filled()
    }

    /// Lets go of everything that was read, and keeps the room for the fields of the next head.
    pub fn clear(&mut self) {
        self.method = Method::default();
        self.target = 0..0;
        self.authority = None;
        self.onward = None;
        self.fields.clear();
    }

    /// Lets go of that room as well, for an exchange that lasts.
    pub fn release(&mut self) {
        self.clear();
        self.fields.release();
    }

    /// Does the client say that no other request follows?
    pub fn closes(&self) -> bool {
        self.fields.connection_says("close")
    }

    /// How the body ends. What could be read in two ways was refused with the head.
    pub fn framing(&self) -> Framing {
        if self.known(TRANSFER_ENCODING).is_some() {
            Framing::chunked()
        } else {
            let length = self.known(CONTENT_LENGTH).and_then(content_length);
            Framing::exact(length.unwrap_or(0))
        }
    }

    /// Whether this request asks for another protocol, known or not (RFC 9110 section 7.8).
    pub fn wants_upgrade(&self) -> bool {
        self.known(UPGRADE).is_some() && is_nominated(self, b"upgrade")
    }

    /// Whether this request asks for an upgrade to WebSocket (RFC 6455 section 4.1).
    pub fn wants_websocket(&self) -> bool {
        self.method() == "GET"
            && self
                .known(UPGRADE)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
            && is_nominated(self, b"upgrade")
            && self.count("sec-websocket-key") == 1
    }

    /// The framing rules of RFC 9112 section 6, with every leniency removed.
    fn refuse_ambiguous_framing(&self) -> Result<(), Refusal> {
        let lengths = self.fields.times(CONTENT_LENGTH);
        let codings = self.fields.times(TRANSFER_ENCODING);
        if lengths > 0 && codings > 0 {
            return Err(Refusal::Framing(
                "both Content-Length and Transfer-Encoding",
            ));
        }
        if lengths > 1 || codings > 1 {
            return Err(Refusal::Framing(
                "repeated Content-Length or Transfer-Encoding",
            ));
        }
        if let Some(value) = self.fields.value(CONTENT_LENGTH)
            && content_length(value).is_none()
        {
            return Err(Refusal::Framing("Content-Length is not a number"));
        }
        if let Some(value) = self.fields.value(TRANSFER_ENCODING) {
            if self.version == Http::V10 {
                return Err(Refusal::Framing("Transfer-Encoding in HTTP/1.0"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Framing("Transfer-Encoding other than chunked"));
            }
        }
        Ok(())
    }

    /// A field that `Connection` names is not sent on (RFC 9110 section 7.6.1). One that decides how
    /// the request is understood must not vanish behind the decision.
    fn refuse_hidden_fields(&self) -> Result<(), Refusal> {
        if self.fields.times(CONNECTION) == 0 {
            return Ok(());
        }
        let mut hidden = false;
        self.each(&mut |name, value| {
            if name.is("connection") {
                hidden |= tokens(value).any(is_end_to_end);
            }
        });
        if hidden {
            Err(Refusal::Framing("Connection names an end-to-end field"))
        } else {
            Ok(())
        }
    }

    /// Brings the target to origin form and finds the authority (RFC 9112 section 3.2).
    fn settle_target(&mut self) -> Result<(), Refusal> {
        let hosts = self.fields.times(HOST);
        if hosts > 1 {
            return Err(Refusal::Host("repeated"));
        }
        if hosts == 0 && self.version == Http::V11 {
            return Err(Refusal::Host("missing"));
        }
        let bytes = self.fields.bytes.filled();
        self.authority = self.fields.known(HOST).map(Field::value_range);
        if let Some(range) = &self.authority
            && !is_authority(&bytes[range.clone()])
        {
            return Err(Refusal::Host("not a host name"));
        }
        if matches!(self.method, Method::Other(_)) && self.method() == "CONNECT" {
            // Nothing here is a tunnel, and to others what follows the head is one.
            return Err(Refusal::Target("CONNECT"));
        }
        let target = &bytes[self.target.clone()];
        if target
            .iter()
            .any(|b| *b <= b' ' || *b == 0x7f || *b == b'#' || *b >= 0x80)
        {
            return Err(Refusal::Target(
                "control, space, non-ASCII or fragment in the target",
            ));
        }
        if target.first() == Some(&b'/') || (target == b"*" && self.method() == "OPTIONS") {
            return Ok(());
        }
        self.settle_absolute_target()
    }

    /// An absolute-form target must name the same authority as `Host`; the path is what follows.
    fn settle_absolute_target(&mut self) -> Result<(), Refusal> {
        let start = self.target.start;
        let bytes = self.fields.bytes.filled();
        let target = &bytes[self.target.clone()];
        let scheme = if target
            .get(..7)
            .is_some_and(|s| s.eq_ignore_ascii_case(b"http://"))
        {
            7
        } else if target
            .get(..8)
            .is_some_and(|s| s.eq_ignore_ascii_case(b"https://"))
        {
            8
        } else {
            return Err(Refusal::Target("neither a path nor an absolute URI"));
        };
        let Some(slash) = memchr::memchr(b'/', &target[scheme..]) else {
            return Err(Refusal::Target("an absolute URI without a path"));
        };
        let named = start + scheme..start + scheme + slash;
        if let Some(host) = self.fields.known(HOST)
            && !bytes[host.value_range()].eq_ignore_ascii_case(&bytes[named.clone()])
        {
            return Err(Refusal::Host("differs from the absolute target"));
        }
        if !is_authority(&bytes[named.clone()]) {
            return Err(Refusal::Host("not a host name"));
        }
        self.target = named.end..self.target.end;
        self.authority = Some(named);
        Ok(())
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.fields.bytes.filled()[range.clone()]).unwrap_or_default()
    }
}

/// Fields that `Connection` may not name.
fn is_end_to_end(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 7] = [
        b"host",
        b"origin",
        b"accept",
        b"authorization",
        b"content-type",
        b"last-event-id",
        b"cookie",
    ];
    let is_mcp = name
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"mcp-"));
    is_mcp || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Is this a name or an address, and a port or none (RFC 3986 section 3.2)? An `http` URI has no
/// empty host, so nothing is no authority either.
pub fn is_authority(value: &[u8]) -> bool {
    let is_port = |rest: &[u8]| match rest.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    let in_name = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'%' | b'~')
    };
    if let Some(address) = value.strip_prefix(b"[") {
        return memchr::memchr(b']', address).is_some_and(|end| {
            let (address, rest) = address.split_at(end);
            let in_address = |byte: &u8| in_name(byte) || *byte == b':';
            !address.is_empty() && address.iter().all(in_address) && is_port(&rest[1..])
        });
    }
    let end = memchr::memchr(b':', value).unwrap_or(value.len());
    let (name, rest) = value.split_at(end);
    !name.is_empty() && name.iter().all(in_name) && is_port(rest)
}

/// The parser takes a bare LF for a line end; others do not. What else is a trap of this kind, a CR
/// that no LF follows and a folded line, it refuses itself.
fn refuse_bare_line_ends(bytes: &[u8]) -> Result<(), Refusal> {
    // Two slices and bytes that are added up, with no branch: so the compiler looks at many at once. Looking
    // for each line end takes several times as long.
    let behind = bytes.get(1..).unwrap_or_default();
    let pairs = bytes.iter().zip(behind);
    let bare = pairs.fold(0, |bare, (before, byte)| {
        bare | (u8::from(*byte == b'\n') & u8::from(*before != b'\r'))
    });
    match bare != 0 || bytes.first() == Some(&b'\n') {
        true => Err(Refusal::Syntax("bare LF")),
        false => Ok(()),
    }
}

fn syntax(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "header name",
        httparse::Error::HeaderValue => "header value",
        httparse::Error::NewLine => "line end",
        httparse::Error::Status => "status",
        httparse::Error::Token => "method or target",
        httparse::Error::TooManyHeaders => "too many header fields",
        httparse::Error::Version => "HTTP version",
    }
}

impl Headers for Head {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }

    fn known(&self, name: Known) -> Option<&[u8]> {
        self.fields.value(name)
    }

    fn count(&self, name: &str) -> usize {
        self.fields.count(name)
    }

    fn repeats(&self, names: &[Known]) -> bool {
        self.fields.repeats(names)
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        self.fields.each(f);
    }
}

impl RequestHead for Head {
    fn method(&self) -> &str {
        match &self.method {
            Method::Common(method) => method,
            Method::Other(range) => self.text(range),
        }
    }

    fn target(&self) -> &str {
        self.text(&self.target)
    }

    fn onward(&self) -> &str {
        self.onward.as_deref().unwrap_or_else(|| self.target())
    }

    fn authority(&self) -> Option<&str> {
        self.authority.as_ref().map(|range| self.text(range))
    }

    fn version(&self) -> Http {
        self.version
    }
}

#[cfg(test)]
mod tests;

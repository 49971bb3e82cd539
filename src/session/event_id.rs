//! The ids that are lent to the events of a server which gives none.
//!
//! Such an id says which of a session's streams the event stood on and the how many-th it was there.
//! It is looked up among the streams of the session that the request belongs to, whose own id is
//! sealed; so nobody comes by another session's events, whatever id is made up.
//!
//! One that is not found, since it is too old or of another process, still has to be answered rightly
//! ([`EventId::kind`]), and a client that waits for an answer which nobody can give any more has to be
//! told: so the id of an event on the reply to a request also holds that request's id.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

/// The longest request id that is held, in bytes of JSON.
const REQUEST_MAX: usize = 64;
/// The longest id of ours.
const ID_MAX: usize = 160;
const MARK: &str = "tg.";

/// What kind of stream an event stood on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOf {
    /// The standing stream of a session, opened by GET.
    Session,
    /// The reply to one request.
    Request,
}

/// How far along its stream an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The how many-th it is; the first is 1.
    Number(u64),
    /// It has answered the request: nothing is to come.
    Last,
}

/// An id of ours, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    /// What kind of stream.
    pub kind: StreamOf,
    /// Which of the session's streams.
    pub stream: u64,
    /// Where on it.
    pub place: Place,
    /// The id of the request that the stream replies to, as JSON, unless it is too long.
    pub request: Option<String>,
}

impl EventId {
    /// Reads an id of ours; `None` if it is another's.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > ID_MAX {
            return None;
        }
        let text = str::from_utf8(text).ok()?.strip_prefix(MARK)?;
        let mut parts = text.split('.');
        let (kind, stream) = parts.next()?.split_at_checked(1)?;
        let kind = match kind {
            "g" => StreamOf::Session,
            "p" => StreamOf::Request,
            _ => return None,
        };
        let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if stream.len() != 16 || !stream.bytes().all(is_hex) {
            return None;
        }
        let stream = u64::from_str_radix(stream, 16).ok()?;
        let place = match parts.next()? {
            "last" => Place::Last,
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Place::Number(number.parse().ok()?)
            }
            _ => return None,
        };
        let request = match parts.next() {
            None => None,
            Some(request) => Some(String::from_utf8(BASE64.decode(request).ok()?).ok()?),
        };
        parts.next().is_none().then_some(Self {
            kind,
            stream,
            place,
            request,
        })
    }
}

/// Writes the ids of one stream.
#[derive(Debug, Clone)]
pub struct Stamp {
    before: Box<str>,
    behind: Box<str>,
}

impl Stamp {
    /// For the stream with this number, which replies to `request`, if to any.
    pub fn new(kind: StreamOf, stream: u64, request: Option<&str>) -> Self {
        let kind = match kind {
            StreamOf::Session => 'g',
            StreamOf::Request => 'p',
        };
        let request = request.filter(|id| id.len() <= REQUEST_MAX);
        Self {
            before: format!("id: {MARK}{kind}{stream:016x}.").into_boxed_str(),
            behind: request
                .map_or_else(|| "\n".to_owned(), |id| format!(".{}\n", BASE64.encode(id)))
                .into_boxed_str(),
        }
    }

    /// Appends the line that gives an event its id. It may stand wherever a line of the event may.
    pub fn write_line(&self, out: &mut Vec<u8>, place: Place) {
        out.extend_from_slice(self.before.as_bytes());
        match place {
            Place::Number(number) => {
                write!(out, "{number}").expect("a vector takes everything");
            }
            Place::Last => out.extend_from_slice(b"last"),
        }
        out.extend_from_slice(self.behind.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(stamp: &Stamp, place: Place) -> String {
        let mut out = Vec::new();
        stamp.write_line(&mut out, place);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (kind, request) in [
            (StreamOf::Session, None),
            (StreamOf::Request, Some("7")),
            (StreamOf::Request, Some("\"a\\n.b\"")),
        ] {
            for place in [Place::Number(1), Place::Number(u64::MAX), Place::Last] {
                let line = written(&Stamp::new(kind, 0xabc, request), place);
                let id = line
                    .strip_prefix("id: ")
                    .and_then(|line| line.strip_suffix('\n'));
                let id = EventId::parse(id.unwrap().as_bytes()).unwrap();
                assert_eq!((id.kind, id.stream, id.place), (kind, 0xabc, place));
                assert_eq!(id.request.as_deref(), request);
                assert!(line.len() <= ID_MAX);
            }
        }
    }

    #[test]
    fn a_request_id_that_is_long_is_left_out() {
        let fits = "1".repeat(REQUEST_MAX);
        let line = written(
            &Stamp::new(StreamOf::Request, 1, Some(&fits)),
            Place::Number(u64::MAX),
        );
        assert!(
            EventId::parse(&line.trim_end().as_bytes()[4..])
                .unwrap()
                .request
                .is_some()
        );
        let long = "1".repeat(REQUEST_MAX + 1);
        let line = written(
            &Stamp::new(StreamOf::Request, 1, Some(&long)),
            Place::Number(1),
        );
        assert_eq!(
            EventId::parse(&line.trim_end().as_bytes()[4..])
                .unwrap()
                .request,
            None
        );
    }

    #[test]
    fn what_others_give_is_not_taken_for_ours() {
        for text in [
            "",
            "669",
            "tg.",
            "tg.g",
            "tg.x0000000000000abc.1",
            "tg.g0000000000000abc",
            "tg.g0000000000000abc.",
            "tg.g0000000000000abc.+1",
            "tg.g0000000000000abc.99999999999999999999",
            "tg.g+000000000000abc.1",
            "tg.g0000000000000ABC.1",
            "tg.gé00000000000abc.1",
            "tg.g0000000000000abc.1.!",
            "tg.g0000000000000abc.1.Nw.",
            "TG.g0000000000000abc.1",
            "3f0c5ad1-8a2a-4b57-b0a2-0b1a4a1c1b1e::1764316800000_abcdef",
        ] {
            assert_eq!(EventId::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(EventId::parse(b"tg.g\xff000000000000abc.1"), None);
        assert_eq!(EventId::parse(&[b'1'; 1000]), None);
    }
}

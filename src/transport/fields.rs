//! Names of header fields, and which fields of a head are sent on.
//!
//! A request is asked for some twenty of its fields, one after the other. The names that matter are
//! few and known beforehand, so each field is looked at once, when its head is parsed, and told by a
//! number from then on.

use super::{Edits, Headers};

/// A field name that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known(u8);

/// The names, in lower case, grouped by length and in order of it.
const NAMES: [&str; 38] = [
    "te",
    "etag",
    "host",
    "accept",
    "cookie",
    "expect",
    "origin",
    "trailer",
    "upgrade",
    "mcp-name",
    "forwarded",
    "x-real-ip",
    "connection",
    "keep-alive",
    "mcp-method",
    "tracestate",
    "user-agent",
    "traceparent",
    "content-type",
    "authorization",
    "last-event-id",
    "content-length",
    "http2-settings",
    "mcp-session-id",
    "accept-encoding",
    "x-forwarded-for",
    "x-forwarded-ssl",
    "content-encoding",
    "proxy-connection",
    "x-forwarded-host",
    "x-forwarded-port",
    "transfer-encoding",
    "x-accel-buffering",
    "x-forwarded-proto",
    "proxy-authenticate",
    "x-forwarded-prefix",
    "proxy-authorization",
    "mcp-protocol-version",
];

/// `Accept-Encoding`.
pub const ACCEPT_ENCODING: Known = Known::of("accept-encoding");
/// `Connection`.
pub const CONNECTION: Known = Known::of("connection");
/// `Content-Encoding`.
pub const CONTENT_ENCODING: Known = Known::of("content-encoding");
/// `Content-Length`.
pub const CONTENT_LENGTH: Known = Known::of("content-length");
/// `Content-Type`.
pub const CONTENT_TYPE: Known = Known::of("content-type");
/// `Cookie`.
pub const COOKIE: Known = Known::of("cookie");
/// `ETag`.
pub const ETAG: Known = Known::of("etag");
/// `Expect`.
pub const EXPECT: Known = Known::of("expect");
/// `Forwarded` (RFC 7239).
pub const FORWARDED: Known = Known::of("forwarded");
/// `Host`.
pub const HOST: Known = Known::of("host");
/// `Last-Event-ID`.
pub const LAST_EVENT_ID: Known = Known::of("last-event-id");
/// `Mcp-Method`.
pub const MCP_METHOD: Known = Known::of("mcp-method");
/// `Mcp-Name`.
pub const MCP_NAME: Known = Known::of("mcp-name");
/// `MCP-Protocol-Version`.
pub const MCP_PROTOCOL_VERSION: Known = Known::of("mcp-protocol-version");
/// `Mcp-Session-Id`.
pub const MCP_SESSION_ID: Known = Known::of("mcp-session-id");
/// `Origin`.
pub const ORIGIN: Known = Known::of("origin");
/// `traceparent` (W3C Trace Context).
pub const TRACEPARENT: Known = Known::of("traceparent");
/// `tracestate` (W3C Trace Context).
pub const TRACESTATE: Known = Known::of("tracestate");
/// `Transfer-Encoding`.
pub const TRANSFER_ENCODING: Known = Known::of("transfer-encoding");
/// `Upgrade`.
pub const UPGRADE: Known = Known::of("upgrade");
/// `User-Agent`.
pub const USER_AGENT: Known = Known::of("user-agent");
/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: Known = Known::of("x-forwarded-for");
/// `X-Forwarded-Host`.
pub const X_FORWARDED_HOST: Known = Known::of("x-forwarded-host");
/// `X-Forwarded-Port`.
pub const X_FORWARDED_PORT: Known = Known::of("x-forwarded-port");
/// `X-Forwarded-Prefix`.
pub const X_FORWARDED_PREFIX: Known = Known::of("x-forwarded-prefix");
/// `X-Forwarded-Proto`.
pub const X_FORWARDED_PROTO: Known = Known::of("x-forwarded-proto");
/// `X-Forwarded-Ssl`.
pub const X_FORWARDED_SSL: Known = Known::of("x-forwarded-ssl");
/// `X-Real-IP`.
pub const X_REAL_IP: Known = Known::of("x-real-ip");

/// How many names there are.
pub const KNOWN: usize = NAMES.len();

/// Fields that belong to one connection and are never sent on (RFC 9110 section 7.6.1), and the
/// framing fields that the transport writes itself.
const HOP_BY_HOP: u64 = mask(&[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "http2-settings",
    "expect",
]);

const fn mask(names: &[&str]) -> u64 {
    let mut mask = 0;
    let mut at = 0;
    while at < names.len() {
        mask |= Known::of(names[at]).bit();
        at += 1;
    }
    mask
}

/// For each length, where the names of that length begin and end.
const BY_LENGTH: [(u8, u8); 21] = {
    let mut table = [(0, 0); 21];
    let mut at = 0;
    while at < NAMES.len() {
        let row = &mut table[NAMES[at].len()];
        if row.1 == 0 {
            row.0 = at as u8;
        }
        row.1 = at as u8 + 1;
        at += 1;
    }
    table
};

/// The slow way, for what is computed beforehand.
const fn find(name: &[u8]) -> Option<Known> {
    let mut at = 0;
    while at < NAMES.len() {
        if NAMES[at].as_bytes().eq_ignore_ascii_case(name) {
            return Some(Known(at as u8));
        }
        at += 1;
    }
    None
}

/// The bit that tells a small letter from a capital one, in every byte of a word. Of the bytes that
/// a field name may hold, only letters change by it, or turn into what no known name holds.
const SMALL: u64 = 0x2020_2020_2020_2020;

/// A name of 2 to 24 bytes as words: its beginning, its end, and what may lie between.
type Words = [u64; 3];

const fn words(name: &[u8]) -> Words {
    let len = name.len();
    if let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        let middle = match name.split_at(8).1.first_chunk::<8>() {
            Some(middle) => u64::from_le_bytes(*middle),
            None => 0,
        };
        return [
            u64::from_le_bytes(*first) | SMALL,
            u64::from_le_bytes(*last) | SMALL,
            middle | SMALL,
        ];
    }
    let short = match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32
        }
        _ if len < 2 => 0,
        _ => name[0] as u64 | (name[1] as u64) << 8 | (name[len - 1] as u64) << 16,
    };
    [short | SMALL, 0, 0]
}

/// The known names as words.
const WORDS: [Words; NAMES.len()] = {
    let mut table = [[0; 3]; NAMES.len()];
    let mut at = 0;
    while at < NAMES.len() {
        table[at] = words(NAMES[at].as_bytes());
        at += 1;
    }
    table
};

impl Known {
    /// A name that stands in the list, for what is computed beforehand.
    ///
    /// # Panics
    /// If it does not, which the compiler then says.
    const fn of(name: &str) -> Self {
        match find(name.as_bytes()) {
            Some(known) => known,
            None => panic!("a name that is not in the list"),
        }
    }

    /// The name in lower case.
    pub const fn as_str(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    /// The name in question, whatever the case of its letters.
    pub fn find(name: &[u8]) -> Option<Self> {
        let &(first, end) = BY_LENGTH.get(name.len())?;
        if first == end {
            return None;
        }
        let words = words(name);
        (first..end)
            .find(|at| WORDS[usize::from(*at)] == words)
            .map(Self)
    }

    /// Its number, below [`KNOWN`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The name with this number.
    pub fn at(index: usize) -> Option<Self> {
        (index < KNOWN).then_some(Self(index as u8))
    }

    /// Its bit in a set of known names.
    pub const fn bit(self) -> u64 {
        1 << self.0
    }
}

/// A set of known names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names(u64);

impl Names {
    /// No field.
    pub const NONE: Self = Self(0);

    /// These fields.
    pub const fn of(names: &[Known]) -> Self {
        let mut mask = 0;
        let mut at = 0;
        while at < names.len() {
            mask |= names[at].bit();
            at += 1;
        }
        Self(mask)
    }

    /// Is there none?
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is it one of them?
    pub(super) const fn holds(self, name: Known) -> bool {
        self.0 & name.bit() != 0
    }

    /// One more.
    pub(super) const fn add(&mut self, name: Known) {
        self.0 |= name.bit();
    }

    /// These fields and those.
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Is it one of them, or would a server take it for one? Many write names as variables of an
    /// environment, where `-` and `_` are one.
    pub fn has(self, name: Name<'_>) -> bool {
        let known = match name.known {
            Some(known) => Some(known),
            None => with_hyphens(name.text),
        };
        known.is_some_and(|known| self.holds(known))
    }
}

/// The name of a field as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    text: &'a [u8],
    known: Option<Known>,
}

impl<'a> Name<'a> {
    /// A name that is looked at for the first time.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            known: Known::find(text),
        }
    }

    /// A name that was looked at before.
    pub(super) fn seen(text: &'a [u8], known: Option<Known>) -> Self {
        Self { text, known }
    }

    /// The bytes, which are ASCII in every head that was parsed.
    pub fn as_bytes(self) -> &'a [u8] {
        self.text
    }

    /// Is it this name? `name` is in lower case.
    pub fn is(self, name: &str) -> bool {
        self.text.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Is it this name to a server that reads underscores as hyphens? `name` is in lower case.
    pub fn may_be(self, name: &str) -> bool {
        let hyphened = |byte: &u8| match byte {
            b'_' => b'-',
            byte => byte.to_ascii_lowercase(),
        };
        self.text.len() == name.len()
            && self
                .text
                .iter()
                .map(hyphened)
                .eq(name.bytes().map(|byte| hyphened(&byte)))
    }

    /// Does it begin so, and is none of the known names? `prefix` is in lower case.
    pub fn begins(self, prefix: &str) -> bool {
        let start = || self.text.get(..prefix.len());
        self.known.is_none()
            && start().is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    }

    /// Does it belong to one connection?
    pub fn is_hop_by_hop(self) -> bool {
        self.known
            .is_some_and(|known| HOP_BY_HOP & known.bit() != 0)
    }
}

/// Which fields of a head stay behind when it is sent on: those of one connection, those that
/// `Connection` names, and those that the edits replace or drop.
pub(super) struct Stays<'a> {
    from: &'a dyn Headers,
    edits: Edits<'a>,
    known: u64,
    /// The edits set fields that have no number.
    others: bool,
    /// `Connection` names fields of its own.
    nominates: bool,
}

impl<'a> Stays<'a> {
    /// `also` stay behind besides.
    pub(super) fn new(from: &'a dyn Headers, edits: Edits<'a>, also: Names) -> Self {
        let mut stays = Self {
            from,
            edits,
            known: HOP_BY_HOP | edits.drop.0 | also.0,
            others: false,
            nominates: false,
        };
        for (name, _) in edits.set {
            match Known::find(name.as_bytes()) {
                Some(known) => stays.known |= known.bit(),
                None => stays.others = true,
            }
        }
        if from.known(CONNECTION).is_some() {
            from.each(&mut |name, value| {
                stays.nominates |= name.is("connection") && tokens(value).any(nominates);
            });
        }
        stays
    }

    /// Does this field stay behind?
    pub(super) fn has(&self, name: Name<'_>) -> bool {
        let stays = match name.known {
            Some(known) => self.known & known.bit() != 0,
            None => {
                let is_set = || self.edits.set.iter().any(|(set, _)| name.is(set));
                (self.others && is_set()) || self.edits.drop.has(name)
            }
        };
        stays
            || self.edits.more.is_some_and(|more| more.fields.leaves(name))
            || (self.nominates && is_nominated(self.from, name.text))
    }
}

impl Edits<'_> {
    /// Calls `put` with every field that comes in, in order.
    pub(super) fn each(&self, put: &mut dyn FnMut(&str, &[u8])) {
        let Some(more) = &self.more else {
            return self.set.iter().for_each(|(name, value)| put(name, value));
        };
        for (name, value) in self.set {
            if !more.fields.leaves(Name::new(name.as_bytes())) {
                put(name, value);
            }
        }
        more.each(put);
    }
}

/// The known name that this one is with hyphens in the place of its underscores, if it has any.
fn with_hyphens(name: &[u8]) -> Option<Known> {
    memchr::memchr(b'_', name)?;
    let mut room = [0; 24];
    let hyphened = room.get_mut(..name.len())?;
    for (to, from) in hyphened.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    Known::find(hyphened)
}

/// Does this token of `Connection` name a field that would otherwise be sent on?
fn nominates(token: &[u8]) -> bool {
    !(token.is_empty() || token.eq_ignore_ascii_case(b"close") || Name::new(token).is_hop_by_hop())
}

/// The tokens of a list such as `Connection`, without the whitespace around them.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// True if one of the `Connection` field lines nominates `name` as hop-by-hop.
pub fn is_nominated(headers: &(impl Headers + ?Sized), name: &[u8]) -> bool {
    let mut found = false;
    headers.each(&mut |field, value| {
        found |=
            field.is("connection") && tokens(value).any(|token| token.eq_ignore_ascii_case(name));
    });
    found
}

#[cfg(test)]
mod tests;

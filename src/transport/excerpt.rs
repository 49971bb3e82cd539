//! What may be shown of a head that was refused: enough to see what is wrong with it, and no secret.
//!
//! Whatever a client or a server sends may hold one, also where none belongs, and a head that is broken may
//! break in the middle of one. So values are shown of fields alone that frame a message or say what it is,
//! and only in the line that is wrong; of all others there are the name and the length. What does not
//! begin like HTTP is perhaps the rest of a body, and of that nothing but the first bytes is shown.

/// Most bytes of a head that are searched for what is wrong.
const SEARCHED_MAX: usize = 8 * 1024;
/// Most characters that are shown, over all lines.
const SHOWN_MAX: usize = 256;
/// Most bytes that are shown of a line.
const LINE_MAX: usize = 120;
/// Most bytes of the name of a field that are shown.
const NAME_MAX: usize = 64;
/// Bytes that are shown of what is no HTTP: a TLS handshake can be told by its first three.
const STRANGE_MAX: usize = 12;
/// What a request line ends with, as long as any other version.
const VERSION: &[u8] = b" HTTP/1.1";
/// Fields that the parser is given room for while it looks for what is wrong.
const FIELDS_MAX: usize = 256;

/// Fields whose values frame a message or say what it is.
const OPEN: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "keep-alive",
    "mcp-method",
    "mcp-protocol-version",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Which of the two kinds of heads this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of a request.
    Request,
    /// Of a response.
    Response,
}

/// A part of a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// How many bytes into the head the first thing stands that is wrong, where that is known.
    pub position: Option<usize>,
    /// The byte that stands there, in the form `x` or `\x00`.
    pub byte: Option<String>,
    /// Lines around it, without what is secret, each with its bytes beyond ASCII escaped.
    pub lines: Vec<String>,
}

impl Excerpt {
    /// An excerpt of a head, or of as much of it as has come, that was refused for this reason.
    pub fn of(kind: Kind, head: &[u8], why: &str) -> Self {
        let position = position(kind, head, why);
        let lines = lines(head);
        let is_there = |line: &&Line<'_>| position.is_some_and(|at| line.holds(at));
        let wrong = lines.iter().position(|line| is_there(&line));
        let shown = |at: usize| lines[at].shown(kind, at == 0, Some(at) == wrong);
        Self {
            position,
            byte: position
                .and_then(|at| head.get(at))
                .map(|byte| escaped(&[*byte])),
            lines: around(wrong.unwrap_or_default(), lines.len(), shown),
        }
    }
}

/// As many lines around one as may be shown, that one among them.
fn around(middle: usize, count: usize, shown: impl Fn(usize) -> String) -> Vec<String> {
    let mut kept = Vec::new();
    let mut room = SHOWN_MAX;
    let mut take = |at: usize, kept: &mut Vec<String>, place: usize| {
        let line = shown(at);
        let fits = line.len() <= room || kept.is_empty();
        if fits {
            room = room.saturating_sub(line.len());
            kept.insert(place, line);
        }
        fits
    };
    let (mut before, mut behind) = (middle, middle);
    if count > 0 {
        take(middle, &mut kept, 0);
        behind += 1;
    }
    // What stands before explains more than what stands behind.
    while before > 0 && take(before - 1, &mut kept, 0) {
        before -= 1;
    }
    while behind < count {
        let place = kept.len();
        if !take(behind, &mut kept, place) {
            break;
        }
        behind += 1;
    }
    kept
}

/// Where the first thing stands that is wrong.
fn position(kind: Kind, head: &[u8], why: &str) -> Option<usize> {
    let searched = &head[..head.len().min(SEARCHED_MAX)];
    let why = why.to_ascii_lowercase();
    if why.contains("bare lf") {
        let mut ends = memchr::memchr_iter(b'\n', searched);
        return ends.find(|at| *at == 0 || searched[at - 1] != b'\r');
    }
    if is_wrong(kind, searched) {
        // Whatever begins with what is wrong is wrong, so it can be found by halves.
        let (mut right, mut wrong) = (0, searched.len());
        while right + 1 < wrong {
            let middle = right + (wrong - right) / 2;
            match is_wrong(kind, &searched[..middle]) {
                true => wrong = middle,
                false => right = middle,
            }
        }
        return Some(wrong - 1);
    }
    if why.contains("target") {
        return memchr::memchr(b' ', searched).map(|at| at + 1);
    }
    let of = ["transfer-encoding", "content-length", "connection", "host"];
    let named: Vec<&str> = of.into_iter().filter(|name| why.contains(name)).collect();
    let lines = lines(searched);
    let is_named = |line: &&Line<'_>| named.iter().any(|name| line.is(name));
    // The later of two that do not go together is the one too many.
    lines.iter().rev().find(is_named).map(|line| line.start)
}

/// Does the parser refuse what has come so far?
fn is_wrong(kind: Kind, bytes: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let parsed = match kind {
        Kind::Request => httparse::Request::new(&mut fields).parse(bytes),
        Kind::Response => httparse::Response::new(&mut fields).parse(bytes),
    };
    parsed.is_err_and(|error| error != httparse::Error::TooManyHeaders)
}

/// A line of a head.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    /// Where it begins in the head.
    start: usize,
    /// It, without its end.
    text: &'a [u8],
    /// What ends it.
    end: usize,
}

fn lines(head: &[u8]) -> Vec<Line<'_>> {
    let head = &head[..head.len().min(SEARCHED_MAX)];
    let mut start = 0;
    let mut lines = Vec::new();
    for piece in head.split_inclusive(|byte| *byte == b'\n') {
        let text = piece.strip_suffix(b"\n").unwrap_or(piece);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !text.is_empty() || lines.is_empty() {
            lines.push(Line {
                start,
                text,
                end: start + piece.len(),
            });
        }
        start += piece.len();
    }
    lines
}

impl Line<'_> {
    fn holds(&self, at: usize) -> bool {
        (self.start..self.end).contains(&at)
    }

    fn name(&self) -> Option<&[u8]> {
        let colon = memchr::memchr(b':', self.text)?;
        let name = &self.text[..colon];
        let is_name = !name.is_empty() && name.len() <= NAME_MAX && name.iter().all(is_token);
        is_name.then_some(name)
    }

    fn is(&self, name: &str) -> bool {
        let own = self.name();
        own.is_some_and(|own| own.eq_ignore_ascii_case(name.as_bytes()))
    }

    fn shown(&self, kind: Kind, is_first: bool, is_wrong: bool) -> String {
        match (is_first, kind) {
            (true, Kind::Request) => request_line(self.text),
            (true, Kind::Response) if self.text.starts_with(b"HTTP/") => cut(self.text),
            (true, Kind::Response) => strange(self.text),
            (false, _) => self.field(is_wrong),
        }
    }

    fn field(&self, is_wrong: bool) -> String {
        let Some(name) = self.name() else {
            return length(self.text.len());
        };
        let value = &self.text[name.len() + 1..];
        let shown = escaped(name);
        let is_open = match self.is("host") {
            true => is_place(value),
            false => OPEN.iter().any(|open| self.is(open)),
        };
        match is_wrong && is_open {
            true => format!("{shown}:{}", cut(value)),
            false => format!("{shown}: {}", length(value.trim_ascii().len())),
        }
    }
}

/// A host and perhaps a port, and neither a password nor what is left of one: `Host: me:secret@host` is one
/// of the things that are wrong.
fn is_place(value: &[u8]) -> bool {
    let mut parts = value.rsplitn(2, |byte| *byte == b':');
    let last = parts.next().unwrap_or_default();
    let is_port = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    match parts.next() {
        Some(host) => is_port(last) && !host.iter().any(|byte| b":@".contains(byte)),
        None => !last.contains(&b'@'),
    }
}

/// The first line of a request. What stands behind the path may hold a secret, and so may an absolute target.
fn request_line(line: &[u8]) -> String {
    let method = line.iter().take_while(|byte| byte.is_ascii_uppercase());
    let method = method.count();
    let rest = &line[method..];
    let is_like =
        (1..=20).contains(&method) && (rest.starts_with(b" /") || rest.starts_with(b" *"));
    if !is_like {
        return strange(line);
    }
    let path = rest[1..].iter().take_while(|byte| !b"? ".contains(byte));
    let (path, behind) = line.split_at(method + 1 + path.count());
    let version = behind.len().saturating_sub(VERSION.len());
    let version = match behind[version..].starts_with(b" HTTP/") {
        true => version,
        false => behind.len(),
    };
    let left = match version {
        0 => String::new(),
        left => length(left),
    };
    format!("{}{left}{}", cut(path), escaped(&behind[version..]))
}

fn strange(line: &[u8]) -> String {
    let shown = &line[..line.len().min(STRANGE_MAX)];
    let left = line.len() - shown.len();
    match left {
        0 => escaped(shown),
        left => format!("{}{}", escaped(shown), length(left)),
    }
}

fn cut(text: &[u8]) -> String {
    match text.len() <= LINE_MAX {
        true => escaped(text),
        false => format!(
            "{}{}",
            escaped(&text[..LINE_MAX]),
            length(text.len() - LINE_MAX)
        ),
    }
}

/// May this stand in the name of a field (RFC 9110 section 5.6.2)?
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn length(bytes: usize) -> String {
    format!("[{bytes} bytes]")
}

/// Bytes as text that a terminal can be shown.
fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests;

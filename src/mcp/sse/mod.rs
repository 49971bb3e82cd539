//! Event streams (WHATWG HTML, section 9.2), watched while their bytes pass.
//!
//! A stream is forwarded as bytes: at once, in order, unchanged, because servers differ in line
//! ends and field order, and a held-back event makes a client wait for an answer that has arrived.
//! Yet a few things must be known of it. Where does an event end, so that a comment of ours may
//! stand there? Has the request been answered, or must we say that it never will be? Can the client
//! resume, or is this the last it hears? [`SseScan`] finds that out without keeping any event:
//! lines are cut where they lie, and the data of a message runs through a [`Peek`].
//!
//! When a server dies in the middle of an event, its first bytes are already with the client.
//! [`SseScan::poison_partial`] writes what makes the client drop that event, so that one of ours
//! can follow.

mod block;
mod write;

#[cfg(test)]
mod tests;

pub use write::{KEEP_ALIVE, endpoint_event, write_message_event};

use super::message::{BatchItem, Class, RawId};
use super::peek::Peek;
use block::{Block, Data, Field, Ids, Short};

/// The largest event that is let through unless another limit is set, in bytes.
pub const EVENT_BYTES_MAX: u64 = 16 << 20;
/// The longest data of an `endpoint` event, in bytes.
pub const ENDPOINT_BYTES_MAX: usize = 4096;
/// The longest event id that is remembered, in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 512;

/// How much of a stream is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Borders of events, their ids, and the messages in them.
    #[default]
    Messages,
    /// The same, and the `endpoint` event that begins a stream of HTTP+SSE.
    Endpoint,
    /// Borders and ids only; every message is [`Note::Other`]. The cheapest.
    Borders,
}

/// What an event was. Borrows from the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note<'a> {
    /// The answer to a request.
    Response {
        /// The request's id. Absent when the server could not read it.
        id: Option<&'a RawId>,
        /// The answer is an `error`.
        is_error: bool,
        /// The answer is the result of a tool that has failed; see
        /// [`Message::is_tool_error`](super::Message::is_tool_error).
        is_tool_error: bool,
        /// The code of the error, if it is one.
        error_code: Option<i32>,
    },
    /// A request of the server to the client; session era only.
    Request {
        /// Its id, from the server's own id space.
        id: &'a RawId,
        /// Its method; see [`super::message::METHOD_BYTES_MAX`] for its bound.
        method: &'a str,
    },
    /// A notification.
    Notification {
        /// Its method, bounded likewise.
        method: &'a str,
    },
    /// Several messages at once; revision 2025-03-26 only.
    Batch(&'a [BatchItem]),
    /// An id and no data: it marks a point from which the client can resume. A server may close the
    /// stream after it on purpose.
    Priming,
    /// The data of an `endpoint` event, in [`Mode::Endpoint`] and for the first such event only.
    Endpoint(&'a str),
    /// The event has passed the limit and is not complete. Told once per event; the event is told
    /// again when it ends.
    EventTooLarge,
    /// Anything else: another event type, data that is no message, a block without data.
    Other,
}

/// An event, told when the empty line after it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventNote<'a> {
    /// What it was.
    pub note: Note<'a>,
    /// It had an `id` field.
    pub has_id: bool,
    /// Its length in bytes, with its line ends and the comments inside of it. A `\n` that arrives
    /// alone after the final `\r` is not counted.
    pub size: u64,
    /// Where the empty line that ends it begins within the bytes that were fed: another line of the
    /// event may stand there.
    pub blank: usize,
    /// Where it ends within the bytes that were fed: the offset of the first byte after it.
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// At the start of the stream, after so many bytes of a byte order mark.
    Bom(u8),
    /// At the start of a line.
    Start,
    /// In the name of a field.
    Name,
    /// After the colon, where one space may stand.
    Colon(Field),
    /// In the value of a field.
    Value(Field),
    /// In a comment.
    Comment,
}

/// What is read of the data of an open event.
#[derive(Clone, Debug)]
struct Open {
    peek: Peek,
    /// The data while an `endpoint` event is looked for.
    endpoint: Vec<u8>,
}

/// The scan of one stream. It holds no event, only the bounded members of a message and ids.
///
/// A stream may stay open for hours and say nothing, so between events the scan holds no message;
/// and nothing but itself if the server gives no ids.
#[derive(Clone, Debug)]
pub struct SseScan {
    event_bytes_max: u64,
    block: Block,
    /// Made at the first byte of data, and dropped when [`SseScan::feed`] returns between events.
    open: Option<Box<Open>>,
    ids: Ids,
    id_seen: bool,
    last_was_priming: bool,
    mode: Mode,
    line: Line,
    /// The last byte was `\r`, so a `\n` now belongs to the same line end.
    after_cr: bool,
    name: Short,
    /// The last bytes, to know whether a character is cut.
    tail: [u8; 3],
}

impl Default for SseScan {
    fn default() -> Self {
        Self::new(Mode::default())
    }
}

impl SseScan {
    /// A scan at the start of a stream.
    pub fn new(mode: Mode) -> Self {
        Self {
            event_bytes_max: EVENT_BYTES_MAX,
            block: Block::default(),
            open: None,
            ids: Ids::default(),
            id_seen: false,
            last_was_priming: false,
            mode,
            line: Line::Bom(0),
            after_cr: false,
            name: Short::default(),
            tail: [0; 3],
        }
    }

    /// Sets the size in bytes above which an event is told as [`Note::EventTooLarge`].
    #[must_use]
    pub fn with_event_max(mut self, bytes: u64) -> Self {
        self.event_bytes_max = bytes;
        self
    }

    /// Reads the next bytes of the stream, and tells every event that they complete.
    pub fn feed(&mut self, bytes: &[u8], on_event: &mut impl FnMut(&EventNote<'_>)) {
        let mut at = 0;
        while at < bytes.len() {
            at = self.step(bytes, at, on_event);
        }
        for &byte in &bytes[bytes.len().saturating_sub(self.tail.len())..] {
            self.tail = [self.tail[1], self.tail[2], byte];
        }
        if self.block.data == Data::Absent {
            self.open = None;
        }
    }

    /// May bytes of ours stand here? True at the start, after an event, and after a comment between
    /// events.
    pub fn at_boundary(&self) -> bool {
        matches!(self.line, Line::Bom(0) | Line::Start) && !self.block.has_field
    }

    /// Has some complete event carried an id? Then the client may come back with `Last-Event-ID`.
    pub fn event_id_seen(&self) -> bool {
        self.id_seen
    }

    /// The id of the last complete event that had one; `None` if there was none, or it was too long.
    pub fn last_event_id(&self) -> Option<&[u8]> {
        self.ids.last().filter(|id| !id.is_empty())
    }

    /// Was the last complete event a priming one, with nothing begun after it? An end of the stream
    /// here is the server's intention.
    pub fn last_was_priming(&self) -> bool {
        self.last_was_priming && self.at_boundary()
    }

    /// Reads on from `at`, and returns how far it came. A step may read nothing, but then it
    /// changes the state of the line, and the next one reads.
    fn step(
        &mut self,
        bytes: &[u8],
        at: usize,
        on_event: &mut impl FnMut(&EventNote<'_>),
    ) -> usize {
        let byte = bytes[at];
        if std::mem::take(&mut self.after_cr) && byte == b'\n' {
            self.block.size += u64::from(self.block.has_field);
            return at + 1;
        }
        if matches!(byte, b'\r' | b'\n') {
            let is_pair = byte == b'\r' && bytes.get(at + 1) == Some(&b'\n');
            self.after_cr = byte == b'\r' && at + 1 == bytes.len();
            let end = at + 1 + usize::from(is_pair);
            self.block.size += (end - at) as u64;
            self.line_end(at, end, on_event);
            return end;
        }
        let end = match self.line {
            Line::Bom(seen) => self.byte_order_mark(seen, byte, at),
            Line::Start if byte == b':' => {
                self.line = Line::Comment;
                at + 1
            }
            Line::Start => {
                self.name = Short::default();
                self.line = Line::Name;
                at
            }
            Line::Name => self.field_name(bytes, at),
            Line::Colon(field) => {
                self.line = Line::Value(field);
                at + usize::from(byte == b' ')
            }
            Line::Value(field) => {
                let end = line_len(&bytes[at..]) + at;
                self.value(field, &bytes[at..end]);
                end
            }
            Line::Comment => line_len(&bytes[at..]) + at,
        };
        self.block.size += (end - at) as u64;
        if self.block.size > self.event_bytes_max && !self.block.is_told_large {
            self.block.is_told_large = true;
            on_event(&self.told(Note::EventTooLarge, end, end));
        }
        end
    }

    fn told<'a>(&self, note: Note<'a>, blank: usize, end: usize) -> EventNote<'a> {
        EventNote {
            note,
            has_id: self.block.has_id,
            size: self.block.size,
            blank,
            end,
        }
    }

    /// One byte order mark may begin the stream. What only begins like one is the name of a field
    /// that nobody knows.
    fn byte_order_mark(&mut self, seen: u8, byte: u8, at: usize) -> usize {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        let seen = usize::from(seen);
        if byte == MARK[seen] {
            let is_whole = seen + 1 == MARK.len();
            self.line = if is_whole {
                Line::Start
            } else {
                Line::Bom(seen as u8 + 1)
            };
            return at + 1;
        }
        self.line = Line::Start;
        if seen > 0 {
            self.name = Short::default();
            self.name.push(&MARK[..seen]);
            self.line = Line::Name;
        }
        at
    }

    fn field_name(&mut self, bytes: &[u8], at: usize) -> usize {
        let rest = &bytes[at..];
        let len = memchr::memchr3(b':', b'\n', b'\r', rest).unwrap_or(rest.len());
        self.name.push(&rest[..len]);
        if rest.get(len) != Some(&b':') {
            return at + len;
        }
        let field = self.field_start();
        self.line = Line::Colon(field);
        at + len + 1
    }

    fn field_start(&mut self) -> Field {
        let field = Field::named(self.name.as_bytes());
        self.block.has_field = true;
        match field {
            Field::Data if self.block.data == Data::Absent => self.block.data = Data::EmptyLine,
            Field::Data => self.data(b"\n"),
            Field::Event => self.block.event = Short::default(),
            Field::Id => {
                self.block.touches_id = true;
                self.ids.line_start();
            }
            Field::Other => {}
        }
        field
    }

    fn value(&mut self, field: Field, bytes: &[u8]) {
        match field {
            Field::Data => self.data(bytes),
            Field::Event => self.block.event.push(bytes),
            Field::Id => self.ids.push(bytes),
            Field::Other => {}
        }
    }

    /// A part of the data, never empty.
    fn data(&mut self, bytes: &[u8]) {
        self.block.data = Data::Present;
        if self.mode == Mode::Borders {
            return;
        }
        let open = self.open.get_or_insert_with(|| {
            Box::new(Open {
                peek: Peek::lenient(),
                endpoint: Vec::new(),
            })
        });
        // An error stays in the scan and is asked for at the end of the event.
        let _ = open.peek.feed(bytes);
        if self.mode == Mode::Endpoint && open.endpoint.len() <= ENDPOINT_BYTES_MAX {
            let room = ENDPOINT_BYTES_MAX + 1 - open.endpoint.len();
            open.endpoint
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// A line has ended, with bytes from `at` to `end`.
    fn line_end(&mut self, at: usize, end: usize, on_event: &mut impl FnMut(&EventNote<'_>)) {
        let field = match std::mem::replace(&mut self.line, Line::Start) {
            Line::Bom(0) | Line::Start => return self.block_end(at, end, on_event),
            // Half a byte order mark is the name of a field that nobody knows.
            Line::Bom(_) => {
                self.block.has_field = true;
                return;
            }
            Line::Name => self.field_start(),
            Line::Colon(field) | Line::Value(field) => field,
            Line::Comment => {
                if !self.block.has_field {
                    self.block.size = 0;
                }
                return;
            }
        };
        if field == Field::Id {
            self.block.has_id |= self.ids.line_end();
        }
    }

    /// An empty line: the event is complete.
    fn block_end(&mut self, at: usize, end: usize, on_event: &mut impl FnMut(&EventNote<'_>)) {
        if self.block.has_field {
            if self.block.has_id {
                self.ids.block_end();
                self.id_seen = true;
            }
            if self.block.has_id || !self.block.is_empty() {
                self.last_was_priming = self.block.is_empty();
            }
            let note = self.note();
            let is_endpoint = matches!(note, Note::Endpoint(_));
            on_event(&self.told(note, at, end));
            if is_endpoint {
                self.mode = Mode::Messages;
            }
        }
        if let Some(open) = &mut self.open {
            open.peek.reset();
            open.endpoint.clear();
        }
        self.block = Block::default();
    }

    fn note(&self) -> Note<'_> {
        if self.block.is_empty() {
            return if self.block.has_id {
                Note::Priming
            } else {
                Note::Other
            };
        }
        match self.block.event.as_bytes() {
            b"" | b"message" => self.message_note(),
            b"endpoint" if self.mode == Mode::Endpoint => self.endpoint_note(),
            _ => Note::Other,
        }
    }

    fn endpoint_note(&self) -> Note<'_> {
        let data = self.open.as_ref().map_or(&[][..], |open| &open.endpoint);
        match str::from_utf8(data) {
            Ok(uri) if uri.len() <= ENDPOINT_BYTES_MAX => Note::Endpoint(uri),
            _ => Note::Other,
        }
    }

    fn message_note(&self) -> Note<'_> {
        let Some(peek) = self.open.as_ref().map(|open| &open.peek) else {
            return Note::Other;
        };
        if peek.finish().is_err() {
            return Note::Other;
        }
        let message = peek.message();
        match (message.class(), &message.id, &message.method) {
            (Class::Response, id, _) => Note::Response {
                id: id.as_ref(),
                is_error: message.has_error,
                is_tool_error: message.is_tool_error,
                error_code: message.error_code,
            },
            (Class::Request, Some(id), Some(method)) => Note::Request { id, method },
            (Class::Notification, _, Some(method)) => Note::Notification { method },
            (Class::Batch, _, _) => Note::Batch(&message.batch),
            _ => Note::Other,
        }
    }
}

fn line_len(bytes: &[u8]) -> usize {
    memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len())
}

//! Reading an event stream: what came, when, and in which exact bytes.

use std::time::Instant;

use bytes::BytesMut;
use serde_json::Value;

use super::Response;
use super::wire::BodyEnd;

/// One event of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The `event` field, if there was one.
    pub(crate) name: Option<String>,
    /// The `data` lines, joined with line feeds; `None` when there was no such line.
    pub(crate) data: Option<String>,
    /// The `id` field.
    pub(crate) id: Option<String>,
    /// The `retry` field, in milliseconds.
    pub(crate) retry: Option<u64>,
    /// The event as it stood on the wire, with the empty line that ended it.
    pub(crate) raw: String,
    /// When its last byte was read.
    pub(crate) at: Instant,
}

impl Event {
    /// The data as JSON; panics when it is none.
    pub(crate) fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_default();
        match serde_json::from_str(data) {
            Ok(value) => value,
            Err(e) => panic!("event data is not JSON ({e}): {data:?}"),
        }
    }
}

/// A comment line of a stream, as keep-alives are.
#[derive(Clone, Debug)]
pub(crate) struct Comment {
    /// The text after the colon.
    pub(crate) text: String,
    /// When it was read.
    pub(crate) at: Instant,
}

/// The events of a response, as they arrive.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    response: &'a mut Response,
    /// Comments seen so far.
    pub(crate) comments: Vec<Comment>,
    /// How many of them `next_comment` has returned.
    comments_taken: usize,
    /// How the stream ended; `None` while it lives.
    pub(crate) end: Option<BodyEnd>,
}

impl<'a> Events<'a> {
    pub(super) fn new(response: &'a mut Response) -> Self {
        Self {
            response,
            comments: Vec::new(),
            comments_taken: 0,
            end: None,
        }
    }

    /// The next event, or nothing once the stream has ended: [`Events::end`] then tells how. A
    /// silent stream ends as [`BodyEnd::Silent`] after [`super::PATIENCE`]; the next call goes on.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.buffered() {
                return Some(event);
            }
            match self.response.piece().await {
                Ok(piece) => self.response.unread.push(&piece),
                Err(end) => {
                    self.end = Some(end);
                    return None;
                }
            }
        }
    }

    /// The next event's JSON; panics when the stream ended instead.
    pub(crate) async fn next_json(&mut self) -> Value {
        match self.next().await {
            Some(event) => event.json(),
            None => panic!("the stream ended ({:?}), an event was expected", self.end),
        }
    }

    /// The next comment that this has not returned yet; panics when an event or the end comes first.
    pub(crate) async fn next_comment(&mut self) -> Comment {
        loop {
            if let Some(event) = self.buffered() {
                panic!("{event:?} came, a comment was expected");
            }
            if let Some(comment) = self.comments.get(self.comments_taken) {
                self.comments_taken += 1;
                return comment.clone();
            }
            match self.response.piece().await {
                Ok(piece) => self.response.unread.push(&piece),
                Err(end) => panic!("the stream ended ({end:?}), a comment was expected"),
            }
        }
    }

    /// Every event until the stream ends, and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<Event>, BodyEnd) {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        let end = self.end.clone().expect("set when there is no next event");
        (events, end)
    }

    /// The bytes of an event that has begun and not ended.
    pub(crate) fn unfinished(&self) -> String {
        String::from_utf8_lossy(&self.response.unread.bytes).into_owned()
    }

    fn buffered(&mut self) -> Option<Event> {
        loop {
            let block = self.response.unread.take_block()?;
            let comments = &mut self.comments;
            if let Some(event) = parse_block(block, comments) {
                return Some(event);
            }
        }
    }
}

/// Bytes of a stream that are no whole event yet, each looked at once.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: BytesMut,
    /// Up to where there is no empty line.
    at: usize,
    line_start: usize,
}

impl Unread {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// Takes everything up to and with the next empty line.
    fn take_block(&mut self) -> Option<String> {
        while let Some(&byte) = self.bytes.get(self.at) {
            let width = match (byte, self.bytes.get(self.at + 1)) {
                (b'\r', Some(b'\n')) => 2,
                // A carriage return at the end may be half of a line end: wait for the rest.
                (b'\r', None) => return None,
                (b'\r' | b'\n', _) => 1,
                _ => {
                    self.at += 1;
                    continue;
                }
            };
            let empty = self.at == self.line_start;
            self.at += width;
            self.line_start = self.at;
            if empty {
                let block = self.bytes.split_to(self.at);
                (self.at, self.line_start) = (0, 0);
                return Some(String::from_utf8_lossy(&block).into_owned());
            }
        }
        None
    }
}

/// Reads a block; a block of comments alone, or an empty one, is no event.
fn parse_block(raw: String, comments: &mut Vec<Comment>) -> Option<Event> {
    let at = Instant::now();
    let (mut name, mut id, mut retry) = (None, None, None);
    let mut data: Option<String> = None;
    let mut fields = 0;
    let lines = raw.replace("\r\n", "\n").replace('\r', "\n");
    for line in lines.split('\n').filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let text = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => {
                comments.push(Comment { text, at });
                continue;
            }
            "event" => name = Some(text),
            "id" => id = Some(text),
            "retry" => retry = text.parse().ok(),
            "data" => match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&text);
                }
                None => data = Some(text),
            },
            _ => {}
        }
        fields += 1;
    }
    (fields > 0).then_some(Event {
        name,
        data,
        id,
        retry,
        raw,
        at,
    })
}

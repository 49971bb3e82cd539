//! A configuration file as a tree that remembers where everything was written.
//!
//! It knows nothing of the keys of Tidegate and nothing of the parser that made it. Values are kept
//! as text: whether `off`, `10s` or `no` is a word, a duration or a name is for the reader of the
//! key to say, so no guess about types is ever made twice.

/// A piece of the file, or of several one behind the other (see `sources`), in bytes: start, and one past
/// the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    /// The piece from `start` up to, not including, `end`.
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The same piece of a text that begins so many bytes further on.
    pub(super) fn moved(self, by: usize) -> Self {
        Self::new(self.start + by, self.end + by)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// What a caret should point at: a text with its quotes, a list or map in brackets as a whole,
    /// a list or map written over several lines by its first item or key.
    pub(super) span: Span,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing after the colon, or `null` or `~`.
    Empty,
    /// Any single value, with quotes and escapes resolved.
    Text(String),
    /// Values in order.
    List(Vec<Node>),
    /// Keys and values in file order. Every key is there once.
    Map(Vec<Entry>),
}

impl Node {
    /// Moves every place in the tree; see [`Span::moved`].
    pub(super) fn move_by(&mut self, by: usize) {
        self.span = self.span.moved(by);
        match &mut self.value {
            Value::Empty | Value::Text(_) => {}
            Value::List(items) => items.iter_mut().for_each(|item| item.move_by(by)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.key_span = entry.key_span.moved(by);
                entry.value.move_by(by);
            }),
        }
    }
}

impl Value {
    /// What this is, for a message that wanted something else.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A key of a map and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

/// A single value as written, with its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) span: Span,
}

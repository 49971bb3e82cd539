//! The grammar of JSON (RFC 8259) as a state machine over pieces of text.
//!
//! The machine knows nothing of messages. It keeps one bit per open container, and tells a [`Sink`]
//! what begins and ends in the few containers that the sink wants to hear of, which are always the
//! outermost ones; the sink says of each string or number in them whether it wants the text. What
//! nobody hears of is only checked, and that is the fast path: most of a body is the arguments of a
//! call or the content of a result.

use super::PeekError;
use super::kept::{Kept, Taken};
use super::number::Number;
use super::text::{self, Utf8};

/// The deepest nesting that is accepted. It is what `serde_json` accepts, and the stack below has a
/// bit to spare.
pub(super) const DEPTH_MAX: u8 = 127;

/// How much of a key is kept, in bytes after decoding: more than any key has that matters.
pub(super) const KEY_BYTES_MAX: u16 = 48;

/// What a value is, as its first byte tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Null,
    True,
    False,
}

/// What a sink wants of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Want {
    #[default]
    Nothing,
    /// Of a container: what is directly in it.
    Inside,
    /// Of a string: the characters that it stands for, at most so many bytes of them.
    Decoded(u16),
    /// Of a string, the bytes between the quotes; of a number or word, its bytes. At most so many.
    Raw(u16),
}

/// What the steps of the scan give. An error ends the scan and may cost something, a step must not:
/// so the error is boxed, and a result fits into registers.
pub(super) type Step<T> = Result<T, Box<PeekError>>;

/// Receives what the lexer finds in the containers that the sink wants to hear of. `at` is the
/// offset of the first byte of the thing.
pub(super) trait Sink {
    /// A key, cut off after [`KEY_BYTES_MAX`] bytes. `at` is that of its closing quote.
    fn key(&mut self, key: Taken<'_>, at: u64) -> Step<()>;
    /// The outermost value, or one in a container that is heard.
    fn value_start(&mut self, kind: Kind, at: u64) -> Step<Want>;
    /// The wanted text of the value that began last.
    fn value_text(&mut self, text: Taken<'_>) -> Step<()>;
    /// The end of a container that is heard.
    fn container_end(&mut self);
}

/// May half a surrogate pair stand in a string?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Surrogates {
    /// No, as in `serde_json`.
    #[default]
    Paired,
    /// Yes, as in JavaScript and Python, where cutting a text can leave one; it decodes to U+FFFD.
    Lone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// A value must follow.
    #[default]
    Value,
    /// After `[`: a value or `]`.
    First,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After `,` in an object: a key.
    NextKey,
    /// After a key.
    Colon,
    /// After a value in a container.
    After,
    /// After the outermost value: whitespace only.
    Done,
    /// Inside a string.
    Text,
    /// Inside a character of a string.
    Char(Utf8),
    /// After a backslash.
    Escape,
    /// Inside the four digits of `\u`, with so many to come.
    Hex(u8),
    /// After the first half of a surrogate pair.
    HighSurrogate,
    /// After a backslash after the first half of a surrogate pair.
    HighEscape,
    /// Inside a number.
    Number(Number),
    /// Inside `true`, `false` or `null`, after so many of its bytes.
    Word(Kind, u8),
}

/// The machine. It needs no end of input except after a number that stands alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Lexer {
    pub(super) state: State,
    /// One bit per open container, the innermost lowest; set for an object.
    stack: u128,
    depth: u8,
    /// How many of the open containers the sink hears of: the outermost ones.
    heard: u8,
    pub(super) is_key: bool,
    pub(super) want: Want,
    /// What is wanted of a text that does not lie whole in one piece.
    pub(super) kept: Kept,
    /// The digits of `\u` so far.
    pub(super) code: u16,
    /// The first half of a surrogate pair, or zero.
    pub(super) high: u16,
    /// Bytes in the pieces before this one.
    before: u64,
    pub(super) surrogates: Surrogates,
}

impl Lexer {
    pub(super) fn new(surrogates: Surrogates) -> Self {
        Self {
            surrogates,
            ..Self::default()
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.surrogates);
    }

    /// Is the outermost value closed?
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// May the input end here?
    pub(super) fn may_end(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Number(number) => self.depth == 0 && number.is_complete(),
            _ => false,
        }
    }

    /// The number of bytes seen.
    pub(super) fn position(&self) -> u64 {
        self.before
    }

    pub(super) fn feed(&mut self, input: &[u8], sink: &mut impl Sink) -> Step<()> {
        let mut at = 0;
        while at < input.len() {
            at = match self.state {
                State::Value | State::First => self.value(input, at, sink)?,
                State::After => self.after(input, at, sink)?,
                State::FirstKey | State::NextKey => self.key(input, at, sink)?,
                State::Colon if input[at] == b':' => {
                    self.state = State::Value;
                    at + 1
                }
                State::Colon | State::Done => self.space(input, at)?,
                State::Text => self.run(input, at, text::plain_len(&input[at..]), sink)?,
                State::Number(number) => self.number(input, at, number, sink)?,
                State::Char(_)
                | State::Escape
                | State::Hex(_)
                | State::HighSurrogate
                | State::HighEscape => self.inside_text(input[at], at)?,
                State::Word(kind, seen) => self.word(input[at], at, kind, seen, sink)?,
            };
        }
        self.before += input.len() as u64;
        Ok(())
    }

    #[cold]
    pub(super) fn malformed<T>(&self, at: usize) -> Step<T> {
        Err(PeekError::Malformed {
            at: self.offset(at),
        })?
    }

    pub(super) fn offset(&self, at: usize) -> u64 {
        self.before + at as u64
    }

    fn is_heard(&self) -> bool {
        self.depth == self.heard
    }

    fn in_object(&self) -> bool {
        self.stack & 1 == 1
    }

    /// Whitespace, where nothing else fits.
    fn space(&self, input: &[u8], at: usize) -> Step<usize> {
        let rest = &input[at..];
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        match rest.iter().take_while(is_space).count() {
            0 => self.malformed(at),
            len => Ok(at + len),
        }
    }

    /// A comma or the end of a container.
    #[inline(always)]
    fn after(&mut self, input: &[u8], at: usize, sink: &mut impl Sink) -> Step<usize> {
        match input[at] {
            b',' if self.in_object() => {
                self.state = State::NextKey;
                // Most often the key follows at once.
                if input.get(at + 1) == Some(&b'"') {
                    return self.key(input, at + 1, sink);
                }
            }
            b',' => self.state = State::Value,
            b'}' if self.in_object() => self.close(sink),
            b']' if !self.in_object() => self.close(sink),
            _ => return self.space(input, at),
        }
        Ok(at + 1)
    }

    #[inline(always)]
    fn key(&mut self, input: &[u8], at: usize, sink: &mut impl Sink) -> Step<usize> {
        match input[at] {
            b'"' => {}
            b'}' if self.state == State::FirstKey => {
                self.close(sink);
                return Ok(at + 1);
            }
            _ => return self.space(input, at),
        }
        let want = if self.is_heard() {
            Want::Decoded(KEY_BYTES_MAX)
        } else {
            Want::Nothing
        };
        let start = at + 1;
        let plain = text::plain_len(&input[start..]);
        let end = start + plain;
        if input.get(end) != Some(&b'"') {
            self.part_start(want, true, State::Text);
            return self.run(input, start, plain, sink);
        }
        if want != Want::Nothing {
            let key = Taken::of(&input[start..end], KEY_BYTES_MAX);
            sink.key(key, self.offset(end))?;
        }
        Ok(self.key_closed(input, end + 1))
    }

    /// A key has ended; most often the colon follows at once.
    pub(super) fn key_closed(&mut self, input: &[u8], at: usize) -> usize {
        let is_colon = input.get(at) == Some(&b':');
        self.state = if is_colon { State::Value } else { State::Colon };
        at + usize::from(is_colon)
    }

    #[inline(always)]
    fn value(&mut self, input: &[u8], at: usize, sink: &mut impl Sink) -> Step<usize> {
        let number = match input[at] {
            b'"' => return self.string(input, at, sink),
            b'{' => return self.open(Kind::Object, at, sink),
            b'[' => return self.open(Kind::Array, at, sink),
            b']' if self.state == State::First => {
                self.close(sink);
                return Ok(at + 1);
            }
            b't' => return self.word_start(Kind::True, input, at, sink),
            b'f' => return self.word_start(Kind::False, input, at, sink),
            b'n' => return self.word_start(Kind::Null, input, at, sink),
            b'-' => Number::Minus,
            b'0' => Number::Zero,
            b'1'..=b'9' => Number::Digit,
            _ => return self.space(input, at),
        };
        let want = self.scalar_start(Kind::Number, at, sink)?;
        let (number, end) = number.run(input, at + 1);
        if end == input.len() {
            self.part_start(want, false, State::Number(number));
            self.keep(&input[at..]);
            return Ok(end);
        }
        if !number.is_complete() {
            return self.malformed(end);
        }
        self.scalar_end(want, &input[at..end], sink)?;
        Ok(end)
    }

    #[inline(always)]
    fn string(&mut self, input: &[u8], at: usize, sink: &mut impl Sink) -> Step<usize> {
        let want = self.scalar_start(Kind::String, at, sink)?;
        let start = at + 1;
        let plain = text::plain_len(&input[start..]);
        let end = start + plain;
        if input.get(end) != Some(&b'"') {
            self.part_start(want, false, State::Text);
            return self.run(input, start, plain, sink);
        }
        self.scalar_end(want, &input[start..end], sink)?;
        Ok(end + 1)
    }

    fn open(&mut self, kind: Kind, at: usize, sink: &mut impl Sink) -> Step<usize> {
        if self.depth == DEPTH_MAX {
            let at = self.offset(at);
            Err(PeekError::TooDeep { at })?;
        }
        if self.is_heard() && sink.value_start(kind, self.offset(at))? == Want::Inside {
            self.heard += 1;
        }
        self.depth += 1;
        self.stack = (self.stack << 1) | u128::from(kind == Kind::Object);
        self.state = if kind == Kind::Object {
            State::FirstKey
        } else {
            State::First
        };
        Ok(at + 1)
    }

    fn close(&mut self, sink: &mut impl Sink) {
        debug_assert!(self.depth > 0);
        if self.is_heard() {
            self.heard -= 1;
            sink.container_end();
        }
        self.stack >>= 1;
        self.depth -= 1;
        self.value_closed();
    }

    fn value_closed(&mut self) {
        self.state = if self.depth == 0 {
            State::Done
        } else {
            State::After
        };
    }

    fn scalar_start(&mut self, kind: Kind, at: usize, sink: &mut impl Sink) -> Step<Want> {
        if self.is_heard() {
            sink.value_start(kind, self.offset(at))
        } else {
            Ok(Want::Nothing)
        }
    }

    /// A value that lies whole in one piece has ended.
    fn scalar_end(&mut self, want: Want, text: &[u8], sink: &mut impl Sink) -> Step<()> {
        if let Want::Decoded(max) | Want::Raw(max) = want {
            sink.value_text(Taken::of(text, max))?;
        }
        self.value_closed();
        Ok(())
    }

    /// A key or value has begun that does not lie whole in one piece, or has escapes.
    fn part_start(&mut self, want: Want, is_key: bool, state: State) {
        self.want = want;
        self.is_key = is_key;
        self.kept.clear();
        self.state = state;
    }

    /// The last part of such a key or value. The next byte is at `at`; returns where to go on.
    pub(super) fn part_end(
        &mut self,
        last: &[u8],
        input: &[u8],
        at: usize,
        sink: &mut impl Sink,
    ) -> Step<usize> {
        if let Want::Decoded(max) | Want::Raw(max) = self.want {
            let text = self.kept.finish(last, max);
            if self.is_key {
                sink.key(text, self.before + at as u64 - 1)?;
            } else {
                sink.value_text(text)?;
            }
        }
        if self.is_key {
            return Ok(self.key_closed(input, at));
        }
        self.value_closed();
        Ok(at)
    }

    /// Keeps a part of a text, if the text is wanted.
    pub(super) fn keep(&mut self, part: &[u8]) {
        if let Want::Decoded(max) | Want::Raw(max) = self.want {
            self.kept.push(part, max);
        }
    }

    /// Goes on with a number that began in an earlier piece.
    fn number(
        &mut self,
        input: &[u8],
        at: usize,
        number: Number,
        sink: &mut impl Sink,
    ) -> Step<usize> {
        let (number, end) = number.run(input, at);
        if end == input.len() {
            self.keep(&input[at..]);
            self.state = State::Number(number);
            return Ok(end);
        }
        if !number.is_complete() {
            return self.malformed(end);
        }
        self.part_end(&input[at..end], input, end, sink)
    }

    fn word_start(
        &mut self,
        kind: Kind,
        input: &[u8],
        at: usize,
        sink: &mut impl Sink,
    ) -> Step<usize> {
        let want = self.scalar_start(kind, at, sink)?;
        let word = spelling(kind);
        if input[at..].starts_with(word) {
            self.scalar_end(want, word, sink)?;
            return Ok(at + word.len());
        }
        self.part_start(want, false, State::Word(kind, 1));
        Ok(at + 1)
    }

    /// One more byte of a word that does not lie whole in one piece.
    fn word(
        &mut self,
        byte: u8,
        at: usize,
        kind: Kind,
        seen: u8,
        sink: &mut impl Sink,
    ) -> Step<usize> {
        let word = spelling(kind);
        if word.get(usize::from(seen)) != Some(&byte) {
            return self.malformed(at);
        }
        self.state = State::Word(kind, seen + 1);
        if usize::from(seen) + 1 == word.len() {
            return self.part_end(word, &[], at + 1, sink);
        }
        Ok(at + 1)
    }
}

/// The only spelling of a value of this kind.
fn spelling(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::True => b"true",
        Kind::False => b"false",
        Kind::Null => b"null",
        Kind::Object | Kind::Array | Kind::String | Kind::Number => b"",
    }
}

//! The grammar of JSON (RFC 8259) as a state machine over pieces of text.
//!
//! The machine knows nothing of messages. It keeps one bit per open container, and tells a [`Sink`]
//! what begins and ends; the sink says of each string or number whether it wants the text. Text
//! that nobody wants is only checked, and that is the fast path: most of a body is the inside of
//! strings.

use super::PeekError;
use super::text::{self, Utf8};

/// The deepest nesting that is accepted. It is what `serde_json` accepts, and the stack below has a
/// bit to spare.
pub(super) const DEPTH_MAX: u8 = 127;

/// What a value is, as its first byte tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Null,
    Bool,
}

/// How a sink wants the text of a key, string, number or word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Want {
    #[default]
    Nothing,
    /// The characters that a string stands for.
    Decoded,
    /// The bytes between the quotes, or the bytes of the number or word.
    Raw,
}

/// Receives what the lexer finds. `depth` is the number of containers around the thing; `at` is the
/// offset of its first byte (for `key_end`, of the closing quote).
pub(super) trait Sink {
    fn key_start(&mut self, depth: u8) -> Want;
    fn key_end(&mut self, depth: u8, at: u64) -> Result<(), PeekError>;
    fn value_start(&mut self, kind: Kind, depth: u8, at: u64) -> Result<Want, PeekError>;
    /// A piece of a wanted text, key or value.
    fn text(&mut self, bytes: &[u8]);
    /// The end of a value that is no container and whose text was wanted.
    fn value_end(&mut self) -> Result<(), PeekError>;
    /// The end of any value: container, wanted or not.
    fn value_closed(&mut self, depth: u8);
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
enum State {
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
    /// Inside `true`, `false` or `null`, with these bytes to come.
    Word(&'static [u8]),
}

/// What the last byte of a number was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digit,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Number {
    fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Digit | Self::Fraction | Self::Power
        )
    }

    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Digit, b'0'..=b'9') => Self::Digit,
            (Self::Zero | Self::Digit, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digit | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }
}

/// The machine. It needs no end of input except after a number that stands alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Lexer {
    state: State,
    /// One bit per open container, the innermost lowest; set for an object.
    stack: u128,
    depth: u8,
    is_key: bool,
    want: Want,
    /// The digits of `\u` so far.
    code: u16,
    /// The first half of a surrogate pair, or zero.
    high: u16,
    /// Bytes in the pieces before this one.
    before: u64,
    surrogates: Surrogates,
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

    pub(super) fn feed(&mut self, input: &[u8], sink: &mut impl Sink) -> Result<(), PeekError> {
        let mut at = 0;
        while at < input.len() {
            at = match self.state {
                State::Text => self.run(input, at, sink)?,
                State::Number(number) => self.number(input, at, number, sink)?,
                State::Char(_)
                | State::Escape
                | State::Hex(_)
                | State::HighSurrogate
                | State::HighEscape => self.inside_text(input[at], at, sink)?,
                State::Word(rest) => self.word(input[at], at, rest, sink)?,
                State::Value
                | State::First
                | State::FirstKey
                | State::NextKey
                | State::Colon
                | State::After
                | State::Done => self.structure(input[at], at, sink)?,
            };
        }
        self.before += input.len() as u64;
        Ok(())
    }

    fn malformed<T>(&self, at: usize) -> Result<T, PeekError> {
        Err(PeekError::Malformed {
            at: self.before + at as u64,
        })
    }

    fn structure(&mut self, byte: u8, at: usize, sink: &mut impl Sink) -> Result<usize, PeekError> {
        match (self.state, byte) {
            (_, b' ' | b'\n' | b'\r' | b'\t') => {}
            (State::Colon, b':') => self.state = State::Value,
            (State::FirstKey | State::NextKey, b'"') => {
                self.is_key = true;
                self.want = sink.key_start(self.depth);
                self.state = State::Text;
            }
            (State::After, b',') if self.in_object() => self.state = State::NextKey,
            (State::After, b',') => self.state = State::Value,
            (State::After | State::FirstKey, b'}') if self.in_object() => self.close(sink),
            (State::After | State::First, b']') if !self.in_object() => self.close(sink),
            (State::Value | State::First, _) => self.value(byte, at, sink)?,
            _ => return self.malformed(at),
        }
        Ok(at + 1)
    }

    fn value(&mut self, byte: u8, at: usize, sink: &mut impl Sink) -> Result<(), PeekError> {
        let (kind, state) = match byte {
            b'{' => (Kind::Object, State::FirstKey),
            b'[' => (Kind::Array, State::First),
            b'"' => (Kind::String, State::Text),
            b'-' => (Kind::Number, State::Number(Number::Minus)),
            b'0' => (Kind::Number, State::Number(Number::Zero)),
            b'1'..=b'9' => (Kind::Number, State::Number(Number::Digit)),
            b't' => (Kind::Bool, State::Word(b"rue")),
            b'f' => (Kind::Bool, State::Word(b"alse")),
            b'n' => (Kind::Null, State::Word(b"ull")),
            _ => return self.malformed(at),
        };
        let offset = self.before + at as u64;
        let is_container = matches!(kind, Kind::Object | Kind::Array);
        if is_container && self.depth == DEPTH_MAX {
            return Err(PeekError::TooDeep { at: offset });
        }
        self.want = sink.value_start(kind, self.depth, offset)?;
        self.is_key = false;
        self.state = state;
        if is_container {
            self.stack = (self.stack << 1) | u128::from(kind == Kind::Object);
            self.depth += 1;
        } else if self.want == Want::Raw && kind != Kind::String {
            sink.text(&[byte]);
        }
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.stack & 1 == 1
    }

    fn close(&mut self, sink: &mut impl Sink) {
        debug_assert!(self.depth > 0);
        self.stack >>= 1;
        self.depth -= 1;
        self.closed(sink);
    }

    /// A value has ended, and `depth` containers are around it.
    fn closed(&mut self, sink: &mut impl Sink) {
        self.state = if self.depth == 0 {
            State::Done
        } else {
            State::After
        };
        sink.value_closed(self.depth);
    }

    fn scalar_end(&mut self, sink: &mut impl Sink) -> Result<(), PeekError> {
        if self.want != Want::Nothing {
            sink.value_end()?;
        }
        self.closed(sink);
        Ok(())
    }

    fn number(
        &mut self,
        input: &[u8],
        at: usize,
        mut number: Number,
        sink: &mut impl Sink,
    ) -> Result<usize, PeekError> {
        let mut end = at;
        while let Some(next) = input.get(end).and_then(|&byte| number.next(byte)) {
            number = next;
            end += 1;
        }
        self.state = State::Number(number);
        if self.want == Want::Raw {
            sink.text(&input[at..end]);
        }
        if end < input.len() {
            if !number.is_complete() {
                return self.malformed(end);
            }
            self.scalar_end(sink)?;
        }
        Ok(end)
    }

    fn word(
        &mut self,
        byte: u8,
        at: usize,
        rest: &'static [u8],
        sink: &mut impl Sink,
    ) -> Result<usize, PeekError> {
        match rest {
            [expected, rest @ ..] if *expected == byte => {
                if self.want == Want::Raw {
                    sink.text(&[byte]);
                }
                self.state = State::Word(rest);
                if rest.is_empty() {
                    self.scalar_end(sink)?;
                }
                Ok(at + 1)
            }
            _ => self.malformed(at),
        }
    }

    /// Plain characters of a string, and the byte that ends them.
    fn run(&mut self, input: &[u8], at: usize, sink: &mut impl Sink) -> Result<usize, PeekError> {
        let end = at + text::plain_len(&input[at..]);
        if self.want != Want::Nothing && end > at {
            sink.text(&input[at..end]);
        }
        let Some(&byte) = input.get(end) else {
            return Ok(end);
        };
        match byte {
            b'"' if self.is_key => {
                sink.key_end(self.depth, self.before + end as u64)?;
                self.state = State::Colon;
            }
            b'"' => self.scalar_end(sink)?,
            b'\\' => self.state = State::Escape,
            _ => match Utf8::lead(byte) {
                Some(utf8) => {
                    self.wanted_text(&[byte], sink);
                    self.state = State::Char(utf8);
                }
                None => return self.malformed(end),
            },
        }
        Ok(end + 1)
    }

    fn wanted_text(&self, bytes: &[u8], sink: &mut impl Sink) {
        if self.want != Want::Nothing {
            sink.text(bytes);
        }
    }

    fn inside_text(
        &mut self,
        byte: u8,
        at: usize,
        sink: &mut impl Sink,
    ) -> Result<usize, PeekError> {
        match self.state {
            State::Char(utf8) => {
                let Some(next) = utf8.next(byte) else {
                    return self.malformed(at);
                };
                self.wanted_text(&[byte], sink);
                self.state = next.map_or(State::Text, State::Char);
                return Ok(at + 1);
            }
            State::HighSurrogate if byte != b'\\' => {
                self.lone_surrogate(at, sink)?;
                self.state = State::Text;
                return Ok(at);
            }
            State::HighEscape if byte != b'u' => {
                self.lone_surrogate(at, sink)?;
                self.state = State::Escape;
                return Ok(at);
            }
            _ => {}
        }
        if self.want == Want::Raw {
            // The backslash is passed on with what follows it.
            match self.state {
                State::Escape | State::HighEscape => sink.text(&[b'\\', byte]),
                State::Hex(_) => sink.text(&[byte]),
                _ => {}
            }
        }
        match self.state {
            State::HighSurrogate => self.state = State::HighEscape,
            State::Escape | State::HighEscape if byte == b'u' => {
                self.code = 0;
                self.state = State::Hex(4);
            }
            State::Escape => {
                let Some(char) = text::unescape(byte) else {
                    return self.malformed(at);
                };
                self.decoded(char, sink);
            }
            State::Hex(left) => self.hex(byte, at, left, sink)?,
            _ => return self.malformed(at),
        }
        Ok(at + 1)
    }

    fn hex(
        &mut self,
        byte: u8,
        at: usize,
        left: u8,
        sink: &mut impl Sink,
    ) -> Result<(), PeekError> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return self.malformed(at);
        };
        self.code = (self.code << 4) | digit as u16;
        if left > 1 {
            self.state = State::Hex(left - 1);
            return Ok(());
        }
        let is_low = (0xdc00..0xe000).contains(&self.code);
        if self.high != 0 && !is_low {
            self.lone_surrogate(at, sink)?;
        }
        if (0xd800..0xdc00).contains(&self.code) {
            self.high = self.code;
            self.state = State::HighSurrogate;
        } else if is_low && self.high == 0 {
            self.lone_surrogate(at, sink)?;
            self.state = State::Text;
        } else {
            let pair = [self.high, self.code];
            let units = if self.high == 0 {
                &pair[1..]
            } else {
                &pair[..]
            };
            let char = char::decode_utf16(units.iter().copied()).next();
            self.decoded(
                char.and_then(Result::ok)
                    .unwrap_or(char::REPLACEMENT_CHARACTER),
                sink,
            );
        }
        Ok(())
    }

    /// Half a pair stands alone: an error, or U+FFFD.
    fn lone_surrogate(&mut self, at: usize, sink: &mut impl Sink) -> Result<(), PeekError> {
        if self.surrogates == Surrogates::Paired {
            return self.malformed(at);
        }
        self.decoded(char::REPLACEMENT_CHARACTER, sink);
        Ok(())
    }

    fn decoded(&mut self, char: char, sink: &mut impl Sink) {
        if self.want == Want::Decoded {
            sink.text(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.high = 0;
        self.state = State::Text;
    }
}

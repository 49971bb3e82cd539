//! The inside of JSON strings (RFC 8259, section 7), for the lexer.

use super::lex::{Lexer, Sink, State, Step, Surrogates, Want};
use super::text::{self, Utf8};

impl Lexer {
    /// Plain characters, of which so many come first, and short escapes, to the end of the string
    /// or to what takes a state of its own.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        mut at: usize,
        mut plain: usize,
        sink: &mut impl Sink,
    ) -> Step<usize> {
        loop {
            let end = at + plain;
            let part = &input[at..end];
            let Some(&byte) = input.get(end) else {
                self.keep(part);
                return Ok(end);
            };
            if byte == b'"' {
                return self.part_end(part, input, end + 1, sink);
            }
            self.keep(part);
            if byte != b'\\' {
                let Some(utf8) = Utf8::lead(byte) else {
                    return self.malformed(end);
                };
                self.keep(&[byte]);
                self.state = State::Char(utf8);
                return Ok(end + 1);
            }
            let Some((char, escape)) = short_escape(&input[end..]) else {
                self.state = State::Escape;
                return Ok(end + 1);
            };
            match self.want {
                Want::Decoded(_) => self.keep(&[char]),
                Want::Raw(_) => self.keep(escape),
                Want::Nothing | Want::Inside => {}
            }
            at = end + escape.len();
            plain = text::plain_len(&input[at..]);
        }
    }

    /// One byte of what [`Lexer::run`] could not take whole.
    pub(super) fn inside_text(&mut self, byte: u8, at: usize) -> Step<usize> {
        match self.state {
            State::Char(utf8) => {
                let Some(next) = utf8.next(byte) else {
                    return self.malformed(at);
                };
                self.keep(&[byte]);
                self.state = next.map_or(State::Text, State::Char);
                return Ok(at + 1);
            }
            State::HighSurrogate if byte != b'\\' => {
                self.lone_surrogate(at)?;
                self.state = State::Text;
                return Ok(at);
            }
            State::HighEscape if byte != b'u' => {
                self.lone_surrogate(at)?;
                self.state = State::Escape;
                return Ok(at);
            }
            _ => {}
        }
        if matches!(self.want, Want::Raw(_)) {
            // The backslash is passed on with what follows it.
            match self.state {
                State::Escape | State::HighEscape => self.keep(&[b'\\', byte]),
                State::Hex(_) => self.keep(&[byte]),
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
                self.decoded(char::from(char));
            }
            State::Hex(left) => self.hex(byte, at, left)?,
            _ => return self.malformed(at),
        }
        Ok(at + 1)
    }

    fn hex(&mut self, byte: u8, at: usize, left: u8) -> Step<()> {
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
            self.lone_surrogate(at)?;
        }
        if (0xd800..0xdc00).contains(&self.code) {
            self.high = self.code;
            self.state = State::HighSurrogate;
        } else if is_low && self.high == 0 {
            self.lone_surrogate(at)?;
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
            );
        }
        Ok(())
    }

    /// Half a pair stands alone: an error, or U+FFFD.
    fn lone_surrogate(&mut self, at: usize) -> Step<()> {
        if self.surrogates == Surrogates::Paired {
            return self.malformed(at);
        }
        self.decoded(char::REPLACEMENT_CHARACTER);
        Ok(())
    }

    fn decoded(&mut self, char: char) {
        if matches!(self.want, Want::Decoded(_)) {
            self.keep(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.high = 0;
        self.state = State::Text;
    }
}

/// An escape of two characters at the start of the input, and what it stands for.
fn short_escape(input: &[u8]) -> Option<(u8, &[u8])> {
    let escape = input.get(..2)?;
    Some((text::unescape(escape[1])?, escape))
}

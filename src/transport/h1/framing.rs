//! Where a body ends (RFC 9112 section 6), and the chunks on the way there (section 7.1).
//!
//! Chunks are taken out of their framing in place: what a read has brought is payload and framing
//! mixed, and the payload moves to the front of the same buffer. A line of the framing has a bound,
//! and so have the trailers, which are read and forgotten.

/// How the end of a body is found, and how far it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are still to come.
    Exact(u64),
    /// In chunks.
    Chunked(Chunks),
    /// It ends with the connection.
    ToClose,
    /// It has ended with the connection.
    Closed,
}

impl Framing {
    /// A body of a known length.
    pub const fn exact(bytes: u64) -> Self {
        Self::Exact(bytes)
    }

    /// A chunked body at its start.
    pub const fn chunked() -> Self {
        Self::Chunked(Chunks {
            state: State::Size { digits: 0 },
            left: 0,
            spent: 0,
        })
    }

    /// Has all of it been read?
    pub const fn is_done(&self) -> bool {
        match self {
            Self::Exact(left) => *left == 0,
            Self::Chunked(chunks) => matches!(chunks.state, State::Done),
            Self::ToClose => false,
            Self::Closed => true,
        }
    }

    /// Takes the body's bytes out of what was read: moves them to the front of `bytes`, and says how
    /// many there are and how many bytes they took with their framing. What lies behind does not
    /// belong to the body.
    ///
    /// # Errors
    /// Framing that is not valid. Nothing that follows can be trusted.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, Malformed> {
        match self {
            Self::Exact(left) => {
                let payload = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= payload as u64;
                Ok(Taken {
                    payload,
                    consumed: payload,
                })
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::ToClose => Ok(Taken {
                payload: bytes.len(),
                consumed: bytes.len(),
            }),
            Self::Closed => Ok(Taken {
                payload: 0,
                consumed: 0,
            }),
        }
    }
}

/// What of the bytes belongs to the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the body, now at the front.
    pub payload: usize,
    /// Bytes read to get at them.
    pub consumed: usize,
}

/// Chunked framing that is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunk: {0}")]
pub struct Malformed(pub &'static str);

/// Longest line of a chunk's size with its extensions, and most bytes of trailers.
const LINE_MAX: u32 = 4096;
/// Hexadecimal digits of a size: 15 stay far below what 64 bits hold.
const DIGITS_MAX: u8 = 15;

/// Where in its framing a chunked body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    /// The size of the chunk as far as read, then what is left of it.
    left: u64,
    /// Bytes of the present line, or of the trailers.
    spent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        digits: u8,
    },
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of the trailers.
    Trailer,
    InTrailer,
    TrailerLf,
    LastLf,
    Done,
}

impl Chunks {
    fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, Malformed> {
        let mut payload = 0;
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let run = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - at);
                if payload != at {
                    bytes.copy_within(at..at + run, payload);
                }
                payload += run;
                at += run;
                self.left -= run as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.step(bytes[at])?;
            at += 1;
        }
        Ok(Taken {
            payload,
            consumed: at,
        })
    }

    /// One byte of the framing.
    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.spent += 1;
        if self.spent > LINE_MAX {
            return Err(Malformed("a line is too long"));
        }
        self.state = match self.state {
            State::Size { digits } => self.size(digits, byte)?,
            State::Extension => match byte {
                b'\r' => State::SizeLf,
                // RFC 9112 section 7.1.1: extensions are to be ignored, but they are text.
                b'\t' | b' '..=b'~' | 0x80.. => State::Extension,
                _ => return Err(Malformed("a control byte in an extension")),
            },
            State::SizeLf if byte == b'\n' => {
                self.spent = 0;
                if self.left == 0 {
                    State::Trailer
                } else {
                    State::Data
                }
            }
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => {
                self.spent = 0;
                State::Size { digits: 0 }
            }
            State::Trailer if byte == b'\r' => State::LastLf,
            State::Trailer | State::InTrailer => match byte {
                b'\r' if self.state == State::InTrailer => State::TrailerLf,
                b'\t' | b' '..=b'~' | 0x80.. => State::InTrailer,
                _ => return Err(Malformed("a control byte in a trailer")),
            },
            State::TrailerLf if byte == b'\n' => State::Trailer,
            State::LastLf if byte == b'\n' => State::Done,
            State::SizeLf
            | State::DataCr
            | State::DataLf
            | State::TrailerLf
            | State::LastLf
            | State::Data
            | State::Done => return Err(Malformed("a line end is missing")),
        };
        Ok(())
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, Malformed> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(State::SizeLf),
            b';' if digits > 0 => return Ok(State::Extension),
            _ => return Err(Malformed("the size is not a number")),
        };
        if digits == 0 {
            self.left = 0;
        }
        if digits == DIGITS_MAX {
            return Err(Malformed("the size is too large"));
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size { digits: digits + 1 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces that end at `cuts`; the payload, and what was not consumed.
    fn decode(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, bool), Malformed> {
        let mut framing = Framing::chunked();
        let mut out = Vec::new();
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let mut piece = bytes[from..cut].to_vec();
            let taken = framing.take(&mut piece)?;
            out.extend_from_slice(&piece[..taken.payload]);
            from += taken.consumed;
            if framing.is_done() {
                return Ok((out, bytes[from..].to_vec(), true));
            }
            assert_eq!(from, cut, "all of an open body is consumed");
        }
        Ok((out, Vec::new(), false))
    }

    #[test]
    fn chunks_are_put_together_on_every_split() {
        let bytes =
            b"4\r\nWiki\r\n6;x=\"y\"\r\npedia \r\nD\r\nin\r\n\r\nchunks.\r\n0\r\nA: b\r\n\r\nGET /";
        let whole = (
            b"Wikipedia in\r\n\r\nchunks.".to_vec(),
            b"GET /".to_vec(),
            true,
        );
        for cut in 0..bytes.len() {
            let end = bytes.len() - 5;
            let decoded = decode(bytes, &[cut.min(end)]).unwrap();
            assert_eq!(decoded, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_chunk_that_could_be_read_in_two_ways_is_refused() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(1000));
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\na\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r",
            "1\r\na0\r\n\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\n\r\r",
            "1;\n\r\na",
            "1;\0\r\na",
            "0000000000000001\r\na",
            "ffffffffffffffff\r\na",
            ";\r\n",
            &long,
            &trailers,
        ] {
            assert!(decode(text.as_bytes(), &[]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_body_of_known_length_leaves_what_is_behind_it() {
        let mut framing = Framing::exact(3);
        let taken = framing.take(&mut b"ab".to_vec()).unwrap();
        assert_eq!((taken.consumed, framing.is_done()), (2, false));
        let taken = framing.take(&mut b"cde".to_vec()).unwrap();
        assert_eq!((taken.payload, taken.consumed), (1, 1));
        assert!(framing.is_done());
    }

    proptest! {
        #[test]
        fn what_is_chunked_comes_out_again(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            mut cuts in proptest::collection::vec(0usize..400, 0..8),
            behind in proptest::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut bytes = Vec::new();
            for piece in &pieces {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let end = bytes.len();
            bytes.extend_from_slice(&behind);
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(end));
            cuts.sort_unstable();
            let decoded = decode(&bytes, &cuts).unwrap();
            prop_assert_eq!(decoded, (pieces.concat(), behind, true));
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, &[]);
        }
    }
}

//! Chunks in whatever pieces they come, against a reader that is slow and plain.

use proptest::prelude::*;
use tidegate::transport::h1::framing::Framing;

use crate::mutate::{chunked, damaged};

/// What was read of a chunked body.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// All of it, and how many bytes it took.
    Whole(Vec<u8>, usize),
    /// Right as far as it goes.
    Open(Vec<u8>),
    /// Wrong at this byte.
    Wrong(usize),
}

/// Most bytes of a size's line, and of all trailers.
const LINE_MAX: usize = 4096;
const DIGITS_MAX: usize = 15;

/// The whole input at hand, one rule after the other (RFC 9112 section 7.1).
struct Slow<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why reading stopped.
enum Stop {
    NoMore,
    Wrong(usize),
}

impl Slow<'_> {
    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::NoMore)
    }

    fn wrong<T>(&self) -> Result<T, Stop> {
        Err(Stop::Wrong(self.at))
    }

    /// Exactly this byte.
    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.peek()? != byte {
            return self.wrong();
        }
        self.at += 1;
        Ok(())
    }

    fn line_end(&mut self) -> Result<(), Stop> {
        self.expect(b'\r')?;
        self.expect(b'\n')
    }

    /// Text up to a CR: anything but control bytes other than a tab.
    fn text(&mut self) -> Result<(), Stop> {
        loop {
            match self.peek()? {
                b'\r' => return Ok(()),
                byte if byte != b'\t' && (byte < b' ' || byte == 0x7f) => return self.wrong(),
                _ => self.at += 1,
            }
        }
    }

    fn size(&mut self) -> Result<u64, Stop> {
        let start = self.at;
        while self.peek()?.is_ascii_hexdigit() {
            if self.at - start == DIGITS_MAX {
                return self.wrong();
            }
            self.at += 1;
        }
        let digits = std::str::from_utf8(&self.bytes[start..self.at]).unwrap();
        let Ok(size) = u64::from_str_radix(digits, 16) else {
            return self.wrong();
        };
        if self.peek()? == b';' {
            self.at += 1;
            self.text()?;
        }
        self.line_end()?;
        Ok(size)
    }

    fn data(&mut self, size: u64, out: &mut Vec<u8>) -> Result<(), Stop> {
        for _ in 0..size {
            out.push(self.peek()?);
            self.at += 1;
        }
        self.line_end()
    }

    fn trailers(&mut self) -> Result<(), Stop> {
        while self.peek()? != b'\r' {
            self.text()?;
            self.line_end()?;
        }
        self.line_end()
    }

    /// A part that may take up only so many bytes.
    fn bounded<T>(&mut self, part: fn(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        let (start, all) = (self.at, self.bytes);
        let room = all.len().min(start + LINE_MAX);
        self.bytes = &all[..room];
        let read = part(self);
        self.bytes = all;
        match read {
            // The next byte is one too many.
            Err(Stop::NoMore) if room < all.len() => Err(Stop::Wrong(room)),
            read => read,
        }
    }

    fn body(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        loop {
            match self.bounded(Self::size)? {
                0 => return self.bounded(Self::trailers),
                size => self.data(size, out)?,
            }
        }
    }
}

fn slow(bytes: &[u8]) -> Outcome {
    let mut out = Vec::new();
    let mut slow = Slow { bytes, at: 0 };
    match slow.body(&mut out) {
        Ok(()) => Outcome::Whole(out, slow.at),
        Err(Stop::NoMore) => Outcome::Open(out),
        Err(Stop::Wrong(at)) => Outcome::Wrong(at),
    }
}

/// Ours, in pieces that end at `cuts`. Where it is wrong, it is the piece that can be told.
fn ours(bytes: &[u8], cuts: &[usize]) -> Result<Outcome, (usize, usize)> {
    let mut framing = Framing::chunked();
    let mut out = Vec::new();
    let mut from = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let mut piece = bytes[from..cut].to_vec();
        let taken = framing.take(&mut piece).map_err(|_| (from, cut))?;
        out.extend_from_slice(&piece[..taken.payload]);
        from += taken.consumed;
        if framing.is_done() {
            return Ok(Outcome::Whole(out, from));
        }
        assert_eq!(from, cut, "all of an open body is consumed");
    }
    Ok(Outcome::Open(out))
}

pub(crate) fn compare(bytes: &[u8], cuts: &[usize]) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    match (ours(bytes, &cuts), slow(bytes)) {
        (Ok(ours), slow) => assert_eq!(ours, slow),
        (Err((from, cut)), Outcome::Wrong(at)) => {
            assert!(
                (from..cut).contains(&at),
                "wrong at {at}, not in {from}..{cut}"
            );
        }
        (Err((from, cut)), slow) => panic!("refused in {from}..{cut}: {slow:?}"),
    }
}

fn any_cuts() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(any::<usize>(), 0..12)
}

#[cfg(test)]
mod properties {
    use super::*;
    use crate::budget::spend;

    #[test]
    fn chunks_are_what_a_plain_reader_takes_them_for() {
        spend(20_000, |config| {
            proptest!(config, |(bytes in damaged(chunked()), behind in proptest::collection::vec(any::<u8>(), 0..6), cuts in any_cuts())| {
                compare(&[bytes, behind].concat(), &cuts);
            });
        });
    }

    #[test]
    fn so_is_anything_written_with_the_same_letters() {
        spend(20_000, |config| {
            proptest!(config, |(bytes in proptest::collection::vec(proptest::sample::select(&b"012aF;\r\n\r\n\t x\0\x7f\xff"[..]), 0..40), cuts in any_cuts())| {
                compare(&bytes, &cuts);
            });
        });
    }
}

#[test]
fn the_bounds_are_where_a_plain_reader_has_them() {
    for over in [
        LINE_MAX - 5,
        LINE_MAX - 4,
        LINE_MAX - 3,
        LINE_MAX - 2,
        LINE_MAX - 1,
    ] {
        let long = "x".repeat(over);
        let extension = format!("1;{long}\r\na\r\n0\r\n\r\n");
        let trailer = format!("1\r\na\r\n0\r\n{long}\r\n\r\n");
        for text in [extension, trailer] {
            for cut in (0..text.len()).step_by(97) {
                compare(text.as_bytes(), &[cut]);
            }
        }
    }
    for digits in 13..18 {
        let text = format!("{:0>digits$}\r\na\r\n0\r\n\r\n", 1);
        compare(text.as_bytes(), &[]);
        compare(format!("{}\r\na", "f".repeat(digits)).as_bytes(), &[]);
    }
}

//! Takes the data of events out of an event stream, in whatever pieces it arrives.
//!
//! Lines end with LF or CR LF; a lone CR, which the standard also allows and nobody sends, does
//! not end one. Names, ids and comments are passed over: only data is measured.

/// Longest line, and longest data of an event.
const EVENT_MAX: usize = 1024 * 1024;

/// An event exceeded its bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The state between two reads. Empty vectors while no event is half read, so that thousands of
/// idle streams cost nothing here.
#[derive(Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    /// `data` holds at least one line, possibly an empty one.
    has_data: bool,
}

impl Events {
    /// Hands the data of each event that `bytes` completes to `event`. Events without data, and
    /// those whose data is empty (they only set a cursor), are not handed on.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut event: impl FnMut(&[u8]),
    ) -> Result<(), TooLong> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let Some(ended) = piece.strip_suffix(b"\n") else {
                return self.keep(piece);
            };
            if self.line.is_empty() {
                self.line_end(ended, &mut event)?;
            } else {
                self.keep(ended)?;
                let line = std::mem::take(&mut self.line);
                self.line_end(&line, &mut event)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + piece.len() > EVENT_MAX {
            return Err(TooLong);
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn line_end(&mut self, line: &[u8], event: &mut impl FnMut(&[u8])) -> Result<(), TooLong> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if !self.data.is_empty() {
                event(&self.data);
            }
            self.data = Vec::new();
            self.has_data = false;
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            if self.data.len() + value.len() > EVENT_MAX {
                return Err(TooLong);
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Events::default();
        let mut found = Vec::new();
        for piece in pieces {
            parser
                .feed(piece, |data| {
                    found.push(String::from_utf8(data.to_vec()).unwrap())
                })
                .unwrap();
        }
        found
    }

    #[test]
    fn data_is_found_at_every_split() {
        let stream = b": hi\n\nevent: message\nid: 7\ndata: {\"a\":1}\n\nid: 8\ndata:\n\nretry: 5\r\ndata:one\r\ndata: two\r\n\r\ndata: unfinished\n";
        for first in 0..stream.len() {
            for second in first..stream.len() {
                let got = events(&[&stream[..first], &stream[first..second], &stream[second..]]);
                assert_eq!(got, ["{\"a\":1}", "one\ntwo"], "{first} {second}");
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Events::default();
        let piece = vec![b'x'; EVENT_MAX];
        assert_eq!(parser.feed(&piece, |_| ()), Ok(()));
        assert_eq!(parser.feed(b"x", |_| ()), Err(TooLong));
    }

    #[test]
    fn nothing_is_kept_between_events() {
        let mut parser = Events::default();
        parser.feed(b"data: x\n\n: keep-alive\n\n", |_| ()).unwrap();
        assert_eq!((parser.line.capacity(), parser.data.capacity()), (0, 0));
    }
}

//! The parts of an event that the scan remembers, each with its bound.

use super::EVENT_ID_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Event,
    Data,
    Id,
    Other,
}

impl Field {
    pub(super) fn named(name: &[u8]) -> Self {
        match name {
            b"event" => Self::Event,
            b"data" => Self::Data,
            b"id" => Self::Id,
            _ => Self::Other,
        }
    }
}

/// A text of which only short values matter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Short {
    /// One more than fits means that it is too long to matter.
    len: u8,
    bytes: [u8; Self::MAX],
}

impl Short {
    /// The length of `endpoint`, the longest word that matters.
    const MAX: usize = 8;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let len = usize::from(self.len);
        let end = len + bytes.len();
        match self.bytes.get_mut(len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end as u8;
            }
            None => self.len = Self::MAX as u8 + 1,
        }
    }

    /// The text, or `?` if it was too long.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(b"?")
    }
}

/// The length of an id, or that it is too long to be kept; it then counts as no bytes.
#[derive(Clone, Copy, Debug, Default)]
struct IdLen {
    bytes: u16,
    too_long: bool,
}

impl IdLen {
    fn get(self) -> usize {
        usize::from(self.bytes)
    }
}

/// The ids of a stream, each kept within [`EVENT_ID_BYTES_MAX`]: that of the last complete event,
/// that of the event that is open, and the one in the line that is being read, in this order in one
/// buffer. A stream without ids has none.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    bytes: Vec<u8>,
    last: IdLen,
    block: IdLen,
    line: IdLen,
    /// A NUL byte stands in the line, which makes it count for nothing.
    line_has_nul: bool,
}

impl Ids {
    /// The id of the last complete event that had one, if it was not too long.
    pub(super) fn last(&self) -> Option<&[u8]> {
        (!self.last.too_long).then(|| &self.bytes[..self.last.get()])
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The value of an `id` line begins.
    pub(super) fn line_start(&mut self) {
        self.bytes.truncate(self.last.get() + self.block.get());
        self.line = IdLen::default();
        self.line_has_nul = false;
    }

    /// Goes on with the value.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.line_has_nul |= memchr::memchr(0, bytes).is_some();
        let len = self.line.get() + bytes.len();
        if len > EVENT_ID_BYTES_MAX {
            self.line.too_long = true;
        }
        if !self.line.too_long {
            self.bytes.extend_from_slice(bytes);
            self.line.bytes = len as u16;
        }
    }

    /// The line is complete. Returns whether it counts: then it is the id of the block, whatever
    /// that was before.
    pub(super) fn line_end(&mut self) -> bool {
        if self.line_has_nul {
            return false;
        }
        if self.line.too_long {
            self.line.bytes = 0;
        }
        let last = self.last.get();
        self.bytes
            .truncate(last + self.block.get() + self.line.get());
        self.bytes.drain(last..last + self.block.get());
        self.block = std::mem::take(&mut self.line);
        true
    }

    /// The block has ended with a valid id, which is now the last one.
    pub(super) fn block_end(&mut self) {
        self.bytes.truncate(self.last.get() + self.block.get());
        self.bytes.drain(..self.last.get());
        self.last = std::mem::take(&mut self.block);
    }
}

/// What of the data of a block has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Data {
    #[default]
    Absent,
    /// One line, empty so far.
    EmptyLine,
    Present,
}

/// What the block of lines since the last empty line holds so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    /// Length so far, in bytes.
    pub(super) size: u64,
    pub(super) event: Short,
    pub(super) data: Data,
    /// There was a line that is no comment.
    pub(super) has_field: bool,
    /// There was a complete and valid `id` line.
    pub(super) has_id: bool,
    /// An `id` line has at least begun.
    pub(super) touches_id: bool,
    pub(super) is_told_large: bool,
}

impl Block {
    /// Is the data one empty line, or absent?
    pub(super) fn is_empty(&self) -> bool {
        self.data != Data::Present
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an id line leaves behind is gone with it, or a stream of such lines would grow.
    #[test]
    fn ids_stay_within_their_bound() {
        let long = [b'x'; EVENT_ID_BYTES_MAX];
        let mut ids = Ids::default();
        for round in 0..100 {
            for line in [&b"a"[..], &long, b"a\0b", &[b'x'; EVENT_ID_BYTES_MAX + 1]] {
                ids.line_start();
                line.chunks(7).for_each(|part| ids.push(part));
                ids.line_end();
                assert!(ids.bytes.len() <= 3 * EVENT_ID_BYTES_MAX);
            }
            ids.line_start();
            ids.push(&long);
            ids.line_end();
            ids.line_start();
            ids.push(b"dropped\0");
            assert!(!ids.line_end());
            ids.block_end();
            assert_eq!(
                (ids.last(), ids.bytes.len()),
                (Some(&long[..]), long.len()),
                "{round}"
            );
        }
    }
}

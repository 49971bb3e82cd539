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
    len: usize,
    bytes: [u8; Self::MAX],
}

impl Short {
    /// The length of `endpoint`, the longest word that matters.
    const MAX: usize = 8;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.bytes.get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.len = Self::MAX + 1,
        }
    }

    /// The text, or `?` if it was too long.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(b"?")
    }
}

/// An event id, kept within [`EVENT_ID_BYTES_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct EventId {
    pub(super) bytes: Vec<u8>,
    pub(super) too_long: bool,
    /// A NUL byte stands in it, which makes the line count for nothing.
    pub(super) has_nul: bool,
}

impl EventId {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
        self.has_nul = false;
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.has_nul |= memchr::memchr(0, bytes).is_some();
        if self.bytes.len() + bytes.len() > EVENT_ID_BYTES_MAX {
            self.too_long = true;
        } else if !self.too_long {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// What the block of lines since the last empty line holds so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    /// There was a line that is no comment.
    pub(super) has_field: bool,
    /// There was a complete and valid `id` line.
    pub(super) has_id: bool,
    /// An `id` line has at least begun.
    pub(super) touches_id: bool,
    pub(super) data_lines: u64,
    pub(super) data_bytes: u64,
    pub(super) event: Short,
    /// Length so far, in bytes.
    pub(super) size: u64,
    pub(super) is_told_large: bool,
}

impl Block {
    /// Is the data one empty line, or absent?
    pub(super) fn is_empty(&self) -> bool {
        self.data_bytes == 0 && self.data_lines <= 1
    }
}

//! Memory for bytes on their way: buffers that a thread takes for as long as bytes are in flight,
//! and gets back.
//!
//! A connection that waits holds none, which is what makes tens of thousands of idle streams cheap;
//! and a request that finds the buffers of the last one allocates nothing. The buffer that came back
//! last is given out first, since it is the one still in the processor's cache.

use std::cell::RefCell;
use std::ops::Deref;

use bytes::Bytes;

/// Size of a buffer, in bytes: one page. A typical head with its body fits; more would spread what is
/// used over more pages than the processor has at hand when hundreds of requests are in flight.
pub const BUFFER_BYTES: usize = 4 * 1024;
/// Size of a buffer for the middle of a long body.
pub const LARGE_BYTES: usize = 64 * 1024;
/// Buffers that a thread keeps for its next requests, of each size: 4.25 MiB at most, and no more than
/// it has lately had use for. The others go back to the allocator.
const SPARE_MAX: usize = 1024;
const LARGE_SPARE_MAX: usize = 4;
/// Buffers of each size that are kept in any case, for the next request not to begin from nothing.
const KEPT: usize = 8;

/// What a thread keeps of one size.
struct Spare {
    buffers: Vec<Vec<u8>>,
    most: usize,
    /// The fewest there have been since the last [`trim`]: so many had no use.
    fewest: usize,
}

impl Spare {
    const fn new(most: usize) -> RefCell<Self> {
        RefCell::new(Self {
            buffers: Vec::new(),
            most,
            fewest: 0,
        })
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.buffers.pop();
        self.fewest = self.fewest.min(self.buffers.len());
        buffer
    }

    fn give(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < self.most {
            if self.buffers.capacity() == 0 {
                self.buffers.reserve_exact(self.most);
            }
            self.buffers.push(buffer);
        }
    }

    fn trim(&mut self) {
        let rest = self.buffers.len().saturating_sub(self.fewest);
        self.buffers.truncate(rest.max(KEPT));
        self.fewest = self.buffers.len();
    }
}

thread_local! {
    static SPARE: RefCell<Spare> = const { Spare::new(SPARE_MAX) };
    static LARGE: RefCell<Spare> = const { Spare::new(LARGE_SPARE_MAX) };
}

/// Gives back what this thread has kept without use since the last call. To be called every second or
/// so.
pub fn trim() {
    for spare in [&SPARE, &LARGE] {
        // At its end a thread has nothing left to give back.
        let _ = spare.try_with(|spare| spare.borrow_mut().trim());
    }
}

/// Bytes in flight. Filled at the end, consumed from the front. Holds less than 4 GiB: every caller
/// bounds what it puts in, far below.
#[derive(Debug, Default)]
pub struct Buffer {
    /// All of it is initialised; what lies outside of `start..end` is left over and never shown.
    bytes: Vec<u8>,
    start: u32,
    end: u32,
}

impl Buffer {
    /// An empty buffer of [`BUFFER_BYTES`].
    pub fn take() -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().take());
        Self::over(spare.ok().flatten(), BUFFER_BYTES)
    }

    /// An empty buffer of [`LARGE_BYTES`].
    pub fn take_large() -> Self {
        let spare = LARGE.try_with(|spare| spare.borrow_mut().take());
        Self::over(spare.ok().flatten(), LARGE_BYTES)
    }

    fn over(spare: Option<Vec<u8>>, size: usize) -> Self {
        Self {
            bytes: spare.unwrap_or_else(|| vec![0; size]),
            start: 0,
            end: 0,
        }
    }

    /// A buffer that holds a copy of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut buffer = if bytes.len() > BUFFER_BYTES {
            Self::take_large()
        } else {
            Self::take()
        };
        buffer.put(bytes);
        buffer
    }

    /// The bytes in it.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    /// The same, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start as usize..self.end as usize]
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Room behind what is filled.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.end as usize
    }

    /// The room itself, to be filled; then [`Self::advance`].
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end as usize..]
    }

    /// Notes that so many bytes of the room were filled.
    pub fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room());
        self.ends_at((self.end as usize + bytes).min(self.bytes.len()));
    }

    /// Forgets bytes at the front.
    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len());
        self.start = (self.start as usize + bytes).min(self.end as usize) as u32;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Forgets everything behind the first `bytes`.
    pub fn truncate(&mut self, bytes: usize) {
        self.ends_at((self.start as usize + bytes).min(self.end as usize));
    }

    /// Appends bytes, growing if there is no room. The caller bounds what it appends.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.end as usize + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end.max(2 * self.bytes.len()), 0);
        }
        self.bytes[self.end as usize..end].copy_from_slice(bytes);
        self.ends_at(end);
    }

    /// Makes room: moves the bytes to the front, or grows to at most `most` bytes. False if it
    /// holds that many.
    pub fn make_room(&mut self, most: usize) -> bool {
        if self.start > 0 {
            self.bytes
                .copy_within(self.start as usize..self.end as usize, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.room() == 0 {
            let larger = (2 * self.bytes.len()).min(most);
            if larger <= self.bytes.len() {
                return false;
            }
            self.bytes.resize(larger, 0);
        }
        true
    }

    /// What is filled ends there, within `bytes`.
    fn ends_at(&mut self, end: usize) {
        self.end = u32::try_from(end).expect("callers put less than 4 GiB into a buffer");
    }

    /// Splits off everything behind the first `bytes` into a buffer of its own.
    pub fn split_off(&mut self, bytes: usize) -> Option<Self> {
        let rest = self.filled().get(bytes..).filter(|rest| !rest.is_empty())?;
        let rest = Self::of(rest);
        self.truncate(bytes);
        Some(rest)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let spare = match bytes.len() {
            BUFFER_BYTES => &SPARE,
            LARGE_BYTES => &LARGE,
            _ => return, // Grown, or never filled.
        };
        let _ = spare.try_with(|spare| spare.borrow_mut().give(bytes));
    }
}

/// A piece of a body, owned by whoever holds it.
#[derive(Debug)]
pub enum Piece {
    /// Read into a buffer of this thread.
    Buffer(Buffer),
    /// Made elsewhere: by HTTP/2, or by us.
    Bytes(Bytes),
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Buffer(buffer) => buffer.filled(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_a_buffer_is_not_seen_by_the_next_one() {
        let mut buffer = Buffer::of(b"secret");
        buffer.consume(2);
        assert_eq!(buffer.filled(), b"cret");
        drop(buffer);
        let again = Buffer::take();
        assert!(again.is_empty() && again.room() == BUFFER_BYTES);
    }

    #[test]
    fn what_a_burst_has_needed_is_given_back_once_it_is_over() {
        let kept = || SPARE.with(|spare| spare.borrow().buffers.len());
        drop((0..100).map(|_| Buffer::take()).collect::<Vec<_>>());
        assert_eq!(kept(), 100);
        trim();
        drop((0..20).map(|_| Buffer::take()).collect::<Vec<_>>());
        assert_eq!(kept(), 100, "they had use since the last time");
        trim();
        assert_eq!(kept(), 20);
        trim();
        trim();
        assert_eq!(kept(), KEPT);
    }

    #[test]
    fn a_buffer_grows_to_its_bound_and_no_further() {
        let mut buffer = Buffer::take();
        let most = 3 * BUFFER_BYTES;
        while buffer.make_room(most) {
            let room = buffer.room();
            buffer.advance(room);
        }
        assert_eq!(buffer.len(), most);
        buffer.consume(10);
        assert!(buffer.make_room(most));
        assert_eq!(buffer.room(), 10);
    }

    #[test]
    fn a_buffer_is_split_where_one_message_ends() {
        let mut buffer = Buffer::of(b"one two");
        let rest = buffer.split_off(3).unwrap();
        assert_eq!(
            (buffer.filled(), rest.filled()),
            (&b"one"[..], &b" two"[..])
        );
        assert!(buffer.split_off(3).is_none());
    }
}

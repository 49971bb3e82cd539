//! The texts that a sink wants, handed over whole.
//!
//! A text that lies whole in one piece of input, with nothing to decode, is handed over where it
//! lies. Only what is cut by the end of a piece, or has escapes, is put together here first.

/// A text, or its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken<'a> {
    /// The bytes, as many as were wanted. A cut may have split a character.
    pub(super) bytes: &'a [u8],
    /// There were more.
    pub(super) is_cut: bool,
}

impl<'a> Taken<'a> {
    pub(super) fn of(bytes: &'a [u8], max: u16) -> Self {
        let kept = &bytes[..bytes.len().min(usize::from(max))];
        Self {
            bytes: kept,
            is_cut: kept.len() < bytes.len(),
        }
    }
}

/// How much is put together without the heap.
const HERE: usize = 64;

/// The parts of one text.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Of the text so far, wherever it is.
    len: u16,
    is_cut: bool,
    here: [u8; HERE],
    /// All of the text once it is longer than `here`.
    heap: Vec<u8>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            len: 0,
            is_cut: false,
            here: [0; HERE],
            heap: Vec::new(),
        }
    }
}

impl Kept {
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.is_cut = false;
    }

    /// Adds a part, as far as there is room among `max` bytes in all.
    pub(super) fn push(&mut self, part: &[u8], max: u16) {
        let len = usize::from(self.len);
        let part = Taken::of(part, max.saturating_sub(self.len));
        self.is_cut |= part.is_cut;
        let end = len + part.bytes.len();
        self.len = end as u16;
        if let Some(room) = self.here.get_mut(len..end) {
            room.copy_from_slice(part.bytes);
            return;
        }
        if len <= HERE {
            self.heap.clear();
            self.heap.extend_from_slice(&self.here[..len]);
        }
        self.heap.extend_from_slice(part.bytes);
    }

    /// The text with its last part.
    pub(super) fn finish<'a>(&'a mut self, last: &'a [u8], max: u16) -> Taken<'a> {
        if self.len == 0 && !self.is_cut {
            return Taken::of(last, max);
        }
        self.push(last, max);
        let len = usize::from(self.len);
        Taken {
            bytes: self.here.get(..len).unwrap_or(&self.heap),
            is_cut: self.is_cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_make_the_text_up_to_its_bound(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..6),
            max in 0..200_u16,
        ) {
            let whole = parts.concat();
            let mut kept = Kept::default();
            for _ in 0..2 {
                kept.clear();
                let (last, first) = parts.split_last().expect("at least one");
                for part in first {
                    kept.push(part, max);
                }
                prop_assert_eq!(kept.finish(last, max), Taken::of(&whole, max));
            }
        }
    }
}

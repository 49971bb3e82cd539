//! Short texts that live where they are held, without the heap.
//!
//! Nearly every method, name, version and id is short, and a request has a few of each. Kept as
//! `String` they would be most of what the balancer allocates for a request.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A text that needs the heap only when it has more than `N` bytes, and not even then when it is a
/// constant. With `N` two less than a multiple of eight no byte is wasted.
#[derive(Clone)]
pub struct Text<const N: usize>(Held<N>);

#[derive(Clone)]
enum Held<const N: usize> {
    Constant(&'static str),
    Here { len: u8, bytes: [u8; N] },
    Heap(Box<str>),
}

/// A method or a version. Takes 24 bytes.
pub type Word = Text<22>;
/// The name of a tool, resource, prompt or task, or an id. Takes 48 bytes.
pub type Name = Text<46>;

impl<const N: usize> Text<N> {
    /// A copy of the text.
    pub fn new(text: &str) -> Self {
        Self::joined([text.as_bytes()])
    }

    /// A text that is part of the program.
    pub const fn constant(text: &'static str) -> Self {
        Self(Held::Constant(text))
    }

    /// A copy of the parts, one after the other. Together they are UTF-8, as the caller has
    /// checked; only the end of a text longer than `N` may be half a character, which is left out.
    pub(super) fn joined<const PARTS: usize>(parts: [&[u8]; PARTS]) -> Self {
        const { assert!(N <= u8::MAX as usize) };
        let mut bytes = [0; N];
        let mut len = 0;
        for part in parts {
            let end = len + part.len();
            match bytes.get_mut(len..end) {
                Some(room) => room.copy_from_slice(part),
                None => return Self::on_heap(parts.concat()),
            }
            len = end;
        }
        Self(Held::Here {
            len: len as u8,
            bytes,
        })
    }

    #[cold]
    fn on_heap(mut bytes: Vec<u8>) -> Self {
        if let Err(error) = str::from_utf8(&bytes) {
            bytes.truncate(error.valid_up_to());
        }
        Self(Held::Heap(
            String::from_utf8(bytes).unwrap_or_default().into(),
        ))
    }

    /// The text's bytes, which cost nothing to get at.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Held::Constant(text) => text.as_bytes(),
            Held::Here { len, bytes } => &bytes[..usize::from(*len)],
            Held::Heap(text) => text.as_bytes(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Held::Constant(text) => text,
            // Only whole texts are written there. To be told so again costs less than the heap did.
            Held::Here { len, bytes } => {
                str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default()
            }
            Held::Heap(text) => text,
        }
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<const N: usize> Eq for Text<N> {}

impl<const N: usize> PartialEq<str> for Text<N> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl<const N: usize> Hash for Text<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), formatter)
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const N: usize> From<Text<N>> for String {
    fn from(text: Text<N>) -> Self {
        text.as_str().to_owned()
    }
}

impl<const N: usize> From<Text<N>> for Box<str> {
    fn from(text: Text<N>) -> Self {
        text.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_what_is_promised() {
        assert_eq!(size_of::<Word>(), 24);
        assert_eq!(size_of::<Option<Word>>(), 24);
        assert_eq!(size_of::<Name>(), 48);
        assert_eq!(size_of::<Option<Name>>(), 48);
    }

    #[test]
    fn where_a_text_is_held_does_not_show() {
        let here = Text::<4>::new("ping");
        assert!(matches!(here.0, Held::Here { .. }));
        assert_eq!(here, Text::constant("ping"));
        let heap = Text::<4>::new("pings");
        assert!(matches!(heap.0, Held::Heap(_)));
        assert_eq!(heap, Text::constant("pings"));
        assert_ne!(here, heap);
        assert_eq!(format!("{here} {heap:?}"), "ping \"pings\"");
    }

    proptest! {
        #[test]
        fn every_text_comes_back(first in "\\PC{0,9}", second in "\\PC{0,9}") {
            let text = Text::<8>::joined([first.as_bytes(), second.as_bytes()]);
            prop_assert_eq!(text.as_str(), first.clone() + &second);
            prop_assert_eq!(Text::<8>::new(&first), Text::<8>::from(first.as_str()));
        }

        #[test]
        fn half_a_character_at_the_end_of_a_long_text_is_left_out(text in "[é漢🌊]{3,9}", cut in 5..9_usize) {
            let cut = cut.min(text.len());
            let whole = &text[..text.floor_char_boundary(cut)];
            prop_assert_eq!(Text::<4>::joined([&text.as_bytes()[..cut]]), Text::new(whole));
        }
    }
}

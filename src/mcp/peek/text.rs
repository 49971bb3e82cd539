//! The inside of JSON strings: how far is it plain, and is it UTF-8?

/// The number of bytes at the start of `input` that stand for themselves in a JSON string: whole
/// characters of valid UTF-8 that are no quote, backslash or control character.
///
/// What stops it is one of those three, a byte that is not UTF-8, a character whose end is not in
/// `input`, or the end of `input`.
#[inline(always)]
pub(super) fn plain_len(input: &[u8]) -> usize {
    let len = ascii_len(input);
    match input.get(len) {
        Some(0x80..) => mixed_len(input, len),
        _ => len,
    }
}

#[inline(never)]
fn mixed_len(input: &[u8], mut len: usize) -> usize {
    while let Some(0x80..) = input.get(len) {
        let run = &input[len..];
        let run = &run[..memchr::memchr2(b'"', b'\\', run).unwrap_or(run.len())];
        let valid = match str::from_utf8(run) {
            Ok(_) => run,
            Err(error) => &run[..error.valid_up_to()],
        };
        if let Some(control) = control_position(valid) {
            return len + control;
        }
        if valid.len() < run.len() || valid.is_empty() {
            return len + valid.len();
        }
        len += valid.len();
    }
    len
}

/// The ASCII character that a backslash and this byte stand for; none for `u` and for errors.
pub(super) fn unescape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 8,
        b'f' => 0xc,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// The rest of a UTF-8 character of which at least one byte has been seen (RFC 3629, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mcp) struct Utf8 {
    /// Bytes to come, at least one.
    left: u8,
    /// The range of the next one. Only the second byte of a character may have a narrow range.
    low: u8,
    high: u8,
}

impl Utf8 {
    /// The state after the first byte of a character of more than one byte.
    pub(in crate::mcp) fn lead(byte: u8) -> Option<Self> {
        let (left, low, high) = match byte {
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return None,
        };
        Some(Self { left, low, high })
    }

    /// The state after one more byte: `Some(None)` when the character is complete, `None` when the
    /// byte does not belong there.
    pub(in crate::mcp) fn next(self, byte: u8) -> Option<Option<Self>> {
        if !(self.low..=self.high).contains(&byte) {
            return None;
        }
        let left = self.left - 1;
        Some((left > 0).then_some(Self {
            left,
            low: 0x80,
            high: 0xbf,
        }))
    }

    /// A byte that may come next.
    pub(in crate::mcp) fn filler(self) -> u8 {
        self.low
    }
}

/// How many bytes make one step of the long scan: enough for vector registers.
const STRIDE: usize = 32;
const WORD: usize = size_of::<u64>();

#[inline(always)]
fn ascii_len(input: &[u8]) -> usize {
    let (words, rest) = input.as_chunks::<WORD>();
    // Most strings are short, so a few words come before the strides.
    let (first, words) = words.split_at(words.len().min(STRIDE / WORD));
    let mut len = 0;
    for word in first {
        let special = special_bits(u64::from_le_bytes(*word));
        if special != 0 {
            return len + special.trailing_zeros() as usize / 8;
        }
        len += WORD;
    }
    if words.is_empty() {
        return len + ascii_bytes(rest);
    }
    len + long_ascii_len(&input[len..])
}

fn ascii_bytes(input: &[u8]) -> usize {
    input.iter().take_while(|&&byte| !is_special(byte)).count()
}

#[inline(never)]
fn long_ascii_len(input: &[u8]) -> usize {
    let mut len = plain_strides(input);
    let (words, rest) = input[len..].as_chunks::<WORD>();
    for word in words {
        let special = special_bits(u64::from_le_bytes(*word));
        if special != 0 {
            return len + special.trailing_zeros() as usize / 8;
        }
        len += WORD;
    }
    len + ascii_bytes(rest)
}

/// The length of the leading strides without a special byte.
fn plain_strides(input: &[u8]) -> usize {
    // Without an early exit inside of the stride the compiler makes vector code of this.
    let is_plain = |stride: &&[u8]| {
        !stride
            .iter()
            .fold(false, |special, &byte| special | is_special(byte))
    };
    input.chunks_exact(STRIDE).take_while(is_plain).count() * STRIDE
}

fn is_special(byte: u8) -> bool {
    !(0x20..0x80).contains(&byte) | (byte == b'"') | (byte == b'\\')
}

/// The high bit of every special byte of a word. Borrows may set bits above the lowest special byte
/// wrongly, never below it, so the lowest one is exact.
fn special_bits(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    (control | quote | backslash | word) & (ONES * 0x80)
}

fn control_position(valid: &[u8]) -> Option<usize> {
    let any = valid.iter().fold(false, |any, &byte| any | (byte < 0x20));
    any.then(|| valid.iter().position(|&byte| byte < 0x20))
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow_plain_len(input: &[u8]) -> usize {
        let valid = match str::from_utf8(input) {
            Ok(text) => text,
            Err(error) => str::from_utf8(&input[..error.valid_up_to()]).expect("the valid part"),
        };
        valid
            .char_indices()
            .find(|(_, char)| *char < ' ' || matches!(char, '"' | '\\'))
            .map_or(valid.len(), |(index, _)| index)
    }

    #[test]
    fn every_byte_at_every_place_of_a_word_is_seen() {
        for byte in 0..=255 {
            for place in 0..80 {
                let mut input = [b'~'; 80];
                input[place] = byte;
                assert_eq!(
                    plain_len(&input),
                    slow_plain_len(&input),
                    "{byte:#x} at {place}"
                );
            }
        }
    }

    #[test]
    fn utf8_machine_accepts_what_the_standard_library_accepts() {
        let accepts = |bytes: &[u8]| {
            let mut state = Utf8::lead(bytes[0]).map(Some);
            for &byte in &bytes[1..] {
                state = match state {
                    Some(Some(utf8)) => utf8.next(byte),
                    _ => None,
                };
            }
            state == Some(None)
        };
        let edges = [0, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff];
        for lead in 0x80..=255 {
            for second in 0..=255 {
                let bytes = [lead, second];
                assert_eq!(
                    accepts(&bytes),
                    str::from_utf8(&bytes).is_ok_and(|text| text.chars().count() == 1)
                );
                for third in edges {
                    let bytes = [lead, second, third];
                    assert_eq!(
                        accepts(&bytes),
                        str::from_utf8(&bytes).is_ok_and(|text| text.chars().count() == 1)
                    );
                    for fourth in edges {
                        let bytes = [lead, second, third, fourth];
                        assert_eq!(
                            accepts(&bytes),
                            str::from_utf8(&bytes).is_ok_and(|text| text.chars().count() == 1)
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn fast_and_slow_agree(
            text in "[a-zé漢🌊]{0,70}",
            cut in 0..80_usize,
            byte in any::<u8>(),
        ) {
            let mut bytes = text.into_bytes();
            prop_assert_eq!(plain_len(&bytes), slow_plain_len(&bytes));
            if cut < bytes.len() {
                bytes[cut] = byte;
                prop_assert_eq!(plain_len(&bytes), slow_plain_len(&bytes));
                bytes.truncate(cut);
                prop_assert_eq!(plain_len(&bytes), slow_plain_len(&bytes));
            }
        }
    }
}

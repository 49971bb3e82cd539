//! The part of WebSocket that both sides of the tool need (RFC 6455): frames of whole messages, and
//! the key of the handshake. Messages in several frames are refused: nobody here sends them.

use std::ops::Range;

use crate::http::Malformed;

/// Longest payload that is taken.
const PAYLOAD_MAX: u64 = 4 * 1024 * 1024;
/// What every key is joined with (section 1.3).
const KEY_TAIL: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The key protects against proxies that cache, which a load test need not fear: it never changes.
/// For the same reason neither does the mask.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text = 1,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A frame in the bytes it was read from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Where its payload is, unmasked.
    pub(crate) payload: Range<usize>,
}

impl Frame {
    /// Reads the frame that `bytes` begins with, and takes its mask off; `None` until all of it is
    /// there. The frame ends where its payload does.
    pub(crate) fn read(bytes: &mut [u8]) -> Result<Option<Self>, Malformed> {
        let &[first, second, ..] = &*bytes else {
            return Ok(None);
        };
        let kind = match first {
            0x81 => Kind::Text,
            0x88 => Kind::Close,
            0x89 => Kind::Ping,
            0x8a => Kind::Pong,
            _ => return Err(Malformed("a frame of a kind not spoken")),
        };
        let (length, mut at) = match second & 0x7f {
            126 => match bytes.get(2..4) {
                Some(wide) => (number(wide), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(wide) => (number(wide), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if length > PAYLOAD_MAX {
            return Err(Malformed("a frame too long"));
        }
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            let Some(given) = bytes.get(at..at + 4) else {
                return Ok(None);
            };
            mask.copy_from_slice(given);
            at += 4;
        }
        let payload = at..at + length as usize;
        let Some(inside) = bytes.get_mut(payload.clone()) else {
            return Ok(None);
        };
        cover(inside, mask);
        Ok(Some(Self { kind, payload }))
    }
}

/// Appends one frame; clients mask, servers do not.
pub(crate) fn write(out: &mut Vec<u8>, kind: Kind, payload: &[u8], masked: bool) {
    out.push(0x80 | kind as u8);
    let bit = if masked { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..126 => out.push(bit | short as u8),
        wide @ 126..65_536 => {
            out.push(bit | 126);
            out.extend_from_slice(&(wide as u16).to_be_bytes());
        }
        wider => {
            out.push(bit | 127);
            out.extend_from_slice(&(wider as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&MASK);
    }
    let at = out.len();
    out.extend_from_slice(payload);
    if masked {
        cover(&mut out[at..], MASK);
    }
}

/// What a server answers to a key, which shows that it has understood the request.
pub(crate) fn accept(key: &[u8]) -> String {
    base64(&sha1(&[key, KEY_TAIL.as_bytes()].concat()))
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn cover(bytes: &mut [u8], mask: [u8; 4]) {
    if mask != [0; 4] {
        for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
    }
}

/// SHA-1 (RFC 3174), for short texts: the handshake is all it is for.
fn sha1(text: &[u8]) -> [u8; 20] {
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize((text.len() + 9).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(8 * text.len() as u64).to_be_bytes());
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = number(bytes) as u32;
        }
        for at in 16..80 {
            words[at] =
                (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.into_iter().enumerate() {
            let (mixed, constant) = match at {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = number(three) << (8 * (3 - three.len()));
        for letter in 0..4 {
            text.push(if letter <= three.len() {
                char::from(LETTERS[(bits >> (18 - 6 * letter)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_the_standard_shows() {
        assert_eq!(accept(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_read_as_written_and_only_when_complete() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for masked in [false, true] {
                let payload = vec![b'x'; length];
                let mut bytes = Vec::new();
                write(&mut bytes, Kind::Text, &payload, masked);
                for end in [0, 1, bytes.len() - 1] {
                    let part = &mut bytes.clone()[..end];
                    assert_eq!(Frame::read(part), Ok(None), "{end} of {length}");
                }
                let end = bytes.len();
                bytes.push(0x81);
                let frame = Frame::read(&mut bytes).unwrap().unwrap();
                assert_eq!((frame.kind, frame.payload.end), (Kind::Text, end));
                assert_eq!(bytes[frame.payload], payload);
            }
        }
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        for bytes in [
            &mut [0x01, 0x00][..],
            &mut [0x82, 0x00],
            &mut [0xc1, 0x00],
            &mut [0x81, 127, 0, 0, 0, 0, 1, 0, 0, 0],
        ] {
            assert!(Frame::read(bytes).is_err(), "{bytes:?}");
        }
    }
}

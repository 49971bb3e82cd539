//! Server ids in fewer bytes.
//!
//! Nearly every server names its sessions with a UUID in lower case, or with the same 32 hex digits
//! without hyphens. Both are 128 bits and are carried as such. Anything else, upper case included,
//! is carried as it stands, because it must come out exactly as it went in.

/// How a server id is written inside a sealed id. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Verbatim = 0,
    Uuid = 1,
    Hex = 2,
}

/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The form of `id`, and its bytes unless they are the text itself.
pub(super) fn pack(id: &str) -> (Form, Option<[u8; 16]>) {
    let mut bytes = [0; 16];
    match id.len() {
        32 if lower_unhex(id.as_bytes(), &mut bytes) => (Form::Hex, Some(bytes)),
        36 if HYPHENS.iter().all(|&at| id.as_bytes()[at] == b'-') => {
            let mut digits = [0; 32];
            let text = id
                .bytes()
                .enumerate()
                .filter(|(at, _)| !HYPHENS.contains(at));
            for (digit, (_, byte)) in digits.iter_mut().zip(text) {
                *digit = byte;
            }
            match lower_unhex(&digits, &mut bytes) {
                true => (Form::Uuid, Some(bytes)),
                false => (Form::Verbatim, None),
            }
        }
        _ => (Form::Verbatim, None),
    }
}

/// The id that [`pack`] was given. `None` for an unknown form or bytes that do not fit it.
pub(super) fn unpack(form: u8, bytes: &[u8]) -> Option<String> {
    match form {
        0 => String::from_utf8(bytes.to_vec()).ok(),
        1 if bytes.len() == 16 => {
            let digits = hex(bytes);
            let mut uuid = String::with_capacity(36);
            for digit in digits.chars() {
                if HYPHENS.contains(&uuid.len()) {
                    uuid.push('-');
                }
                uuid.push(digit);
            }
            Some(uuid)
        }
        2 if bytes.len() == 16 => Some(hex(bytes)),
        _ => None,
    }
}

/// `bytes` as lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads `text`, hex digits of either case, into `out`. False unless it fills `out` exactly.
pub(super) fn unhex(text: &[u8], out: &mut [u8]) -> bool {
    if text.len() != out.len() * 2 {
        return false;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
            return false;
        };
        *byte = high << 4 | low;
    }
    true
}

fn lower_unhex(text: &[u8], out: &mut [u8]) -> bool {
    !text.iter().any(u8::is_ascii_uppercase) && unhex(text, out)
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

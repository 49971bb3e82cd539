//! HTTP/1.1 of our own, on both sides: what most requests come in on and go out on.
//!
//! It does what this proxy needs and no more: heads are parsed where they were read and copied once
//! into what is sent, bodies pass in the buffers they were read into, and a connection on which
//! nothing happens holds no buffer at all. What is ambiguous is refused, and a connection whose
//! framing is in doubt is never used again (RFC 9112).

pub mod answer;
pub mod conn;
pub mod down;
pub mod framing;
pub mod head;
pub mod up;
mod write;

use std::ops::Range;

use super::buffer::Buffer;

/// Where the name and the value of a field lie in the bytes of a head.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    name: (u32, u16),
    value: (u32, u32),
}

impl Field {
    /// A field of a head that begins at `base`. Heads are far shorter than 4 GiB, and a name that is
    /// longer than 64 KiB is cut, so that nothing is found under it.
    fn new(base: usize, field: &httparse::Header<'_>) -> Self {
        let offset = |part: &[u8]| (part.as_ptr().addr() - base) as u32;
        Self {
            name: (
                offset(field.name.as_bytes()),
                u16::try_from(field.name.len()).unwrap_or(u16::MAX),
            ),
            value: (offset(field.value), field.value.len() as u32),
        }
    }

    fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.name.0 as usize;
        &bytes[start..start + usize::from(self.name.1)]
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.value_range()]
    }

    fn value_range(&self) -> Range<usize> {
        let start = self.value.0 as usize;
        start..start + self.value.1 as usize
    }

    fn is(&self, bytes: &[u8], name: &str) -> bool {
        usize::from(self.name.1) == name.len()
            && self.name(bytes).eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a head, and the bytes they lie in.
#[derive(Debug, Default)]
struct Fields {
    bytes: Buffer,
    list: Vec<Field>,
}

impl Fields {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let bytes = self.bytes.filled();
        let found = self.list.iter().find(|field| field.is(bytes, name))?;
        Some(found.value(bytes))
    }

    fn count(&self, name: &str) -> usize {
        let bytes = self.bytes.filled();
        self.list
            .iter()
            .filter(|field| field.is(bytes, name))
            .count()
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(&'a str, &'a [u8])) {
        let bytes = self.bytes.filled();
        for field in &self.list {
            // The parser lets only tokens pass, which are ASCII.
            f(
                std::str::from_utf8(field.name(bytes)).unwrap_or_default(),
                field.value(bytes),
            );
        }
    }

    /// Lets go of the bytes; the empty list keeps its room for the next head.
    fn release(&mut self) -> Vec<Field> {
        self.bytes = Buffer::default();
        self.list.clear();
        std::mem::take(&mut self.list)
    }
}

/// Does one of the tokens of a list, such as `Connection`, equal `token`?
fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// A `Content-Length` as RFC 9110 section 8.6 has it: digits alone.
fn content_length(value: &[u8]) -> Option<u64> {
    // 19 digits fit into 64 bits whatever they are.
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
    )
}

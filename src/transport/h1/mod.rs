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
use super::fields::{CONNECTION, Known, Name, Names, tokens};

/// Where the name and the value of a field lie in the bytes of a head.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    known: Option<Known>,
}

impl Field {
    /// A field of a head that begins at `base`. Heads are far shorter than 4 GiB, and a name that is
    /// longer than 64 KiB is cut, so that nothing is found under it.
    fn new(base: usize, field: &httparse::Header<'_>) -> Self {
        let offset = |part: &[u8]| (part.as_ptr().addr() - base) as u32;
        Self {
            name: offset(field.name.as_bytes()),
            name_len: u16::try_from(field.name.len()).unwrap_or(u16::MAX),
            value: offset(field.value),
            value_len: field.value.len() as u32,
            known: Known::find(field.name.as_bytes()),
        }
    }

    fn name<'a>(&self, bytes: &'a [u8]) -> Name<'a> {
        let start = self.name as usize;
        Name::seen(
            &bytes[start..start + usize::from(self.name_len)],
            self.known,
        )
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.value_range()]
    }

    fn value_range(&self) -> Range<usize> {
        let start = self.value as usize;
        start..start + self.value_len as usize
    }
}

/// The fields of a head, and the bytes they lie in.
#[derive(Debug, Default)]
struct Fields {
    bytes: Buffer,
    list: Vec<Field>,
    /// Known names that stand in the head. Most that are asked for do not, and of one that does the
    /// few fields there are say soon which it is; every connection at rest would have to hold a table
    /// of places.
    present: Names,
    /// Known names that stand more than once.
    repeated: Names,
}

impl Fields {
    /// Begins anew with other bytes, of which nothing is known yet.
    fn refill(&mut self, bytes: Buffer) {
        self.bytes = bytes;
        self.list.clear();
        self.present = Names::NONE;
        self.repeated = Names::NONE;
    }

    /// Notes what the parser has found in `bytes`.
    fn note(
        bytes: &[u8],
        list: &mut Vec<Field>,
        present: &mut Names,
        repeated: &mut Names,
        parsed: &[httparse::Header<'_>],
    ) {
        let base = bytes.as_ptr().addr();
        for field in parsed {
            let field = Field::new(base, field);
            if let Some(known) = field.known {
                if present.holds(known) {
                    repeated.add(known);
                }
                present.add(known);
            }
            list.push(field);
        }
    }

    fn known(&self, name: Known) -> Option<&Field> {
        if !self.present.holds(name) {
            return None;
        }
        self.list.iter().find(|field| field.known == Some(name))
    }

    fn find(&self, name: &str) -> Option<&Field> {
        if let Some(known) = Known::find(name.as_bytes()) {
            return self.known(known);
        }
        let bytes = self.bytes.filled();
        self.list.iter().find(|field| field.name(bytes).is(name))
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        Some(self.find(name)?.value(self.bytes.filled()))
    }

    fn value(&self, name: Known) -> Option<&[u8]> {
        Some(self.known(name)?.value(self.bytes.filled()))
    }

    /// How many times: none, once, or more.
    fn times(&self, name: Known) -> usize {
        usize::from(self.present.holds(name)) + usize::from(self.repeated.holds(name))
    }

    fn count(&self, name: &str) -> usize {
        let known = Known::find(name.as_bytes());
        if let Some(known) = known
            && !self.repeated.holds(known)
        {
            return usize::from(self.present.holds(known));
        }
        let bytes = self.bytes.filled();
        self.list
            .iter()
            .filter(|field| field.known == known)
            .filter(|field| known.is_some() || field.name(bytes).is(name))
            .count()
    }

    fn repeats(&self, names: &[Known]) -> bool {
        !self.repeated.is_empty() && names.iter().any(|name| self.times(*name) > 1)
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        let bytes = self.bytes.filled();
        for field in &self.list {
            f(field.name(bytes), field.value(bytes));
        }
    }

    /// Is this one of the tokens of `Connection`, on any of its lines?
    fn connection_says(&self, token: &str) -> bool {
        if self.known(CONNECTION).is_none() {
            return false;
        }
        let mut says = false;
        self.each(&mut |name, value| {
            says |= name.is("connection")
                && tokens(value).any(|one| one.eq_ignore_ascii_case(token.as_bytes()));
        });
        says
    }

    /// Lets go of the bytes; the empty list keeps its room for the next head.
    fn clear(&mut self) {
        self.refill(Buffer::default());
    }

    /// Lets go of that room as well.
    fn release(&mut self) {
        self.clear();
        self.list = Vec::new();
    }
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

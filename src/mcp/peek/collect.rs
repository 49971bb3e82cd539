//! What the lexer finds, sorted into a [`Message`].
//!
//! Three levels matter: the message, its `params`, and their `_meta`. Everything deeper or beside
//! them passes without a look.

use super::PeekError;
use super::lex::{Kind, Sink, Want};
use crate::mcp::message::{
    BATCH_ITEMS_MAX, BatchItem, ID_BYTES_MAX, METHOD_BYTES_MAX, Message, NAME_BYTES_MAX, RawId,
    Shape, VERSION_BYTES_MAX,
};
use crate::mcp::method::{Facts, facts};

/// A member that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Id,
    Method,
    Params,
    Result,
    Error,
    Named(usize),
    InitVersion,
    RequestState,
    Meta,
    MetaVersion,
}

/// The members of `params` that can name the object of a method, in the order of [`Member::Named`].
const NAMED: [&str; 3] = ["name", "uri", "taskId"];

/// The longest key that matters; longer ones are not kept.
const KEY_BYTES_MAX: usize = META_VERSION.len();
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The members of each level. The index of a row, counted over all levels, is its bit in `seen`.
const IN_MESSAGE: [(&str, Member); 5] = [
    ("id", Member::Id),
    ("method", Member::Method),
    ("params", Member::Params),
    ("result", Member::Result),
    ("error", Member::Error),
];
const IN_PARAMS: [(&str, Member); 6] = [
    (NAMED[0], Member::Named(0)),
    (NAMED[1], Member::Named(1)),
    (NAMED[2], Member::Named(2)),
    ("protocolVersion", Member::InitVersion),
    ("requestState", Member::RequestState),
    ("_meta", Member::Meta),
];
const IN_META: [(&str, Member); 1] = [(META_VERSION, Member::MetaVersion)];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Params {
    /// Not yet seen.
    #[default]
    Absent,
    /// The scan is inside of an object.
    Object,
    /// The scan is inside of something else, which has no members.
    Other,
    /// The scan is past it.
    Closed,
}

/// A name of which it is not yet known whether the method asks for it.
#[derive(Clone, Debug, Default)]
enum Candidate {
    #[default]
    Absent,
    TooLong,
    Name(String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Collector {
    message: Message,
    /// How many containers are around the members of the message: 1, or 2 in a batch. 0 when the
    /// scan is in no message.
    level: u8,
    params: Params,
    in_meta: bool,
    /// One bit per member of the tables above.
    seen: u16,
    /// The member whose value comes next or is being read.
    member: Option<Member>,
    key: Key,
    /// The text of the value that is being read.
    text: Vec<u8>,
    text_max: usize,
    text_over: bool,
    candidates: [Candidate; 3],
    facts: Option<&'static Facts>,
}

impl Collector {
    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    pub(super) fn reset(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Self {
            text,
            ..Self::default()
        };
    }

    pub(super) fn routable(&self) -> bool {
        let Message {
            shape, id, method, ..
        } = &self.message;
        *shape == Shape::Object && id.is_some() && method.is_some() && self.name_settled()
    }

    pub(super) fn settled(&self) -> bool {
        let message = &self.message;
        if message.shape != Shape::Object || message.id.is_none() {
            return false;
        }
        let is_response =
            (message.has_result || message.has_error) && !self.has_seen(Member::Method);
        let params_settled = self.params == Params::Closed
            || (message.meta_version.is_some() && self.name_settled());
        is_response || (message.method.is_some() && params_settled)
    }

    fn name_settled(&self) -> bool {
        self.params == Params::Closed
            || self.name_index().is_none()
            || self.message.name.is_some()
            || self.message.name_too_long
    }

    /// Which candidate the method asks for.
    fn name_index(&self) -> Option<usize> {
        let name = self.facts?.name_param?;
        NAMED.iter().position(|&candidate| candidate == name)
    }

    fn has_seen(&self, member: Member) -> bool {
        IN_MESSAGE
            .iter()
            .position(|&(_, other)| other == member)
            .is_some_and(|bit| self.seen & (1 << bit) != 0)
    }

    /// The members that matter among those of the container at this depth, and the bit of the
    /// first.
    fn table(&self, depth: u8) -> Option<(&'static [(&'static str, Member)], usize)> {
        match depth.checked_sub(self.level) {
            _ if self.level == 0 => None,
            Some(0) => Some((&IN_MESSAGE, 0)),
            Some(1) if self.params == Params::Object => Some((&IN_PARAMS, IN_MESSAGE.len())),
            Some(2) if self.in_meta => Some((&IN_META, IN_MESSAGE.len() + IN_PARAMS.len())),
            _ => None,
        }
    }

    fn outermost(&mut self, kind: Kind) {
        self.message.shape = match kind {
            Kind::Object => Shape::Object,
            Kind::Array => Shape::Batch,
            Kind::String | Kind::Number | Kind::Null | Kind::Bool => Shape::Scalar,
        };
        self.level = u8::from(kind == Kind::Object);
    }

    fn element(&mut self, kind: Kind) -> Result<(), PeekError> {
        if self.message.batch.len() == BATCH_ITEMS_MAX {
            return Err(PeekError::BatchTooLong);
        }
        self.level = if kind == Kind::Object { 2 } else { 0 };
        Ok(())
    }

    /// Moves what was found in an element of a batch into the batch.
    fn element_closed(&mut self) {
        let message = std::mem::take(&mut self.message);
        let mut batch = message.batch;
        batch.push(BatchItem {
            id: message.id,
            is_response: message.method.is_none()
                && !message.has_odd_method
                && (message.has_result || message.has_error),
            method: message.method,
            name: message.name,
        });
        self.reset();
        self.message.shape = Shape::Batch;
        self.message.batch = batch;
    }

    fn member_start(&mut self, member: Member, kind: Kind, at: u64) -> Result<Want, PeekError> {
        let is_text = kind == Kind::String;
        Ok(match member {
            Member::Id => match kind {
                Kind::String | Kind::Number | Kind::Null => {
                    self.keep(Want::Raw, ID_BYTES_MAX, is_text)
                }
                Kind::Object | Kind::Array | Kind::Bool => return Err(PeekError::InvalidId { at }),
            },
            Member::Method if is_text => self.keep(Want::Decoded, METHOD_BYTES_MAX, false),
            Member::Method => {
                self.message.has_odd_method = true;
                Want::Nothing
            }
            Member::Named(_) if is_text => self.keep(Want::Decoded, NAME_BYTES_MAX, false),
            Member::MetaVersion | Member::InitVersion if is_text => {
                self.keep(Want::Decoded, VERSION_BYTES_MAX, false)
            }
            Member::Params => {
                self.params = if kind == Kind::Object {
                    Params::Object
                } else {
                    Params::Other
                };
                Want::Nothing
            }
            Member::Meta => {
                self.in_meta = kind == Kind::Object;
                Want::Nothing
            }
            Member::Result => {
                self.message.has_result = true;
                Want::Nothing
            }
            Member::Error => {
                self.message.has_error = true;
                Want::Nothing
            }
            Member::RequestState => {
                self.message.has_request_state = kind != Kind::Null;
                Want::Nothing
            }
            Member::Named(_) | Member::MetaVersion | Member::InitVersion => Want::Nothing,
        })
    }

    /// Prepares to keep a text of up to `max` bytes.
    fn keep(&mut self, want: Want, max: usize, quoted: bool) -> Want {
        self.text.clear();
        self.text_max = max;
        self.text_over = false;
        if quoted {
            self.text.push(b'"');
        }
        want
    }

    /// The kept text. The lexer has checked that it is UTF-8; a cut may have split a character.
    fn kept(&self) -> &str {
        match str::from_utf8(&self.text) {
            Ok(text) => text,
            Err(error) => str::from_utf8(&self.text[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    fn id_end(&mut self) -> Result<(), PeekError> {
        if self.text.first() == Some(&b'"') {
            self.text(b"\"");
        }
        if self.text_over {
            return Err(PeekError::IdTooLong);
        }
        self.message.id = Some(RawId::checked(self.kept()));
        Ok(())
    }

    fn method_end(&mut self) -> Result<(), PeekError> {
        if self.text_over {
            return Err(PeekError::MethodTooLong);
        }
        let method = self.kept().to_owned();
        self.facts = facts(&method);
        self.message.method = Some(method);
        if let Some(index) = self.name_index() {
            match std::mem::take(&mut self.candidates[index]) {
                Candidate::Absent => {}
                Candidate::TooLong => self.message.name_too_long = true,
                Candidate::Name(name) => self.message.name = Some(name),
            }
        }
        Ok(())
    }

    fn named_end(&mut self, index: usize) {
        let is_known = self.message.method.is_some();
        if is_known && self.name_index() != Some(index) {
            return;
        }
        match (self.text_over, is_known) {
            (true, true) => self.message.name_too_long = true,
            (true, false) => self.candidates[index] = Candidate::TooLong,
            (false, true) => self.message.name = Some(self.kept().to_owned()),
            (false, false) => self.candidates[index] = Candidate::Name(self.kept().to_owned()),
        }
    }
}

impl Sink for Collector {
    fn key_start(&mut self, depth: u8) -> Want {
        self.member = None;
        if self.table(depth).is_none() {
            return Want::Nothing;
        }
        self.key.clear();
        Want::Decoded
    }

    fn key_end(&mut self, depth: u8, at: u64) -> Result<(), PeekError> {
        let Some((table, first)) = self.table(depth) else {
            return Ok(());
        };
        let key = self.key.take();
        let Some(index) = table.iter().position(|(name, _)| name.as_bytes() == key) else {
            return Ok(());
        };
        let (key, member) = table[index];
        let bit = 1 << (first + index);
        if self.seen & bit != 0 {
            return Err(PeekError::DuplicateKey { key, at });
        }
        self.seen |= bit;
        self.member = Some(member);
        Ok(())
    }

    fn value_start(&mut self, kind: Kind, depth: u8, at: u64) -> Result<Want, PeekError> {
        match depth {
            0 => self.outermost(kind),
            1 if self.message.shape == Shape::Batch => self.element(kind)?,
            _ => {
                return match self.member {
                    Some(member) if self.table(depth).is_some() => {
                        self.member_start(member, kind, at)
                    }
                    _ => Ok(Want::Nothing),
                };
            }
        }
        Ok(Want::Nothing)
    }

    fn text(&mut self, bytes: &[u8]) {
        if self.key.is_open {
            self.key.push(bytes);
            return;
        }
        let room = self.text_max - self.text.len();
        self.text_over |= bytes.len() > room;
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn value_end(&mut self) -> Result<(), PeekError> {
        match self.member {
            Some(Member::Id) => self.id_end()?,
            Some(Member::Method) => self.method_end()?,
            Some(Member::Named(index)) => self.named_end(index),
            Some(Member::MetaVersion) => self.message.meta_version = Some(self.kept().to_owned()),
            Some(Member::InitVersion) => self.message.init_version = Some(self.kept().to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn value_closed(&mut self, depth: u8) {
        match self.message.shape {
            Shape::Batch if depth == 1 => return self.element_closed(),
            _ if self.level == 0 => return,
            _ => {}
        }
        if depth == self.level && matches!(self.params, Params::Object | Params::Other) {
            self.params = Params::Closed;
        } else if depth == self.level + 1 {
            self.in_meta = false;
        }
    }
}

/// The key that is being read, as far as it can still be one that matters.
#[derive(Clone, Debug)]
struct Key {
    is_open: bool,
    /// One more than fits means that the key is too long to matter.
    len: usize,
    bytes: [u8; KEY_BYTES_MAX],
}

impl Default for Key {
    fn default() -> Self {
        Self {
            is_open: false,
            len: 0,
            bytes: [0; KEY_BYTES_MAX],
        }
    }
}

impl Key {
    fn clear(&mut self) {
        self.is_open = true;
        self.len = 0;
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.bytes.get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.len = KEY_BYTES_MAX + 1,
        }
    }

    fn take(&mut self) -> &[u8] {
        self.is_open = false;
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

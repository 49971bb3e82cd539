//! Finding the few members of a JSON-RPC message that matter, in one pass over its bytes.
//!
//! The balancer must know a request's id (to answer it when the server cannot), its method and what
//! it names (to choose a pool and to apply policy). A parser would build the whole body in memory
//! for three short strings. [`Peek`] instead reads the body as it passes: it takes pieces of any
//! size, checks them as strictly as a parser would, keeps only what [`Message`] has room for, and
//! can tell when nothing that matters is still open, so that the head of the request may go on its
//! way.
//!
//! Parsers differ in what they make of a member that occurs twice. A server could so be brought to
//! see another method than we saw; therefore a second `method`, `id`, `name` and so on is an error.
//! Keys are compared after decoding, since `"m\u0065thod"` is `"method"` to every parser.
//!
//! What this module does not know: HTTP, eras, or what to do about an error.

mod collect;
mod kept;
mod lex;
mod number;
mod string;
mod text;

#[cfg(test)]
mod tests;

pub(super) use text::Utf8;

use super::message::Message;
use collect::Collector;
use lex::{Lexer, Surrogates};

/// How far a message has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The outermost value is still open.
    More,
    /// It is closed. Only whitespace may follow.
    Complete,
}

/// Why a body is no message that we can take. `at` is an offset in bytes from the start of the
/// body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// It is not JSON, or ends too early.
    #[error("malformed JSON at byte {at}")]
    Malformed {
        /// The first byte that does not fit.
        at: u64,
    },
    /// It has more than 127 containers inside of each other.
    #[error("JSON nested too deeply at byte {at}")]
    TooDeep {
        /// The bracket that is one too many.
        at: u64,
    },
    /// A member that decides how the message is treated occurs twice.
    #[error("duplicate member {key} at byte {at}")]
    DuplicateKey {
        /// The member.
        key: &'static str,
        /// The end of its second key.
        at: u64,
    },
    /// The id is longer than [`super::message::ID_BYTES_MAX`].
    #[error("the id is too long")]
    IdTooLong,
    /// The method is longer than [`super::message::METHOD_BYTES_MAX`].
    #[error("the method is too long")]
    MethodTooLong,
    /// The batch has more than [`super::message::BATCH_ITEMS_MAX`] elements.
    #[error("the batch is too long")]
    BatchTooLong,
    /// The id is no number, string or null.
    #[error("the id at byte {at} is of a type that no id has")]
    InvalidId {
        /// The first byte of the id.
        at: u64,
    },
}

/// The scan of one message.
///
/// It accepts what `serde_json` accepts as a value, with two differences: a number may be of any
/// magnitude, since it is never computed, and the duplicates and oversized members of [`PeekError`]
/// are refused. Memory is bounded by the limits of [`Message`], whatever the length of the body.
#[derive(Clone, Debug, Default)]
pub struct Peek {
    lexer: Lexer,
    collector: Collector,
    failed: Option<PeekError>,
}

impl Peek {
    /// A scan that has seen nothing, as strict as the servers behind us.
    pub fn new() -> Self {
        Self::default()
    }

    /// A scan for what servers send. It lets half a surrogate pair pass, which JavaScript and
    /// Python send when a text was cut in the middle of an emoji and read without complaint: an
    /// answer that a client understands must not look broken to us.
    pub fn lenient() -> Self {
        Self {
            lexer: Lexer::new(Surrogates::Lone),
            ..Self::default()
        }
    }

    /// Reads the next piece of the body. After an error every further call gives the same error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, PeekError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Err(error) = self.lexer.feed(bytes, &mut self.collector) {
            self.failed = Some(*error);
            return Err(*error);
        }
        Ok(if self.lexer.is_done() {
            Progress::Complete
        } else {
            Progress::More
        })
    }

    /// To be called at the end of the body: was it one whole value?
    pub fn finish(&self) -> Result<(), PeekError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.lexer.may_end() => Ok(()),
            None => Err(PeekError::Malformed {
                at: self.lexer.position(),
            }),
        }
    }

    /// Forgets everything, to begin with another message.
    pub fn reset(&mut self) {
        self.lexer.reset();
        self.collector.reset();
        self.failed = None;
    }

    /// What is known so far. After an error it is what was known before it.
    pub fn message(&self) -> &Message {
        self.collector.message()
    }

    /// Is everything known that decides where the message goes and by which rules?
    ///
    /// So it is when the outermost value is closed; for a request, when its id, its method, and of
    /// `params` either all or the name and the protocol version in `_meta` have been seen; for a
    /// response, when its id and its `result` or `error` have begun.
    ///
    /// Settled does not mean checked. What follows may still be malformed, repeat a member, or add
    /// a `result` to a request, and a server may then see another message than was settled here.
    /// Who forwards a settled message keeps feeding the rest, and at an error, or when
    /// [`Message::class`] has changed at the end, breaks the exchange off before its last byte.
    pub fn settled(&self) -> bool {
        self.lexer.is_done() || (self.failed.is_none() && self.collector.settled())
    }

    /// Are id, method and name known? This is less than [`Peek::settled`] by the version in
    /// `_meta`, and is enough where a header has already told the era.
    pub fn routable(&self) -> bool {
        self.lexer.is_done() || (self.failed.is_none() && self.collector.routable())
    }
}

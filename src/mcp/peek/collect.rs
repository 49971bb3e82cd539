//! What the lexer finds, sorted into a [`Message`].
//!
//! Five places matter: the message, its `params`, their `_meta`, its `result` and its `error`.
//! Everything deeper or beside them passes unheard.

use super::PeekError;
use super::kept::Taken;
use super::lex::{KEY_BYTES_MAX, Kind, Sink, Step, Want};
use crate::mcp::message::{
    BATCH_ITEMS_MAX, BatchItem, ID_BYTES_MAX, METHOD_BYTES_MAX, Message, NAME_BYTES_MAX, RawId,
    Shape, VERSION_BYTES_MAX,
};
use crate::mcp::method::facts_of;
use crate::mcp::text::{Name, Text, Word};
use crate::mcp::trace::{TRACEPARENT_BYTES, TraceContext};

/// The innermost container that is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// None.
    #[default]
    Outside,
    Batch,
    Message,
    Params,
    Meta,
    Result,
    Error,
}

/// A member that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Id,
    Method,
    Params,
    Result,
    Error,
    /// The three that can name the object of a method.
    Name,
    Uri,
    TaskId,
    InitVersion,
    RequestState,
    Meta,
    MetaVersion,
    MetaTrace,
    IsError,
    ErrorCode,
}

impl Member {
    /// The member with this key, if it matters in this place.
    fn named(place: Place, key: &[u8]) -> Option<Self> {
        Some(match place {
            Place::Message => match key {
                b"id" => Self::Id,
                b"method" => Self::Method,
                b"params" => Self::Params,
                b"result" => Self::Result,
                b"error" => Self::Error,
                _ => return None,
            },
            Place::Params => match key {
                b"name" => Self::Name,
                b"uri" => Self::Uri,
                b"taskId" => Self::TaskId,
                b"protocolVersion" => Self::InitVersion,
                b"requestState" => Self::RequestState,
                b"_meta" => Self::Meta,
                _ => return None,
            },
            Place::Meta => match key {
                b"io.modelcontextprotocol/protocolVersion" => Self::MetaVersion,
                b"traceparent" => Self::MetaTrace,
                _ => return None,
            },
            Place::Result if key == b"isError" => Self::IsError,
            Place::Error if key == b"code" => Self::ErrorCode,
            Place::Outside | Place::Batch | Place::Result | Place::Error => return None,
        })
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Method => "method",
            Self::Params => "params",
            Self::Result => "result",
            Self::Error => "error",
            Self::Name => "name",
            Self::Uri => "uri",
            Self::TaskId => "taskId",
            Self::InitVersion => "protocolVersion",
            Self::RequestState => "requestState",
            Self::Meta => "_meta",
            Self::MetaVersion => "io.modelcontextprotocol/protocolVersion",
            Self::MetaTrace => "traceparent",
            Self::IsError => "isError",
            Self::ErrorCode => "code",
        }
    }

    /// Its bit in [`Collector::seen`].
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

const _: () = assert!(Member::MetaVersion.key().len() < KEY_BYTES_MAX as usize);

/// The longest code that is read: as long as a 32-bit number can be.
const CODE_BYTES_MAX: u16 = 11;

/// How much of a trace context is read: one more than we know, so that what is longer is told apart.
const TRACE_BYTES_MAX: u16 = TRACEPARENT_BYTES as u16 + 1;

/// The members that can name the object of a method.
const NAMING: [Member; 3] = [Member::Name, Member::Uri, Member::TaskId];

/// A name of which it is not yet known whether the method asks for it. Nearly every client writes
/// the method first, so little room is set aside for it.
#[derive(Clone, Debug, Default)]
enum Candidate {
    #[default]
    Absent,
    TooLong,
    Name(Word),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Collector {
    message: Message,
    place: Place,
    /// The scan is past `params`, or they have no members.
    params_closed: bool,
    /// The id that is being read is a string.
    id_quoted: bool,
    /// The members so far, one bit each.
    seen: u16,
    /// The member whose value comes next or is being read.
    member: Option<Member>,
    /// The member that names the object of this method.
    asked: Option<Member>,
    candidates: [Candidate; NAMING.len()],
}

impl Collector {
    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
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
            (message.has_result || message.has_error) && self.seen & Member::Method.bit() == 0;
        let params_settled =
            self.params_closed || (message.meta_version.is_some() && self.name_settled());
        is_response || (message.method.is_some() && params_settled)
    }

    fn name_settled(&self) -> bool {
        self.params_closed
            || self.asked.is_none()
            || self.message.name.is_some()
            || self.message.name_too_long
    }

    fn outermost(&mut self, kind: Kind) -> Want {
        (self.message.shape, self.place) = match kind {
            Kind::Object => (Shape::Object, Place::Message),
            Kind::Array => (Shape::Batch, Place::Batch),
            Kind::String | Kind::Number | Kind::Null | Kind::True | Kind::False => {
                (Shape::Scalar, Place::Outside)
            }
        };
        match self.place {
            Place::Outside => Want::Nothing,
            _ => Want::Inside,
        }
    }

    fn element(&mut self, kind: Kind) -> Step<Want> {
        let batch = &mut self.message.batch;
        if batch.len() == BATCH_ITEMS_MAX {
            return Err(PeekError::BatchTooLong.into());
        }
        if kind == Kind::Object {
            self.place = Place::Message;
            return Ok(Want::Inside);
        }
        batch.push(BatchItem::default());
        Ok(Want::Nothing)
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
        self.place = Place::Batch;
        self.message.shape = Shape::Batch;
        self.message.batch = batch;
    }

    /// Goes into the object that a member is, if it is one.
    fn enter(&mut self, place: Place, kind: Kind) -> Want {
        if kind != Kind::Object {
            return Want::Nothing;
        }
        self.place = place;
        Want::Inside
    }

    fn member_start(&mut self, member: Member, kind: Kind, at: u64) -> Step<Want> {
        let is_text = kind == Kind::String;
        Ok(match member {
            Member::Id => match kind {
                Kind::String | Kind::Number | Kind::Null => {
                    self.id_quoted = is_text;
                    // Two for the quotes, which the lexer leaves out.
                    Want::Raw(ID_BYTES_MAX as u16 - if is_text { 2 } else { 0 })
                }
                Kind::Object | Kind::Array | Kind::True | Kind::False => {
                    return Err(PeekError::InvalidId { at }.into());
                }
            },
            Member::Method if is_text => Want::Decoded(METHOD_BYTES_MAX as u16),
            Member::Method => {
                self.message.has_odd_method = true;
                Want::Nothing
            }
            Member::Name | Member::Uri | Member::TaskId if is_text => {
                Want::Decoded(NAME_BYTES_MAX as u16)
            }
            Member::MetaVersion | Member::InitVersion if is_text => {
                Want::Decoded(VERSION_BYTES_MAX as u16)
            }
            Member::MetaTrace => {
                self.message.trace = None;
                match is_text {
                    true => Want::Decoded(TRACE_BYTES_MAX),
                    false => Want::Nothing,
                }
            }
            Member::Params => {
                self.params_closed = kind != Kind::Object;
                self.enter(Place::Params, kind)
            }
            Member::Meta => self.enter(Place::Meta, kind),
            Member::Result => {
                self.message.has_result = true;
                self.enter(Place::Result, kind)
            }
            Member::Error => {
                self.message.has_error = true;
                self.enter(Place::Error, kind)
            }
            Member::RequestState => {
                self.message.has_request_state = kind != Kind::Null;
                Want::Nothing
            }
            Member::IsError => {
                self.message.is_tool_error = kind == Kind::True;
                Want::Nothing
            }
            Member::ErrorCode => {
                self.message.error_code = None;
                match kind {
                    Kind::Number => Want::Raw(CODE_BYTES_MAX),
                    _ => Want::Nothing,
                }
            }
            Member::Name
            | Member::Uri
            | Member::TaskId
            | Member::MetaVersion
            | Member::InitVersion => Want::Nothing,
        })
    }

    fn id(&mut self, text: Taken<'_>) -> Step<()> {
        if text.is_cut {
            return Err(PeekError::IdTooLong.into());
        }
        self.message.id = Some(if self.id_quoted {
            RawId::quoted(text.bytes)
        } else {
            RawId::checked(text.bytes)
        });
        Ok(())
    }

    fn method(&mut self, text: Taken<'_>) -> Step<()> {
        if text.is_cut {
            return Err(PeekError::MethodTooLong.into());
        }
        let facts = facts_of(text.bytes);
        self.message.method = Some(match facts {
            Some(facts) => Text::constant(facts.name),
            None => Text::joined([text.bytes]),
        });
        let param = facts.and_then(|facts| facts.name_param);
        self.asked = param.and_then(|key| Member::named(Place::Params, key.as_bytes()));
        let candidate = self.asked.and_then(|member| self.candidate(member));
        match candidate.map(std::mem::take) {
            None | Some(Candidate::Absent) => {}
            Some(Candidate::TooLong) => self.message.name_too_long = true,
            Some(Candidate::Name(name)) => self.message.name = Some(Name::new(&name)),
        }
        Ok(())
    }

    fn candidate(&mut self, member: Member) -> Option<&mut Candidate> {
        let index = NAMING.iter().position(|&naming| naming == member)?;
        Some(&mut self.candidates[index])
    }

    fn name(&mut self, member: Member, text: Taken<'_>) {
        if self.message.method.is_none() {
            if let Some(candidate) = self.candidate(member) {
                *candidate = if text.is_cut {
                    Candidate::TooLong
                } else {
                    Candidate::Name(Text::joined([text.bytes]))
                };
            }
        } else if self.asked == Some(member) {
            if text.is_cut {
                self.message.name_too_long = true;
            } else {
                self.message.name = Some(Text::joined([text.bytes]));
            }
        }
    }
}

impl Sink for Collector {
    fn key(&mut self, key: Taken<'_>, at: u64) -> Step<()> {
        self.member = Member::named(self.place, key.bytes);
        let Some(member) = self.member else {
            return Ok(());
        };
        // Whether and how a call has failed decides nothing, nor does its trace: it may be said twice.
        let may_repeat = matches!(
            member,
            Member::IsError | Member::ErrorCode | Member::MetaTrace
        );
        if self.seen & member.bit() != 0 && !may_repeat {
            let key = member.key();
            return Err(PeekError::DuplicateKey { key, at }.into());
        }
        self.seen |= member.bit();
        Ok(())
    }

    fn value_start(&mut self, kind: Kind, at: u64) -> Step<Want> {
        match (self.place, self.member) {
            (Place::Outside, _) => Ok(self.outermost(kind)),
            (Place::Batch, _) => self.element(kind),
            (_, Some(member)) => self.member_start(member, kind, at),
            (_, None) => Ok(Want::Nothing),
        }
    }

    fn value_text(&mut self, text: Taken<'_>) -> Step<()> {
        match self.member {
            Some(Member::Id) => self.id(text)?,
            Some(Member::Method) => self.method(text)?,
            Some(member @ (Member::Name | Member::Uri | Member::TaskId)) => self.name(member, text),
            Some(Member::ErrorCode) => {
                let code = str::from_utf8(text.bytes).ok().filter(|_| !text.is_cut);
                self.message.error_code = code.and_then(|code| code.parse().ok());
            }
            Some(Member::MetaVersion) => {
                self.message.meta_version = Some(Text::joined([text.bytes]));
            }
            Some(Member::MetaTrace) => {
                self.message.trace = TraceContext::parse(text.bytes);
            }
            Some(Member::InitVersion) => {
                self.message.init_version = Some(Text::joined([text.bytes]));
            }
            _ => {}
        }
        Ok(())
    }

    fn container_end(&mut self) {
        match self.place {
            Place::Meta => self.place = Place::Params,
            Place::Params => {
                self.params_closed = true;
                self.place = Place::Message;
            }
            Place::Result | Place::Error => self.place = Place::Message,
            Place::Message if self.message.shape == Shape::Batch => self.element_closed(),
            Place::Message | Place::Batch | Place::Outside => self.place = Place::Outside,
        }
    }
}

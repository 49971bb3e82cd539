//! Understanding a request: which era's rules it follows, what it asks for, and which answers it
//! is owed.

use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::time::timeout;

use super::body::Body;
use super::ctx::Ctx;
use super::fault::Fault;
use super::intake::check_repeated;
use super::tool::Policy;
use super::trace::Tells;
use crate::config::Limits;
use crate::mcp::headers::decode_value;
use crate::mcp::text::{Name, Word};
use crate::mcp::{self, Class, Era, HttpMethod, RawId, Refusal, Seen, Verdict};
use crate::transport::fields::{
    CONTENT_TYPE, MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, MCP_SESSION_ID,
};
use crate::transport::{Downstream, Error, RequestHead};

/// How long an answer of ours waits for the rest of a body whose id is not known yet.
const LEARN_ID_TIME: Duration = Duration::from_secs(1);

/// Ids whose answers the client waits for: one, unless the request is a batch.
pub type Owed = SmallVec<[RawId; 1]>;

/// An understood request.
pub struct Call {
    /// Whose rules it follows.
    pub rules: Rules,
    /// The HTTP method.
    pub http: HttpMethod,
    /// The MCP method, from the header in the stateless era, else from the body.
    pub method: Option<Word>,
    /// The ids whose responses the client waits for.
    pub owed: Owed,
    /// What was read of the body.
    pub body: Body,
    /// The server is not to be told of the last event that the client has seen: its id was lent to it.
    pub afresh: bool,
    /// Bounds the server's answer, its head and a body that is held, beside what is configured.
    pub answer_within: Duration,
    /// What the operator says of the tool that it calls.
    pub policy: Policy,
    /// When its answer is due at the latest, where its tool has a time of its own and it was sent.
    pub due: Option<Instant>,
    /// What the server is told of its trace.
    pub tells: Option<Box<Tells>>,
}

/// Whose rules a request follows, once nothing is open any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// 2026-07-28 and later: every request stands alone.
    Stateless,
    /// Up to 2025-11-25, within a session or to servers that keep none.
    Session,
    /// `initialize`: the request that opens a session.
    Handshake,
}

impl Call {
    /// A call of which nothing is known. It is filled in where it stands: what a scan needs is not
    /// moved about with every request.
    pub fn new(http: HttpMethod) -> Self {
        Self {
            rules: Rules::Session,
            http,
            method: None,
            owed: Owed::new(),
            body: Body::empty(),
            afresh: false,
            answer_within: Duration::MAX,
            policy: Policy::default(),
            due: None,
            tells: None,
        }
    }

    /// Reads as much of the request as it takes to understand it. What is learned on the way (era,
    /// method, id) goes to `ctx` at once, so that a refusal can carry it.
    ///
    /// # Errors
    /// Whatever makes the request one that is answered here.
    pub async fn understand<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        limits: &Limits,
    ) -> Result<(), Fault> {
        self.http = match down.head().method() {
            "GET" => HttpMethod::Get,
            "POST" => HttpMethod::Post,
            "DELETE" => HttpMethod::Delete,
            _ => return Err(Fault::Method("GET, POST, DELETE")),
        };
        let first = classify(down.head(), self.http, None);
        if self.http == HttpMethod::Post {
            check_content_type(down.head())?;
        }
        let read = self.read_body(down, ctx, limits, first).await;
        if let Some(trace) = &mut ctx.trace {
            trace.learn(self.body.peek.message());
        }
        read?;
        check_repeated(down.head())?;
        let message = self.body.peek.message();
        let known = self.body.ended || self.body.peek.settled();
        let verdict = match (self.http, known) {
            (HttpMethod::Post, true) => classify(down.head(), self.http, Some(message)),
            _ => first,
        };
        ctx.requested = message.init_version.clone().map(Box::new);
        self.rules = rules(verdict)?;
        self.method = message
            .method
            .clone()
            .or_else(|| method_header(down.head(), self.rules));
        ctx.era = Some(match self.rules {
            Rules::Stateless => Era::Stateless,
            Rules::Session | Rules::Handshake => Era::Session,
        });
        ctx.mcp_method = self.method.as_deref().map_or("", mcp::label);
        if self.method.as_deref() == Some("tools/call") {
            // Of a body that is known the header says nothing more.
            let header = || name_header(down.head()).filter(|_| !known);
            ctx.tool = message.name.clone().or_else(header);
        }
        if known && self.http == HttpMethod::Post && message.class() == Class::Invalid {
            return Err(Fault::Invalid("the body is not a JSON-RPC message"));
        }
        self.owed = owed(message);
        if message.class() == Class::Batch {
            ctx.id = None;
            ctx.batch = self.owed.to_vec().into();
        }
        Ok(())
    }

    async fn read_body<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        limits: &Limits,
        first: Verdict,
    ) -> Result<(), Fault> {
        if self.http != HttpMethod::Post {
            return no_body(down).await;
        }
        // Only where the head routes may the body be longer than the look at it.
        let window = if first == Verdict::Stateless {
            limits.peek
        } else {
            limits.body
        };
        self.body.peek(down, ctx, limits, window).await
    }

    /// Whether this is the request of this MCP method.
    pub fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// Notes the id, and with it the answer owed, as far as the body has been read by now.
    pub fn note_id(&mut self, ctx: &mut Ctx) {
        let message = self.body.peek.message();
        ctx.id.clone_from(&message.id);
        self.owed = owed(message);
    }

    /// Reads on until the id is known, for an answer of ours that should carry it. Some clients
    /// write it behind everything else.
    pub async fn learn_id<D: Downstream>(&mut self, down: &mut D, ctx: &mut Ctx) {
        let reading = async {
            while ctx.id.is_none() && !self.body.ended {
                if !matches!(self.body.next(down).await, Ok(Some(_))) {
                    break;
                }
                self.body.ended = down.body_ended();
                self.note_id(ctx);
            }
        };
        // Whoever takes longer to send it is answered without.
        let _ = timeout(LEARN_ID_TIME, reading).await;
        ctx.bytes_in = self.body.read;
    }

    /// Looks at all of it, of which a part has streamed past: a message that has changed its meaning on the
    /// way, or is another than its head said, is cut off here, before the server has seen its end.
    ///
    /// # Errors
    /// [`Fault::Parse`], [`Fault::Invalid`], [`Fault::HeaderMismatch`].
    pub fn check_whole(&self, head: &impl RequestHead) -> Result<(), Fault> {
        let peek = &self.body.peek;
        peek.finish().map_err(|_| Fault::Parse)?;
        let message = peek.message();
        if message.class() == Class::Invalid {
            return Err(Fault::Invalid("the body is not a JSON-RPC message"));
        }
        if self.rules != Rules::Stateless {
            return Ok(());
        }
        rules(classify(head, self.http, Some(message)))?;
        // A notification need not say in its head what it names; but what we went by is to be true.
        match (name_header(head), &message.name) {
            (Some(header), Some(name)) if header != *name => Err(Fault::HeaderMismatch(
                "Mcp-Name and the name in the body differ",
            )),
            _ => Ok(()),
        }
    }

    /// What is known about the method's safety to be sent twice.
    pub fn retry(&self) -> mcp::Retry {
        match self.http {
            HttpMethod::Get => mcp::Retry::Always,
            // Idempotent (RFC 9110 section 9.2.2); lost, it would leave a session on the server.
            HttpMethod::Delete => mcp::Retry::SameEndpointOnce,
            _ => self
                .method
                .as_deref()
                .map_or(mcp::Retry::BeforeSend, mcp::method::retry),
        }
    }
}

/// Sees to it that no body comes. On HTTP/2 the end of a request without one may come behind its head.
async fn no_body<D: Downstream>(down: &mut D) -> Result<(), Fault> {
    while !down.body_ended() {
        match down.read_body().await {
            Ok(Some(piece)) if piece.is_empty() => {}
            Ok(None) => break,
            Ok(Some(_)) => return Err(Fault::Invalid("a body is not expected")),
            Err(Error::ReadTimeout) => return Err(Fault::SlowBody),
            Err(_) => return Err(Fault::ClientGone),
        }
    }
    Ok(())
}

/// Whose rules the verdict means, unless it refuses.
fn rules(verdict: Verdict) -> Result<Rules, Fault> {
    match verdict {
        Verdict::Stateless => Ok(Rules::Stateless),
        Verdict::Handshake => Ok(Rules::Handshake),
        Verdict::Session { .. } => Ok(Rules::Session),
        Verdict::NeedBody => Err(Fault::BodyTooLarge),
        Verdict::Refuse(Refusal::HeaderMismatch(why)) => Err(Fault::HeaderMismatch(why)),
        Verdict::Refuse(Refusal::UnsupportedVersion) => Err(Fault::UnsupportedVersion),
        Verdict::Refuse(Refusal::UnsupportedVersionLegacy) => Err(Fault::UnsupportedVersionLegacy),
    }
}

fn classify(head: &impl RequestHead, method: HttpMethod, body: Option<&mcp::Message>) -> Verdict {
    mcp::classify(&Seen {
        method,
        version: head.known(MCP_PROTOCOL_VERSION),
        session: head.known(MCP_SESSION_ID).is_some(),
        mcp_method: head.known(MCP_METHOD),
        mcp_name: head.known(MCP_NAME),
        body,
    })
}

fn method_header(head: &impl RequestHead, rules: Rules) -> Option<Word> {
    let value = head
        .known(MCP_METHOD)
        .filter(|_| rules == Rules::Stateless)?;
    std::str::from_utf8(value).ok().map(Word::new)
}

fn name_header(head: &impl RequestHead) -> Option<Name> {
    let value = decode_value(head.known(MCP_NAME)?).ok()?;
    Some(Name::new(&value))
}

/// The ids of the requests in a body, whose responses the client will wait for.
fn owed(message: &mcp::Message) -> Owed {
    match message.class() {
        Class::Request => message.id.iter().cloned().collect(),
        Class::Batch => message
            .batch
            .iter()
            .filter(|item| item.method.is_some())
            .filter_map(|item| item.id.clone())
            .collect(),
        Class::Notification | Class::Response | Class::Invalid => Owed::new(),
    }
}

/// Servers answer another content type with various codes, and one opens a session over it.
fn check_content_type(head: &impl RequestHead) -> Result<(), Fault> {
    let Some(value) = head.known(CONTENT_TYPE) else {
        return Err(Fault::MediaType);
    };
    let essence = value
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        Ok(())
    } else {
        Err(Fault::MediaType)
    }
}

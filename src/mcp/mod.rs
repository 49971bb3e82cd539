//! The Model Context Protocol as bytes: its revisions, methods, headers, messages, events and
//! errors.
//!
//! A balancer has to know a surprising amount of a protocol it mostly forwards. Which era does a
//! request belong to? Which tool does it name? What is its id, so that a failure can be answered in
//! a shape the client is waiting for? Is this the place in an event stream where a comment of ours
//! may stand? This module answers those questions, and writes the few messages that come from us.
//!
//! What it does not know: sockets, time, configuration, pools, or any other module of ours. Every
//! function is a pure one, and every state machine takes its bytes in whatever pieces they arrive.
//!
//! | module | question |
//! |---|---|
//! | [`version`] | which revision, which era? |
//! | [`method`] | what is known about a method: retry, cache, which parameter names its object? |
//! | [`headers`] | how are header values encoded, and which are well formed? |
//! | [`text`] | how is a short text held? |
//! | [`message`] | what was found in one JSON-RPC message? |
//! | [`peek`] | how to find it in one pass, in any split of the bytes, without keeping the body? |
//! | [`sse`] | where do events begin and end, and what do they carry? |
//! | [`trace`] | which trace does a request belong to? |
//! | [`answer`] | how is a JSON-RPC answer of ours written? |
//! | [`mod@classify`] | which rules does this request follow? |

pub mod answer;
pub mod classify;
pub mod headers;
pub mod message;
pub mod method;
pub mod peek;
pub mod sse;
pub mod text;
pub mod trace;
pub mod version;

pub use classify::{HttpMethod, Refusal, Seen, Verdict, classify};
pub use message::{BatchItem, Class, Message, RawId, Shape};
pub use method::{Facts, Retry, Sender, facts, label};
pub use peek::{Peek, PeekError, Progress};
pub use sse::{EventNote, Note, SseScan};
pub use text::Text;
pub use trace::TraceContext;
pub use version::{Era, Revision};

//! One reply on its way out, and the faults applied to it.
//!
//! Handlers say what the right answer is; this file decides which bytes of it leave, so that every
//! fault works for every handler. A handler whose reply was cut gets a [`Cut`] and returns it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::Fault;
use super::super::wire::Wire;
use super::http2::Stream;
use super::state::{Counted, Request, State};

/// Why a reply ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Close the connection in good order.
    Close,
    /// Reset it.
    Reset,
    /// The client is gone already.
    Gone,
}

/// What sending returns.
pub(super) type Flow<T = ()> = Result<T, Cut>;

/// Where the bytes go.
pub(super) enum Out {
    H1(Wire),
    H2(Stream),
}

/// How the end of the body will be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
}

/// Header lines a handler adds.
pub(super) type Extra<'a> = &'a [(&'a str, &'a str)];

pub(super) struct Reply {
    state: Arc<State>,
    out: Out,
    faults: Vec<Fault>,
    heals: watch::Receiver<u64>,
    /// Only the head is wanted, as for HEAD.
    head_only: bool,
    stream: Option<Counted>,
    framing: Framing,
    body_sent: usize,
}

impl Reply {
    /// The reply to `request`, with the faults the script has for it.
    pub(super) fn new(state: &Arc<State>, request: &Request, out: Out) -> Self {
        // In this order, so that no heal falls between the two.
        let heals = state.script.heals();
        let faults = state.script.take(request);
        Self {
            state: state.clone(),
            out,
            faults,
            heals,
            head_only: request.method == "HEAD",
            stream: None,
            framing: Framing::Length,
            body_sent: 0,
        }
    }

    /// Whether an event stream is open.
    pub(super) fn is_streaming(&self) -> bool {
        self.stream.is_some()
    }

    /// Plays the faults that come before any answer. Returns the status and body to send instead of
    /// the right answer, if the script has such.
    pub(super) async fn before_handler(&mut self) -> Flow<Option<(u16, String)>> {
        match self.main_fault().cloned() {
            Some(Fault::CloseBeforeHead) => Err(Cut::Close),
            Some(Fault::ResetBeforeHead) => Err(Cut::Reset),
            Some(Fault::StallBeforeHead) => {
                self.stall().await;
                Ok(None)
            }
            Some(Fault::GarbageHead) => {
                self.raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n").await?;
                Err(Cut::Close)
            }
            Some(Fault::Status(status, body)) => Ok(Some((status, body))),
            _ => Ok(None),
        }
    }

    /// A JSON-RPC message as the whole reply.
    pub(super) async fn json(&mut self, status: u16, extra: Extra<'_>, body: &Value) -> Flow {
        let becomes_stream = |fault: &Fault| {
            matches!(
                fault,
                Fault::HugeEvent(_) | Fault::CloseCleanWithoutResponse
            )
        };
        if status == 200 && self.main_fault().is_some_and(becomes_stream) {
            self.open_stream(extra).await?;
            self.message(body).await?;
            return self.end().await;
        }
        let text = body.to_string();
        self.fixed(status, "application/json", extra, text.as_bytes())
            .await
    }

    /// A reply without a body, 202 mostly.
    pub(super) async fn empty(&mut self, status: u16, extra: Extra<'_>) -> Flow {
        self.head(status, extra, Some(0)).await
    }

    /// A reply of known length.
    pub(super) async fn fixed(
        &mut self,
        status: u16,
        content_type: &str,
        extra: Extra<'_>,
        body: &[u8],
    ) -> Flow {
        let mut lines = vec![("content-type", content_type)];
        lines.extend_from_slice(extra);
        let announced = match self.main_fault() {
            Some(Fault::LengthTooLong(more)) => body.len() + more,
            Some(Fault::LengthTooShort(less)) => body.len().saturating_sub(*less),
            _ => body.len(),
        };
        self.head(status, &lines, Some(announced)).await?;
        if self.head_only {
            return Ok(());
        }
        self.body(body).await?;
        match announced == body.len() {
            true => self.finish_body(true).await,
            false => Err(Cut::Close),
        }
    }

    /// The head of an event stream.
    pub(super) async fn open_stream(&mut self, extra: Extra<'_>) -> Flow {
        let mut lines = vec![
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache, no-transform"),
            ("x-accel-buffering", "no"),
        ];
        lines.extend_from_slice(extra);
        self.head(200, &lines, None).await?;
        self.stream = Some(self.state.count(|counts| &counts.streams_open));
        if let Some(Fault::HugeEvent(size)) = self.main_fault() {
            let message = json!({"jsonrpc": "2.0", "method": "notifications/message",
                "params": {"level": "info", "data": "x".repeat(*size)}});
            self.block(&message_event(None, &message.to_string()))
                .await?;
        }
        Ok(())
    }

    /// One JSON-RPC message as an event.
    pub(super) async fn message(&mut self, message: &Value) -> Flow {
        if self.drops(message) {
            return Ok(());
        }
        self.block(&message_event(None, &message.to_string())).await
    }

    /// An event as given, with its empty line.
    pub(super) async fn block(&mut self, event: &str) -> Flow {
        self.body(event.as_bytes()).await
    }

    /// Whether the script keeps this message back.
    pub(super) fn drops(&self, message: &Value) -> bool {
        let is_response = ["result", "error"]
            .iter()
            .any(|key| message.get(key).is_some());
        is_response && self.main_fault() == Some(&Fault::CloseCleanWithoutResponse)
    }

    /// The end of an event stream.
    pub(super) async fn end(&mut self) -> Flow {
        self.finish_body(false).await?;
        self.stream = None;
        Ok(())
    }

    /// How long the connection may now be idle, if the script says so.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::CloseIdleAfter(limit) => Some(*limit),
            _ => None,
        })
    }

    fn main_fault(&self) -> Option<&Fault> {
        self.faults.iter().find(|fault| !fault.is_modifier())
    }

    async fn stall(&mut self) {
        // The sender is the endpoint's script, which outlives every reply.
        let _ = self.heals.changed().await;
    }

    async fn head(&mut self, status: u16, extra: Extra<'_>, length: Option<usize>) -> Flow {
        let mut lines: Vec<(String, String)> = Vec::new();
        lines.extend(extra.iter().map(|(n, v)| ((*n).into(), (*v).into())));
        let mut early_hints = false;
        for fault in &self.faults {
            match fault {
                Fault::ExtraHeader(name, value) => lines.push((name.clone(), value.clone())),
                Fault::EarlyHints => early_hints = true,
                _ => {}
            }
        }
        if let Some(length) = length {
            lines.push(("content-length".into(), length.to_string()));
        }
        if let Out::H2(stream) = &self.out {
            let ends = length == Some(0) || self.head_only;
            return stream.head(status, &lines, ends);
        }
        if length.is_none() {
            self.framing = Framing::Chunked;
            lines.push(("transfer-encoding".into(), "chunked".into()));
        }
        let mut head = String::new();
        if early_hints {
            head.push_str("HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n");
        }
        let reason = http::StatusCode::from_u16(status).map(|s| s.canonical_reason());
        let reason = reason.ok().flatten().unwrap_or("Unknown");
        head.push_str(&format!("HTTP/1.1 {status} {reason}\r\n"));
        for (name, value) in lines {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.raw(head.as_bytes()).await
    }

    /// Sends a piece of the body, up to where the script cuts it.
    async fn body(&mut self, bytes: &[u8]) -> Flow {
        let left = |at: usize| at.saturating_sub(self.body_sent);
        let (keep, then) = match self.main_fault() {
            Some(Fault::StallAfterHead) => (left(0), None),
            Some(Fault::StallMidEvent(at)) => (left(*at), None),
            Some(Fault::CloseMidEvent(at)) => (left(*at), Some(Cut::Close)),
            Some(Fault::ResetMidEvent(at)) => (left(*at), Some(Cut::Reset)),
            Some(Fault::BadChunk) if self.framing == Framing::Chunked => {
                self.raw(b"this is no size\r\n").await?;
                return Err(Cut::Close);
            }
            _ => (usize::MAX, None),
        };
        if keep >= bytes.len() {
            return self.piece(bytes).await;
        }
        self.piece(&bytes[..keep]).await?;
        if let Some(cut) = then {
            return Err(cut);
        }
        self.stall().await;
        // Healed: this reply is whole from here on.
        self.faults.retain(Fault::is_modifier);
        self.piece(&bytes[keep..]).await
    }

    async fn piece(&mut self, bytes: &[u8]) -> Flow {
        if bytes.is_empty() {
            return Ok(());
        }
        self.body_sent += bytes.len();
        match (&self.out, self.framing) {
            (Out::H2(stream), _) => stream.data(bytes, false),
            (Out::H1(_), Framing::Length) => self.raw(bytes).await,
            (Out::H1(_), Framing::Chunked) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(bytes);
                chunk.extend_from_slice(b"\r\n");
                self.raw(&chunk).await
            }
        }
    }

    async fn finish_body(&mut self, of_known_length: bool) -> Flow {
        match self.main_fault() {
            Some(Fault::CloseMidEvent(_)) if !of_known_length => return Err(Cut::Close),
            Some(Fault::ResetMidEvent(_)) if !of_known_length => return Err(Cut::Reset),
            _ => {}
        }
        match (&self.out, self.framing) {
            // An empty body has ended with its head.
            (Out::H2(_), _) if of_known_length && self.body_sent == 0 => Ok(()),
            (Out::H2(stream), _) => stream.data(b"", true),
            (Out::H1(_), Framing::Length) => Ok(()),
            (Out::H1(_), Framing::Chunked) => self.raw(b"0\r\n\r\n").await,
        }
    }

    /// Bytes as they are. HTTP/2 has no place for any outside its frames, so there the stream ends.
    async fn raw(&self, bytes: &[u8]) -> Flow {
        let Out::H1(wire) = &self.out else {
            return Err(Cut::Close);
        };
        let trickle = self.faults.iter().find_map(|fault| match fault {
            Fault::Trickle(pause) => Some(*pause),
            _ => None,
        });
        let sent = match trickle {
            Some(pause) => wire.trickle(bytes, pause).await,
            None => wire.write(bytes).await,
        };
        sent.map_err(|_| Cut::Gone)
    }
}

/// A message event in the field order of the TypeScript SDK.
pub(super) fn message_event(id: Option<u64>, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: message\n{id}data: {data}\n\n")
}

//! What is noted of a request that is traced: its place in the trace, and what was tried.
//!
//! The ids are chosen at the start, since servers are told of them; everything else is made out of
//! what the log knows, when the request is over. A trace that came with the request goes on, and
//! whether it is recorded is for its caller to say; one that begins here is recorded by lot. Where
//! nobody traces here, and where the caller does not record, its fields pass as they are.

use std::time::{Duration, Instant};

use super::ctx::Ctx;
use crate::config::{PathRule, Share, Tracing};
use crate::mcp::trace::TRACEPARENT_BYTES;
use crate::mcp::{Message, TraceContext};
use crate::telemetry::{Attempt, Traced};
use crate::transport::fields::{MCP_PROTOCOL_VERSION, Names, TRACEPARENT, TRACESTATE};
use crate::transport::nanos::Nanos;
use crate::transport::{Headers, RequestHead};

/// Attempts of one request that are recorded; of further ones only their number.
const ATTEMPTS_MAX: usize = 8;
/// Longest `tracestate` that is kept, in bytes: as much as everybody has to pass on (section 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;
/// Longest id and revision that are kept, in bytes.
const TEXT_BYTES_MAX: usize = 64;

/// A request's place in its trace.
#[derive(Debug)]
pub struct Trace {
    /// Our span.
    own: TraceContext,
    parent: Option<[u8; 8]>,
    /// The fields of the request have told the parent, so they may pass as they are.
    is_told: bool,
    state: Box<str>,
    version: Option<Box<str>>,
    /// Attempts that are over, as far as they are recorded.
    past: Vec<Past>,
    /// How many are over.
    over: u32,
}

/// An attempt that is over.
#[derive(Debug)]
struct Past {
    attempt: Attempt,
    endpoint: Option<u64>,
}

/// The trace that the fields of a request tell, if they tell one.
pub fn told(head: &(impl Headers + ?Sized)) -> Option<TraceContext> {
    let value = head.known(TRACEPARENT)?;
    // Of several nobody knows which one counts.
    let context = TraceContext::parse(value)?;
    (head.count(TRACEPARENT.as_str()) == 1).then_some(context)
}

impl Trace {
    /// Begins with what the head tells. `None` where nobody traces.
    pub fn begin(tracing: Option<&Tracing>, head: &impl RequestHead) -> Option<Box<Self>> {
        Some(Self::new(tracing?.sample, head))
    }

    fn new(sample: Share, head: &impl RequestHead) -> Box<Self> {
        let trace = fastrand::u128(1..);
        let own = TraceContext {
            trace: trace.to_be_bytes(),
            span: fastrand::u64(1..).to_be_bytes(),
            flags: 0,
        };
        let text = |value: &[u8]| {
            let value = value.get(..STATE_BYTES_MAX).unwrap_or(value);
            String::from_utf8_lossy(value).into()
        };
        let mut new = Self {
            // By the trace's own number, as others do who keep a part.
            own: own.sampled(sample.takes(trace as u64)),
            parent: None,
            is_told: false,
            state: Box::default(),
            version: head.known(MCP_PROTOCOL_VERSION).map(short),
            past: Vec::new(),
            over: 0,
        };
        if let Some(parent) = told(head) {
            new.follow(parent);
            new.is_told = true;
            new.state = head.known(TRACESTATE).map(text).unwrap_or_default();
        }
        Box::new(new)
    }

    fn follow(&mut self, parent: TraceContext) {
        self.parent = Some(parent.span);
        self.own = TraceContext {
            span: self.own.span,
            ..parent
        };
    }

    /// Goes by what a message says, where the head says nothing.
    pub fn learn(&mut self, message: &Message) {
        if let (Some(parent), None) = (message.trace, self.parent) {
            self.follow(parent);
        }
        let said = message
            .meta_version
            .as_ref()
            .or(message.init_version.as_ref());
        if let (Some(said), None) = (said, &self.version) {
            self.version = Some(short(said.as_bytes()));
        }
    }

    /// Is it recorded?
    pub fn is_recorded(&self) -> bool {
        self.own.is_sampled()
    }

    /// The trace.
    pub fn id(&self) -> [u8; 16] {
        self.own.trace
    }

    /// What the endpoint of an attempt is told as its parent; `None` where the fields of the request say
    /// what there is to say.
    pub fn tells(&self, number: u32) -> Option<Tells> {
        let passes = self.is_told && !self.is_recorded();
        (!passes).then(|| Tells {
            parent: TraceContext {
                span: self.attempt(number),
                ..self.own
            }
            .text(),
            left: match self.is_told {
                true => Names::NONE,
                // It belongs to a trace that nobody has told (section 3.3.1.4).
                false => const { Names::of(&[TRACESTATE]) },
            },
        })
    }

    /// The span of an attempt.
    fn attempt(&self, number: u32) -> [u8; 8] {
        let own = u64::from_be_bytes(self.own.span);
        let span = own.wrapping_add(u64::from(number) + 1);
        span.max(1).to_be_bytes()
    }
}

/// What an endpoint is told of the trace.
pub struct Tells {
    /// The value of `traceparent`.
    pub parent: [u8; TRACEPARENT_BYTES],
    /// What stays behind of the client's own fields.
    pub left: Names,
}

impl Ctx {
    /// Is a trace of this request recorded?
    pub fn is_traced(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.is_recorded())
    }

    /// What the endpoint of the attempt at hand is told of the trace.
    pub fn tells(&self) -> Option<Box<Tells>> {
        let tells = self.trace.as_ref()?.tells(self.retries)?;
        Some(Box::new(tells))
    }

    /// Notes that the attempt at hand has come to nothing.
    pub fn gives_up(&mut self, why: &'static str) {
        if !self.is_traced() {
            return;
        }
        let since = Instant::now().saturating_duration_since(self.started);
        let attempt = self.at_hand(since, Some(why), None);
        let endpoint = self.endpoint;
        if let (Some(trace), Some(attempt)) = (&mut self.trace, attempt) {
            trace.over += 1;
            if trace.past.len() < ATTEMPTS_MAX {
                trace.past.push(Past { attempt, endpoint });
            }
        }
    }

    /// The attempt that is not over, if there is one.
    fn at_hand(
        &self,
        until: Duration,
        error: Option<&str>,
        status: Option<u16>,
    ) -> Option<Attempt> {
        let trace = self.trace.as_ref()?;
        let asked = self.timers.asked?.get();
        (trace.over <= self.retries).then(|| Attempt {
            span: trace.attempt(self.retries),
            number: self.retries,
            asked,
            connect: self.timers.connect.map(Nanos::get),
            header: self.timers.header.map(Nanos::get),
            until,
            error: error.map(Into::into),
            status,
            ..Attempt::default()
        })
    }

    /// What a log line does not say of a request that is over after `duration`.
    pub fn traced(&self, duration: Duration) -> Option<Traced> {
        let trace = self.trace.as_ref().filter(|trace| trace.is_recorded())?;
        let error = self.error();
        let status = self.timers.header.map(|_| self.status);
        let last = self.at_hand(duration, error.as_deref(), status);
        let past = trace.past.iter();
        let past = past.map(|past| self.at(past.attempt.clone(), past.endpoint));
        let last = last.map(|last| self.at(last, self.endpoint));
        let route = self.route.map(|id| &self.snapshot.config.routes[id.0].path);
        Some(Traced {
            trace: trace.own.trace,
            span: trace.own.span,
            parent: trace.parent,
            state: trace.state.clone(),
            version: trace.version.clone(),
            rpc_id: self.id.as_ref().map(|id| {
                let text = id.as_json();
                short(text.trim_matches('"').as_bytes())
            }),
            route: route.map(|path| match path {
                PathRule::Exact(path) | PathRule::Prefix(path) => path.as_str().into(),
            }),
            error,
            attempts: past.chain(last).collect(),
            retries: self.retries,
        })
    }

    fn at(&self, attempt: Attempt, endpoint: Option<u64>) -> Attempt {
        let pool = self.pool.map(|id| &self.snapshot.pool(id).pool);
        let endpoint = pool.zip(endpoint).and_then(|(pool, id)| pool.find(id));
        let address = endpoint.and_then(|endpoint| endpoint.address());
        Attempt {
            endpoint: endpoint.map(|endpoint| endpoint.name().into()),
            address: address.filter(|address| !address.ip().is_unspecified()),
            ..attempt
        }
    }

    /// What kind of failure it was (`error.type`); `None` if it was none.
    fn error(&self) -> Option<Box<str>> {
        if let Some(fault) = self.fault {
            return Some(fault.row().label.into());
        }
        if super::sampling::is_broken(self.end) {
            return Some(self.end.as_str().into());
        }
        if self.status >= 500 {
            return Some(self.status.to_string().into());
        }
        match (self.rpc_code, self.tool_failed) {
            (Some(code), _) => Some(code.to_string().into()),
            // As the conventions for MCP call a result with `isError`.
            (None, Some(true)) => Some("tool_error".into()),
            (None, Some(false) | None) => None,
        }
    }
}

/// The beginning of a text of a client's.
fn short(text: &[u8]) -> Box<str> {
    let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    String::from_utf8_lossy(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::Peek;
    use crate::transport::h1::head::Head;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

    fn head(fields: &str) -> Head {
        let text = format!("POST /mcp HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        Head::parse(text.as_bytes(), 10).unwrap()
    }

    fn message(meta: &str) -> Message {
        let mut peek = Peek::new();
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":{{"traceparent":"{meta}"}}}}}}"#
        );
        peek.feed(text.as_bytes()).unwrap();
        peek.message().clone()
    }

    #[test]
    fn what_the_caller_says_of_recording_counts_for_more_than_the_lot() {
        for (flag, sample) in [("1", Share::NONE), ("0", Share::ALL)] {
            let trace = Trace::new(sample, &head(&format!("traceparent: {PARENT}{flag}\r\n")));
            assert_eq!(trace.is_recorded(), flag == "1");
            assert_eq!(trace.id()[..2], [0x4b, 0xf9]);
            assert_eq!(
                trace.tells(0).is_some(),
                flag == "1",
                "else the fields pass"
            );
        }
        assert!(Trace::new(Share::ALL, &head("")).is_recorded());
        assert!(!Trace::new(Share::NONE, &head("")).is_recorded());
    }

    #[test]
    fn the_message_is_asked_where_the_head_says_nothing() {
        let other = PARENT.replace("4bf9", "aaaa");
        let mut trace = Trace::new(Share::NONE, &head(""));
        trace.learn(&message(&format!("{other}1")));
        assert_eq!((trace.id()[0], trace.is_recorded()), (0xaa, true));
        let mut trace = Trace::new(Share::NONE, &head(&format!("traceparent: {PARENT}1\r\n")));
        trace.learn(&message(&format!("{other}0")));
        assert_eq!((trace.id()[0], trace.is_recorded()), (0x4b, true));
    }

    #[test]
    fn what_is_told_twice_is_not_told() {
        let twice = format!("traceparent: {PARENT}1\r\ntraceparent: {PARENT}1\r\n");
        assert_eq!(told(&head(&twice)), None);
        let trace = Trace::new(Share::NONE, &head(&twice));
        let tells = trace.tells(0).expect("a trace of ours");
        assert!(tells.parent.ends_with(b"-00"));
        assert!(
            tells
                .left
                .has(crate::transport::fields::Name::new(b"tracestate"))
        );
    }

    #[test]
    fn each_attempt_has_a_span_of_its_own() {
        let trace = Trace::new(Share::ALL, &head(""));
        let told = [0, 1, 2].map(|number| trace.tells(number).unwrap().parent);
        assert_ne!(told[0], told[1]);
        assert_ne!(told[1], told[2]);
        assert!(told.iter().all(|parent| parent[..35] == told[0][..35]));
    }
}

//! What a call says of its endpoint, for ejection, the breaker and the balancer.
//!
//! The list of what is a server's own fault:
//!
//! - no connection, unless it is this host that lacks what one takes; a connection lost before the
//!   answer, an answer that is not HTTP;
//! - no answer within the time that the operator allows;
//! - status 500 to 599, but for 501 and 505, which say what the server cannot do by its nature;
//! - a JSON-RPC error -32603 in an answer with status 200 ([`answer::is_server_fault`]);
//! - a reply stream that ends without its answer.
//!
//! Everything else that is an answer is a good one: results, tools that have failed, all other
//! errors, status 4xx. Streams that have no answer of their own (GET, `subscriptions/listen`) are
//! good as soon as they begin, and their end says nothing. And what the client did, or what we did,
//! is no word about the server at all.

use std::sync::LazyLock;
use std::time::Instant;

use memchr::memmem::Finder;

use super::call::Call;
use super::ctx::{Ctx, End};
use super::fault::Fault;
use super::flight::own_shard;
use super::state::{PoolState, Shared};
use crate::mcp::{HttpMethod, Peek, answer};
use crate::pool::{Balance, CallPermit, Ejection, Endpoint, FailureKind, Outcome, Switched};
use crate::telemetry::feed::{Topic, Weight, tell};
use crate::telemetry::{self, Limit};
use crate::transport::buffer::Piece;

/// No error of a server is longer, in bytes; what is longer is not searched for one.
const ERROR_MAX: usize = 64 * 1024;

/// What a call says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// That it answers.
    Good,
    /// That it failed, and how.
    Bad(FailureKind),
}

/// What the failure of an attempt says, if anything.
pub fn of_fault(fault: Fault) -> Option<Said> {
    let kind = match fault {
        Fault::Connect => FailureKind::Connect,
        Fault::UpstreamClosed => FailureKind::Closed,
        Fault::UpstreamMalformed => FailureKind::Malformed,
        Fault::UpstreamTimeout => FailureKind::Timeout,
        _ => return None,
    };
    Some(Said::Bad(kind))
}

/// What the head of a reply says, if that is enough. An answer to a POST is yet to come.
pub fn of_head(call: &Call, status: u16) -> Option<Said> {
    let is_answer = call.http == HttpMethod::Post && !call.is("subscriptions/listen");
    match of_status(status) {
        Said::Good if is_answer && status == 200 => None,
        said => Some(said),
    }
}

/// What a status alone says.
pub fn of_status(status: u16) -> Said {
    match status {
        501 | 505 => Said::Good,
        500..=599 => Said::Bad(FailureKind::Status),
        _ => Said::Good,
    }
}

/// What an answer that is not a stream says. One that is longer than 64 KiB is no error, and of
/// one in several pieces the code may be missed where it is cut.
pub fn of_answer(pieces: &[Piece]) -> Said {
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();
    // Nearly every answer is told to be good by a search at memory speed.
    static CODE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("-32603"));
    let suspicious = |piece: &Piece| CODE.find(piece).is_some();
    if size > ERROR_MAX || !pieces.iter().any(suspicious) {
        return Said::Good;
    }
    let mut peek = Peek::lenient();
    let readable = pieces.iter().all(|piece| peek.feed(piece).is_ok());
    let code = peek.message().error_code;
    match code.is_some_and(answer::is_server_fault) && readable {
        true => Said::Bad(FailureKind::Error),
        false => Said::Good,
    }
}

/// Does the answer to a tool call tell of a failure, of the tool or of the server? It is read only if
/// it may.
pub fn tells_failure(pieces: &[Piece]) -> bool {
    if let [piece] = pieces
        && answer::is_plainly_good(piece)
    {
        return false;
    }
    let mut peek = Peek::lenient();
    let readable = pieces.iter().all(|piece| peek.feed(piece).is_ok());
    let message = peek.message();
    !readable || message.has_error || message.is_tool_error
}

/// The code of the error that an answer is, if it is one. As with [`of_answer`], what is longer than
/// 64 KiB is none, and of an answer in pieces it may be missed.
pub fn error_code(pieces: &[Piece]) -> Option<i64> {
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();
    let suspicious = |piece: &Piece| answer::may_be_error(piece);
    if size > ERROR_MAX || !pieces.iter().any(suspicious) {
        return None;
    }
    let mut peek = Peek::lenient();
    let readable = pieces.iter().all(|piece| peek.feed(piece).is_ok());
    let code = peek.message().error_code.filter(|_| readable);
    code.map(i64::from)
}

/// What the end of a reply stream says; `answered` is what its answer said, if it had one.
pub fn of_stream(end: End, answered: Option<Said>) -> Option<Said> {
    answered.or(match end {
        End::Complete | End::Resumable => Some(Said::Good),
        End::UpstreamLost | End::Truncated => Some(Said::Bad(FailureKind::Stream)),
        End::Timeout => Some(Said::Bad(FailureKind::Timeout)),
        End::Local
        | End::ClientGone
        | End::ClientWrite
        | End::TooLarge
        | End::Drain
        | End::Withdrawn
        | End::TakenOver => None,
    })
}

/// Tells the pool what came of a call, and the operator what became of the endpoint.
pub fn report(shared: &Shared, pool: &PoolState, permit: &mut CallPermit, said: Option<Said>) {
    let outcome = match said {
        None => return,
        Some(Said::Good) => Outcome::Good,
        Some(Said::Bad(kind)) => {
            permit.endpoint().failures.count(kind);
            Outcome::Bad
        }
    };
    let changes = pool
        .pool
        .record(permit, outcome, || shared.moment(Instant::now()));
    if let Some(ejection) = changes.ejection {
        log_ejection(pool, permit.endpoint(), ejection);
    }
    if let Some(switched) = changes.breaker {
        log_breaker(pool, permit.endpoint(), switched);
    }
}

fn log_ejection(pool: &PoolState, endpoint: &Endpoint, ejection: Ejection) {
    let (pool, endpoint) = (pool.pool.name(), endpoint.name());
    match ejection {
        Ejection::Done {
            failures,
            times,
            time,
        } => {
            log::warn!(pool = pool, endpoint = endpoint, failures = failures, times = times; "endpoint is ejected for {time:?} after {failures} failures in a row");
            let text = format!("ejected for {time:?} after {failures} failures in a row");
            tell(Topic::Ejection, Weight::Bad, pool, endpoint, text);
        }
        Ejection::NoRoom { failures } => {
            telemetry::limit_hit(Limit::Ejections);
            log::warn!(pool = pool, endpoint = endpoint, failures = failures; "endpoint has failed {failures} times in a row, but as much of its pool is ejected as may be");
            let text = format!(
                "{failures} failures in a row, but as much of its pool is ejected as may be"
            );
            tell(Topic::Ejection, Weight::Bad, pool, endpoint, text);
        }
    }
}

fn log_breaker(pool: &PoolState, endpoint: &Endpoint, switched: Switched) {
    let (pool, endpoint) = (pool.pool.name(), endpoint.name());
    match switched {
        Switched::Opened(totals) => {
            let (calls, failures) = (totals.calls, totals.failures);
            log::warn!(pool = pool, endpoint = endpoint, calls = calls, failures = failures; "breaker opens: {failures} of {calls} calls have failed");
            let text = format!("breaker opens: {failures} of {calls} calls have failed");
            tell(Topic::Breaker, Weight::Bad, pool, endpoint, text);
        }
        Switched::Reopened => {
            log::warn!(pool = pool, endpoint = endpoint; "breaker opens again: a trial has failed");
            let text = "breaker opens again: a trial has failed";
            tell(Topic::Breaker, Weight::Bad, pool, endpoint, text);
        }
        Switched::Closed => {
            log::info!(pool = pool, endpoint = endpoint; "breaker closes");
            let text = "breaker closes: trials have gone well";
            tell(Topic::Breaker, Weight::Good, pool, endpoint, text);
        }
    }
}

/// Notes how long the endpoint took from the request to the first byte of its answer. Not for standing
/// streams: some servers send nothing of those before the first event, however late that is.
pub fn answered(ctx: &Ctx, call: &Call, endpoint: &Endpoint) {
    let stands = call.http == HttpMethod::Get || call.is("subscriptions/listen");
    if let Some(took) = ctx.answer_time().filter(|_| !stands) {
        endpoint.timings.answered(own_shard(), took);
    }
}

/// Measures the time from a request that was sent to the head of its answer, where the pool balances
/// by it. Streams wait for their first event, which is no measure of anything.
pub struct Timed(Option<Instant>);

impl Timed {
    /// Begins when the request has been sent.
    pub fn begin(pool: &PoolState, call: &Call) -> Self {
        let by_latency = pool.pool.balance() == Balance::PeakEwma;
        let counts = call.http == HttpMethod::Post && !call.is("subscriptions/listen");
        Self((by_latency && counts).then(Instant::now))
    }

    /// The head is there.
    pub fn end(self, shared: &Shared, endpoint: &Endpoint) {
        if let Some(began) = self.0 {
            let now = Instant::now();
            let took = now.saturating_duration_since(began);
            endpoint.guard.latency.observe(took, shared.moment(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERNAL: Said = Said::Bad(FailureKind::Error);
    const STATUS: Said = Said::Bad(FailureKind::Status);

    fn piece(text: &str) -> Piece {
        Piece::from(text.as_bytes().to_vec())
    }

    #[test]
    fn only_an_internal_error_is_the_servers_fault() {
        let error = |code: i64| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"x"}}}}"#)
        };
        assert_eq!(of_answer(&[piece(&error(-32603))]), INTERNAL);
        for code in [
            -32700, -32600, -32601, -32602, -32000, -32001, -32002, -32020, -32022, 0, 1, -326030,
        ] {
            assert_eq!(of_answer(&[piece(&error(code))]), Said::Good, "{code}");
        }
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[{"type":"text","text":"-32603"}]}}"#,
            r#"{"jsonrpc":"2.0","id":-32603,"result":{}}"#,
            r#"{"error":{"message":"-32603","code":-32602}}"#,
            "-32603",
            "",
        ] {
            assert_eq!(of_answer(&[piece(text)]), Said::Good, "{text}");
        }
        let cut = [
            piece(r#"{"id":1,"error":{"code":-32603"#),
            piece(r#","message":"x"}}"#),
        ];
        assert_eq!(of_answer(&cut), INTERNAL, "in two pieces");
    }

    #[test]
    fn a_status_says_whether_the_server_fails() {
        for (status, fails) in [
            (200, false),
            (404, false),
            (429, false),
            (500, true),
            (501, false),
            (502, true),
            (503, true),
            (505, false),
            (599, true),
        ] {
            assert_eq!(of_status(status) != Said::Good, fails, "{status}");
        }
    }

    #[test]
    fn only_an_answer_to_a_post_is_waited_for() {
        let call = Call::new(HttpMethod::Post);
        assert_eq!(of_head(&call, 200), None);
        assert_eq!(of_head(&call, 202), Some(Said::Good));
        assert_eq!(of_head(&call, 400), Some(Said::Good));
        assert_eq!(of_head(&call, 500), Some(STATUS));
        let call = Call::new(HttpMethod::Get);
        assert_eq!(of_head(&call, 200), Some(Said::Good));
        assert_eq!(of_head(&call, 405), Some(Said::Good));
        assert_eq!(of_head(&call, 502), Some(STATUS));
    }

    #[test]
    fn what_is_not_the_servers_doing_says_nothing() {
        for fault in [
            Fault::ClientGone,
            Fault::Draining,
            Fault::Parse,
            Fault::SlowBody,
            Fault::NoEndpoint,
            Fault::Exhausted,
            Fault::SessionUnknown,
        ] {
            assert_eq!(of_fault(fault), None, "{fault:?}");
        }
        assert_eq!(of_stream(End::ClientGone, None), None);
        assert_eq!(of_stream(End::Drain, None), None);
        assert_eq!(
            of_stream(End::UpstreamLost, None),
            Some(Said::Bad(FailureKind::Stream))
        );
        assert_eq!(
            of_stream(End::Resumable, None),
            Some(Said::Good),
            "on purpose"
        );
        let answered = Some(INTERNAL);
        assert_eq!(of_stream(End::Complete, answered), answered);
        assert_eq!(of_stream(End::ClientGone, answered), answered);
    }
}

//! Which exchanges are logged, where the operator wants a part of them only.
//!
//! The lot of a request is drawn from what the whole way of it has in common, so that every hop which
//! keeps the same part keeps the same requests: the trace id of `traceparent` (W3C Trace Context), else
//! `X-Request-Id`, else our own id, which is random. A client that chooses its lot can only hide
//! requests that have gone well.

use super::ctx::{Ctx, End};
use crate::config::Share;
use crate::telemetry::spread;
use crate::transport::Headers;

/// Length of a `traceparent` of the first version; later ones may be longer.
const TRACEPARENT: usize = 55;

/// The lot of a request, even over all numbers.
pub fn lot(head: &(impl Headers + ?Sized), request_id: u64) -> u64 {
    let given = |name: &str| head.get(name).filter(|value| !value.is_empty());
    let trace = given("traceparent").and_then(trace_id);
    match trace.or_else(|| given("x-request-id")) {
        Some(id) => spread(id),
        None => request_id,
    }
}

fn trace_id(traceparent: &[u8]) -> Option<&[u8]> {
    let id = traceparent.get(3..35)?;
    let whole = traceparent.len() >= TRACEPARENT && traceparent[2] == b'-';
    (whole && id.iter().all(u8::is_ascii_hexdigit)).then_some(id)
}

/// Is there to be a line for this exchange, which is over? What was refused before it had a route has
/// one.
pub fn is_logged(ctx: &Ctx, head: &(impl Headers + ?Sized)) -> bool {
    match ctx.share() {
        Share::ALL => true,
        Share::NONE => false,
        share => {
            let noted = ctx.noted.as_ref().map(|noted| noted.lot);
            is_failure(ctx) || share.takes(noted.unwrap_or_else(|| lot(head, ctx.request_id)))
        }
    }
}

/// Has something gone wrong that somebody might look for? A client that leaves its stream has not.
fn is_failure(ctx: &Ctx) -> bool {
    is_broken(ctx.end)
        || ctx.status >= 400
        || ctx.fault.is_some()
        || ctx.rpc_code.is_some()
        || ctx.tool_failed == Some(true)
}

/// Did an exchange that ended so not come to what was to come of it?
pub fn is_broken(end: End) -> bool {
    match end {
        End::UpstreamLost | End::Truncated | End::Timeout | End::TooLarge | End::ClientWrite => {
            true
        }
        End::Complete
        | End::Local
        | End::ClientGone
        | End::Resumable
        | End::Drain
        | End::Withdrawn
        | End::TakenOver => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::h1::head::Head;

    fn lot_of(fields: &str) -> u64 {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        lot(&Head::parse(text.as_bytes(), 10).unwrap(), 7)
    }

    #[test]
    fn hops_that_see_the_same_trace_draw_the_same_lot() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let first = lot_of(&format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n"));
        let second = lot_of(&format!(
            "traceparent: 00-{trace}-aaaaaaaaaaaaaaaa-00\r\nx-request-id: 1\r\n"
        ));
        assert_eq!(first, second, "the span is another one on every hop");
        assert_ne!(first, 7);
    }

    #[test]
    fn without_a_trace_the_request_id_counts() {
        assert_eq!(lot_of("x-request-id: a\r\n"), lot_of("x-request-id: a\r\n"));
        assert_ne!(lot_of("x-request-id: a\r\n"), lot_of("x-request-id: b\r\n"));
        assert_eq!(
            lot_of("traceparent: 00-short\r\nx-request-id: a\r\n"),
            lot_of("x-request-id: a\r\n")
        );
        assert_eq!(lot_of(""), 7, "ours");
        assert_eq!(lot_of("x-request-id: \r\n"), 7);
    }
}

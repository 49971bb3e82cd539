use super::*;

/// One of each, so that a row that is changed has to be changed here too.
const TABLE: &[(Fault, u16, i64)] = &[
    (Fault::Parse, 400, -32700),
    (Fault::Invalid("x"), 400, -32600),
    (Fault::HeaderMismatch("x"), 400, -32020),
    (Fault::UnsupportedVersion, 400, -32022),
    (Fault::UnsupportedVersionLegacy, 400, -32600),
    (Fault::Origin, 403, -32600),
    (Fault::Host, 403, -32600),
    (Fault::NoRoute, 404, -32600),
    (Fault::Method("POST"), 405, -32600),
    (Fault::MediaType, 415, -32600),
    (Fault::BodyTooLarge, 413, -32600),
    (Fault::HeadTooLarge, 431, -32600),
    (Fault::SlowHead, 408, -32600),
    (Fault::SlowBody, 408, -32600),
    (Fault::TooMuch("x"), 400, -32600),
    (Fault::SessionRequired, 400, -32600),
    (Fault::SessionUnknown, 404, -32001),
    (Fault::OnlySessionEra, 400, -32601),
    (Fault::OnlyStatelessEra, 400, -32022),
    (Fault::NoEndpoint, 503, -32603),
    (Fault::InFlight, 503, -32603),
    (Fault::QueueFull, 503, -32603),
    (Fault::QueueTimeout, 503, -32603),
    (Fault::Limited(Capped::Rate, 3), 429, -32603),
    (Fault::Limited(Capped::StreamsPerSession, 0), 429, -32603),
    (Fault::ToolDenied(200), 200, -32602),
    (Fault::ToolDenied(400), 400, -32602),
    (Fault::UnwatchedCalls, 403, -32600),
    (Fault::SessionsFull(Cap::Total), 503, -32603),
    (Fault::SessionsFull(Cap::Pool), 503, -32603),
    (Fault::Tripped(5), 503, -32603),
    (Fault::Connect, 502, -32603),
    (Fault::Exhausted, 503, -32603),
    (Fault::UpstreamClosed, 502, -32603),
    (Fault::UpstreamMalformed, 502, -32603),
    (Fault::UpstreamFailed, 502, -32603),
    (Fault::UpstreamTimeout, 504, -32603),
    (Fault::Draining, 503, -32603),
    (Fault::ClientGone, 499, -32603),
];

#[test]
fn every_fault_has_its_row() {
    for (fault, status, code) in TABLE {
        let row = fault.row();
        assert_eq!((row.status, row.code), (*status, *code), "{fault:?}");
        assert!(!row.message.is_empty() && !row.label.is_empty());
    }
}

#[test]
fn a_client_is_told_when_to_come_again_where_that_is_known() {
    assert_eq!(Fault::Limited(Capped::Rate, 3).retry_after(), Some(3));
    assert_eq!(Fault::Limited(Capped::Rate, 0).retry_after(), None);
    assert_eq!(Fault::QueueFull.retry_after(), None);
    assert!(Fault::QueueFull.row().field.is_some());
}

#[test]
fn a_client_is_never_told_to_come_back_too_soon() {
    for (seconds, text) in [
        (0, "1"),
        (1, "1"),
        (3, "5"),
        (5, "5"),
        (6, "10"),
        (61, "300"),
    ] {
        assert_eq!(
            Fault::Tripped(seconds).row().field,
            Some(("retry-after", text))
        );
    }
}

#[test]
fn a_404_from_us_only_says_that_a_session_or_a_path_is_gone() {
    for (fault, ..) in TABLE {
        let row = fault.row();
        assert_eq!(
            row.status == 404,
            matches!(fault, Fault::SessionUnknown | Fault::NoRoute)
        );
    }
}

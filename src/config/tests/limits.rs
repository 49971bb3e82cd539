//! What bounds clients: rates, tools, places, numbers at once.

use std::time::Duration;

use super::super::{Rate, RouteRate, ToolLimit, ToolRetry};
use super::{In, check_table, good};

const SECOND: Duration = Duration::from_secs(1);

fn rate(count: u32, per: Duration, burst: u32) -> Option<Rate> {
    Some(Rate { count, per, burst })
}

#[test]
fn nothing_is_limited_unless_it_is_said() {
    let config = good(In::Root, "");
    assert_eq!(config.listeners[0].max_connections_per_client, None);
    assert_eq!(config.routes[0].rate, None);
    assert_eq!(config.pools[0].tools, []);
    assert_eq!(config.pools[0].endpoints[0].max_in_flight, None);
    assert_eq!(config.sessions.max_per_client, None);
    assert_eq!(config.sessions.max_per_principal, None);
    assert_eq!(config.streams.max_per_client, None);
    assert_eq!(config.streams.max_per_principal, None);
    assert_eq!(config.streams.max_per_session, 16);
}

#[test]
fn a_burst_is_what_a_rate_gives_in_a_second() {
    for (text, per_client, total) in [
        ("{ per_client: 50/s }", rate(50, SECOND, 50), None),
        (
            "{ per_client: 50/s, burst: 100, total: \"1000/s\" }",
            rate(50, SECOND, 100),
            rate(1000, SECOND, 1000),
        ),
        ("{ total: 90/m }", None, rate(90, 60 * SECOND, 1)),
        ("{ total: 7200/h }", None, rate(7200, 3600 * SECOND, 2)),
    ] {
        let config = good(In::Route, &format!("path: /x\npool: p\nrate: {text}"));
        let wanted = RouteRate {
            per_client,
            per_principal: None,
            total,
        };
        assert_eq!(config.routes[2].rate, Some(wanted), "{text}");
    }
}

#[test]
fn a_burst_holds_for_a_client_and_for_a_principal() {
    let text = "rate: { per_client: 50/s, per_principal: 1/m, burst: 100 }";
    let config = good(In::Route, &format!("path: /x\npool: p\n{text}"));
    let wanted = RouteRate {
        per_client: rate(50, SECOND, 100),
        per_principal: rate(1, 60 * SECOND, 100),
        total: None,
    };
    assert_eq!(config.routes[2].rate, Some(wanted));
    let text = "sessions: { max_per_principal: 3 }\nstreams: { max_per_principal: 4 }";
    let config = good(In::Root, text);
    assert_eq!(config.sessions.max_per_principal, Some(3));
    assert_eq!(config.streams.max_per_principal, Some(4));
}

#[test]
fn what_holds_for_tools_is_in_the_order_of_the_file() {
    let text = "tools: [{ name: slow, concurrent: 4, per_client: 1/s }, { name: '*', per_principal: 5/s, total: 2/m, timeout: 2s, retry: always }]";
    let slow = ToolLimit {
        name: "slow".into(),
        per_client: rate(1, SECOND, 1),
        per_principal: None,
        total: None,
        concurrent: Some(4),
        deny: false,
        timeout: None,
        retry: ToolRetry::Safe,
    };
    let rest = ToolLimit {
        name: "*".into(),
        per_client: None,
        per_principal: rate(5, SECOND, 5),
        total: rate(2, 60 * SECOND, 1),
        concurrent: None,
        deny: false,
        timeout: Some(2 * SECOND),
        retry: ToolRetry::Always,
    };
    assert_eq!(good(In::Pool, text).pools[0].tools, [slow, rest]);
}

#[test]
fn a_tool_is_denied_or_let_through() {
    let text = "tools: [{ name: 'get_*', deny: false }, { name: '*', deny: true }]";
    let config = good(In::Pool, text);
    let denied: Vec<bool> = config.pools[0].tools.iter().map(|tool| tool.deny).collect();
    assert_eq!(denied, [false, true]);
}

#[test]
fn to_call_a_tool_again_needs_retries() {
    let tools = "tools: [{ name: x, retry: always }]";
    assert_eq!(good(In::Pool, tools).warnings, []);
    let config = good(In::Pool, &format!("retries: off\n{tools}"));
    let said: Vec<&str> = config.warnings.iter().map(|w| &*w.message).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("does nothing"), "{said:?}");
}

#[test]
fn an_endpoint_has_places_and_a_pool_has_a_queue() {
    let config = good(In::Endpoint, "address: h:1\nmax_in_flight: 3");
    assert_eq!(config.pools[0].endpoints[0].max_in_flight, Some(3));
    let config = good(In::Pool, "queue_timeout: 250ms\nqueue_max: 0");
    let queue = config.pools[0].queue;
    assert_eq!((queue.timeout, queue.max), (Duration::from_millis(250), 0));
}

#[test]
fn limits_are_checked() {
    check_table(&[
        (
            In::Route,
            "path: /x\npool: p\n«rate»: {}",
            "neither `per_client` nor `per_principal` nor `total`",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrate: { total: 1/s, «burst»: 5 }",
            "`burst` needs `per_client` or `per_principal`",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrate: { per_client: «50» }",
            "write a whole number and a time: 50/s",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrate: { per_client: «0/s» }",
            "lets nothing pass",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrate: { per_client: 1/s, burst: «0» }",
            "the least is 1",
        ),
        (
            In::Route,
            "path: /x\npool: p\n«limit_req»: 5",
            "did you mean `rate`?",
        ),
        (In::Pool, "tools: [{ «name»: x }]", "this tool has no limit"),
        (
            In::Pool,
            "tools: [{ name: «''», concurrent: 1 }]",
            "is not empty",
        ),
        (
            In::Pool,
            "tools: [{ name: x, concurrent: «0» }]",
            "the least is 1",
        ),
        (
            In::Pool,
            "tools: [{ name: x, deny: true, «timeout»: 1s }]",
            "this tool is denied",
        ),
        (
            In::Pool,
            "tools: [{ name: x, timeout: «off» }]",
            "is not a duration",
        ),
        (
            In::Pool,
            "tools: [{ name: x, timeout: «50ms» }]",
            "the least is 100ms",
        ),
        (
            In::Pool,
            "tools: [{ name: x, retry: «save» }]",
            "did you mean `safe`?",
        ),
        (
            In::Http,
            "«tools»: [{ name: x, concurrent: 1 }]",
            "`tools` is for MCP",
        ),
        (In::Pool, "queue_timeout: «0s»", "the least is 10ms"),
        (In::Pool, "queue_max: «70000»", "the most is 65536"),
        (
            In::Endpoint,
            "address: h:1\nmax_in_flight: «0»",
            "the least is 1",
        ),
        (
            In::Endpoint,
            "address: h:1\n«maxconn»: 5",
            "did you mean `max_in_flight`?",
        ),
        (
            In::Listener,
            "bind: 127.0.0.1:1\nmax_connections_per_client: «0»",
            "the least is 1",
        ),
        (
            In::Root,
            "streams: { max_per_session: «0» }",
            "the least is 1",
        ),
    ]);
}

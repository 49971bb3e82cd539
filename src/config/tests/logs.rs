//! Logs: the short word and the map, formats with variables, shares of routes.

use super::super::{
    Escape, LogFormat, LogTarget, MessageFormat, Piece, Share, SyslogServer, Variable,
};
use super::{In, check_table, good};

#[test]
fn the_short_word_and_the_map_say_the_same() {
    for to in [
        "stdout",
        "stderr",
        "off",
        "journal",
        "syslog",
        "/var/log/a.log",
    ] {
        let short = good(In::Root, &format!("log: {{ access: {to} }}"));
        let long = good(In::Root, &format!("log: {{ access: {{ to: {to} }} }}"));
        assert_eq!(short.log, long.log, "{to}");
        assert_eq!(short.log.access.format, LogFormat::Json);
    }
    let nothing = good(In::Root, "log: { access: {} }").log;
    assert_eq!(nothing.access.to, LogTarget::Stdout);
    assert_eq!(nothing.format, MessageFormat::Text);
}

#[test]
fn a_format_is_read_with_its_variables() {
    let text = r#"log: { access: { format: '$status "${mcp_tool}" $http_x_a', escape: json } }"#;
    let LogFormat::Text(format) = good(In::Root, text).log.access.format else {
        panic!("a text");
    };
    assert_eq!(format.escape, Escape::Json);
    assert_eq!(format.pieces[0], Piece::Value(Variable::Status));
    assert_eq!(format.pieces[2], Piece::Value(Variable::McpTool));
    assert_eq!(format.headers, ["x-a"]);
    let combined = good(In::Root, "log: { access: { format: combined } }");
    assert!(matches!(combined.log.access.format, LogFormat::Text(_)));
}

#[test]
fn a_syslog_server_is_a_socket_or_an_address() {
    let read = |text: &str| {
        let text = format!("log: {{ access: {{ to: syslog, syslog: {text} }} }}");
        match good(In::Root, &text).log.access.to {
            LogTarget::Syslog(syslog) => syslog,
            other => panic!("{other:?}"),
        }
    };
    let default = read("{}");
    assert_eq!(default.server, SyslogServer::Unix("/dev/log".into()));
    assert_eq!((default.facility, default.tag.as_str()), (23, "tidegate"));
    let udp = read("{ server: \"udp:10.0.0.1:514\", facility: daemon, tag: edge-1 }");
    assert_eq!(udp.server, SyslogServer::Udp(([10, 0, 0, 1], 514).into()));
    assert_eq!((udp.facility, udp.tag.as_str()), (3, "edge-1"));
}

#[test]
fn a_route_is_logged_as_it_says() {
    let route = |text: &str| {
        let keys = format!("path: /x\npool: p\n{text}");
        good(In::Route, &keys).routes[2].log
    };
    assert_eq!(route("origins: [\"*\"]"), Share::ALL);
    assert_eq!(route("access_log: off"), Share::NONE);
    let sampled = route("access_log: { sample: 0.01 }");
    assert!(sampled.takes(0) && !sampled.takes(u64::MAX / 50));
}

#[test]
fn mistakes_in_logs_are_told_with_their_place() {
    check_table(&[
        (
            In::Root,
            "log: { access: { format: '$remote_addr «$statsu» x' } }",
            "did you mean `$status`?",
        ),
        (
            In::Root,
            r#"log: { access: { format: "\"$request\" «${http_cookie}» $status" } }"#,
            "may hold a secret",
        ),
        (
            In::Root,
            "log:\n  access:\n    format: >-\n      $status\n      «$args»\n",
            "queries may hold secrets",
        ),
        (
            In::Root,
            "log: { access: { format: «jsn» } }",
            "json, combined, or a text",
        ),
        (
            In::Root,
            "log: { access: { «escape»: json } }",
            "`escape` is for a `format` with variables",
        ),
        (
            In::Root,
            "log: { access: { «syslog»: { tag: x } } }",
            "`syslog` is for `to: syslog`",
        ),
        (
            In::Root,
            "log: { access: { to: syslog, syslog: { server: «localhost» } } }",
            "neither the absolute path of a socket nor",
        ),
        (
            In::Root,
            "log: { access: { to: syslog, syslog: { tag: «a b» } } }",
            "is no tag",
        ),
        (
            In::Root,
            "log: { access: { to: syslog, syslog: { facility: «local8» } } }",
            "did you mean `local",
        ),
        (In::Root, "log: { format: «xml» }", "takes text | json"),
        (
            In::Route,
            "path: /x\npool: p\naccess_log: { sample: «0» }",
            "above 0 and up to 1",
        ),
        (
            In::Route,
            "path: /x\npool: p\naccess_log: { sample: «1.5» }",
            "above 0 and up to 1",
        ),
        (
            In::Route,
            "path: /x\npool: p\naccess_log: { sample: «1%» }",
            "such as 0.01",
        ),
        (
            In::Route,
            "path: /x\npool: p\naccess_log: «on»",
            "must be a map",
        ),
    ]);
}

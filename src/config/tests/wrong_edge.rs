//! What routes do with heads, and their own answers, written wrong.

use super::super::{Action, Part, Scheme, TemplateVariable as Variable};
use super::{In, check_table, good};

#[test]
fn a_route_does_one_thing() {
    check_table(&[
        (
            In::Route,
            "path: /x\npool: p\n«return»: { status: 404 }",
            "a route has `pool` or `return`, not both",
        ),
        (
            In::Route,
            "path: /x\nreturn: { status: 404 }\n«redirect»: { to: /y }",
            "a route has `return` or `redirect`, not both",
        ),
        (
            In::Route,
            "path: /x\nredirect: { to: /y }\n«transport»: sse",
            "`transport` is for routes with a pool",
        ),
        (
            In::Route,
            "path: /x\nreturn: { status: 404 }\n«request_headers»: { set: { a: b } }",
            "`request_headers` is for routes with a pool",
        ),
    ]);
}

#[test]
fn answers_are_checked() {
    check_table(&[
        (
            In::Route,
            "path: /x\nreturn: { status: «100» }",
            "the least is 200",
        ),
        (
            In::Route,
            "path: /x\nreturn: { status: «302» }",
            "302 redirects; write `redirect` instead",
        ),
        (
            In::Route,
            "path: /x\nreturn: { status: 204, body: «x» }",
            "an answer with status 204 has no body",
        ),
        (
            In::Route,
            "path: /x\nreturn: { headers: { «Content-Length»: 5 } }",
            "belongs to the connection or to the framing",
        ),
        (
            In::Route,
            "path: /x\nreturn: { headers: { X-Y: «\"a\\r\\nb\"» } }",
            "only visible ASCII",
        ),
        (
            In::Route,
            "path: /x\nreturn: { headers: { X-Y: «$hosts» } }",
            "did you mean `$host`?",
        ),
    ]);
}

#[test]
fn no_client_decides_where_a_redirect_leads() {
    for to in [
        "$request_uri",
        "$path",
        "/$path",
        "//evil.example/",
        "/$query",
        "evil.example/",
        "https://$query",
        "https://$path",
        "https://$remote_addr",
        "https://$host$query",
        "https://$host$http_host",
        "https://a.example$query",
        "https://a.example.$host/",
        "https://a.example@$host/",
        "https://user@a.example/",
        "https://a.example:$query",
        "https://a.example:99999/",
        "https:///x",
        "javascript:alert(1)",
        "/a b",
        "/a#$query",
        "/\\\\evil.example",
    ] {
        let text = format!("path: /x\nredirect: {{ to: '{to}' }}");
        let file = super::file(In::Route, &text);
        let parsed = super::parse("test", &file);
        assert!(parsed.is_err(), "{to}");
    }
    check_table(&[
        (
            In::Route,
            "path: /x\nredirect: { to: «$path» }",
            "a client could name any host",
        ),
        (
            In::Route,
            "path: /x\nredirect: { to: «/y?$client_name» }",
            "does not belong in an address",
        ),
        (
            In::Route,
            "path: /x\nredirect: { to: /y, status: «304» }",
            "304 is no redirect",
        ),
        (
            In::Route,
            "path: /x\n«redirect»: { to: /x }",
            "the redirect would never end",
        ),
        (
            In::Route,
            "path_prefix: /y\n«redirect»: { to: \"/y/z?$query\" }",
            "the redirect would never end",
        ),
        (
            In::Route,
            "path_prefix: /y\n«redirect»: { to: \"https://$host$request_uri\" }",
            "add `scheme: http` to the route",
        ),
    ]);
}

#[test]
fn targets_with_a_host_of_the_operators_choice_are_good() {
    for to in [
        "/y",
        "/y$path",
        "/y?from=$query",
        "https://a.example",
        "https://a.example/",
        "https://a.example$request_uri",
        "https://a.example:8443$path?$query",
        "http://a.example/x$path",
        "https://$host:8443$request_uri",
        "https://$host/new",
    ] {
        good(
            In::Route,
            &format!("path: /x\nredirect: {{ to: \"{to}\" }}"),
        );
    }
    let config = good(
        In::Route,
        "path_prefix: /w\nscheme: http\nredirect: { to: \"https://$host$request_uri\", status: 308 }",
    );
    let route = &config.routes[2];
    assert_eq!(route.scheme, Some(Scheme::Http));
    let Action::Redirect(redirect) = &route.action else {
        panic!("it redirects");
    };
    assert_eq!(redirect.status, 308);
    assert_eq!(redirect.to.parts()[1], Part::Variable(Variable::Host));
}

#[test]
fn fields_that_carry_a_message_or_a_session_are_not_changed() {
    check_table(&[
        (
            In::Route,
            "path: /x\npool: p\nrequest_headers: { set: { «Transfer-Encoding»: chunked } }",
            "belongs to the connection or to the framing",
        ),
        (
            In::Route,
            "path: /x\npool: p\nresponse_headers: { remove: [«connection»] }",
            "belongs to the connection or to the framing",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrequest_headers: { remove: [«Mcp-Session-Id»] }",
            "how MCP finds its session",
        ),
        (
            In::Route,
            "path: /x\npool: p\nresponse_headers: { add: { «content-type»: text/plain } }",
            "how MCP finds its session",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrequest_headers: { set: { Host: «'a b'» } }",
            "is not a host",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrequest_headers: { set: { Host: «$query» } }",
            "is not a host",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrequest_headers: { remove: [«host»] }",
            "every request has a `Host`",
        ),
        (
            In::Route,
            "path: /x\npool: p\nresponse_headers: { set: { a: b }, remove: [«A»] }",
            "is set, which removes it as well",
        ),
        (
            In::Route,
            "path: /x\npool: p\nresponse_headers: { set: { a: b, «A»: c } }",
            "is here twice",
        ),
        (
            In::Route,
            "path: /x\npool: p\nresponse_headers: { set: { «'a b'»: c } }",
            "is not the name of a header field",
        ),
        (
            In::Route,
            "path: /x\npool: p\nresponse_headers: { set: «x» }",
            "takes a map of names to values",
        ),
    ]);
    let plain = "path: /x\npool: web\nresponse_headers: { set: { Content-Type: text/html }, add: { Mcp-X: y } }";
    let config = good(In::Route, plain);
    let edits = config.routes[2].response.as_ref().expect("changes");
    assert_eq!((edits.set.len(), edits.add.len()), (1, 1));
    assert!(config.routes[2].request.is_none());
}

#[test]
fn rewrites_are_checked() {
    check_table(&[
        (
            In::Route,
            "path: /x\npool: p\n«rewrite»: { prefix: /y, regex: a, to: /b }",
            "either `prefix`, or `regex` and `to`",
        ),
        (
            In::Route,
            "path: /x\npool: p\n«rewrite»: { regex: a }",
            "either `prefix`, or `regex` and `to`",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrewrite: { prefix: «y» }",
            "a path begins with `/`",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrewrite: { regex: «'(a'», to: /b }",
            "this is not a regular expression: unclosed group",
        ),
        (
            In::Route,
            "path: /x\npool: p\nrewrite: { regex: '(a)', to: «/b$2» }",
            "the pattern has no group `2`",
        ),
        (
            In::Route,
            "path: /x\nreturn: { status: 404 }\n«rewrite»: { prefix: /y }",
            "`rewrite` is for routes with a pool",
        ),
    ]);
}

#[test]
fn cors_is_checked_as_browsers_would() {
    check_table(&[
        (
            In::Route,
            "path: /x\npool: p\n«cors»: { credentials: false }",
            "this cors section has no `origins`",
        ),
        (
            In::Route,
            "path: /x\npool: p\ncors: { «origins»: ['*'], credentials: true }",
            "no browser sends credentials where every origin is let in",
        ),
        (
            In::Route,
            "path: /x\npool: p\ncors: { origins: ['https://a.example'], credentials: true, expose: «['*']» }",
            "browsers take \"*\" for a name",
        ),
        (
            In::Route,
            "path: /x\npool: p\ncors: { origins: ['https://a.example'], methods: [«'*'»] }",
            "list the methods",
        ),
        (
            In::Route,
            "path: /x\npool: p\ncors: { origins: ['https://a.example'], headers: [«'a b'»] }",
            "is not the name of a header field",
        ),
        (
            In::Route,
            "path: /x\npool: p\ncors: { origins: ['https://a.example'] }\n«response_headers»: { set: { Access-Control-Max-Age: 1 } }",
            "`cors` says what `access-control-max-age` is",
        ),
        (
            In::Route,
            "path: /x\npool: p\ncors: { origins: [«'https://a.example/'»] }",
            "an origin is scheme://host[:port] and nothing more",
        ),
    ]);
}

//! Listeners and routes that are wrong.

use super::{In, check_table};

#[test]
fn listeners_are_checked() {
    check_table(&[
        (In::Listener, "«name»: edge", "this listener has no `bind`"),
        (
            In::Listener,
            "«0.0.0.0:8080»",
            "must be a map such as `bind: 0.0.0.0:8080`",
        ),
        (In::Listener, "bind: «8080»", "write 0.0.0.0:8080"),
        (In::Listener, "bind: «:8080»", "has no address"),
        (
            In::Listener,
            "bind: «'*:8080'»",
            "has no address; write 0.0.0.0:8080",
        ),
        (
            In::Listener,
            "bind: «0.0.0.0»",
            "has no port; write for example 0.0.0.0:8080",
        ),
        (
            In::Listener,
            "bind: «'::'»",
            "has no port; write for example [::]:8080",
        ),
        (
            In::Listener,
            "bind: «localhost:8080»",
            "not an IP address and port",
        ),
        (
            In::Listener,
            "bind: «0.0.0.0:80800»",
            "not an IP address and port",
        ),
        (
            In::Listener,
            "bind: «256.0.0.1:80»",
            "not an IP address and port",
        ),
        (
            In::Listener,
            "bind: «unix:run/t.sock»",
            "write an absolute path",
        ),
        (
            In::Listener,
            "bind: unix:/run/t.sock\nmode: «0888»",
            "such as 0660",
        ),
        (
            In::Listener,
            "bind: 0.0.0.0:80\n«mode»: 0600",
            "`mode` needs a unix socket",
        ),
        (
            In::Listener,
            "bind: 0.0.0.0:80\nipv6_only: «true»",
            "`ipv6_only` needs an IPv6 address",
        ),
        (
            In::Listener,
            "«listen»: 0.0.0.0:80\nbind: 0.0.0.0:80",
            "did you mean `bind`?",
        ),
        (
            In::Listener,
            "bind: 0.0.0.0:80\nname: «edge one»",
            "a name has no ` `",
        ),
        (
            In::Listener,
            "bind: 0.0.0.0:80\nname: «''»",
            "must not be empty",
        ),
        (
            In::Listener,
            "bind: 0.0.0.0:80\nmax_connections: «20k»",
            "not a whole number",
        ),
        (
            In::Listener,
            "bind: 0.0.0.0:80\nmax_connections: «0»",
            "the least is 1",
        ),
        (
            In::Listener,
            "bind: «0.0.0.0:9090»",
            "taken already by the admin address",
        ),
        (
            In::Listener,
            "bind: «'[::]:9090'»",
            "taken already by the admin address",
        ),
    ]);
}

#[test]
fn listeners_that_collide_are_shown() {
    check_table(&[
        (
            In::Listener,
            "bind: 0.0.0.0:80\n- bind: «0.0.0.0:80»",
            "listener on line 2",
        ),
        (
            In::Listener,
            "bind: 0.0.0.0:80\n- bind: «127.0.0.1:80»",
            "accepts on 0.0.0.0:80",
        ),
        (
            In::Listener,
            "bind: 127.0.0.1:80\n- bind: «'[::]:80'»",
            "accepts on 127.0.0.1:80",
        ),
        (
            In::Listener,
            "bind: '[::1]:80'\n- bind: «'[::]:80'»",
            "accepts on [::1]:80",
        ),
        (
            In::Listener,
            "bind: 1.2.3.4:80\n- bind: «'[::ffff:1.2.3.4]:80'»",
            "taken already",
        ),
        (
            In::Listener,
            "{ name: a, bind: 1.2.3.4:80 }\n- { name: «a», bind: 1.2.3.4:81 }",
            "as well",
        ),
    ]);
}

#[test]
fn lists_at_the_top_must_hold_something() {
    check_table(&[
        (
            In::File,
            "«listeners»:\nroutes: [{ path: /, pool: p }]\npools: { p: { endpoints: [a:1] } }\n",
            "`listeners` is empty",
        ),
        (
            In::File,
            "«routes»: [{ path: /, pool: p }]\npools: { p: { endpoints: [a:1] } }\n",
            "this configuration has no `listeners`; write for example",
        ),
        (
            In::File,
            "listeners: [{ bind: 1.2.3.4:1 }]\n«routes»: []\npools: { p: { endpoints: [a:1] } }\n",
            "`routes` is empty",
        ),
        (
            In::File,
            "listeners: «{ bind: 1.2.3.4:1 }»\nroutes: [{ path: /, pool: p }]\n\
             pools: { p: { endpoints: [a:1] } }\n",
            "takes a list, not a map; begin each entry with `- `",
        ),
        (
            In::File,
            "listeners: [{ bind: 1.2.3.4:1 }]\nroutes: [{ path: /, pool: «p» }]\n\
             pools: «[{ endpoints: [a:1] }]»\n",
            "there is no pool `p`; define it under `pools`",
        ),
    ]);
}

#[test]
fn routes_are_checked() {
    check_table(&[
        (
            In::Route,
            "«path»: /a",
            "this route has no `pool`; write for example `pool: NAME`",
        ),
        (In::Route, "«pool»: p", "has no `path` and no `path_prefix`"),
        (
            In::Route,
            "{ path: /a, «path_prefix»: /b, pool: p }",
            "not both",
        ),
        (
            In::Route,
            "{ path: /a, pool: «q» }",
            "there is no pool `q`; the pools are `p`, `web`",
        ),
        (
            In::Route,
            "{ path: /a, pool: «webb» }",
            "did you mean `web`?",
        ),
        (
            In::Route,
            "{ path: /a, «backend»: p, pool: p }",
            "did you mean `pool`?",
        ),
        (
            In::Route,
            "{ «location»: /a, path: /a, pool: p }",
            "did you mean `path_prefix`?",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, «tool»: x }",
            "unknown key `tool`",
        ),
        (
            In::Route,
            "{ path: «a», pool: p }",
            "a path begins with `/`; write /a",
        ),
        (
            In::Route,
            "{ path: «/a?b=c», pool: p }",
            "no query or fragment",
        ),
        (
            In::Route,
            "{ path: «/a*», pool: p }",
            "`path_prefix` takes everything below",
        ),
        (In::Route, "{ path: «/ä», pool: p }", "percent-encoded"),
        (In::Route, "{ path: «/a b», pool: p }", "percent-encoded"),
        (In::Route, "{ path: «/a/../b», pool: p }", "no `.` or `..`"),
        (
            In::Route,
            "{ path_prefix: «a», pool: p }",
            "a path begins with `/`",
        ),
        (
            In::Route,
            "{ path: «''», pool: p }",
            "a path begins with `/`",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, transport: «stdio» }",
            "auto | streamable | sse",
        ),
        (
            In::Route,
            "{ path: /a, pool: web, «transport»: sse }",
            "of kind http",
        ),
    ]);
}

#[test]
fn hosts_and_origins_are_checked() {
    check_table(&[
        (
            In::Route,
            "{ path: /a, pool: p, host: «'*'» }",
            "leave `host` out",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, host: «a.com:80» }",
            "without a port",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, host: «https://a.com» }",
            "without scheme and path",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, host: «a.*.com» }",
            "may only stand for the first",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, host: «'*.*.com'» }",
            "may only stand for the first",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, host: «a..com» }",
            "not a host name",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, host: «bücher.de» }",
            "begins with xn--",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, host: «10.0.0.256» }",
            "not an IPv4 address",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, origins: «https://a.com» }",
            "takes a list",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, origins: [«a.com»] }",
            "begins with a scheme",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, origins: [«https://a.com/»] }",
            "nothing more",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, origins: [«https://a.com:0»] }",
            "from 1 to 65535",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, origins: [«https://*.a.com»] }",
            "matched whole",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, origins: [«'null'»] }",
            "sandboxed",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, «origins»: ['*', https://a.com] }",
            "write it alone",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, origins: [https://a.com, «https://A.com:443»] }",
            "twice",
        ),
        (
            In::Route,
            "{ path: /a, pool: p, «origins»: [] }",
            "`origins` is empty",
        ),
    ]);
}

#[test]
fn routes_no_request_can_reach_are_shown() {
    check_table(&[
        (
            In::Route,
            "{ path: «/mcp», pool: web }",
            "the one on line 4 takes /mcp before it",
        ),
        (
            In::Route,
            "{ path: «/mcp», pool: web, host: a.com }",
            "no request can reach",
        ),
        (
            In::Route,
            "{ path_prefix: /t, pool: p }\n- { path: «/t/x», pool: web }",
            "takes /t and everything below it before it",
        ),
        (
            In::Route,
            "{ path_prefix: /t, pool: p }\n- { path_prefix: «/t/», pool: web }",
            "line 7",
        ),
        (
            In::Route,
            "{ path_prefix: /, pool: p }\n- { path: «/x», pool: web }",
            "takes every path",
        ),
        (
            In::Route,
            "{ host: '*.a.com', path: /x, pool: p }\n- { host: b.c.A.com, path: «/x», pool: web }",
            "no request can reach",
        ),
        (
            In::Route,
            "{ host: '*.a.com', path: /x, pool: p }\n- { host: '*.b.a.com', path: «/x», pool: p }",
            "no request can reach",
        ),
    ]);
}

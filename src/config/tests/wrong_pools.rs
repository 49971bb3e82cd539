//! Pools and endpoints that are wrong.

use super::{In, check_table, problems};

#[test]
fn pools_are_checked() {
    check_table(&[
        (In::Pool, "«keepAlive»: 4s", "did you mean `keep_alive`?"),
        (In::Pool, "«interval»: 4s", "it belongs under `health`"),
        (In::Pool, "«servers»: [a:1]", "did you mean `endpoints`?"),
        (In::Pool, "«quorum»: 1s", "its keys are kind, balance"),
        (In::Pool, "kind: «https»", "did you mean `http`?"),
        (
            In::Pool,
            "kind: «tcp»",
            "`kind` takes mcp | http, not `tcp`",
        ),
        (
            In::Pool,
            "balance: «leastload»",
            "did you mean `least_load`?",
        ),
        (
            In::Pool,
            "balance: «weighted»",
            "takes least_load | peak_ewma | random | round_robin | consistent_hash",
        ),
        (
            In::Pool,
            "ejection: { max_share: «0%» }",
            "too small; the least is 1%",
        ),
        (In::Pool, "ejection: { max_share: «50» }", "such as 50%"),
        (
            In::Pool,
            "ejection: { «base_time»: 10m }",
            "`max_time` is shorter than `base_time`",
        ),
        (
            In::Pool,
            "ejection: { base_time: 10s, «max_time»: 9s }",
            "`max_time` is shorter than `base_time`",
        ),
        (In::Pool, "ejection: { max_time: «9» }", "has no unit"),
        (
            In::Pool,
            "breaker: { failure_ratio: «101%» }",
            "too large; the most is 100%",
        ),
        (In::Pool, "breaker: { «ratio»: 5% }", "its keys are"),
        (In::Pool, "breaker: «on»", "must be a map such as"),
        (
            In::Pool,
            "slow_start: «2h»",
            "too large; the most is 1h; or `off`",
        ),
        (
            In::Pool,
            "«hash_on»: client_ip",
            "needs `balance: consistent_hash`",
        ),
        (
            In::Pool,
            "balance: consistent_hash\nhash_on: «cookie»",
            "\"cookie:NAME\" or \"query:NAME\"",
        ),
        (
            In::Pool,
            "balance: consistent_hash\nhash_on: «'header:a b'»",
            "not the name of a header",
        ),
        (
            In::Pool,
            "balance: consistent_hash\nhash_on: «'cookie:a b'»",
            "not the name of a cookie",
        ),
        (
            In::Pool,
            "balance: consistent_hash\nhash_on: «'query:a&b'»",
            "not the name of a parameter",
        ),
        (In::Pool, "on_endpoint_loss: «retry»", "takes not_found"),
        (In::Pool, "eras: «old»", "auto | session | stateless | both"),
        (In::Pool, "resolve_every: «30»", "write 30s"),
        (In::Pool, "resolve_every: «0s»", "the least is 1s"),
        (
            In::Pool,
            "name_servers: [«dns.example»]",
            "not an address such as 10.0.0.2",
        ),
        (In::Pool, "resolve_hold: «0s»", "the least is 1s; or `off`"),
        (In::Pool, "keep_alive: «off»", "is not a duration"),
        (In::Pool, "«affinity»: { cookie: A }", "needs `kind: http`"),
        (
            In::Http,
            "«affinity»: {}",
            "this affinity section has no `cookie`",
        ),
        (
            In::Http,
            "affinity: { cookie: «'a;b'» }",
            "not the name of a cookie",
        ),
        (
            In::Http,
            "affinity: «TIDEGATE»",
            "must be a map such as `cookie: TIDEGATE`",
        ),
        (In::Http, "«eras»: session", "`eras` is for MCP"),
        (In::Http, "«on_endpoint_loss»: not_found", "is for MCP"),
        (In::Http, "«x y»:\n  endpoints: [a:1]", "unknown key `x y`"),
    ]);
}

#[test]
fn names_of_pools_are_checked() {
    let file = |name: &str, reference: &str| {
        format!(
            "listeners: [{{ bind: 1.2.3.4:1 }}]\nroutes: [{{ path: /, pool: {reference} }}]\n\
             pools:\n  {name}:\n    endpoints: [a:1]\n"
        )
    };
    for (name, reference, message) in [
        ("a b", "a b", "a name has no ` `"),
        ("a:b", "'a:b'", "a name has no `:`"),
        ("wétter", "wétter", "a name has no `é`"),
    ] {
        let problems = problems(&file(name, reference));
        let [problem] = problems.as_slice() else {
            panic!("{problems}");
        };
        assert!(problem.message.contains(message), "{problem}");
        assert_eq!((problem.line, problem.column), (4, 3), "{problem}");
    }
}

#[test]
fn health_checks_are_checked() {
    check_table(&[
        (
            In::Pool,
            "health: «off»",
            "must be a map such as `interval: 2s`",
        ),
        (
            In::Pool,
            "health: { check: «ping» }",
            "takes mcp | http | tcp | none",
        ),
        (In::Pool, "health: { interval: «2» }", "write 2s"),
        (
            In::Pool,
            "health: { interval: «50ms» }",
            "the least is 100ms",
        ),
        (In::Pool, "health: { timeout: «0ms» }", "the least is 10ms"),
        (In::Pool, "health: { rise: «0» }", "the least is 1"),
        (In::Pool, "health: { fall: «three» }", "not a whole number"),
        (
            In::Pool,
            "health: { path: «mcp» }",
            "a path begins with `/`",
        ),
        (
            In::Pool,
            "health: { check: tcp, «path»: /mcp }",
            "needs `check: mcp` or `check: http`",
        ),
        (
            In::Pool,
            "health: { check: none, «path»: /mcp }",
            "needs `check: mcp`",
        ),
        (
            In::Http,
            "health: { «path»: /up }",
            "needs `check: mcp` or `check: http`",
        ),
        (
            In::Http,
            "health: { check: «mcp» }",
            "needs a pool of kind mcp",
        ),
        (
            In::Pool,
            "health: { check: tcp, «method»: GET }",
            "`method` needs `check: mcp` or `check: http`",
        ),
        (
            In::Pool,
            "health: { method: «GET» }",
            "auto | discover | ping | initialize",
        ),
        (
            In::Http,
            "health: { check: http, method: «ping» }",
            "GET | HEAD | OPTIONS | POST",
        ),
        (
            In::Http,
            "health: { check: http, method: «get» }",
            "did you mean `GET`?",
        ),
        (
            In::Pool,
            "eras: session\nhealth: { method: «discover» }",
            "do not know server/discover",
        ),
        (
            In::Pool,
            "eras: stateless\nhealth: { method: «ping» }",
            "write discover",
        ),
        (
            In::Pool,
            "health: { path: /sse, method: «ping» }",
            "leave `method` out",
        ),
        (
            In::Pool,
            "health: { «host»: a.example }",
            "`host` needs `check: http`",
        ),
        (
            In::Http,
            "health: { check: http, host: «'a b'» }",
            "is not a host",
        ),
        (
            In::Http,
            "health: { «expect»: { body: ok } }",
            "`expect` needs `check: http`",
        ),
        (
            In::Http,
            "health: { check: http, path: «'/up?a b'» }",
            "without spaces or #",
        ),
        (
            In::Http,
            "health: { check: http, expect: { status: «2xx» } }",
            "or a range such as 200-399",
        ),
        (
            In::Http,
            "health: { check: http, method: HEAD, expect: { body: «ok» } }",
            "has no body",
        ),
        (
            In::Http,
            "health: { check: http, expect: { body: «''» } }",
            "in every body",
        ),
        (
            In::Pool,
            "health: { interval: 1s, interval_fast: «2s» }",
            "longer than `interval`",
        ),
        (
            In::Pool,
            "health: { interval_down: «0s» }",
            "the least is 100ms",
        ),
        (
            In::Pool,
            "health: { check: none, «on_down»: end }",
            "nothing is found down",
        ),
        (In::Pool, "health: { «chek»: tcp }", "did you mean `check`?"),
        (
            In::Pool,
            "health:\n  «interval:2s»",
            "space is missing after the colon",
        ),
        (In::Pool, "health:\n  - «check»: tcp", "not a list"),
    ]);
}

#[test]
fn timeouts_are_checked() {
    check_table(&[
        (
            In::Pool,
            "timeouts: { connect: «5000» }",
            "has no unit; write 5000s, or another of: ms",
        ),
        (
            In::Pool,
            "timeouts: { connect: «off» }",
            "is not a duration",
        ),
        (In::Pool, "timeouts: { header: «off» }", "is not a duration"),
        (In::Pool, "timeouts: { header: «2d» }", "the most is 1d"),
        (In::Pool, "timeouts: { stream_idle: «50» }", "write 50s"),
        (In::Pool, "timeouts: { stream_idle: «never» }", "; or `off`"),
        (
            In::Pool,
            "timeouts: { total: «31d» }",
            "the most is 30d; or `off`",
        ),
        (In::Pool, "timeouts: { «read»: 1s }", "unknown key `read`"),
        (
            In::Pool,
            "timeouts: «5s»",
            "must be a map such as `connect: 1s`",
        ),
    ]);
}

#[test]
fn endpoints_are_checked() {
    check_table(&[
        (
            In::Endpoint,
            "«name»: a",
            "this endpoint has no `address` and no `srv`",
        ),
        (
            In::Endpoint,
            "{ srv: «mcp.example.org» }",
            "such as _mcp._tcp.example.org",
        ),
        (
            In::Endpoint,
            "{ srv: _mcp._tcp.example.org, «weight»: 2 }",
            "what the records of `srv` say",
        ),
        (
            In::Endpoint,
            "{ srv: _mcp._tcp.example.org, «address»: \"a:1\" }",
            "leave one of them out",
        ),
        (
            In::Endpoint,
            "{ address: \"10.0.0.1:9\", resolve: «all» }",
            "needs a name",
        ),
        (
            In::Endpoint,
            "«127.0.0.1»",
            "has no port; write for example 127.0.0.1:8080",
        ),
        (
            In::Endpoint,
            "«web»",
            "has no port; write for example web:8080",
        ),
        (In::Endpoint, "«web:http»", "from 1 to 65535"),
        (In::Endpoint, "«web:0»", "from 1 to 65535"),
        (In::Endpoint, "«web:65536»", "from 1 to 65535"),
        (
            In::Endpoint,
            "«tcp://web:443»",
            "host:port, http://host:port or https://host:port",
        ),
        (
            In::Endpoint,
            "«http://web:80/mcp»",
            "an endpoint has no path",
        ),
        (In::Endpoint, "«http://u:p@web:80»", "no user or password"),
        (In::Endpoint, "«::1:9001»", "brackets and quotes"),
        (In::Endpoint, "«'[::1]'»", "has no port"),
        (In::Endpoint, "«'[::g]:80'»", "not an IPv6 address"),
        (In::Endpoint, "«unix:run/a.sock»", "write an absolute path"),
        (In::Endpoint, "«10.0.0.300:80»", "not an IPv4 address"),
        (In::Endpoint, "«-web:80»", "not a host name"),
        (In::Endpoint, "«we b:80»", "not a host name"),
        (In::Endpoint, "«wéb:80»", "begins with xn--"),
        (In::Endpoint, "«[a:1]»", "this endpoint must be a map"),
        (
            In::Endpoint,
            "{ address: a:1, weight: «0» }",
            "the least is 1",
        ),
        (
            In::Endpoint,
            "{ address: a:1, weight: «257» }",
            "the most is 256",
        ),
        (
            In::Endpoint,
            "{ address: a:1, weight: «heavy» }",
            "not a whole number",
        ),
        (
            In::Endpoint,
            "{ address: a:1, backup: «yes» }",
            "neither true nor false",
        ),
        (
            In::Endpoint,
            "{ address: a:1, http2: «1» }",
            "neither true nor false",
        ),
        (
            In::Endpoint,
            "{ address: a:1, name: «a b» }",
            "a name has no ` `",
        ),
        (
            In::Endpoint,
            "{ address: a:1, «quorum»: 9 }",
            "its keys are name, address, srv, resolve, weight",
        ),
        (
            In::Endpoint,
            "{ «url»: a:1, address: a:1 }",
            "did you mean `address`?",
        ),
        (
            In::Endpoint,
            "{ address: a:1, «bakcup»: true }",
            "did you mean `backup`?",
        ),
        (
            In::Endpoint,
            "«a-host-whose-name-is-longer-than-sixty-four-characters.example.com:80»",
            "write a shorter `name`",
        ),
    ]);
}

#[test]
fn endpoints_that_collide_are_shown() {
    check_table(&[
        (
            In::Endpoint,
            "a:1\n- «A:1»",
            "a:1 is here twice; the first is on line 10",
        ),
        (
            In::Endpoint,
            "'[::1]:80'\n- «'[0:0::1]:80'»",
            "[::1]:80 is here twice",
        ),
        (In::Endpoint, "a:1\n- «http://a:1»", "here twice"),
        (
            In::Endpoint,
            "{ name: x, address: a:1 }\n- { name: «x», address: b:1 }",
            "named `x` as well",
        ),
        (
            In::Endpoint,
            "{ name: 'b:1', address: a:1 }\n- «b:1»",
            "named `b:1` as well",
        ),
    ]);
    let text = "listeners: [{ bind: 1.2.3.4:1 }]\nroutes: [{ path: /, pool: p }]\n\
                pools: { p: { «endpoints»: [{ address: a:1, backup: true }] } }\n";
    check_table(&[(In::File, text, "every endpoint is a backup")]);
}

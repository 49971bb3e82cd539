//! Files that are right, and what they mean.

use std::net::IpAddr;
use std::time::Duration;

use super::super::{
    Balance, Check, HashOn, HostRule, HttpCheck, HttpMethod, Level, LogTarget, McpQuestion,
    Origins, PathRule, PoolId, PoolKind, Severity, Transport, load, parse,
};
use super::{In, good, place, problems};

#[test]
fn every_word_for_off_means_off() {
    for off in ["off", "Off", "OFF", "false", "no", "'off'", "\"no\""] {
        let config = good(In::Root, &format!("admin: {off}\nlog: {{ access: {off} }}"));
        assert_eq!(config.admin.bind, None, "{off}");
        assert_eq!(config.admin.socket, None, "{off}");
        assert_eq!(config.log.access.to, LogTarget::Off, "{off}");
        let config = good(In::Root, &format!("admin: {{ bind: {off} }}"));
        assert_eq!(config.admin.bind, None, "{off}");
        let text = format!("timeouts: {{ total: {off}, stream_idle: {off} }}");
        let config = good(In::Pool, &text);
        assert_eq!(config.pools[0].timeouts.total, None, "{off}");
        assert_eq!(config.pools[0].timeouts.stream_idle, None, "{off}");
    }
}

#[test]
fn durations_and_sizes_are_taken_with_and_without_quotes() {
    let config = good(
        In::Root,
        "drain_timeout: '5m'\nlimits: { body: 1GiB, peek: \"2KiB\" }",
    );
    assert_eq!(config.drain_timeout, Duration::from_secs(300));
    assert_eq!(config.drain_jitter, Duration::from_secs(10));
    assert_eq!((config.limits.body, config.limits.peek), (1 << 30, 2048));
    let config = good(In::Pool, "timeouts: { connect: 250ms, total: 1d }");
    assert_eq!(config.pools[0].timeouts.connect, Duration::from_millis(250));
    assert_eq!(
        config.pools[0].timeouts.total,
        Some(Duration::from_secs(86_400))
    );
}

#[test]
fn protection_is_on_unless_it_is_switched_off() {
    let pool = good(In::Pool, "").pools.remove(0);
    let ejection = pool.ejection.expect("on");
    assert_eq!((ejection.failures, ejection.max_share), (5, 50));
    assert_eq!(pool.breaker.expect("on").trials, 3);
    assert_eq!(pool.slow_start, Duration::from_secs(10));
    let text = "ejection: off\nbreaker: no\nslow_start: off\nbalance: peak_ewma";
    let pool = good(In::Pool, text).pools.remove(0);
    assert_eq!((pool.ejection, pool.breaker), (None, None));
    assert_eq!(
        (pool.slow_start, pool.balance),
        (Duration::ZERO, Balance::PeakEwma)
    );
    let text = "ejection: { max_share: 1% }\nslow_start: 0s";
    let pool = good(In::Pool, text).pools.remove(0);
    assert_eq!(pool.ejection.expect("on").max_share, 1);
    assert_eq!(pool.slow_start, Duration::ZERO);
}

#[test]
fn a_default_follows_the_bound_beside_it() {
    let config = good(In::Root, "sessions: { max: 5 }\nlimits: { body: 2KiB }");
    assert_eq!(config.sessions.max_per_pool, 5);
    assert_eq!(config.limits.peek, 2048);
}

#[test]
fn transport_is_told_by_the_last_segment() {
    for (route, transport) in [
        ("path: /a/sse", Transport::Sse),
        ("path_prefix: /sse", Transport::Sse),
        ("path_prefix: /sse/", Transport::Sse),
        ("path: /asse", Transport::Streamable),
        ("path: /sse/a", Transport::Streamable),
        ("{ path: /sse, transport: streamable", Transport::Streamable),
        ("{ path: /x, transport: sse", Transport::Sse),
    ] {
        let text = match route.strip_prefix('{') {
            Some(_) => format!("{route}, pool: p }}"),
            None => format!("{route}\npool: p"),
        };
        let config = good(In::Route, &text);
        assert_eq!(config.routes[2].transport, transport, "{route}");
    }
}

#[test]
fn the_drain_jitter_is_a_third_of_a_short_drain_unless_it_is_set() {
    for (text, jitter) in [
        ("drain_timeout: 3s", 1000),
        ("drain_timeout: 0s", 0),
        ("drain_timeout: 3s\ndrain_jitter: 2s", 2000),
        ("drain_timeout: 3s\ndrain_jitter: 0s", 0),
    ] {
        let jitter = Duration::from_millis(jitter);
        assert_eq!(good(In::Root, text).drain_jitter, jitter, "{text}");
    }
}

#[test]
fn hosts_are_compared_without_case_and_by_whole_labels() {
    let config = good(In::Route, "{ path: /a, pool: p, host: Tools.Example.COM. }");
    let exact = HostRule::Exact("tools.example.com".to_owned());
    assert_eq!(config.routes[2].host, Some(exact));
    let config = good(In::Route, "{ path: /a, pool: p, host: '*.Example.com' }");
    let Some(below) = &config.routes[2].host else {
        panic!("the host is there");
    };
    assert_eq!(below, &HostRule::Below("example.com".to_owned()));
    for (host, taken) in [
        ("a.example.com", true),
        ("a.b.example.com", true),
        ("example.com", false),
        (".example.com", false),
        ("aexample.com", false),
    ] {
        assert_eq!(below.matches(host), taken, "{host}");
    }
    let config = good(In::Route, "{ path: /a, pool: p, host: '[::1]' }");
    assert_eq!(
        config.routes[2].host,
        Some(HostRule::Exact("::1".to_owned()))
    );
}

#[test]
fn prefixes_take_whole_segments() {
    let config = good(In::Route, "{ path_prefix: /tree/, pool: web }");
    let rule = &config.routes[2].path;
    assert_eq!(rule, &PathRule::Prefix("/tree".to_owned()));
    for (path, taken) in [
        ("/tree", true),
        ("/tree/", true),
        ("/tree/x", true),
        ("/treex", false),
    ] {
        assert_eq!(rule.matches(path), taken, "{path}");
    }
    assert!(PathRule::Prefix("/".to_owned()).matches("/anything"));
    assert_eq!(config.pool(config.routes[2].pool().unwrap()).name, "web");
    assert_eq!(config.pool_named("web"), Some(PoolId(1)));
    assert_eq!(config.pool_named("nothing"), None);
}

#[test]
fn routes_that_only_look_covered_are_let_be() {
    good(In::Route, "{ path: /mcp/, pool: p }");
    good(In::Route, "{ path_prefix: /mcp, pool: p }");
    good(
        In::Route,
        "{ path: /t, pool: p, host: a.com }\n- { path: /t, pool: web, host: b.com }",
    );
    good(
        In::Route,
        "{ path: /t, pool: p, host: a.com }\n- { path: /t, pool: web }",
    );
    good(
        In::Route,
        "{ path: /t, pool: p, host: '*.a.com' }\n- { path: /t, pool: web, host: a.com }",
    );
    good(
        In::Route,
        "{ path_prefix: /t/a, pool: p }\n- { path_prefix: /t, pool: web }",
    );
}

#[test]
fn origins_are_brought_to_one_form() {
    let route = |origins: &str| {
        let text = format!("{{ path: /a, pool: p{origins} }}");
        good(In::Route, &text).routes[2].origins.clone()
    };
    assert_eq!(route(""), Origins::Unset);
    assert_eq!(route(", origins: ['*']"), Origins::Any);
    let list =
        ", origins: [HTTPS://App.Example.com:443, 'http://[::1]:3000', vscode-webview://abc]";
    let expected = [
        "https://app.example.com",
        "http://[::1]:3000",
        "vscode-webview://abc",
    ];
    assert_eq!(
        route(list),
        Origins::List(expected.map(str::to_owned).to_vec())
    );
}

#[test]
fn endpoints_are_plain_or_maps() {
    let config = good(
        In::Endpoint,
        "127.0.0.1:9001\n- http://Web.Internal:80\n- '[::1]:9002'\n\
         - { name: w1, address: 10.0.0.1:8080, weight: 2, backup: true, http2: true }",
    );
    let endpoints = &config.pools[0].endpoints;
    let names: Vec<&str> = endpoints
        .iter()
        .map(|endpoint| endpoint.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["127.0.0.1:9001", "web.internal:80", "[::1]:9002", "w1"]
    );
    assert_eq!(
        endpoints[0].address.ip(),
        Some(IpAddr::from([127, 0, 0, 1]))
    );
    assert_eq!(endpoints[1].address.ip(), None);
    assert_eq!(endpoints[2].address.to_string(), "[::1]:9002");
    assert_eq!(
        endpoints[2].address.socket_addr(),
        "[::1]:9002".parse().ok()
    );
    let w1 = &endpoints[3];
    assert_eq!((w1.weight, w1.backup, w1.http2), (2, true, true));
}

#[test]
fn consistent_hash_looks_at_the_client_or_a_header() {
    let config = good(In::Pool, "balance: consistent_hash");
    assert_eq!(
        config.pools[0].balance,
        Balance::ConsistentHash(HashOn::ClientIp)
    );
    let config = good(In::Http, "balance: consistent_hash\nhash_on: header:X-User");
    for (text, on) in [
        ("path", HashOn::Path),
        ("cookie:sid", HashOn::Cookie("sid".to_owned())),
        ("'query: user'", HashOn::Query("user".to_owned())),
    ] {
        let config = good(
            In::Http,
            &format!("balance: consistent_hash\nhash_on: {text}"),
        );
        assert_eq!(config.pools[1].balance, Balance::ConsistentHash(on));
    }
    let Balance::ConsistentHash(HashOn::Header(name)) = &config.pools[1].balance else {
        panic!("a header was written");
    };
    assert_eq!(name.as_str(), "x-user");
}

#[test]
fn mcp_check_asks_where_clients_ask() {
    let check = |text: &str| good(In::Pool, text).pools[0].health.check.clone();
    let mcp = |path: &str, transport| Check::Mcp {
        path: path.to_owned(),
        transport,
        question: McpQuestion::Auto,
    };
    assert_eq!(check("eras: auto"), mcp("/mcp", Transport::Streamable));
    assert_eq!(
        check("health: { path: /x }"),
        mcp("/x", Transport::Streamable)
    );
    assert_eq!(
        check("health: { path: /x/sse }"),
        mcp("/x/sse", Transport::Sse)
    );
    let routes = |route: &str| {
        let text = format!(
            "listeners: [{{ bind: 1.2.3.4:1 }}]\nroutes: [{{ {route}, pool: p }}]\n\
             pools: {{ p: {{ endpoints: [a:1] }} }}\n"
        );
        let config = parse("good.yaml", &text).expect("the file is right");
        config.pools[0].health.check.clone()
    };
    assert_eq!(routes("path_prefix: /"), mcp("/mcp", Transport::Streamable));
    assert_eq!(
        routes("path_prefix: /tree"),
        mcp("/tree", Transport::Streamable)
    );
    assert_eq!(
        routes("path: /old, transport: sse"),
        mcp("/old", Transport::Sse)
    );
}

#[test]
fn http_pools_have_checks_and_cookies_of_their_own() {
    let config = good(
        In::Http,
        "health: { check: http }\naffinity: { cookie: TIDEGATE }",
    );
    let pool = &config.pools[1];
    assert_eq!(pool.kind, PoolKind::Http);
    assert_eq!(pool.affinity_cookie.as_deref(), Some("TIDEGATE"));
    let mut usual = HttpCheck {
        method: HttpMethod::Get,
        path: "/health".to_owned(),
        host: None,
        statuses: vec![200..=399],
        body: None,
    };
    assert_eq!(pool.health.check, Check::Http(usual.clone()));
    let text = "health: { check: http, method: POST, path: /up?x, host: \"a.example:81\", \
                expect: { status: \"204, 401\", body: fine } }";
    usual.method = HttpMethod::Post;
    usual.path = "/up?x".to_owned();
    usual.host = Some("a.example:81".to_owned());
    usual.statuses = vec![204..=204, 401..=401];
    usual.body = Some("fine".to_owned());
    assert_eq!(
        good(In::Http, text).pools[1].health.check,
        Check::Http(usual)
    );
    assert_eq!(good(In::Http, "health:").pools[1].health.check, Check::Tcp);
}

#[test]
fn intervals_of_checks_follow_the_usual_one_unless_they_are_written() {
    let intervals = |text: &str| {
        let health = good(In::Pool, &format!("health: {{ {text} }}")).pools[0]
            .health
            .clone();
        [health.interval, health.interval_fast, health.interval_down].map(|t| t.as_millis())
    };
    assert_eq!(intervals("rise: 2"), [2000, 500, 2000]);
    assert_eq!(intervals("interval: 200ms"), [200, 100, 200]);
    let all = "interval: 5s, interval_fast: 1s, interval_down: 1m";
    assert_eq!(intervals(all), [5000, 1000, 60_000]);
}

#[test]
fn an_mcp_check_asks_what_it_is_told_to() {
    let asks = |text: &str| match &good(In::Pool, text).pools[0].health.check {
        Check::Mcp { question, .. } => *question,
        other => panic!("{other:?}"),
    };
    assert_eq!(asks("eras: both"), McpQuestion::Auto);
    for (word, question) in [
        ("auto", McpQuestion::Auto),
        ("discover", McpQuestion::Discover),
        ("ping", McpQuestion::Ping),
        ("initialize", McpQuestion::Initialize),
    ] {
        assert_eq!(asks(&format!("health: {{ method: {word} }}")), question);
    }
}

#[test]
fn pool_without_a_route_is_only_warned_of() {
    let config = good(In::Root, "  spare:\n    endpoints: [a:1]");
    assert_eq!(config.pools.len(), 3);
    let [warning] = config.warnings.as_slice() else {
        panic!("{:?}", config.warnings);
    };
    assert_eq!(warning.severity, Severity::Warning);
    assert!(warning.message.contains("no route uses the pool `spare`"));
    assert_eq!(place(warning), (14, 3, 5));
    assert!(warning.to_string().starts_with("warning: "));
}

#[test]
fn anchors_repeat_a_value_within_bounds() {
    let config = good(
        In::Pool,
        "health: &slow { check: tcp, interval: 1m }\nkeep_alive: 1s\n",
    );
    assert_eq!(config.pools[0].health.interval, Duration::from_secs(60));
    let text = "listeners: [{ bind: 1.2.3.4:1 }]\n\
                routes: [{ path: /, pool: a }, { path: /b, pool: b }]\n\
                pools: { a: &a { endpoints: [a:1] }, b: *a }\n";
    assert_eq!(
        parse("good.yaml", text).expect("aliases are right").pools[1]
            .endpoints
            .len(),
        1
    );
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for level in 1..40 {
        let (below, nine) = (level - 1, format!("*a{} ,", level - 1).repeat(9));
        assert!(below < level);
        bomb += &format!("a{level}: &a{level} [{nine}]\n");
    }
    assert!(
        problems(&bomb)
            .to_string()
            .contains("more than 500000 values")
    );
    let deep = format!("a: {}1{}", "[".repeat(60), "]".repeat(60));
    assert!(problems(&deep).to_string().contains("more than 32 deep"));
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..60 {
        chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(problems(&chain).to_string().contains("more than 32 deep"));
}

#[test]
fn json_is_yaml() {
    let text = r#"{"listeners": [{"bind": "0.0.0.0:1", "max_connections": 5}],
        "routes": [{"path": "/mcp", "pool": "p", "origins": ["*"]}],
        "pools": {"p": {"endpoints": ["a:1"]}}, "log": {"level": "debug"}}"#;
    let config = parse("config.json", text).expect("JSON is taken");
    assert_eq!(config.listeners[0].max_connections, 5);
    assert_eq!(config.log.level, Level::Debug);
}

#[test]
fn line_ends_of_other_systems_and_byte_order_marks_are_taken() {
    let text = format!("\u{feff}{}", super::MINIMAL.replace('\n', "\r\n"));
    let config = parse("good.yaml", &text).expect("the file is right");
    assert_eq!(Ok(config), parse("good.yaml", super::MINIMAL));
}

#[test]
fn files_are_read_from_disk_or_refused_with_their_name() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("t.yaml");
    let missing = load(&path).expect_err("there is no file").to_string();
    assert!(missing.contains("cannot be read"), "{missing}");
    assert!(missing.contains(&path.display().to_string()), "{missing}");
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).expect("the file can be written");
    write(super::MINIMAL.as_bytes());
    assert_eq!(load(&path).map(|config| config.pools.len()), Ok(1));
    write(b"listeners:\n  - name: \xff\n");
    let binary = load(&path).expect_err("the file is not text");
    let problem = &binary.as_slice()[0];
    assert!(problem.message.contains("not UTF-8"), "{binary}");
    assert_eq!((problem.line, problem.column), (2, 11));
    write(&vec![b'#'; (4 << 20) + 1]);
    let long = load(&path).expect_err("the file is too long").to_string();
    assert!(long.contains("longer than 4MiB"), "{long}");
}

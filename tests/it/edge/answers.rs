//! Routes that answer by themselves: `return` and `redirect`.

use crate::support::tls::{Certificate, TlsDoor};
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Mcp, Response, Tidegate};

/// Routes with answers, then one of MCP and one of plain HTTP.
const ROUTES: &str = "\
- path: /gone
  return: { status: 410, body: \"gone for good\\n\", headers: { X-Where: \"$scheme://$host$request_uri\" } }
- path_prefix: /closed
  return: { status: 403 }
- path: /quiet
  return: { status: 204, headers: { X-Id: $request_id } }
- path: /page
  return: { body: \"<p>hi</p>\", headers: { Content-Type: text/html } }
- path_prefix: /old
  redirect: { to: \"https://new.example:8443$request_uri\", status: 308 }
- path: /here
  redirect: { to: \"/plain/there?from=$path&$query\" }
- path_prefix: /same
  redirect: { to: \"http://$host:81/x\", status: 302 }
- path: /mcp
  pool: main
- path_prefix: /
  pool: web";

async fn start(a: &Endpoint) -> Tidegate {
    let web = format!(
        "web: {{ kind: http, health: {{ check: none }}, endpoints: [\"{}\"] }}",
        a.address()
    );
    let build = Tidegate::build(&[a]).routes(ROUTES).pools(&web);
    build.start().await
}

async fn get(client: &Client, path: &str) -> Response {
    client
        .request("GET", path, &[("host", "asked.example:8080")], b"")
        .await
}

#[tokio::test]
async fn an_answer_is_what_the_file_says_whatever_is_asked() {
    let a = Endpoint::start("a").await;
    let gate = start(&a).await;
    let client = gate.client();
    let mut gone = get(&client, "/gone?x=%2F").await;
    assert_eq!(gone.status, 410);
    let kind = "text/plain; charset=utf-8";
    assert_eq!(gone.header("content-type"), Some(kind));
    let asked = "http://asked.example/gone?x=%2F";
    assert_eq!(gone.header("x-where"), Some(asked));
    assert_eq!(gone.text().await, "gone for good\n");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let mut closed = client.request(method, "/closed/x", &[], b"body").await;
        assert_eq!(closed.status, 403, "{method}");
        assert_eq!(closed.header("content-type"), None);
        assert_eq!(closed.text().await, "");
    }
    let mut page = get(&client, "/page").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html"))
    );
    assert_eq!(page.text().await, "<p>hi</p>");
    let mut quiet = get(&client, "/quiet").await;
    assert_eq!((quiet.status, quiet.header("content-length")), (204, None));
    let id = quiet.header("x-id").expect("an id").to_owned();
    quiet.text().await;
    let line = gate.logged(|line| line["path"] == "/quiet").await;
    assert_eq!(line["request_id"], id);
    assert_eq!(line["end_reason"], "local");
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let a = Endpoint::start("a").await;
    let gate = start(&a).await;
    let client = gate.client();
    let connection = client.connect().await.expect("a connection");
    let answer = client
        .try_request_on(connection, "HEAD", "/gone", &[], b"")
        .await;
    let mut answer = answer.expect("an answer");
    assert_eq!(answer.header("content-length"), Some("14"));
    assert_eq!(answer.text().await, "");
    // The connection goes on, to whatever route.
    let next = client
        .try_request_on(answer.into_connection(), "GET", "/plain", &[], b"")
        .await;
    assert_eq!(next.expect("an answer").status, 200);
}

#[tokio::test]
async fn redirects_name_a_host_of_the_operators_choice() {
    let a = Endpoint::start("a").await;
    let gate = start(&a).await;
    let client = gate.client();
    for (path, status, location) in [
        ("/old", 308, "https://new.example:8443/old"),
        (
            "/old/a%20b//c?d=http://evil.example",
            308,
            "https://new.example:8443/old/a%20b//c?d=http://evil.example",
        ),
        ("/here?a=1", 307, "/plain/there?from=/here&a=1"),
        ("/same/y", 302, "http://asked.example:81/x"),
    ] {
        let mut answer = get(&client, path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some(location))
        );
        answer.text().await;
    }
    // The path of an absolute target is taken; another host in it is not.
    let absolute = b"GET http://h.example//old/x HTTP/1.1\r\nhost: h.example\r\n\r\n";
    let answer = client.raw(absolute).await.expect("an answer");
    let location = answer.header("location");
    assert_eq!(location, Some("https://new.example:8443//old/x"));
    let differs = b"GET http://evil.example/same HTTP/1.1\r\nhost: h.example\r\n\r\n";
    assert_eq!(client.raw(differs).await.expect("an answer").status, 400);
    let nobody = b"GET /same HTTP/1.0\r\n\r\n";
    assert_eq!(client.raw(nobody).await.expect("an answer").status, 400);
}

#[tokio::test]
async fn http2_and_upgrades_get_the_same_answers() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = start(&a).await;
    let client = gate.h2_client().await;
    let answer = client.try_request("GET", "/gone", &[], b"").await;
    let mut answer = answer.expect("an answer");
    assert_eq!(answer.status, 410);
    assert_eq!(answer.text().await, "gone for good\n");
    let answer = client.try_request("POST", "/old/x", &[], b"body").await;
    let answer = answer.expect("an answer");
    assert_eq!(
        answer.header("location"),
        Some("https://new.example:8443/old/x")
    );
    for path in ["/closed/x", "/gone"] {
        let client = gate.client().with_path(path);
        let refused = WebSocket::connect(&client).await.expect_err("no WebSocket");
        assert!(matches!(refused.status, 403 | 410), "{refused:?}");
    }
}

#[tokio::test]
async fn a_closed_path_is_closed_in_every_spelling() {
    let a = Endpoint::start("a").await;
    let gate = start(&a).await;
    let client = gate.client();
    for path in [
        "/closed",
        "/%63losed/x",
        "//closed/x",
        "/closed//x",
        "/%63%6Cosed",
    ] {
        assert_eq!(get(&client, path).await.status, 403, "{path}");
    }
    for path in [
        "/plain/../closed",
        "/./closed",
        "/plain/%2e%2e/closed",
        "/plain/..;/closed",
        "/plain/..%2fclosed",
    ] {
        assert_eq!(get(&client, path).await.status, 400, "{path}");
    }
    let h2 = gate.h2_client().await;
    let answer = h2.try_request("GET", "/plain/%2E./closed", &[], b"").await;
    assert_eq!(answer.expect("an answer").status, 400);
    assert!(a.requests().is_empty());
    assert_eq!(get(&client, "/plain/a..b/.well-known").await.status, 200);
}

#[tokio::test]
async fn what_comes_without_tls_is_sent_to_where_it_is_spoken() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let tls = certificate.listener();
    let tls = tls.trim().to_owned();
    let address = a.address();
    let gate = Tidegate::build(&[&a])
        .more_ports(1)
        .config_with(move |places| {
            let tls = tls.replace('\n', "\n    ");
            format!(
                "listeners:\n  - bind: {}\n  - bind: {}\n    {tls}\n\
                 routes:\n  - path_prefix: /\n    scheme: http\n    \
                 redirect: {{ to: \"https://$host$request_uri\", status: 308 }}\n  \
                 - {{ path: /mcp, pool: main }}\n\
                 pools: {{ main: {{ health: {{ check: none }}, endpoints: [\"{address}\"] }} }}\n\
                 admin: {{ bind: \"{}\" }}\nstate_dir: {}\nlog: {{ access: off }}\n",
                places.listen,
                places.more[0],
                places.admin,
                places.state_dir().display(),
            )
        })
        .start()
        .await;
    let plain = gate
        .client()
        .request("POST", "/mcp?a=b", &[("host", "w.example:80")], b"{}")
        .await;
    assert_eq!(plain.status, 308);
    assert_eq!(plain.header("location"), Some("https://w.example/mcp?a=b"));
    let door = TlsDoor::open(gate.places().more[0], &certificate, &["http/1.1"]).await;
    let client = door.client();
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
}

#[tokio::test]
async fn answers_keep_to_the_rate_of_their_route() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /r\n  return: { status: 404 }\n  rate: { per_client: 1/h, burst: 2 }\n- path: /mcp\n  pool: main")
        .start()
        .await;
    let client = gate.client();
    for status in [404, 404, 429] {
        assert_eq!(get(&client, "/r").await.status, status);
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_scheme_and_address_are_the_clients() {
    const ROUTES: &str = "\
- path: /mcp
  pool: main
- { scheme: http, path_prefix: /, redirect: { to: \"https://$host$request_uri\" } }
- path_prefix: /
  return: { headers: { X-Who: \"$scheme $remote_addr\" } }";
    let a = Endpoint::start("a").await;
    let proxy = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("host", "h"),
    ];
    for (trusted, status, shown) in [
        ("127.0.0.1", 200, Some("https 203.0.113.9")),
        ("192.0.2.1", 307, None),
    ] {
        let config = format!("trusted_proxies: [{trusted}]");
        let build = Tidegate::build(&[&a]).routes(ROUTES).config(&config);
        let gate = build.start().await;
        let answer = gate.client().request("GET", "/x", &proxy, b"").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-who"), shown);
    }
}

//! CORS in the servers' place: what a browser asks, and what it may read.

use serde_json::json;

use crate::support::{Client, Endpoint, Headers, Mcp, Outgoing, Response, Tidegate};

const APP: &str = "https://app.example";

async fn mcp(a: &Endpoint, cors: &str) -> Tidegate {
    let route = format!("cors: {{ origins: [\"{APP}\"]{cors} }}");
    Tidegate::build(&[a]).route(&route).start().await
}

async fn preflight(
    client: &Client,
    path: &str,
    origin: &str,
    method: &str,
    names: &str,
) -> Response {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", names),
    ];
    client.request("OPTIONS", path, &headers, b"").await
}

/// Does a browser let a page send a request with this method and these fields (the Fetch standard,
/// section 4.8)?
fn allows(
    answer: &Response,
    origin: &str,
    credentials: bool,
    method: &str,
    names: &[&str],
) -> bool {
    let list = |name: &str| -> Vec<String> {
        let values = answer.headers().all(name);
        values
            .flat_map(|value| value.split(','))
            .map(|one| one.trim().to_ascii_lowercase())
            .collect()
    };
    let simple = ["get", "head", "post"];
    let method = method.to_ascii_lowercase();
    (200..300).contains(&answer.status)
        && may_read(answer.headers(), origin, credentials)
        && (simple.contains(&method.as_str())
            || list("access-control-allow-methods").contains(&method))
        && names
            .iter()
            .all(|name| list("access-control-allow-headers").contains(&(*name).to_owned()))
}

/// Does a browser let a page read an answer with these fields (section 4.10)?
fn may_read(headers: &Headers, origin: &str, credentials: bool) -> bool {
    let all = |name: &str| headers.all(name).map(str::to_owned).collect::<Vec<_>>();
    let origins = all("access-control-allow-origin");
    let [told] = origins.as_slice() else {
        return false;
    };
    match credentials {
        false => told == "*" || told == origin,
        true => told == origin && all("access-control-allow-credentials") == ["true"],
    }
}

fn exposes(headers: &Headers, name: &str) -> bool {
    let lists = headers.all("access-control-expose-headers");
    lists
        .flat_map(|list| list.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case(name))
}

#[tokio::test]
async fn a_page_may_speak_mcp() {
    let a = Endpoint::start("a").await;
    let gate = mcp(&a, "").await;
    let client = gate.client();
    let names = "authorization,content-type,last-event-id,mcp-method,mcp-name,mcp-param-region,mcp-protocol-version,mcp-session-id";
    let split: Vec<&str> = names.split(',').collect();
    for method in ["GET", "POST", "DELETE"] {
        let answer = preflight(&client, "/mcp", APP, method, names).await;
        assert_eq!(answer.status, 204);
        assert!(
            allows(&answer, APP, false, method, &split),
            "{method} {:?}",
            answer.headers()
        );
        assert!(
            !may_read(answer.headers(), APP, true),
            "without credentials"
        );
        assert_eq!(answer.header("access-control-max-age"), Some("3600"));
        let vary = answer.header("vary").expect("a Vary").to_ascii_lowercase();
        for name in [
            "origin",
            "access-control-request-headers",
            "access-control-request-method",
        ] {
            assert!(vary.contains(name), "{vary}");
        }
    }
    let answer = preflight(&client, "/mcp", APP, "PUT", "x-other").await;
    assert!(!allows(&answer, APP, false, "PUT", &[]));
    assert!(!allows(&answer, APP, false, "POST", &["x-other"]));
    assert!(a.requests().is_empty(), "preflights end here");
    let page = client.with_header("origin", APP);
    let begun = page.send_initialize().await;
    assert!(may_read(begun.headers(), APP, false));
    for name in [
        "mcp-session-id",
        "mcp-protocol-version",
        "www-authenticate",
        "retry-after",
    ] {
        assert!(exposes(begun.headers(), name), "{name}");
    }
    assert_eq!(begun.header("vary"), Some("Origin"));
    let session = page.initialize().await;
    assert_eq!(page.whoami(&session).await, "a");
    let stream = page.get_stream(&session, None).await;
    assert!(stream.is_stream() && may_read(stream.headers(), APP, false));
    assert!(may_read(page.delete(&session).await.headers(), APP, false));
    let unknown = page.delete(&session).await;
    assert_eq!(unknown.status, 404);
    assert!(
        may_read(unknown.headers(), APP, false),
        "a page may read what is wrong"
    );
}

#[tokio::test]
async fn another_page_is_told_nothing() {
    let a = Endpoint::start("a").await;
    let gate = mcp(&a, "").await;
    for origin in [
        "https://evil.example",
        "null",
        "http://app.example",
        "https://app.example.evil.example",
        "https://app.example:444",
    ] {
        let answer = preflight(&gate.client(), "/mcp", origin, "POST", "content-type").await;
        assert_eq!(answer.status, 403, "{origin}");
        assert!(!may_read(answer.headers(), origin, false));
        let call =
            Outgoing::stateless(&json!(1), "tools/list", None, json!({})).with("origin", origin);
        let answer = gate.client().send(call).await;
        assert_eq!(answer.status, 403);
        assert!(!may_read(answer.headers(), origin, false));
    }
    assert!(a.requests().is_empty());
    let call = Outgoing::stateless(&json!(1), "tools/list", None, json!({}));
    let answer = gate.client().send(call).await;
    assert_eq!(
        (answer.status, answer.header("vary")),
        (200, Some("Origin"))
    );
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn http2_asks_the_same() {
    let a = Endpoint::start("a").await;
    let gate = mcp(&a, ", credentials: true, max_age: 0s, expose: [X-Endpoint]").await;
    let client = gate.h2_client().await;
    let asks = [
        ("origin", APP),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "mcp-session-id"),
    ];
    let answer = client
        .try_request("OPTIONS", "/mcp", &asks, b"")
        .await
        .expect("an answer");
    assert!(allows(&answer, APP, true, "DELETE", &["mcp-session-id"]));
    assert_eq!(answer.header("access-control-max-age"), Some("0"));
    let call = Outgoing::stateless(&json!(1), "tools/list", None, json!({})).with("origin", APP);
    let answer = client.send(call).await;
    assert!(may_read(answer.headers(), APP, true));
    assert!(exposes(answer.headers(), "x-endpoint") && exposes(answer.headers(), "mcp-session-id"));
}

/// Routes of plain HTTP, by what they say of CORS.
async fn plain(a: &Endpoint, cors: &str) -> Tidegate {
    let routes = format!(
        "- path_prefix: /\n  pool: main\n  cors: {{ {cors} }}\n  response_headers: {{ set: {{ X-Route: r }} }}"
    );
    Tidegate::build(&[a])
        .routes(&routes)
        .pool("kind: http")
        .start()
        .await
}

#[tokio::test]
async fn plain_routes_answer_preflights_and_the_connection_goes_on() {
    let a = Endpoint::start("a").await;
    let gate = plain(
        &a,
        "origins: [\"https://app.example\"], credentials: true, headers: [\"*\"], methods: [PUT]",
    )
    .await;
    let client = gate.client();
    let answer = preflight(&client, "/plain/x", APP, "PUT", "x-one,x-two").await;
    assert_eq!(answer.status, 204);
    assert!(
        allows(&answer, APP, true, "PUT", &["x-one", "x-two"]),
        "{:?}",
        answer.headers()
    );
    assert!(!allows(&answer, APP, true, "DELETE", &[]));
    assert_eq!(answer.header("x-route"), Some("r"));
    let put = client
        .try_request_on(
            answer.into_connection(),
            "PUT",
            "/plain/x",
            &[("origin", APP)],
            b"body",
        )
        .await;
    let mut put = put.expect("an answer");
    assert!(may_read(put.headers(), APP, true));
    put.text().await;
    let other = client
        .request("GET", "/plain/x", &[("origin", "https://b.example")], b"")
        .await;
    assert_eq!((other.status, other.header("vary")), (200, Some("Origin")));
    assert!(!may_read(other.headers(), "https://b.example", false));
    let refused = preflight(&client, "/plain/x", "https://b.example", "PUT", "").await;
    assert_eq!(refused.status, 403);
    let h2 = gate.h2_client().await;
    let asks = [("origin", APP), ("access-control-request-method", "PUT")];
    let answer = h2
        .try_request("OPTIONS", "/plain/x", &asks, b"")
        .await
        .expect("an answer");
    assert!(allows(&answer, APP, true, "PUT", &[]));
    // An OPTIONS that no browser sends before a request is the server's to answer.
    let own = client.request("OPTIONS", "/plain/x", &[], b"").await;
    assert_eq!((own.status, a.requests().len()), (200, 3));
}

#[tokio::test]
async fn any_page_may_read_without_credentials() {
    let a = Endpoint::start("a").await;
    let gate = plain(&a, "origins: [\"*\"], expose: [\"*\"]").await;
    let answer = gate
        .client()
        .request("GET", "/plain", &[("origin", "null")], b"")
        .await;
    assert!(may_read(answer.headers(), "null", false));
    assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
    assert_eq!(answer.header("vary"), None);
    let asked = preflight(
        &gate.client(),
        "/plain",
        "https://x.example",
        "DELETE",
        "authorization",
    )
    .await;
    assert!(allows(
        &asked,
        "https://x.example",
        false,
        "DELETE",
        &["authorization"]
    ));
}

#[tokio::test]
async fn what_servers_say_of_cors_does_not_pass() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a listener");
    let address = server.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = server.accept().await else {
                return;
            };
            let wire = crate::support::wire::Wire::new(stream);
            if wire.request_head().await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\naccess-control-expose-headers: x\r\nvary: accept\r\n\r\n";
                let _ = wire.write(answer).await;
            }
        }
    });
    let nobody = Endpoint::start("nobody").await;
    let gate = Tidegate::build(&[&nobody])
        .routes("- path_prefix: /\n  pool: web\n  cors: { origins: [\"https://app.example\"] }")
        .pools(&format!(
            "web: {{ kind: http, health: {{ check: none }}, endpoints: [\"{address}\"] }}"
        ))
        .start()
        .await;
    let answer = gate
        .client()
        .request("GET", "/", &[("origin", APP)], b"")
        .await;
    assert!(may_read(answer.headers(), APP, false) && !may_read(answer.headers(), APP, true));
    assert_eq!(answer.header("access-control-expose-headers"), None);
    let vary: Vec<&str> = answer.headers().all("vary").collect();
    assert_eq!(vary, ["accept", "Origin"]);
    let answer = gate
        .client()
        .request("GET", "/", &[("origin", "https://evil.example")], b"")
        .await;
    assert!(!may_read(answer.headers(), "https://evil.example", false));
    task.abort();
}

//! The page for operators, as a browser gets it; `tests/sdk/console.py` looks at it in one.

use crate::support::{Client, Endpoint, Response, Tidegate};

async fn get(http: &Client, path: &str, headers: &[(&str, &str)]) -> Response {
    http.request("GET", path, headers, b"").await
}

#[tokio::test]
async fn the_page_and_its_files_come_with_what_keeps_others_out() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let http = gate.admin();
    let page = get(&http, "/console", &[]).await.text().await;
    assert_eq!(page, get(&http, "/", &[]).await.text().await);
    let mut paths: Vec<&str> = page
        .match_indices("\"/console/")
        .filter_map(|(at, _)| page[at + 1..].split('"').next())
        .collect();
    assert!(paths.len() > 8, "{paths:?}");
    paths.push("/console");
    let mut total = 0;
    for path in paths {
        let mut file = get(&http, path, &[]).await;
        assert_eq!(file.status, 200, "{path}");
        let expected = match path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(file.header("content-type"), Some(expected), "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(file.header("x-frame-options"), Some("DENY"));
        let policy = file.header("content-security-policy").expect("a policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(file.header("cache-control"), Some("no-cache"));
        let tag = file.header("etag").expect("a tag").to_owned();
        total += file.read_to_end().await.bytes.len();
        let mut again = get(&http, path, &[("if-none-match", &tag)]).await;
        assert_eq!(again.status, 304, "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        assert!(again.read_to_end().await.bytes.is_empty());
        let other = get(&http, path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!(other.status, 200, "{path}");
    }
    assert!(total < 150_000, "{total} bytes");
}

#[tokio::test]
async fn the_page_is_no_way_to_anything_else() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let http = gate.admin();
    for path in ["/console/..%2Fmetrics", "/console/index.html", "/console/x"] {
        assert_eq!(get(&http, path, &[]).await.status, 404, "{path}");
    }
    let rebound = get(&http, "/console", &[("host", "evil.example")]).await;
    assert_eq!(rebound.status, 403);
    let posted = http.request("POST", "/console", &[], b"").await;
    assert_eq!(posted.status, 405);
    let mut head = http.request("HEAD", "/console", &[], b"").await;
    assert_eq!(head.status, 200);
    assert!(head.read_to_end().await.bytes.is_empty());
}

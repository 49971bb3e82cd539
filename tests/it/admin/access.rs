//! Who may do what over the socket and over the address.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde_json::{Value, json};

use super::{ASKED, pair, said, shown};
use crate::support::{Client, Endpoint, Tidegate};

const DRAIN: &str = "/v1/pools/main/endpoints/a/drain";

async fn ask(client: &Client, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let headers = [headers, &[ASKED]].concat();
    let mut response = client.request(method, path, &headers, b"").await;
    (response.status, response.json().await)
}

#[tokio::test]
async fn the_address_lets_read_and_not_operate_unless_it_is_told_to() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let http = gate.admin();
    let (status, shown_there) = ask(&http, "GET", "/v1/status", &[]).await;
    assert_eq!(
        (status, &shown_there["process"]["level"]),
        (200, &json!("read"))
    );
    for (method, path) in [
        ("POST", DRAIN),
        ("POST", "/v1/pools/main/endpoints/a/weight"),
        ("DELETE", "/v1/sessions/00000000"),
    ] {
        let (status, refused) = ask(&http, method, path, &[]).await;
        assert_eq!(status, 403, "{path}");
        assert_eq!(refused["error"]["code"], "forbidden", "{path}");
    }
    assert_eq!(shown(&gate, "a").await["state"], "up");
    let audit = gate.stderr();
    assert!(audit.contains("drain \"main/a\": refused"), "{audit}");

    let gate = Tidegate::build(&[&a, &b])
        .admin("level: operate")
        .start()
        .await;
    let (status, done) = ask(&gate.admin(), "POST", DRAIN, &[]).await;
    assert_eq!((status, &done["pool"]), (202, &json!("main")));
}

#[tokio::test]
async fn a_web_page_reaches_nothing_of_it() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .admin("level: operate")
        .start()
        .await;
    let http = gate.admin();
    let own = format!("http://{}", gate.admin_address());
    for (headers, expected) in [
        (&[("host", "evil.example")][..], 403),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "http://localhost:3000")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site")], 403),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none")], 200),
        (&[("origin", own.as_str())], 200),
        (&[("host", "localhost")], 200),
    ] {
        let (status, _) = ask(&http, "GET", "/v1/status", headers).await;
        assert_eq!(status, expected, "{headers:?}");
        let (status, _) = ask(&http, "POST", DRAIN, headers).await;
        assert_eq!(status == 403, expected == 403, "{headers:?}");
    }
    let log = gate.stderr();
    assert_eq!(
        log.matches("/drain\": refused: the API answers").count(),
        6,
        "{log}"
    );
}

#[tokio::test]
async fn what_changes_something_at_the_address_shows_that_no_form_has_sent_it() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .admin("level: operate")
        .start()
        .await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for headers in [&[][..], &form] {
        let mut refused = gate.admin().request("POST", DRAIN, headers, b"").await;
        assert_eq!(refused.status, 403);
        let refused = refused.json().await;
        let message = refused["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains("X-Tidegate-Request"), "{message}");
    }
    assert_eq!(shown(&gate, "a").await["state"], "up");
    let (status, _) = ask(&gate.admin(), "POST", DRAIN, &[]).await;
    assert_eq!(status, 202);
    assert!(gate.verb(&["ready", "main/a"]).await.status.success());
}

#[tokio::test]
async fn what_is_no_request_of_the_api_is_answered_in_its_form() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).admin("level: operate").start().await;
    let http = gate.admin();
    for (method, path, status, code) in [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/pools/other", 404, "not_found"),
        ("GET", "/v1/pools/%zz", 400, "bad_request"),
        ("POST", "/v1/status", 405, "method_not_allowed"),
        ("GET", DRAIN, 405, "method_not_allowed"),
        ("PUT", "/v1/sessions/00000000", 405, "method_not_allowed"),
        ("GET", "/v1/sessions?limit=1001", 400, "bad_request"),
        ("GET", "/v1/sessions?after=x", 400, "bad_request"),
        ("GET", "/v1/sessions?pol=x", 400, "bad_request"),
        ("GET", "/v1/sessions/00000000", 404, "not_found"),
        ("POST", "/v1/pools/main/endpoints/a/stop", 404, "not_found"),
        (
            "POST",
            "/v1/pools/main/endpoints/a/weight",
            400,
            "bad_request",
        ),
    ] {
        let (found, answer) = ask(&http, method, path, &[]).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{method} {path}");
    }
    let long = vec![b' '; 65 * 1024];
    let mut response = http.request("POST", DRAIN, &[ASKED], &long).await;
    assert_eq!(response.status, 413);
    assert_eq!(response.json().await["error"]["code"], "too_large");
}

#[tokio::test]
async fn the_socket_has_its_mode_and_level_and_goes_with_the_process() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let socket = gate.places().admin_socket();
    let found = std::fs::metadata(&socket).expect("a socket");
    assert!(found.file_type().is_socket());
    assert_eq!(found.mode() & 0o777, 0o600);
    gate.restart().await;
    let done = gate.verb(&["status"]).await;
    assert!(done.status.success(), "after a kill: {}", said(&done));
    gate.signal("TERM");
    gate.wait_exit(crate::support::PATIENCE).await;
    assert!(!socket.exists());

    let gate = Tidegate::build(&[&a])
        .admin("socket_mode: 660, socket_level: read")
        .start()
        .await;
    let found = std::fs::metadata(gate.places().admin_socket()).expect("a socket");
    assert_eq!(found.mode() & 0o777, 0o660);
    assert!(gate.verb(&["status"]).await.status.success());
    let refused = gate.verb(&["maint", "main/a"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("may only read"),
        "{}",
        said(&refused)
    );

    let gate = Tidegate::build(&[&a]).admin("socket: off").start().await;
    assert!(!gate.places().admin_socket().exists());
}

#[tokio::test]
async fn a_socket_of_a_running_process_is_not_taken_from_it() {
    let a = Endpoint::start("a").await;
    let first = Tidegate::in_front_of(&[&a]).await;
    let socket = first.places().admin_socket();
    let path = socket.display().to_string();
    let refused = Tidegate::build(&[&a])
        .admin(&format!("socket: {path}"))
        .try_start()
        .await;
    let failure = refused.expect_err("it was asked for in so many words");
    assert!(failure.stderr.contains(&path), "{}", failure.stderr);
    assert!(first.verb(&["status"]).await.status.success());
    let plain = first.places().dir().join("plain");
    std::fs::write(&plain, "precious").expect("a file");
    let keys = format!("socket: {}", plain.display());
    let refused = Tidegate::build(&[&a]).admin(&keys).try_start().await;
    assert!(refused.is_err());
    assert_eq!(std::fs::read_to_string(&plain).expect("it"), "precious");
}

#[tokio::test]
async fn the_configuration_is_shown_with_its_defaults_and_without_secrets() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("sessions: { idle_ttl: 7m }")
        .start()
        .await;
    let (status, shown) = ask(&gate.admin(), "GET", "/v1/config", &[]).await;
    assert_eq!(status, 200);
    let config = &shown["config"];
    assert_eq!(config["sessions"]["idle_ttl"], "7m");
    assert_eq!(config["sessions"]["max"], 1_000_000);
    assert_eq!(config["pools"]["main"]["endpoints"][0]["name"], "a");
    assert_eq!(config["listeners"][0].get("tls"), None, "off unless set");
    let key = std::fs::read_to_string(gate.places().state_dir().join("session.key"));
    assert!(!shown.to_string().contains(key.expect("a key").trim()));
}

#[tokio::test]
async fn an_operation_leaves_a_line_that_says_who_did_what() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).start().await;
    let quiet = gate.config().replace("level: debug", "level: error");
    let mut gate = gate;
    gate.write_config(&quiet);
    gate.restart().await;
    gate.ask(&["weight", "main/a", "7"]).await;
    let log = gate.stderr();
    let line = log
        .lines()
        .find(|line| line.contains("weight \"main/a\" 7: done"));
    let line = line.unwrap_or_else(|| panic!("no such line: {log}"));
    let uid = std::fs::metadata("/proc/self").expect("it").uid();
    assert!(line.contains(&format!("uid {uid} pid ")), "{line}");
}

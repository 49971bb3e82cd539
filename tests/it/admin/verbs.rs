//! What the commands do and say.

use serde_json::{Value, json};

use super::{pair, said, shown};
use crate::support::{Endpoint, Mcp, Tidegate, text_of};

#[tokio::test]
async fn status_shows_every_endpoint_and_why_it_gets_what_it_gets() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .health("{ interval: 100ms, rise: 1, fall: 1 }")
        .endpoint("b", "weight: 3, max_in_flight: 9")
        .start()
        .await;
    let client = gate.client();
    client.initialize().await;
    let one = shown(&gate, "b").await;
    for (field, value) in [
        ("/state", json!("up")),
        ("/address", json!(b.address().to_string())),
        ("/resolved", json!(b.address().to_string())),
        ("/weight", json!(3)),
        ("/max_in_flight", json!(9)),
        ("/health/state", json!("up")),
        ("/health/reason", Value::Null),
        ("/admin/state", json!("up")),
        ("/admin/set_by", json!("config")),
        ("/breaker/state", json!("closed")),
        ("/ejected", json!(false)),
        ("/facts/issues_sessions", json!(true)),
    ] {
        assert_eq!(one.pointer(field), Some(&value), "{field}");
    }
    let status = gate.ask(&["status"]).await;
    assert_eq!(status["process"]["pid"], gate.pid());
    assert_eq!(status["process"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["process"]["ready"], "ready");
    assert_eq!(status["totals"]["sessions"], 1);
    b.kill().await;
    gate.metrics_when(|metrics| metrics.with("mcp_server_healthy", &[]) < 2.0)
        .await;
    let down = shown(&gate, "b").await;
    assert_eq!(down["state"], "down");
    let reason = down["health"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("refused"), "{reason}");
    let table = said(&gate.verb(&["status"]).await);
    let line = table.lines().find(|line| line.starts_with("main/b"));
    let line = line.expect("a line for it");
    for word in ["down", "0/9", "closed", reason] {
        assert!(line.contains(word), "{word}: {table}");
    }
}

#[tokio::test]
async fn an_endpoint_is_taken_out_and_put_back() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let done = gate.ask(&["maint", "main/a"]).await;
    assert_eq!(done["endpoint"]["state"], "maint");
    assert_eq!(done["endpoint"]["admin"]["set_by"], "operator");
    for _ in 0..8 {
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "b");
        assert_eq!(text_of(&client.modern_call("whoami", json!({})).await), "b");
    }
    let done = gate.ask(&["ready", "main/a"]).await;
    assert_eq!(done["endpoint"]["state"], "up");
    assert_eq!(done["endpoint"]["admin"]["set_by"], "config");
    gate.ask(&["maint", "main/b"]).await;
    assert_eq!(text_of(&client.modern_call("whoami", json!({})).await), "a");
}

#[tokio::test]
async fn maintenance_ends_what_is_open_with_words_of_its_own() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    gate.ask(&["weight", "main/b", "0"]).await;
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    a.until("it is open", |a| a.streams_open() == 1).await;
    gate.ask(&["maint", "main/a"]).await;
    let (_, end) = stream.events().rest().await;
    assert_eq!(end, crate::support::BodyEnd::Complete);
    let gone = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    a.until("its session is deleted", |a| a.sessions().is_empty())
        .await;
}

#[tokio::test]
async fn a_weight_holds_at_once_and_goes_back_to_the_configured_one() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .endpoint("a", "weight: 4")
        .start()
        .await;
    let client = gate.client();
    let done = gate.ask(&["weight", "main/a", "0"]).await;
    assert_eq!(done["endpoint"]["weight"], 0);
    assert_eq!(done["endpoint"]["weight_configured"], 4);
    for _ in 0..10 {
        assert_eq!(text_of(&client.modern_call("whoami", json!({})).await), "b");
    }
    let done = gate.ask(&["weight", "main/a", "default"]).await;
    assert_eq!(done["endpoint"]["weight"], 4);
    for wrong in ["257", "-1", "much"] {
        let output = gate.verb(&["weight", "main/a", wrong]).await;
        assert!(!output.status.success(), "{wrong}");
    }
    assert_eq!(shown(&gate, "a").await["weight"], 4);
}

#[tokio::test]
async fn calls_wait_for_a_limit_that_no_endpoint_had_before() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    gate.ask(&["max-in-flight", "main/a", "1"]).await;
    let client = gate.client();
    let slow = {
        let client = client.clone();
        tokio::spawn(async move { client.modern_call("slow", json!({"ms": 400})).await })
    };
    a.until("it runs", |a| a.in_flight() == 1).await;
    let waits = {
        let client = client.clone();
        tokio::spawn(async move { client.modern_call("whoami", json!({})).await })
    };
    gate.metrics_when(|metrics| metrics.sum("tidegate_calls_waiting") == 1.0)
        .await;
    let status = gate.ask(&["status"]).await;
    assert_eq!(status["pools"][0]["waiting"], 1);
    assert_eq!(a.in_flight(), 1, "the other one waits");
    gate.ask(&["max-in-flight", "main/a", "off"]).await;
    assert_eq!(text_of(&waits.await.expect("no panic")), "a");
    assert_eq!(text_of(&slow.await.expect("no panic")), "done");
    assert_eq!(shown(&gate, "a").await["max_in_flight"], Value::Null);
}

#[tokio::test]
async fn what_is_not_there_or_not_right_is_told_and_shown_in_the_exit_status() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    for (arguments, status, word) in [
        (&["drain", "main/x"][..], 1, "no endpoint main/x"),
        (&["drain", "other/a"], 1, "no endpoint other/a"),
        (&["drain", "main/a", "--timeout", "60"], 1, "unit"),
        (&["drain", "main"], 2, "a slash"),
        (&["weight", "main/a"], 2, "required"),
        (&["max-in-flight", "main/a", "some"], 2, "not a number"),
        (&["session", "end", "0"], 1, "no session 0"),
    ] {
        let output = gate.verb(arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn the_socket_is_found_by_the_configuration_and_missed_in_plain_words() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let file = gate.places().config_file();
    let file = file.to_str().expect("UTF-8");
    let found = Tidegate::command(&["status", "-c", file]).await;
    assert!(found.status.success(), "{}", said(&found));
    gate.kill().await;
    let gone = Tidegate::command(&["ready", "main/a", "-c", file]).await;
    assert_eq!(gone.status.code(), Some(3));
    assert!(said(&gone).contains("nobody listens"), "{}", said(&gone));
    let none = Tidegate::command(&["status", "--socket", "/no/such.sock"]).await;
    assert_eq!(none.status.code(), Some(3));
    let said_of_none = said(&none);
    assert!(said_of_none.contains("/no/such.sock"), "{said_of_none}");
    assert!(said_of_none.contains("-c FILE"), "{said_of_none}");
}

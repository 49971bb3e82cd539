//! What was set outlives the process.

use serde_json::{Value, json};

use super::{pair, said, shown};
use crate::support::{Mcp, Tidegate, eventually_some, text_of};

#[tokio::test]
async fn what_was_set_is_there_after_a_restart() {
    let (a, b) = pair().await;
    let mut gate = Tidegate::in_front_of(&[&a, &b]).await;
    gate.ask(&["maint", "main/a"]).await;
    gate.ask(&["weight", "main/b", "9"]).await;
    gate.ask(&["max-in-flight", "main/b", "3"]).await;
    gate.restart().await;
    let one = shown(&gate, "a").await;
    assert_eq!(
        (&one["state"], &one["admin"]["set_by"]),
        (&json!("maint"), &json!("operator"))
    );
    let other = shown(&gate, "b").await;
    assert_eq!(
        (&other["weight"], &other["max_in_flight"]),
        (&json!(9), &json!(3))
    );
    let client = gate.client();
    for _ in 0..6 {
        assert_eq!(text_of(&client.modern_call("whoami", json!({})).await), "b");
    }
    gate.ask(&["ready", "main/a"]).await;
    gate.ask(&["max-in-flight", "main/b", "default"]).await;
    gate.restart().await;
    assert_eq!(shown(&gate, "a").await["state"], "up");
    assert_eq!(shown(&gate, "b").await["max_in_flight"], Value::Null);
}

#[tokio::test]
async fn an_operators_word_counts_for_more_than_the_configuration() {
    let (a, b) = pair().await;
    let mut gate = Tidegate::build(&[&a, &b])
        .endpoint("a", "state: maint")
        .start()
        .await;
    assert_eq!(shown(&gate, "a").await["admin"]["set_by"], "config");
    gate.ask(&["ready", "main/a"]).await;
    gate.restart().await;
    let one = shown(&gate, "a").await;
    assert_eq!(
        (&one["state"], &one["admin"]["set_by"]),
        (&json!("up"), &json!("operator"))
    );
}

#[tokio::test]
async fn a_drain_goes_on_where_a_restart_has_interrupted_it() {
    let (a, b) = pair().await;
    let mut gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    gate.ask(&["weight", "main/b", "0"]).await;
    let session = client.initialize().await;
    gate.ask(&["weight", "main/b", "default"]).await;
    gate.ask(&["drain", "main/a", "--timeout", "4s"]).await;
    gate.restart().await;
    let one = shown(&gate, "a").await;
    assert_eq!(one["state"], "drain");
    assert!(one["admin"]["out_in_seconds"].as_u64() <= Some(4), "{one}");
    assert_eq!(client.whoami(&session).await, "a", "its own go on");
    let out = eventually_some(crate::support::PATIENCE, async || {
        let one = shown(&gate, "a").await;
        (one["state"] == "maint").then_some(())
    });
    assert!(out.await.is_some(), "it is out in the end");
    let gone = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    a.until("its session is deleted", |a| a.sessions().is_empty())
        .await;
    gate.restart().await;
    assert_eq!(shown(&gate, "a").await["state"], "maint");
}

#[tokio::test]
async fn a_file_that_cannot_be_understood_is_reported_and_passed_over() {
    let (a, b) = pair().await;
    let mut gate = Tidegate::in_front_of(&[&a, &b]).await;
    gate.ask(&["maint", "main/a"]).await;
    let file = gate.places().state_dir().join("endpoints.json");
    // Not while somebody may still write it.
    gate.kill().await;
    std::fs::write(&file, "{ \"version\": 1, \"endpoints\": [").expect("its file");
    gate.start_again().await;
    assert_eq!(shown(&gate, "a").await["state"], "up");
    let log = gate.stderr();
    assert!(log.contains("endpoints.json is passed over"), "{log}");
    gate.ask(&["maint", "main/b"]).await;
    gate.restart().await;
    assert_eq!(
        shown(&gate, "b").await["state"],
        "maint",
        "it is written anew"
    );
}

#[tokio::test]
async fn what_cannot_be_kept_is_done_all_the_same_and_said() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let file = gate.places().state_dir().join("endpoints.json");
    std::fs::create_dir(&file).expect("something in its way");
    let output = gate.verb(&["maint", "main/a"]).await;
    assert!(output.status.success());
    assert!(
        said(&output).contains("warning: it is lost with this process"),
        "{}",
        said(&output)
    );
    assert_eq!(shown(&gate, "a").await["state"], "maint");
}

#[tokio::test]
async fn a_reload_leaves_what_was_set_until_the_file_says_something_else() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    gate.ask(&["maint", "main/a"]).await;
    gate.ask(&["weight", "main/b", "9"]).await;
    gate.ask(&["max-in-flight", "main/b", "3"]).await;
    let before = gate.config();
    gate.write_config(&(before.clone() + "drain_timeout: 7s\n"));
    gate.reload(&gate.config()).await;
    assert_eq!(shown(&gate, "a").await["state"], "maint");
    let other = shown(&gate, "b").await;
    assert_eq!(
        (&other["weight"], &other["max_in_flight"]),
        (&json!(9), &json!(3))
    );
    gate.write_config(&before.replace("{ name: b,", "{ name: b, weight: 4,"));
    gate.reload(&gate.config()).await;
    assert_eq!(shown(&gate, "a").await["state"], "maint");
    let other = shown(&gate, "b").await;
    assert_eq!(
        (&other["weight"], &other["max_in_flight"]),
        (&json!(4), &json!(3))
    );
}

#[tokio::test]
async fn an_endpoint_that_is_no_longer_configured_is_shown_until_it_is_out() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .config("drain_timeout: 2s")
        .start()
        .await;
    gate.ask(&["weight", "main/b", "0"]).await;
    let session = gate.client().initialize().await;
    let config = gate.config();
    let of_a = config.lines().find(|line| line.contains("name: a,"));
    let of_a = of_a.expect("its line");
    gate.write_config(&config.replace(&format!("{of_a}\n"), ""));
    gate.reload(&gate.config()).await;
    let one = shown(&gate, "a").await;
    assert_eq!(
        (&one["state"], &one["configured"]),
        (&json!("drain"), &json!(false))
    );
    assert_eq!(one["address"], a.address().to_string());
    let refused = gate.verb(&["ready", "main/a"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("leaving"), "{}", said(&refused));
    let gone = eventually_some(crate::support::PATIENCE, async || {
        let gone = gate.verb(&["weight", "main/a", "1"]).await;
        said(&gone).contains("there is no endpoint").then_some(())
    });
    assert!(gone.await.is_some(), "it is forgotten when it is out");
    let lost = gate
        .client()
        .start_call(&session, "whoami", json!({}))
        .await;
    assert_eq!(lost.status, 404);
}

//! Looking at sessions, and ending one.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{ASKED, pair, said};
use crate::support::{Endpoint, Fault, Mcp, SessionId, Tidegate};

fn ids(page: &Value) -> Vec<String> {
    let sessions = page["sessions"].as_array().expect("a list").iter();
    sessions
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// The id of the only session that there is, and what is said of it.
async fn only(gate: &Tidegate) -> (String, Value) {
    let page = gate.ask(&["sessions"]).await;
    assert_eq!(page["total"], 1);
    (ids(&page).remove(0), page["sessions"][0].clone())
}

#[tokio::test]
async fn a_session_tells_the_revision_that_it_speaks() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    gate.client().initialize().await;
    let (_, session) = only(&gate).await;
    assert_eq!(session["revision"], "2025-11-25", "{session}");
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_and_without_their_ids() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let mut sealed = Vec::new();
    for _ in 0..25 {
        sealed.push(client.initialize().await);
    }
    let (mut seen, mut path) = (HashSet::new(), "/v1/sessions?limit=10".to_owned());
    let mut pages = 0;
    loop {
        let mut response = gate.admin().request("GET", &path, &[], b"").await;
        let page = response.json().await;
        assert!(ids(&page).len() <= 10);
        seen.extend(ids(&page));
        pages += 1;
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/sessions?limit=10&after={next}");
    }
    assert_eq!((seen.len(), pages), (25, 3));
    let all = gate.ask(&["sessions", "--limit", "20"]).await;
    assert_eq!(ids(&all).len(), 20);
    let of_a = gate.ask(&["sessions", "--endpoint", "a"]).await;
    let of_b = gate.ask(&["sessions", "--endpoint", "b"]).await;
    assert_eq!(ids(&of_a).len() + ids(&of_b).len(), 25);
    assert_eq!(ids(&of_a).len(), a.sessions().len());
    let none = gate.ask(&["sessions", "--pool", "other"]).await;
    assert!(ids(&none).is_empty());
    let text = said(&gate.verb(&["sessions"]).await) + &all.to_string();
    for SessionId(id) in &sealed {
        assert!(!text.contains(id.as_str()), "an id is shown");
    }
    for own in a.sessions().iter().chain(&b.sessions()) {
        assert!(!text.contains(own.as_str()), "a server's id is shown");
    }
}

#[tokio::test]
async fn a_session_is_found_by_what_the_access_log_calls_it_and_is_ended() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let _stream = client.get_stream(&session, None).await;
    a.until("it is open", |a| a.streams_open() == 1).await;
    let (id, shown) = only(&gate).await;
    for (field, value) in [
        ("pool", json!("main")),
        ("endpoint", json!("a")),
        ("open_streams", json!(1)),
        ("idle_seconds", json!(0)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let line = gate.logged(|line| line["mcp_method"] == "initialize").await;
    let tag = line["session"].as_str().expect("a session").to_owned();
    assert!(id.starts_with(&tag), "{id} {tag}");
    gate.ask(&["session", "end", &tag]).await;
    a.until("it is deleted", |a| a.sessions().is_empty()).await;
    let gone = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    assert_eq!(gate.ask(&["sessions"]).await["total"], 0);
    let again = gate.verb(&["session", "end", &id]).await;
    assert_eq!(again.status.code(), Some(1));
    let ended = [("reason", "operator")];
    gate.metrics_when(|m| m.with("tidegate_sessions_ended_total", &ended) == 1.0)
        .await;
}

#[tokio::test]
async fn a_session_stays_ended_whose_server_does_not_delete_it() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    client.whoami(&session).await;
    a.fault_when(Fault::Status(405, String::new()), |request| {
        request.method == "DELETE"
    });
    let (id, _) = only(&gate).await;
    gate.ask(&["session", "end", &id]).await;
    a.until("it was asked to", |a| a.faults_fired() == 1).await;
    assert_eq!(a.sessions().len(), 1, "it did not");
    for _ in 0..3 {
        let gone = client.start_call(&session, "whoami", json!({})).await;
        assert_eq!(gone.status, 404);
    }
    let fresh = client.initialize().await;
    assert_eq!(client.whoami(&fresh).await, "a");
}

#[tokio::test]
async fn many_sessions_are_ended_at_once_and_only_those_that_are_meant() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(client.initialize().await);
    }
    let of_a = a.sessions().len();
    let ended = gate.ask(&["sessions", "clear", "--endpoint", "a"]).await;
    assert_eq!(ended["ended"], of_a);
    a.until("they are deleted", |a| a.sessions().is_empty())
        .await;
    assert_eq!(gate.ask(&["sessions"]).await["total"], 20 - of_a);
    assert_eq!(b.sessions().len(), 20 - of_a);
    let mut gone = 0;
    for session in &sessions {
        let answer = client.start_call(session, "whoami", json!({})).await;
        gone += usize::from(answer.status == 404);
    }
    assert_eq!(gone, of_a);
    let text = said(&gate.verb(&["sessions", "clear", "--pool", "main"]).await);
    assert_eq!(text.trim(), format!("{} sessions are ended", 20 - of_a));
    b.until("they are deleted", |b| b.sessions().is_empty())
        .await;
    let none = gate.ask(&["sessions", "clear", "--all"]).await;
    assert_eq!(none["ended"], 0);
    let ended = [("reason", "operator")];
    gate.metrics_when(|m| m.with("tidegate_sessions_ended_total", &ended) == 20.0)
        .await;
    let audit = gate.stderr();
    for line in [
        format!("end_sessions \"*/a\" {of_a} sessions: done"),
        format!("end_sessions \"main\" {} sessions: done", 20 - of_a),
        "end_sessions \"all\" 0 sessions: done".to_owned(),
    ] {
        assert!(audit.contains(&line), "{line}: {audit}");
    }
}

#[tokio::test]
async fn no_session_is_ended_where_it_is_not_said_which_or_by_who_may_only_read() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    gate.client().initialize().await;
    for (arguments, status, word) in [
        (&["sessions", "clear"][..], 2, "say which"),
        (&["sessions", "clear", "--pool", "x"], 1, "no pool x"),
        (
            &["sessions", "clear", "--endpoint", "x"],
            1,
            "no endpoint */x",
        ),
        (
            &["sessions", "clear", "--all", "--pool", "main"],
            2,
            "cannot be used",
        ),
    ] {
        let output = gate.verb(arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let http = gate.admin();
    let refused = http
        .request("DELETE", "/v1/sessions?all=true", &[], b"")
        .await;
    assert_eq!(refused.status, 403);
    let open = Tidegate::build(&[&a]).admin("level: operate").start().await;
    for query in ["", "?", "?all=false", "?pool=main&all=true", "?poll=main"] {
        let path = format!("/v1/sessions{query}");
        let refused = open.admin().request("DELETE", &path, &[ASKED], b"").await;
        assert_eq!(refused.status, 400, "{query}");
    }
    assert_eq!(gate.ask(&["sessions"]).await["total"], 1);
}

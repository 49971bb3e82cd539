//! Pools and endpoints as rows, and what is open on them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{pair, said};
use crate::support::ws::WebSocket;
use crate::support::{Endpoint, Mcp, PATIENCE, Tidegate, eventually_some};

#[tokio::test]
async fn the_status_comes_as_rows_over_the_api_and_from_the_command() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .endpoint("a", "weight: 5")
        .start()
        .await;
    let mut answer = gate
        .admin()
        .request("GET", "/v1/pools?format=csv", &[], b"")
        .await;
    assert_eq!(answer.status, 200);
    let kind = answer.headers().get("content-type").map(str::to_owned);
    assert_eq!(
        kind.as_deref(),
        Some("text/csv; charset=utf-8; header=present")
    );
    let rows = answer.text().await;
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split(',').collect()).collect();
    let at = |name| {
        rows[0]
            .iter()
            .position(|column| *column == name)
            .expect("a column")
    };
    let named = |row: &Vec<&str>| (row[at("endpoint")].to_owned(), row[at("weight")].to_owned());
    let expected = [("a", "5"), ("b", "1"), ("", "6")];
    let expected = expected.map(|(name, weight)| (name.to_owned(), weight.to_owned()));
    assert_eq!(rows[1..].iter().map(named).collect::<Vec<_>>(), expected);
    assert!(
        rows.iter().all(|row| row.len() == rows[0].len()),
        "{rows:?}"
    );

    let output = gate.verb(&["status", "--csv"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let printed: Vec<Vec<&str>> = printed
        .lines()
        .map(|row| row.split(',').collect())
        .collect();
    assert_eq!(printed[0], rows[0]);
    assert_eq!(printed.len(), 4);
    let both = gate.verb(&["status", "--csv", "--json"]).await;
    assert_eq!(both.status.code(), Some(2), "one or the other");

    let odd = gate
        .admin()
        .request("GET", "/v1/pools?format=xml", &[], b"")
        .await;
    assert_eq!(odd.status, 400);
    let people = said(&gate.verb(&["status"]).await);
    assert!(
        people.contains("POOL") && people.contains("2/2"),
        "{people}"
    );
}

async fn open(gate: &Tidegate, query: &str) -> Vec<Value> {
    let path = format!("/v1/streams{query}");
    let mut answer = gate.admin().request("GET", &path, &[], b"").await;
    assert_eq!(answer.status, 200);
    let shown = answer.json().await;
    shown["open"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn what_is_open_is_listed_with_its_place_and_its_kind() {
    let a = Endpoint::named("a").websocket().start().await;
    let address = a.address();
    let gate = Tidegate::build(&[&a])
        .routes(
            "- path: /mcp\n  pool: main\n- path: /web\n  pool: web\n  rewrite: { prefix: /mcp }",
        )
        .pools(&format!(
            "web: {{ kind: http, endpoints: [\"{address}\"] }}"
        ))
        .start()
        .await;
    assert!(open(&gate, "").await.is_empty());
    let client = gate.client();
    let session = client.initialize().await;
    let events = client.get_stream(&session, None).await;
    let listening = client.listen().await;
    let socket = WebSocket::connect(&client).await.expect("it is open");
    let web = gate.client().with_path("/web");
    let plain = WebSocket::connect(&web).await.expect("it is open");
    let its_own = web.initialize().await;
    let news = web.get_stream(&its_own, None).await;
    let is = |kind: &str, pool: &str| (kind.to_owned(), pool.to_owned());
    let wanted = BTreeSet::from([
        is("get", "main"),
        is("listen", "main"),
        is("websocket", "main"),
        is("websocket", "web"),
        is("http", "web"),
    ]);
    let seen = async || {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let open = open(&gate, "").await;
        open.iter()
            .map(|one| (text(&one["kind"]), text(&one["pool"])))
            .collect::<BTreeSet<_>>()
    };
    let listed = eventually_some(PATIENCE, async || (seen().await == wanted).then_some(()));
    assert!(listed.await.is_some(), "{:?}", seen().await);
    let of_get = open(&gate, "?endpoint=a&pool=main").await;
    let of_get = of_get
        .iter()
        .find(|one| one["kind"] == "get")
        .expect("listed");
    let sessions = gate.ask(&["sessions"]).await;
    let id = sessions["sessions"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(
        of_get["session"],
        json!(id[..8]),
        "as the log and the sessions have it"
    );
    assert_eq!(open(&gate, "?limit=2").await.len(), 2);

    drop((events, listening, socket, plain, news));
    let gone = eventually_some(PATIENCE, async || {
        open(&gate, "").await.is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "{:?}", open(&gate, "").await);
}

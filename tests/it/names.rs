//! Names that stand for endpoints: they come and go as name servers say.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::support::dns::{NameServer, Record};
use crate::support::{Endpoint, Mcp, PATIENCE, Tidegate, eventually_some};

const QUICK: &str = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }";
const HERE: Record = Record::A(Ipv4Addr::LOCALHOST);
/// On the same machine, where nobody listens.
const ELSEWHERE: Record = Record::A(Ipv4Addr::new(127, 0, 0, 2));

/// A gateway whose one pool looks up its endpoints there.
async fn gate(names: &NameServer, a: &Endpoint, keys: &str, endpoint: &str) -> Tidegate {
    Tidegate::build(&[a])
        .routes("- path: /mcp\n  pool: named")
        .pools(&format!(
            "named: {{ health: {QUICK}, resolve_every: 1s, name_servers: [\"{}\"]{keys}, \
             endpoints: [{{ {endpoint} }}] }}",
            names.address()
        ))
        .start()
        .await
}

/// Waits until the endpoints of the pool are these, each with its state.
async fn until(gate: &Tidegate, wanted: &[(&str, &str)]) {
    let seen = async || {
        let pool = gate.ask(&["status"]).await;
        let pools = pool["pools"].as_array().expect("pools").clone();
        let named = pools.into_iter().find(|pool| pool["name"] == "named");
        let endpoints = named.expect("the pool")["endpoints"].clone();
        let endpoints = endpoints.as_array().expect("endpoints").clone();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let shown = endpoints
            .iter()
            .map(|one| (text(&one["name"]), text(&one["state"])));
        shown.collect::<Vec<_>>()
    };
    let is = |seen: &[(String, String)]| {
        let seen = seen
            .iter()
            .map(|(name, state)| (name.as_str(), state.as_str()));
        seen.eq(wanted.iter().copied())
    };
    let found = eventually_some(PATIENCE, async || is(&seen().await).then_some(()));
    assert!(
        found.await.is_some(),
        "{:?}\n{}",
        seen().await,
        gate.stderr()
    );
}

#[tokio::test]
async fn endpoints_come_and_go_with_the_addresses_of_their_name() {
    let a = Endpoint::start("a").await;
    let names = NameServer::start().await;
    names.set("api.test", &[HERE]);
    let address = format!("api.test:{}", a.address().port());
    let endpoint = format!("name: api, address: \"{address}\", resolve: all");
    let gate = gate(&names, &a, "", &endpoint).await;
    until(&gate, &[("api@127.0.0.1", "up")]).await;
    let client = gate.client();
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    let asked = a.requests();
    let host = asked.last().and_then(|asked| asked.header("host"));
    assert_eq!(host, Some(address.as_str()), "it is asked for by its name");

    names.set("api.test", &[ELSEWHERE, HERE]);
    until(&gate, &[("api@127.0.0.1", "up"), ("api@127.0.0.2", "down")]).await;
    assert_eq!(client.whoami(&session).await, "a", "nothing happened to it");

    names.set("api.test", &[ELSEWHERE]);
    until(
        &gate,
        &[("api@127.0.0.2", "down"), ("api@127.0.0.1", "drain")],
    )
    .await;
    assert_eq!(client.whoami(&session).await, "a", "while it is drained");
    names.set("api.test", &[HERE]);
    until(&gate, &[("api@127.0.0.1", "up")]).await;
    assert_eq!(client.whoami(&session).await, "a", "it was taken back");
}

#[tokio::test]
async fn addresses_of_a_name_that_is_gone_are_held_for_as_long_as_is_wanted() {
    for (resolve, name) in [("one", "api"), ("all", "api@127.0.0.1")] {
        let a = Endpoint::start("a").await;
        let names = NameServer::start().await;
        names.set("api.test", &[HERE]);
        let port = a.address().port();
        let endpoint = format!("name: api, address: \"api.test:{port}\", resolve: {resolve}");
        let gate = gate(&names, &a, ", resolve_hold: 3s", &endpoint).await;
        until(&gate, &[(name, "up")]).await;
        names.set("api.test", &[]);
        let warned = "cannot resolve api.test";
        let told = eventually_some(PATIENCE, async || {
            gate.stderr().contains(warned).then_some(())
        });
        assert!(told.await.is_some(), "{}", gate.stderr());
        until(&gate, &[(name, "up")]).await;
        // Its checks find it down then, since there is nowhere to ask.
        until(&gate, &[("api", "down")]).await;
        names.set("api.test", &[HERE]);
        until(&gate, &[(name, "up")]).await;
    }
}

#[tokio::test]
async fn a_service_is_its_servers_with_their_ports_and_weights() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let names = NameServer::start().await;
    names.set("one.test", &[HERE]);
    let record = |endpoint: &Endpoint, priority, weight| Record::Srv {
        priority,
        weight,
        port: endpoint.address().port(),
        target: "one.test",
    };
    names.set("_mcp._tcp.test", &[record(&a, 10, 30), record(&b, 20, 5)]);
    let gate = gate(&names, &a, "", "srv: _mcp._tcp.test, name: mcp").await;
    let name = |endpoint: &Endpoint| format!("mcp@{}", endpoint.address());
    let (of_a, of_b) = (name(&a), name(&b));
    let mut both = [(of_a.as_str(), "up"), (of_b.as_str(), "up")];
    both.sort_by_key(|(name, _)| {
        name.rsplit(':')
            .next()
            .and_then(|port| port.parse::<u16>().ok())
    });
    until(&gate, &both).await;
    let client = gate.client();
    for _ in 0..4 {
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "a", "the other backs it up");
    }
    let status = gate.ask(&["status"]).await;
    let shown = status["pools"].to_string();
    assert!(
        shown.contains("\"weight\":30") && shown.contains("\"weight\":5"),
        "{shown}"
    );
    let asked = a.requests();
    let host = asked
        .last()
        .and_then(|asked| asked.header("host").map(str::to_owned));
    assert_eq!(host, Some(format!("one.test:{}", a.address().port())));

    names.set("_mcp._tcp.test", &[record(&b, 20, 5)]);
    until(&gate, &[(&of_b, "up"), (&of_a, "drain")]).await;
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "b");
}

#[tokio::test]
async fn a_target_of_a_service_that_is_gone_is_held_for_as_long_as_is_wanted() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let names = NameServer::start().await;
    let record = |endpoint: &Endpoint, target| Record::Srv {
        priority: 1,
        weight: 1,
        port: endpoint.address().port(),
        target,
    };
    names.set("one.test", &[HERE]);
    names.set("two.test", &[HERE]);
    let records = [record(&a, "one.test"), record(&b, "two.test")];
    names.set("_mcp._tcp.test", &records);
    let gate = gate(
        &names,
        &a,
        ", resolve_hold: 3s",
        "srv: _mcp._tcp.test, name: mcp",
    )
    .await;
    let [of_a, of_b] = [&a, &b].map(|one| format!("mcp@{}", one.address()));
    let mut both = [(of_a.as_str(), "up"), (of_b.as_str(), "up")];
    both.sort_by_key(|(name, _)| {
        let port = name.rsplit(':').next();
        port.and_then(|port| port.parse::<u16>().ok())
    });
    until(&gate, &both).await;
    names.set("two.test", &[]);
    let told = eventually_some(PATIENCE, async || {
        gate.stderr()
            .contains("cannot resolve two.test")
            .then_some(())
    });
    assert!(told.await.is_some(), "{}", gate.stderr());
    until(&gate, &both).await;
    // It has no session to drain.
    until(&gate, &[(&of_a, "up")]).await;
    names.set("two.test", &[HERE]);
    until(&gate, &both).await;
}

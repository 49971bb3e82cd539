//! Which endpoint gets what no session binds.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{Endpoint, Mcp, Tidegate, text_of};

async fn three() -> [Endpoint; 3] {
    [
        Endpoint::start("a").await,
        Endpoint::start("b").await,
        Endpoint::start("c").await,
    ]
}

fn opened(endpoints: &[Endpoint]) -> Vec<usize> {
    endpoints.iter().map(Endpoint::sessions_opened).collect()
}

async fn whoami(client: &impl Mcp) -> String {
    text_of(&client.modern_call("whoami", json!({})).await)
}

#[tokio::test]
async fn least_load_spreads_sessions_evenly() {
    let endpoints = three().await;
    let gate = Tidegate::in_front_of(&endpoints.each_ref()).await;
    let client = gate.client();
    let mut sessions = Vec::new();
    for _ in 0..30 {
        sessions.push(client.initialize().await);
    }
    let counts = opened(&endpoints);
    assert_eq!(counts.iter().sum::<usize>(), 30);
    assert!(
        counts.iter().all(|count| (7..=13).contains(count)),
        "{counts:?}"
    );
    for endpoint in &endpoints {
        let metrics = gate.metrics().await;
        let labels = [("endpoint", endpoint.name())];
        let sessions = metrics.with("tidegate_endpoint_sessions", &labels);
        assert_eq!(sessions, endpoint.sessions().len() as f64);
    }
    for session in &sessions {
        assert_eq!(client.delete(session).await.status, 200);
    }
    assert_eq!(gate.metrics().await.sum("tidegate_endpoint_sessions"), 0.0);
}

#[tokio::test]
async fn least_load_avoids_the_busy_one() {
    let endpoints = [Endpoint::start("a").await, Endpoint::start("b").await];
    let gate = Tidegate::in_front_of(&endpoints.each_ref()).await;
    let client = gate.client();
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(client.listen().await);
    }
    let counts: Vec<usize> = endpoints.iter().map(Endpoint::streams_open).collect();
    assert_eq!(
        counts,
        [4, 4],
        "with two endpoints the lesser is always found"
    );
    let busy = whoami(&client).await;
    drop(held);
    assert!(["a", "b"].contains(&busy.as_str()));
}

#[tokio::test]
async fn least_load_minds_the_weights() {
    let endpoints = [Endpoint::start("a").await, Endpoint::start("b").await];
    let gate = Tidegate::build(&endpoints.each_ref())
        .endpoint("a", "weight: 3")
        .start()
        .await;
    let client = gate.client();
    for _ in 0..32 {
        client.initialize().await;
    }
    let counts = opened(&endpoints);
    assert!((22..=26).contains(&counts[0]), "{counts:?}");
}

#[tokio::test]
async fn round_robin_is_exact() {
    let endpoints = three().await;
    let gate = Tidegate::build(&endpoints.each_ref())
        .pool("balance: round_robin")
        .start()
        .await;
    let client = gate.client();
    for _ in 0..30 {
        client.initialize().await;
    }
    assert_eq!(opened(&endpoints), [10, 10, 10]);
    let mut names = Vec::new();
    for _ in 0..9 {
        names.push(whoami(&client).await);
    }
    assert_eq!(names[0..3], names[3..6]);
    assert_eq!(names[0..3], names[6..9]);
}

#[tokio::test]
async fn round_robin_minds_the_weights() {
    let endpoints = three().await;
    let gate = Tidegate::build(&endpoints.each_ref())
        .pool("balance: round_robin")
        .endpoint("a", "weight: 2")
        .start()
        .await;
    let client = gate.client();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..20 {
        *counts.entry(whoami(&client).await).or_default() += 1;
    }
    let counts: Vec<usize> = counts.into_values().collect();
    assert_eq!(counts, [10, 5, 5]);
}

#[tokio::test]
async fn a_hash_of_a_header_keeps_a_tenant_on_its_endpoint() {
    let endpoints = three().await;
    let gate = Tidegate::build(&endpoints.each_ref())
        // A hash that moves for the time of an ejection is not what is looked at here.
        .pool("balance: consistent_hash\nhash_on: \"header:x-tenant\"\nejection: off\nbreaker: off")
        .start()
        .await;
    let of = |tenant: usize| {
        let client = gate.client().with_header("x-tenant", &format!("t{tenant}"));
        async move {
            let name = whoami(&client).await;
            let session = client.initialize().await;
            assert_eq!(client.whoami(&session).await, name, "sessions too");
            name
        }
    };
    let mut before = Vec::new();
    for tenant in 0..24 {
        let name = of(tenant).await;
        assert_eq!(of(tenant).await, name, "stable");
        before.push(name);
    }
    for endpoint in &endpoints {
        assert!(before.iter().any(|name| name == endpoint.name()));
    }
    endpoints[1].kill().await;
    for (tenant, was) in before.iter().enumerate() {
        let now = of(tenant).await;
        assert_ne!(now, "b");
        if was != "b" {
            assert_eq!(now, *was, "those of the others stay");
        }
    }
    endpoints[1].restart().await;
    for (tenant, was) in before.iter().enumerate() {
        assert_eq!(of(tenant).await, *was, "and b gets its own back");
    }
}

#[tokio::test]
async fn a_hash_of_the_address_keeps_a_client_on_its_endpoint() {
    let endpoints = three().await;
    let gate = Tidegate::build(&endpoints.each_ref())
        .pool("balance: consistent_hash")
        .start()
        .await;
    let first = whoami(&gate.client()).await;
    for _ in 0..9 {
        assert_eq!(whoami(&gate.client()).await, first);
    }
    assert_eq!(whoami(&gate.h2_client().await).await, first);
}

#[tokio::test]
async fn a_backup_is_used_only_while_no_other_can_be() {
    let endpoints = three().await;
    let gate = Tidegate::build(&endpoints.each_ref())
        .endpoint("c", "backup: true")
        .health("{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }")
        .pool("eras: stateless")
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 3.0)
        .await;
    let client = gate.client();
    for _ in 0..10 {
        assert_ne!(whoami(&client).await, "c");
    }
    endpoints[0].kill().await;
    for _ in 0..10 {
        assert_eq!(whoami(&client).await, "b", "one primary is enough");
    }
    endpoints[1].kill().await;
    for _ in 0..5 {
        assert_eq!(whoami(&client).await, "c");
    }
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    for _ in 0..5 {
        assert_eq!(whoami(&client).await, "c");
    }
    endpoints[0].restart().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    for _ in 0..10 {
        assert_eq!(whoami(&client).await, "a", "and the backup rests again");
    }
}

#[tokio::test]
async fn a_call_goes_to_a_server_of_its_era() {
    let old = Endpoint::named("old").session_only().start().await;
    let new = Endpoint::named("new").stateless_only().start().await;
    let gate = Tidegate::build(&[&old, &new])
        .health("{ check: mcp, interval: 100ms, timeout: 500ms }")
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    // Both are known by now: the first check finds out what a server speaks.
    let client = gate.client();
    for _ in 0..10 {
        assert_eq!(whoami(&client).await, "new");
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "old");
        client.delete(&session).await;
    }
}

#[tokio::test]
async fn random_spreads_by_weight() {
    let endpoints = [Endpoint::start("a").await, Endpoint::start("b").await];
    let gate = Tidegate::build(&endpoints.each_ref())
        .pool("balance: random")
        .endpoint("a", "weight: 3")
        .start()
        .await;
    let client = gate.client();
    let mut of_a = 0;
    for _ in 0..200 {
        of_a += usize::from(whoami(&client).await == "a");
    }
    // Five standard deviations off 150.
    assert!((119..=181).contains(&of_a), "{of_a}");
}

#[tokio::test]
async fn a_hash_of_a_cookie_or_a_parameter_keeps_a_user_on_an_endpoint() {
    for on in ["cookie:user", "query:user"] {
        let endpoints = three().await;
        let gate = Tidegate::build(&endpoints.each_ref())
            .pool(&format!("balance: consistent_hash\nhash_on: \"{on}\""))
            .start()
            .await;
        let mut met = BTreeMap::new();
        for round in 0..3 {
            for user in 0..24 {
                let client = gate.client();
                let name = if on == "cookie:user" {
                    let cookie = format!("round={round}; user={user}");
                    whoami(&client.with_header("cookie", &cookie)).await
                } else {
                    let path = format!("/mcp?round={round}&user={user}");
                    whoami(&client.with_path(&path)).await
                };
                assert_eq!(
                    *met.entry(user).or_insert_with(|| name.clone()),
                    name,
                    "{on}"
                );
            }
        }
        for endpoint in &endpoints {
            assert!(met.values().any(|name| name == endpoint.name()), "{on}");
        }
    }
}

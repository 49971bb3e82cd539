//! A cookie keeps a browser on its endpoint, for as long as that can serve it.

use std::collections::BTreeSet;

use super::{build, cookie_of, name_of};
use crate::support::Endpoint;

#[tokio::test]
async fn a_cookie_keeps_a_browser_on_its_endpoint() {
    let (a, b, c) = (
        Endpoint::start("a").await,
        Endpoint::start("b").await,
        Endpoint::start("c").await,
    );
    let gate = build(&[&a, &b, &c])
        .pool("balance: round_robin\naffinity: { cookie: TIDEGATE }")
        .start()
        .await;
    let client = gate.client();
    let mut names = BTreeSet::new();
    for _ in 0..12 {
        let mut first = client.request("GET", "/plain", &[], b"").await;
        let cookie = cookie_of(&first).expect("a cookie");
        let owner = name_of(&mut first).await;
        for _ in 0..4 {
            let cookies = format!("a=1; {cookie}; b=2");
            let mut again = client
                .request("GET", "/plain", &[("cookie", &cookies)], b"")
                .await;
            assert_eq!(cookie_of(&again), None, "the cookie is set once");
            assert_eq!(name_of(&mut again).await, owner);
        }
        names.insert(owner);
    }
    assert_eq!(names.len(), 3, "browsers are spread");
    let mut odd = client
        .request("GET", "/plain", &[("cookie", "TIDEGATE=nonsense")], b"")
        .await;
    assert!(
        cookie_of(&odd).is_some(),
        "a cookie that names nobody is replaced"
    );
    name_of(&mut odd).await;
}

#[tokio::test]
async fn a_browser_moves_when_its_endpoint_is_down() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = build(&[&a, &b])
        .pool("affinity: { cookie: TIDEGATE }")
        .start()
        .await;
    let client = gate.client();
    let mut first = client.request("GET", "/plain", &[], b"").await;
    let cookie = cookie_of(&first).expect("a cookie");
    let owner = name_of(&mut first).await;
    let (dead, other) = if owner == "a" { (&a, "b") } else { (&b, "a") };
    dead.kill().await;
    let mut moved = client
        .request("POST", "/plain", &[("cookie", &cookie)], b"body")
        .await;
    let fresh = cookie_of(&moved).expect("a new cookie");
    assert_ne!(fresh, cookie);
    assert_eq!(name_of(&mut moved).await, other);
    dead.restart().await;
    for _ in 0..5 {
        let mut again = client
            .request("GET", "/plain", &[("cookie", &fresh)], b"")
            .await;
        assert_eq!(name_of(&mut again).await, other, "it stays where it is now");
    }
}

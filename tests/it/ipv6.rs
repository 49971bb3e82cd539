//! IPv6 on both sides, and IPv4 on the same socket.

use std::net::{Ipv6Addr, SocketAddr};

use serde_json::json;

use crate::support::door::{Door, Far};
use crate::support::tidegate::Builder;
use crate::support::{Client, Endpoint, Mcp, Tidegate};

/// One that listens on `[::]`, at the port that was reserved.
fn build(a: &Endpoint, listener: &str) -> Builder {
    let (address, listener) = (a.address(), listener.to_owned());
    Tidegate::build(&[a]).config_with(move |places| {
        let (port, dir, admin) = (places.listen.port(), places.dir().display(), places.admin);
        format!(
            "listeners: [{{ bind: \"[::]:{port}\"{listener} }}]\nroutes: [{{ path: /mcp, pool: main }}]\n\
             pools: {{ main: {{ health: {{ check: none }}, endpoints: [\"{address}\"] }} }}\n\
             admin: {{ bind: \"{admin}\" }}\nstate_dir: {dir}/state\n\
             log: {{ access: {dir}/access.log, level: debug }}\n"
        )
    })
}

fn over(gate: &Tidegate, address: &str) -> Client {
    let ip = address.parse().expect("an address");
    Client::new(SocketAddr::new(ip, gate.address().port()))
}

#[tokio::test]
async fn one_socket_takes_both_families() {
    let a = Endpoint::start("a").await;
    let gate = build(&a, "").start().await;
    for (address, seen) in [("::1", "::1"), ("127.0.0.1", "127.0.0.1")] {
        let client = over(&gate, address);
        let session = client.initialize().await;
        client.whoami(&session).await;
        let requests = a.requests();
        let last = requests.last().expect("a request");
        assert_eq!(last.headers.get("x-forwarded-for"), Some(seen));
        gate.logged(|line| line["client"] == seen).await;
    }
}

#[tokio::test]
async fn a_socket_of_ipv6_alone_leaves_the_port_of_ipv4_to_others() {
    let a = Endpoint::start("a").await;
    let gate = build(&a, ", ipv6_only: true").start().await;
    let client = over(&gate, "::1");
    client.modern_call("whoami", json!({})).await;
    let refused = over(&gate, "127.0.0.1").connect().await;
    assert!(refused.is_err(), "nobody listens there");
}

#[tokio::test]
async fn an_endpoint_may_be_at_an_ipv6_address() {
    let a = Endpoint::start("a").await;
    let listener = tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await;
    let door = Door::on_listener(listener.expect("a port"), Far::Tcp(a.address()));
    let gate = Tidegate::build(&[])
        .also_at("six", door.address())
        .health("{ check: mcp, interval: 100ms }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    let asked = a.calls("initialize");
    let last = asked.last().expect("a request");
    let host = door.address().to_string();
    assert_eq!(last.headers.get("host"), Some(host.as_str()));
}

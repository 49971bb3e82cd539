//! Unix sockets, where a proxy and its neighbour are on one machine.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::door::{Door, Far};
use crate::support::h2::H2Client;
use crate::support::tidegate::{Builder, Places};
use crate::support::tls::{Certificate, TlsDoor};
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Mcp, Tidegate};

fn socket(places: &Places) -> std::path::PathBuf {
    places.dir().join("edge.sock")
}

/// One that accepts on a socket in its directory, for MCP and for plain HTTP.
fn listening(a: &Endpoint, listener: &str, top: &str) -> Builder {
    let (address, listener, top) = (a.address(), listener.to_owned(), top.to_owned());
    Tidegate::build(&[a]).config_with(move |places| {
        let (dir, admin) = (places.dir().display(), places.admin);
        let (socket, state) = (socket(places), places.state_dir());
        format!(
            "listeners:\n  - {{ bind: \"unix:{}\"{listener} }}\nroutes:\n  \
             - {{ path: /mcp, pool: main }}\n  - {{ path_prefix: /, pool: plain }}\npools:\n  \
             main: {{ health: {{ check: none }}, endpoints: [\"{address}\"] }}\n  \
             plain: {{ kind: http, health: {{ check: none }}, endpoints: [\"{address}\"] }}\n\
             admin: {{ bind: \"{admin}\" }}\nstate_dir: {}\n\
             log: {{ access: {dir}/access.log, level: debug }}\nthreads: 2\n{top}\n",
            socket.display(),
            state.display(),
        )
    })
}

async fn door(gate: &Tidegate) -> Door {
    Door::plain(Far::Unix(socket(gate.places()))).await
}

async fn ask_in_every_way(client: &Client) {
    let session = client.initialize().await;
    client.whoami(&session).await;
    drop(client.get_stream(&session, None).await);
    drop(WebSocket::connect(client).await.expect("a WebSocket"));
    assert_eq!(client.request("PUT", "/plain", &[], b"x").await.status, 200);
    let h2 = H2Client::connect(client.address()).await.expect("HTTP/2");
    h2.modern_call("whoami", json!({})).await;
    let plain = h2.try_request("GET", "/plain", &[], b"").await;
    assert_eq!(plain.expect("an answer").status, 200);
}

fn told(a: &Endpoint, name: &str) -> Vec<Option<String>> {
    let requests = a.requests();
    assert!(!requests.is_empty());
    let value = |value: &str| value.to_owned();
    let mut told: Vec<Option<String>> = requests
        .iter()
        .map(|request| request.headers.get(name).map(value))
        .collect();
    told.dedup();
    told
}

#[tokio::test]
async fn everything_is_served_on_a_unix_socket() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = listening(&a, "", "").start().await;
    let facts = std::fs::metadata(socket(gate.places())).expect("the socket");
    assert_eq!(facts.permissions().mode() & 0o777, 0o660);
    let door = door(&gate).await;
    ask_in_every_way(&Client::new(door.address()).with_header("x-forwarded-for", "198.51.100.1"))
        .await;
    // There is nobody to name, and nobody is believed.
    assert_eq!(told(&a, "x-forwarded-for"), [None]);
    assert_eq!(told(&a, "x-forwarded-proto"), [Some("http".to_owned())]);
    let line = gate.logged(|line| line["path"] == "/mcp").await;
    assert_eq!(line["client"], Value::Null);
}

#[tokio::test]
async fn a_trusted_neighbour_says_who_the_client_is() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = listening(&a, ", mode: \"0600\"", "trusted_proxies: [unix]")
        .start()
        .await;
    let facts = std::fs::metadata(socket(gate.places())).expect("the socket");
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    let door = door(&gate).await;
    let client = Client::new(door.address()).with_header("x-forwarded-for", "198.51.100.1");
    let session = client.initialize().await;
    client.whoami(&session).await;
    assert_eq!(
        told(&a, "x-forwarded-for"),
        [Some("198.51.100.1".to_owned())]
    );
    gate.logged(|line| line["client"] == "198.51.100.1").await;
}

#[tokio::test]
async fn the_proxy_protocol_and_tls_work_on_it() {
    let a = Endpoint::named("a").websocket().start().await;
    let certificate = Certificate::new();
    let tls = certificate
        .listener()
        .replace("tls:", ", tls:")
        .replace('\n', " ");
    let listener = format!(", proxy_protocol: true{tls}");
    let gate = listening(&a, &listener, "").start().await;
    let line = b"PROXY TCP6 2001:db8::7 2001:db8::9 56324 443\r\n";
    let front = Door::announcing(Far::Unix(socket(gate.places())), line).await;
    let door = TlsDoor::open(front.address(), &certificate, &["http/1.1"]).await;
    let client = door.client();
    let session = client.initialize().await;
    client.whoami(&session).await;
    assert_eq!(client.request("GET", "/plain", &[], b"").await.status, 200);
    assert_eq!(
        told(&a, "x-forwarded-for"),
        [Some("2001:db8::7".to_owned())]
    );
    assert_eq!(told(&a, "x-forwarded-proto"), [Some("https".to_owned())]);
}

#[tokio::test]
async fn a_socket_left_behind_is_taken_over_and_one_in_use_is_not() {
    let a = Endpoint::start("a").await;
    let mut gate = listening(&a, "", "").start().await;
    gate.restart().await;
    let door = door(&gate).await;
    Client::new(door.address())
        .modern_call("whoami", json!({}))
        .await;
    let text = gate
        .config()
        .replace(&gate.admin_address().to_string(), "127.0.0.1:0");
    let second = gate.places().dir().join("second.yaml");
    std::fs::write(&second, text).expect("a file in our own directory");
    let output = Tidegate::command(&["-c", second.to_str().expect("a path in UTF-8")]).await;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another process listens there"), "{said}");
    Client::new(door.address())
        .modern_call("whoami", json!({}))
        .await;
}

#[tokio::test]
async fn connections_to_it_survive_a_drain() {
    let a = Endpoint::start("a").await;
    let mut gate = listening(&a, "", "").start().await;
    let door = door(&gate).await;
    let client = Client::new(door.address());
    let session = client.initialize().await;
    let call = client
        .start_call(&session, "slow", json!({"ms": 300}))
        .await;
    gate.signal("TERM");
    let mut call = call;
    assert_eq!(call.status, 200);
    call.rpc().await;
    assert!(gate.wait_exit(crate::support::PATIENCE).await.success());
}

#[tokio::test]
async fn a_reload_keeps_it_open_and_changes_what_is_about_it() {
    let a = Endpoint::start("a").await;
    let gate = listening(&a, "", "").start().await;
    let door = door(&gate).await;
    let client = Client::new(door.address());
    let session = client.initialize().await;
    let stream = client.get_stream(&session, None).await;
    let edge = |text: &str| {
        text.replace(
            "edge.sock\"",
            "edge.sock\", mode: \"0640\", proxy_protocol: true",
        )
    };
    gate.reload(&edge(&gate.config())).await;
    let facts = std::fs::metadata(socket(gate.places())).expect("the socket");
    assert_eq!(facts.permissions().mode() & 0o777, 0o640);
    let line = b"PROXY TCP4 198.51.100.7 203.0.113.9 56324 443\r\n";
    let announcing = Door::announcing(Far::Unix(socket(gate.places())), line).await;
    let again = Client::new(announcing.address());
    assert_eq!(again.whoami(&session).await, "a");
    let last = a.requests().pop().expect("a request");
    assert_eq!(last.headers.get("x-forwarded-for"), Some("198.51.100.7"));
    drop(stream);
}

#[tokio::test]
async fn an_upgrade_hands_it_over() {
    let a = Endpoint::start("a").await;
    let mut gate = listening(&a, "", "").start().await;
    let door = door(&gate).await;
    let client = Client::new(door.address());
    let session = client.initialize().await;
    crate::upgrade::upgrade(&mut gate).await;
    assert!(gate.wait_exit(crate::support::PATIENCE).await.success());
    // The old one is gone, and its file is where the new one's socket is.
    for _ in 0..4 {
        assert_eq!(client.whoami(&session).await, "a");
    }
}

/// One in front of an endpoint on a unix socket, for MCP and for plain HTTP.
fn in_front_of_socket(check: &str) -> Builder {
    let check = check.to_owned();
    Tidegate::build(&[]).config_with(move |places| {
        let dir = places.dir().display();
        let (listen, admin, state) = (places.listen, places.admin, places.state_dir());
        let endpoints = format!("endpoints: [\"unix:{dir}/a.sock\"]");
        format!(
            "listeners: [{{ bind: \"{listen}\" }}]\nroutes:\n  \
             - {{ path: /mcp, pool: main }}\n  - {{ path_prefix: /, pool: plain }}\npools:\n  \
             main: {{ health: {{ check: {check}, interval: 100ms }}, {endpoints} }}\n  \
             plain: {{ kind: http, health: {{ check: none }}, {endpoints} }}\n\
             admin: {{ bind: \"{admin}\" }}\nstate_dir: {}\n\
             log: {{ access: {dir}/access.log, level: debug }}\n",
            state.display(),
        )
    })
}

#[tokio::test]
async fn an_endpoint_may_be_on_a_unix_socket() {
    for check in ["mcp", "http, path: /plain", "tcp", "none"] {
        let a = Endpoint::named("a").websocket().start().await;
        let gate = in_front_of_socket(check).start().await;
        let path = gate.places().dir().join("a.sock");
        let door = Door::on_socket(&path, a.address());
        if check != "none" {
            gate.metrics_when(|m| m.sum("mcp_server_healthy") >= 1.0)
                .await;
        }
        ask_in_every_way(&gate.client()).await;
        let mut hosts = told(&a, "host");
        hosts.dedup();
        assert!(hosts.contains(&Some("localhost".to_owned())), "{hosts:?}");
        let before = a.connections_accepted();
        let session = gate.client().initialize().await;
        for _ in 0..3 {
            gate.client().whoami(&session).await;
        }
        for _ in 0..3 {
            assert_eq!(
                gate.client()
                    .request("GET", "/plain", &[], b"")
                    .await
                    .status,
                200
            );
        }
        assert!(
            a.connections_accepted() <= before + 4,
            "connections are kept"
        );
        drop(door);
        std::fs::remove_file(&path).expect("the socket");
    }
}

//! Taking one endpoint out while the others go on. In this process, since nothing outside can ask for
//! it yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::pool::Admin;
use tidegate::server::inproc::Inproc;
use tidegate::server::withdraw::{Terms, Withdrawn};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::crowd::end_of;
use crate::support::{Client, Endpoint, Mcp, SessionId, Tidegate, text_of};

const TERMS: Terms = Terms {
    timeout: Duration::from_millis(1500),
    jitter: Duration::from_millis(600),
};

/// A worker of Tidegate in this process.
struct Gate {
    inproc: Arc<Inproc>,
    client: Client,
    _state: tempfile::TempDir,
}

impl Gate {
    async fn before(endpoints: &[&Endpoint], loss: &str) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let list: Vec<String> = endpoints
            .iter()
            .map(|e| format!("{{ name: {}, address: \"{}\" }}", e.name(), e.address()))
            .collect();
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: main }}]\n\
             pools: {{ main: {{ on_endpoint_loss: {loss}, health: {{ check: none }}, endpoints: [{}] }} }}\n\
             log: {{ access: off }}\nstate_dir: {}\n",
            list.join(", "),
            state.path().display()
        );
        let config = tidegate::config::parse("test", &text).expect("it is right");
        let inproc = Arc::new(Inproc::new(config).expect("a worker"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let worker = Arc::clone(&inproc);
        tokio::spawn(async move { worker.turn().await });
        let worker = Arc::clone(&inproc);
        tokio::spawn(async move { worker.chores().await });
        let worker = Arc::clone(&inproc);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let worker = Arc::clone(&worker);
                tokio::spawn(async move { worker.serve(stream).await });
            }
        });
        Self {
            inproc,
            client: Client::new(address),
            _state: state,
        }
    }

    fn withdraw(&self, name: &'static str) -> JoinHandle<Option<Withdrawn>> {
        let inproc = Arc::clone(&self.inproc);
        tokio::spawn(async move { inproc.withdraw("main", name, TERMS).await })
    }

    fn admin(&self, name: &str) -> Admin {
        self.inproc.find("main", name).expect("one").1.admin()
    }

    async fn until_draining(&self, name: &str) {
        while self.admin(name) != Admin::Drain {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// So many sessions on a server.
    async fn sessions_on(&self, endpoint: &Endpoint, count: usize) -> Vec<SessionId> {
        let mut found = Vec::new();
        while found.len() < count {
            found.push(self.client.session_on(endpoint).await);
        }
        found
    }
}

async fn pair() -> (Endpoint, Endpoint) {
    (Endpoint::start("a").await, Endpoint::start("b").await)
}

#[tokio::test]
async fn its_sessions_go_on_until_the_deadline_and_are_ended_then() {
    let (a, b) = pair().await;
    let gate = Gate::before(&[&a, &b], "not_found").await;
    let client = &gate.client;
    let sessions = gate.sessions_on(&a, 60).await;
    let mut streams = JoinSet::new();
    for session in &sessions {
        streams.spawn(end_of(client.get_stream(session, None).await));
    }
    let others = b.sessions().len();
    let running = {
        let (client, session) = (client.clone(), sessions[0].clone());
        tokio::spawn(async move { client.call(&session, "slow", json!({"ms": 500})).await })
    };
    a.until("all is open", |a| {
        a.streams_open() == 60 && a.in_flight() == 61
    })
    .await;
    let told = Instant::now();
    let drain = gate.withdraw("a");
    gate.until_draining("a").await;
    for _ in 0..6 {
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "b", "new ones go elsewhere");
    }
    assert_eq!(client.whoami(&sessions[1]).await, "a", "its own go on");
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    let mut ended = Vec::new();
    while let Some(at) = streams.join_next().await {
        ended.push(at.expect("each ends properly"));
    }
    ended.sort();
    assert!(
        ended[0] - told >= Duration::from_millis(800),
        "not before the window"
    );
    let spread = ended[59] - ended[0];
    assert!(spread >= Duration::from_millis(350), "{spread:?}");
    assert!(ended[59] - told < Duration::from_millis(2000));
    assert_eq!(drain.await.expect("no panic"), Some(Withdrawn::Out(60)));
    assert_eq!(gate.admin("a"), Admin::Maint);
    for session in &sessions[..3] {
        let gone = client.start_call(session, "whoami", json!({})).await;
        assert_eq!(gone.status, 404);
        assert_eq!(client.get_stream(session, None).await.status, 404);
    }
    a.until("its sessions are deleted", |a| a.sessions().is_empty())
        .await;
    assert_eq!(b.sessions().len(), others + 6);
}

#[tokio::test]
async fn sessions_that_can_be_begun_again_go_on_elsewhere() {
    let (a, b) = pair().await;
    let gate = Gate::before(&[&a, &b], "reinitialize").await;
    let client = &gate.client;
    let sessions = gate.sessions_on(&a, 2).await;
    let mut stream = client.get_stream(&sessions[0], None).await;
    a.until("it is open", |a| a.streams_open() == 1).await;
    let before = b.sessions();
    assert_eq!(
        gate.withdraw("a").await.expect("no panic"),
        Some(Withdrawn::Out(2))
    );
    // The one with a stream has moved already, the other one does when it is needed.
    b.until("the stream is asked for", |b| b.streams_open() == 1)
        .await;
    for session in &sessions {
        assert_eq!(client.whoami(session).await, "b");
    }
    let moved = b.sessions().into_iter().filter(|own| !before.contains(own));
    let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    assert!(
        moved
            .map(|own| b.push(&own, &note))
            .filter(|sent| *sent)
            .count()
            >= 1
    );
    loop {
        let event = stream.events().next_json().await;
        if event["method"] == "notifications/message" {
            break;
        }
    }
    a.until("its sessions are deleted", |a| a.sessions().is_empty())
        .await;
}

#[tokio::test]
async fn a_listen_moves_and_its_client_does_not_know() {
    let (a, b) = pair().await;
    let gate = Gate::before(&[&a, &b], "not_found").await;
    let mut listens = Vec::new();
    while a.streams_open() == 0 {
        let mut listen = gate.client.listen().await;
        listen.events().next_json().await;
        listens.push(listen);
    }
    assert_eq!(
        gate.withdraw("a").await.expect("no panic"),
        Some(Withdrawn::Out(0))
    );
    let count = listens.len();
    b.until("all are there", |b| b.streams_open() == count)
        .await;
    assert_eq!(a.streams_open(), 0);
    assert_eq!(b.notify_listeners(), count);
    for listen in &mut listens {
        let event = listen.events().next_json().await;
        assert_eq!(event["method"], "notifications/tools/list_changed");
    }
}

#[tokio::test]
async fn an_endpoint_without_sessions_is_out_at_once() {
    let (a, b) = pair().await;
    let gate = Gate::before(&[&a, &b], "not_found").await;
    let told = Instant::now();
    let out = gate.withdraw("b").await.expect("no panic");
    assert_eq!(out, Some(Withdrawn::Out(0)));
    assert!(told.elapsed() < Duration::from_millis(500));
    assert_eq!(
        text_of(&gate.client.modern_call("whoami", json!({})).await),
        "a"
    );
    let nobody = gate.inproc.withdraw("main", "c", TERMS).await;
    assert_eq!(nobody, None);
}

#[tokio::test]
async fn an_endpoint_that_is_taken_back_keeps_what_it_has() {
    let (a, b) = pair().await;
    let gate = Gate::before(&[&a, &b], "not_found").await;
    let sessions = gate.sessions_on(&a, 2).await;
    let mut stream = gate.client.get_stream(&sessions[0], None).await;
    let drain = gate.withdraw("a");
    gate.until_draining("a").await;
    let (_, endpoint) = gate.inproc.find("main", "a").expect("one");
    endpoint.set_admin(Admin::Up);
    assert_eq!(drain.await.expect("no panic"), Some(Withdrawn::TakenBack));
    assert!(stream.silent_for(TERMS.timeout).await);
    assert_eq!(gate.client.whoami(&sessions[1]).await, "a");
    gate.sessions_on(&a, 1).await;
}

#[tokio::test]
async fn an_endpoint_may_begin_draining_or_in_maintenance() {
    let (a, b) = pair().await;
    for state in ["drain", "maint"] {
        let mut gate = Tidegate::build(&[&a, &b]).start().await;
        let client = gate.client();
        let session = client.session_on(&a).await;
        let config = gate.config();
        let line = config
            .lines()
            .find(|line| line.contains(&a.address().to_string()))
            .expect("the endpoint");
        let indent = " ".repeat(line.len() - line.trim_start().len());
        let entry = format!(
            "{indent}- {{ name: \"a\", address: \"{}\", state: {state} }}",
            a.address()
        );
        gate.write_config(&config.replace(line, &entry));
        gate.restart().await;
        for _ in 0..6 {
            let fresh = client.initialize().await;
            assert_eq!(client.whoami(&fresh).await, "b");
        }
        let mut known = client.start_call(&session, "whoami", json!({})).await;
        if state == "drain" {
            assert_eq!(text_of(&known.json().await), "a", "its sessions go on");
        } else {
            assert_eq!(known.status, 404);
        }
    }
}

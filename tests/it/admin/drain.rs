//! Draining one of several endpoints while everybody goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::{pair, said, shown};
use crate::support::{BodyEnd, Client, Endpoint, Fault, Mcp, SessionId, Tidegate};

const SESSIONS: usize = 60;
const STATELESS: usize = 8;

/// What clients have seen.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    calls: AtomicUsize,
    failed: AtomicUsize,
    /// Told to begin a session again, which clients do.
    started_over: AtomicUsize,
    streams: AtomicUsize,
    streams_ended: AtomicUsize,
    /// Ended without the proper end of a body.
    streams_cut: AtomicUsize,
}

impl Seen {
    fn counts(&self) -> [usize; 6] {
        [
            &self.calls,
            &self.failed,
            &self.started_over,
            &self.streams,
            &self.streams_ended,
            &self.streams_cut,
        ]
        .map(|count| count.load(Relaxed))
    }
}

/// A client that holds a session with a GET stream and calls all the while.
async fn in_session(client: Client, seen: Arc<Seen>) {
    let mut session = client.initialize().await;
    // Those of sessions that were ended are held on to, to see how they end.
    let mut streams = JoinSet::new();
    streams.spawn(listen(client.clone(), session.clone(), Arc::clone(&seen)));
    while !seen.over.load(Relaxed) {
        let wait = json!({"ms": fastrand::u32(1..250)});
        let mut answer = client.start_call(&session, "slow", wait).await;
        seen.calls.fetch_add(1, Relaxed);
        if answer.status == 404 {
            seen.started_over.fetch_add(1, Relaxed);
            session = client.initialize().await;
            streams.spawn(listen(client.clone(), session.clone(), Arc::clone(&seen)));
        } else if answer.status != 200 || answer.rpc().await.get("result").is_none() {
            seen.failed.fetch_add(1, Relaxed);
        }
    }
}

/// Holds a GET stream, and opens it again when it has ended, for as long as the session lives.
async fn listen(client: Client, session: SessionId, seen: Arc<Seen>) {
    loop {
        let mut stream = client.get_stream(&session, None).await;
        if stream.status == 404 {
            return;
        }
        if stream.status != 200 {
            seen.failed.fetch_add(1, Relaxed);
            return;
        }
        seen.streams.fetch_add(1, Relaxed);
        let (_, end) = stream.events().rest().await;
        seen.streams_ended.fetch_add(1, Relaxed);
        if end != BodyEnd::Complete {
            seen.streams_cut.fetch_add(1, Relaxed);
        }
    }
}

async fn stateless(client: Client, seen: Arc<Seen>) {
    while !seen.over.load(Relaxed) {
        let params = json!({"name": "slow", "arguments": {"ms": fastrand::u32(1..250)}});
        let mut answer = client.modern("tools/call", Some("slow"), params).await;
        seen.calls.fetch_add(1, Relaxed);
        if answer.status != 200 || answer.rpc().await.get("result").is_none() {
            seen.failed.fetch_add(1, Relaxed);
        }
    }
}

/// Drains one of three endpoints under load, and tells what clients have seen of it.
async fn drain_under_load(loss: &str) -> [usize; 6] {
    let (a, b) = pair().await;
    let c = Endpoint::start("c").await;
    let gate = Tidegate::build(&[&a, &b, &c])
        .pool(&format!("on_endpoint_loss: {loss}"))
        .start()
        .await;
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for _ in 0..SESSIONS {
        clients.spawn(in_session(gate.client(), Arc::clone(&seen)));
    }
    for _ in 0..STATELESS {
        clients.spawn(stateless(gate.client(), Arc::clone(&seen)));
    }
    let all = [&a, &b, &c];
    let streams = || all.iter().map(|e| e.streams_open()).sum::<usize>();
    assert!(crate::support::eventually(crate::support::PATIENCE, || streams() == SESSIONS).await);
    let on_it = a.sessions().len();
    assert!(on_it > 0, "there is something to drain");
    let begun = Instant::now();
    let output = gate
        .verb(&["drain", "main/a", "--timeout", "6s", "--wait"])
        .await;
    let took = begun.elapsed();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(shown(&gate, "a").await["state"], "maint");
    assert_eq!((a.in_flight(), a.streams_open()), (0, 0), "it is empty");
    tokio::time::sleep(Duration::from_millis(500)).await;
    seen.over.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client gives up");
    }
    let counts = seen.counts();
    let [calls, failed, over, streams, ended, cut] = counts;
    eprintln!(
        "drain with {loss}: {on_it} of {SESSIONS} sessions on it, out after {took:?}; {calls} calls, \
         {failed} failed, {over} told to start over; {streams} streams, {ended} ended, {cut} cut"
    );
    a.until("its sessions are deleted", |a| a.sessions().is_empty())
        .await;
    counts
}

#[tokio::test]
async fn no_call_fails_and_no_stream_is_cut_where_sessions_move() {
    let [calls, failed, over, _, ended, cut] = drain_under_load("reinitialize").await;
    assert!(calls > 500, "{calls}");
    assert_eq!((failed, over, ended, cut), (0, 0, 0, 0));
}

#[tokio::test]
async fn no_call_fails_and_no_stream_is_cut_where_clients_start_over() {
    let [calls, failed, over, _, ended, cut] = drain_under_load("not_found").await;
    assert!(calls > 500, "{calls}");
    assert!(over > 0, "its sessions were ended");
    assert_eq!((failed, ended, cut), (0, over, 0), "a stream for each");
}

#[tokio::test]
async fn a_drain_is_called_off_and_another_takes_its_place() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    gate.ask(&["weight", "main/b", "0"]).await;
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    gate.ask(&["weight", "main/b", "default"]).await;
    gate.ask(&["drain", "main/a"]).await;
    assert_eq!(
        shown(&gate, "a").await["admin"]["out_in_seconds"],
        json!(null)
    );
    let done = gate.ask(&["drain", "main/a", "--timeout", "1h"]).await;
    assert_eq!(done["endpoint"]["admin"]["out_in_seconds"], 3600);
    assert_eq!(client.whoami(&session).await, "a");
    gate.ask(&["ready", "main/a"]).await;
    assert!(stream.silent_for(Duration::from_millis(300)).await);
    let waits = gate.verb(&["drain", "main/a", "--timeout", "30s", "--wait"]);
    let back = async {
        while shown(&gate, "a").await["state"] != "drain" {}
        gate.ask(&["ready", "main/a"]).await
    };
    let (waited, _) = tokio::join!(waits, back);
    assert_eq!(waited.status.code(), Some(1), "{}", said(&waited));
    gate.ask(&["drain", "main/a", "--timeout", "0s"]).await;
    let (_, end) = stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
}

#[tokio::test]
async fn a_pool_of_plain_http_is_drained_when_its_requests_are_over() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
        .start()
        .await;
    let client = gate.client();
    for endpoint in [&a, &b] {
        endpoint.fault_next(1, Fault::StallBeforeHead);
    }
    let runs = {
        let client = client.clone();
        tokio::spawn(async move { client.request("GET", "/plain", &[], b"").await.status })
    };
    let on = crate::support::eventually_some(crate::support::PATIENCE, async || {
        [&a, &b].into_iter().find(|e| e.in_flight() > 0)
    });
    let on = on.await.expect("it runs");
    let name = format!("main/{}", on.name());
    gate.ask(&["drain", &name, "--timeout", "30s"]).await;
    a.heal();
    b.heal();
    assert_eq!(runs.await.expect("no panic"), 200, "it was waited for");
    let out = gate.verb(&["drain", &name, "--wait"]).await;
    assert!(out.status.success(), "{}", said(&out));
    let on = on.name();
    for _ in 0..6 {
        let answer = client.request("GET", "/plain", &[], b"").await;
        assert_ne!(answer.header("x-endpoint"), Some(on));
        assert_eq!(answer.status, 200);
    }
}

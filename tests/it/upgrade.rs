//! Another process in the place of the one that serves, without a client that notices.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::crowd::{calls, held, size};
use crate::support::{
    BodyEnd, Client, Endpoint, Mcp, PATIENCE, Response, SessionId, Tidegate, eventually, text_of,
};

/// Has the process replaced, and waits until the other one serves. Its id.
pub(crate) async fn upgrade(gate: &mut Tidegate) -> u32 {
    let said = |gate: &Tidegate| -> Vec<u32> {
        let stderr = gate.stderr();
        let words = stderr.split_whitespace().collect::<Vec<_>>();
        let is_it = |four: &&[&str]| four[0] == "process" && four[2..] == ["serves", "from"];
        let found = words.windows(4).filter(is_it);
        found.filter_map(|four| four[1].parse().ok()).collect()
    };
    let before = said(gate).len();
    gate.signal("USR2");
    let waited = eventually(PATIENCE, || said(gate).len() > before).await;
    assert!(waited, "{}", gate.stderr());
    let process = *said(gate).last().expect("it was said");
    gate.adopt(process);
    process
}

#[tokio::test]
async fn sessions_go_on_with_the_new_process_and_calls_end_with_the_old_one() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let mut gate = Tidegate::build(&[&a, &b])
        .config("drain_timeout: 20s")
        .start()
        .await;
    let client = gate.client();
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let session = client.initialize().await;
        sessions.push((client.whoami(&session).await, session));
    }
    let running = {
        let (client, session) = (client.clone(), sessions[0].1.clone());
        tokio::spawn(async move { client.call(&session, "slow", json!({"ms": 1500})).await })
    };
    let is_running = || a.in_flight() + b.in_flight() >= 1;
    assert!(eventually(PATIENCE, is_running).await);
    let old = gate.pid();
    let new = upgrade(&mut gate).await;
    assert_ne!(old, new);
    for (endpoint, session) in &sessions {
        assert_eq!(&client.whoami(session).await, endpoint);
    }
    // The old one has let go of the admin address, so this is the new one's.
    let page = gate.admin().request("GET", "/ready", &[], b"").await;
    assert_eq!(page.status, 200);
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    let status = gate.wait_exit(Duration::from_secs(10)).await;
    assert!(status.success());
    for (endpoint, session) in &sessions {
        assert_eq!(&client.whoami(session).await, endpoint);
    }
}

#[tokio::test]
async fn the_command_tells_when_the_other_one_serves_and_hands_over_the_admin_socket() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let upgraded = gate.ask(&["upgrade"]).await;
    let process = upgraded["process"]
        .as_u64()
        .and_then(|id| u32::try_from(id).ok());
    gate.adopt(process.expect("its id"));
    for _ in 0..5 {
        let status = gate.ask(&["status"]).await;
        assert_eq!(status["process"]["pid"], upgraded["process"]);
    }
    gate.wait_exit(Duration::from_secs(10)).await;
    let status = gate.ask(&["status"]).await;
    assert_eq!(
        status["process"]["pid"], upgraded["process"],
        "the file is still there"
    );
    let good = gate.config();
    gate.write_config(&good.replace("pool: main", "pool: mian"));
    let failed = gate.verb(&["upgrade"]).await;
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("exit status: 1"), "{said}");
}

/// A session's stream in a process that has been replaced since.
async fn upgraded_under_a_stream(
    a: &Endpoint,
    config: &str,
) -> (Tidegate, Client, SessionId, Response) {
    let mut gate = Tidegate::build(&[a]).config(config).start().await;
    let client = gate.client();
    let session = client.initialize().await;
    let stream = client.get_stream(&session, None).await;
    a.until("it is open", |a| a.streams_open() == 1).await;
    upgrade(&mut gate).await;
    (gate, client, session, stream)
}

#[tokio::test]
async fn a_stream_lives_on_in_the_old_process_until_its_deadline() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session, mut stream) =
        upgraded_under_a_stream(&a, "drain_timeout: 2s\ndrain_jitter: 100ms").await;
    let since = Instant::now();
    let own = a.sessions().remove(0);
    let message = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    assert!(a.push(&own, &message));
    assert_eq!(stream.events().next_json().await, message);
    let (rest, end) = stream.events().rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Complete));
    assert!(since.elapsed() > Duration::from_secs(1), "it had its time");
    // Its client opens it again, with the new process.
    let again = client.get_stream(&session, None).await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn the_old_process_leaves_when_the_one_in_its_place_ends() {
    let a = Endpoint::start("a").await;
    let (mut gate, _, _, mut stream) = upgraded_under_a_stream(&a, "drain_timeout: 60s").await;
    // Whoever started the old one adopts it then, and learns how it has ended.
    gate.signal("KILL");
    let (_, end) = stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    let status = gate.wait_exit(Duration::from_secs(10)).await;
    assert!(status.success());
}

#[tokio::test]
async fn one_that_does_not_start_leaves_everything_as_it_was() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let good = gate.config();
    gate.write_config(&good.replace("pool: main", "pool: mian"));
    gate.signal("USR2");
    let said = || {
        gate.stderr()
            .contains("not replaced, all goes on as it was")
    };
    assert!(eventually(PATIENCE, said).await, "{}", gate.stderr());
    assert!(gate.stderr().contains("mian"), "the new one has said why");
    assert_eq!(client.whoami(&session).await, "a");
    // And it still reloads.
    gate.reload(&good).await;
    assert_eq!(client.whoami(&session).await, "a");
}

/// Requests on one kept connection until told to stop. A server that is about to close it says so with
/// an answer; without that it may not go.
async fn kept(client: Client, stop: tokio::sync::watch::Receiver<bool>) -> usize {
    let mut made = 0;
    let mut connection = client.connect().await.expect("a connection");
    let (mut since, mut on) = (Instant::now(), 0);
    while !*stop.borrow() {
        let asked = Instant::now();
        let sent = client.try_request_on(connection, "GET", "/health", &[], b"");
        let mut answer = match sent.await {
            Ok(answer) => answer,
            Err(error) => panic!(
                "{error:?} {:?} after the request, {on} before it on this connection, made {:?} ago",
                asked.elapsed(),
                since.elapsed()
            ),
        };
        on += 1;
        assert_eq!(answer.text().await, "ok\n");
        made += 1;
        connection = match answer.header("connection") {
            Some("close") => {
                (since, on) = (Instant::now(), 0);
                client.connect().await.expect("a connection")
            }
            _ => answer.into_connection(),
        };
        tokio::time::sleep(Duration::from_millis(made as u64 % 7)).await;
    }
    made
}

#[tokio::test]
async fn many_upgrades_under_load_refuse_and_fail_nothing() {
    let rounds = size("TIDEGATE_UPGRADES", 3);
    let sessions = size("TIDEGATE_SESSIONS", 20);
    let streams = size("TIDEGATE_STREAMS", 50);
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let mut gate = Tidegate::build(&[&a, &b])
        .config("drain_timeout: 100s")
        .start()
        .await;
    let client = gate.client().with_patience(Duration::from_secs(60));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (mut calling, mut listening) = (JoinSet::new(), JoinSet::new());
    for _ in 0..streams {
        let session = client.initialize().await;
        let stream = client.get_stream(&session, None).await;
        listening.spawn(held(stream, stopped.clone()));
    }
    for _ in 0..sessions {
        let session = client.initialize().await;
        calling.spawn(calls(client.clone(), session, stopped.clone()));
        calling.spawn(kept(client.clone(), stopped.clone()));
    }
    for _ in 0..rounds {
        upgrade(&mut gate).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stop.send_replace(true);
    let made: usize = calling.join_all().await.into_iter().sum();
    assert_eq!(listening.join_all().await.len(), streams);
    assert!(made > rounds, "{made}");
    println!("{rounds} upgrades, {made} calls, {streams} streams");
}

#[tokio::test]
async fn sockets_that_systemd_has_opened_are_taken() {
    let a = Endpoint::start("a").await;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("it is bound");
    // A connection that came before anybody served.
    let early = Client::new(address)
        .connect()
        .await
        .expect("it waits in the queue");
    let gate = Tidegate::build(&[&a]).hand_over(socket).start().await;
    early
        .raw(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        .await
        .expect("it is open");
    assert_eq!(early.response(false).await.expect("an answer").status, 200);
    let session = gate.client().initialize().await;
    assert_eq!(gate.client().whoami(&session).await, "a");
}

/// As releases are installed that stand side by side.
#[tokio::test]
async fn behind_a_link_that_was_turned_the_other_program_is_started() {
    let a = Endpoint::start("a").await;
    let place = tempfile::tempdir().expect("a directory");
    let release = |name: &str| {
        let path = place.path().join(name);
        std::fs::create_dir(&path).expect("a directory of ours");
        let program = path.join("tidegate");
        let binary = env!("CARGO_BIN_EXE_tidegate");
        std::fs::hard_link(binary, &program)
            .or_else(|_| std::fs::copy(binary, &program).map(drop))
            .expect("a copy");
        path
    };
    let (old, new) = (release("1"), release("2"));
    let current = place.path().join("current");
    std::os::unix::fs::symlink(&old, &current).expect("a link");
    let build = Tidegate::build(&[&a]).program(current.join("tidegate"));
    let mut gate = build.start().await;
    std::fs::remove_file(&current).expect("the link");
    std::os::unix::fs::symlink(&new, &current).expect("a link");
    let process = upgrade(&mut gate).await;
    let runs = std::fs::read_link(format!("/proc/{process}/exe")).expect("it runs");
    assert_eq!(runs, new.join("tidegate"));
    gate.wait_exit(PATIENCE).await;
}

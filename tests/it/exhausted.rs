//! This host runs out of what connections to endpoints take. Nobody is to blame for that, and nothing
//! is lost by it.
//!
//! The limit of open files of the running program is lowered for a while: below what it has open, so that
//! every new file fails and all that it has goes on.

use rlimit::{Resource, prlimit};
use serde_json::{Value, json};

use crate::support::tidegate::Metrics;
use crate::support::{Client, Connection, Endpoint, Mcp, Outgoing, SessionId, Tidegate, within};

/// Takes all files away that the program has not opened yet, until dropped.
struct NoFiles {
    process: i32,
    before: (u64, u64),
}

impl NoFiles {
    fn of(gate: &Tidegate) -> Self {
        let process = i32::try_from(gate.pid()).expect("a process id");
        let (mut soft, mut hard) = (0, 0);
        let before = Some((&mut soft, &mut hard));
        prlimit(process, Resource::NOFILE, None, before).expect("its limits");
        let none = Some((3, hard));
        prlimit(process, Resource::NOFILE, none, None).expect("a lower limit");
        Self {
            process,
            before: (soft, hard),
        }
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        let _ = prlimit(self.process, Resource::NOFILE, Some(self.before), None);
    }
}

/// A connection that the program has accepted, kept for one request after another.
struct Kept {
    client: Client,
    connection: Option<Connection>,
}

impl Kept {
    async fn open(client: Client, path: &str) -> Self {
        let connection = client.connect().await.expect("a connection");
        let mut kept = Self {
            client,
            connection: Some(connection),
        };
        kept.request("GET", path, &[], b"").await;
        kept
    }

    async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, bool, String) {
        let connection = self.connection.take().expect("it was kept");
        let asked = self
            .client
            .try_request_on(connection, method, path, headers, body);
        let mut answer = asked.await.expect("an answer");
        let text = answer.text().await;
        let (status, comes_again) = (answer.status, answer.headers().has("retry-after"));
        if !answer.headers().has_token("connection", "close") {
            self.connection = Some(answer.into_connection());
        }
        (status, comes_again, text)
    }

    async fn call(&mut self, session: &SessionId, id: u64) -> (u16, bool, Value) {
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": "whoami", "arguments": {}}});
        let call = Outgoing::in_session(session, &call);
        let path = self.client.path().to_owned();
        let headers = call.header_lines();
        let (status, again, text) = self.request("POST", &path, &headers, &call.body).await;
        (status, again, serde_json::from_str(&text).expect("JSON"))
    }

    async fn metrics(&mut self) -> Metrics {
        let (status, _, text) = self.request("GET", "/metrics", &[], b"").await;
        assert_eq!(status, 200);
        Metrics::parse(&text)
    }
}

fn passed_over(metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_checks_excused_total")
}

/// What may not have happened to anybody.
fn nobody_is_blamed(metrics: &Metrics, names: &[&str]) {
    for name in names {
        let of = [("endpoint", *name), ("pool", "main")];
        assert_eq!(metrics.with("tidegate_endpoint_up", &of), 1.0, "{name}");
    }
    for family in [
        "tidegate_endpoint_ejections_total",
        "tidegate_endpoint_breaker_opened_total",
        "tidegate_sessions_ended_total",
    ] {
        assert_eq!(metrics.sum(family), 0.0, "{family}");
    }
}

const CHECKS: &str = "interval: 100ms, timeout: 500ms, rise: 1, fall: 2 }";

#[tokio::test]
async fn without_files_calls_are_refused_and_no_session_is_lost() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .config("threads: 1")
        .health(&format!("{{ check: mcp, {CHECKS}"))
        .pool("keep_alive: 100ms\nejection: { failures: 2 }\nbreaker: { min_calls: 2 }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let owner = client.whoami(&session).await;
    let mut admin = Kept::open(gate.admin(), "/ready").await;
    let mut kept = Kept::open(client.clone(), "/health").await;
    let before = passed_over(&admin.metrics().await);
    let files = NoFiles::of(&gate);
    // A connection to the endpoint may lie idle still.
    let mut refused = 0;
    within("many checks and calls", async {
        for id in 1.. {
            let (status, comes_again, message) = kept.call(&session, id).await;
            if status == 503 {
                refused += 1;
                assert!(comes_again);
                assert_eq!(message["id"], id);
                assert_eq!(message["error"]["code"], -32603);
                let said = message["error"]["message"].as_str().expect("a message");
                assert!(said.contains("no resources left"), "{said}");
            }
            let checks = passed_over(&admin.metrics().await) - before;
            if refused >= 5 && checks >= 10.0 {
                break;
            }
        }
    })
    .await;
    drop(files);
    assert_eq!(client.whoami(&session).await, owner, "the session goes on");
    let metrics = gate.metrics().await;
    nobody_is_blamed(&metrics, &["a", "b"]);
    let hit = metrics.with("tidegate_limits_hit_total", &[("limit", "open_files")]);
    assert!(hit >= 15.0, "{hit}: calls and checks");
    gate.logged(|line| line["end_reason"] == "exhausted" && line["termination"] == "PC")
        .await;
    let stderr = gate.stderr();
    let told = stderr.matches("no connection can be made").count();
    assert_eq!(told, 1, "{stderr}");
    assert!(stderr.contains("LimitNOFILE"), "{stderr}");
}

#[tokio::test]
async fn without_files_plain_routes_and_websockets_are_refused_alike() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::build(&[&a])
        .config("threads: 1")
        .health(&format!("{{ check: tcp, {CHECKS}"))
        .routes("- path: /mcp\n  pool: main\n- path_prefix: /plain\n  pool: plain")
        .pools(&format!(
            "plain:\n  kind: http\n  health: {{ check: tcp, {CHECKS}\n  ejection: {{ failures: 2 }}\n  endpoints: [ {{ name: p, address: \"{}\" }} ]",
            a.address()
        ))
        .start()
        .await;
    let client = gate.client();
    let mut admin = Kept::open(gate.admin(), "/ready").await;
    let before = passed_over(&admin.metrics().await);
    let mut plain = Vec::new();
    for _ in 0..4 {
        plain.push(Kept::open(client.clone(), "/health").await);
    }
    let mut socket = Kept::open(client.clone(), "/health").await;
    let files = NoFiles::of(&gate);
    for kept in &mut plain {
        let (status, comes_again, text) = kept.request("GET", "/plain/x", &[], b"").await;
        assert_eq!((status, comes_again), (503, true), "{text}");
        assert!(text.contains("no resources left"), "{text}");
    }
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "mcp"),
    ];
    let (status, _, text) = socket.request("GET", "/mcp", &upgrade, b"").await;
    assert_eq!(status, 503, "{text}");
    within("some checks", async {
        while passed_over(&admin.metrics().await) - before < 8.0 {}
    })
    .await;
    drop(files);
    let metrics = gate.metrics().await;
    nobody_is_blamed(&metrics, &["a"]);
    let up = metrics.with("mcp_server_healthy", &[("server_name", "p")]);
    assert_eq!(up, 1.0);
    let answer = client.request("GET", "/plain/x", &[], b"").await;
    assert_ne!(answer.status, 503);
}

//! HTTP+SSE of 2024-11-05: one event stream per session, a POST per message, and the copy that owns
//! the stream for all of them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::tidegate::Builder;
use crate::support::wire::Wire;
use crate::support::{BodyEnd, Client, Endpoint, Response, Tidegate, text_of};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn endpoint(name: &str) -> Endpoint {
    Endpoint::named(name).legacy_sse().start().await
}

/// One with a route for HTTP+SSE alone.
fn build(endpoints: &[&Endpoint]) -> Builder {
    Tidegate::build(endpoints).routes("- path: /sse\n  pool: main")
}

async fn get(client: &Client) -> Response {
    let accept = [("accept", "text/event-stream")];
    client.request("GET", "/sse", &accept, b"").await
}

/// An open session: its stream, and the address for its messages.
struct Session {
    client: Client,
    stream: Response,
    address: String,
}

impl Session {
    async fn open(client: &Client) -> Self {
        let mut stream = get(client).await;
        assert_eq!(stream.status, 200);
        assert!(stream.is_stream());
        let first = stream.events().next().await.expect("the endpoint event");
        assert_eq!(first.name.as_deref(), Some("endpoint"));
        Self {
            client: client.clone(),
            stream,
            address: first.data.expect("an address"),
        }
    }

    async fn post(&self, message: &Value) -> Response {
        post(&self.client, &self.address, message).await
    }

    /// Sends a request that must be accepted; its answer comes on the stream.
    async fn send(&self, id: u64, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        assert_eq!(self.post(&message).await.status, 202, "{method}");
    }

    async fn call(&mut self, id: u64, tool: &str) -> Value {
        self.send(id, "tools/call", json!({"name": tool, "arguments": {}}))
            .await;
        let answer = self.stream.events().next_json().await;
        assert_eq!(answer["id"], id);
        answer
    }

    async fn whoami(&mut self, id: u64) -> String {
        text_of(&self.call(id, "whoami").await)
    }
}

async fn post(client: &Client, address: &str, message: &Value) -> Response {
    let body = message.to_string();
    client
        .request("POST", address, &[JSON], body.as_bytes())
        .await
}

#[tokio::test]
async fn the_endpoint_event_names_a_path_of_ours_with_a_sealed_id() {
    let a = endpoint("a").await;
    let gate = build(&[&a]).start().await;
    let session = Session::open(&gate.client()).await;
    let id = session.address.strip_prefix("/sse?session=");
    let id = id.expect("our own path and parameter");
    assert!(id.len() < 400, "{id}");
    assert!(
        id.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    );
    let own = &a.sessions()[0];
    assert!(!session.address.contains(own.as_str()));
    assert!(session.stream.header("mcp-session-id").is_none());
}

#[tokio::test]
async fn every_message_reaches_the_copy_that_owns_the_stream() {
    let (a, b, c) = (
        endpoint("a").await,
        endpoint("b").await,
        endpoint("c").await,
    );
    let gate = build(&[&a, &b, &c]).start().await;
    let mut owners = Vec::new();
    let mut sessions = Vec::new();
    // So many that chance alone leaves no endpoint out.
    for _ in 0..15 {
        let mut session = Session::open(&gate.client()).await;
        let params = json!({"protocolVersion": "2024-11-05", "capabilities": {},
            "clientInfo": {"name": "it", "version": "1"}});
        session.send(0, "initialize", params).await;
        let answer = session.stream.events().next_json().await;
        assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
        let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(session.post(&note).await.status, 202);
        owners.push(session.whoami(1).await);
        sessions.push(session);
    }
    for (session, owner) in sessions.iter_mut().zip(&owners) {
        for id in 2..5 {
            assert_eq!(session.whoami(id).await, *owner);
        }
    }
    let mut spread = owners.clone();
    spread.sort();
    spread.dedup();
    assert_eq!(spread, ["a", "b", "c"], "sessions are spread");
}

#[tokio::test]
async fn a_message_may_come_through_another_process_with_the_same_key() {
    let (a, b, c) = (
        endpoint("a").await,
        endpoint("b").await,
        endpoint("c").await,
    );
    let all = [&a, &b, &c];
    let one = build(&all).start().await;
    let key = one.places().state_dir().join("session.key");
    let shared = format!("sessions: {{ key_files: [{}] }}", key.display());
    let two = build(&all).config(&shared).start().await;
    for _ in 0..4 {
        let mut session = Session::open(&one.client()).await;
        let owner = session.whoami(1).await;
        let message = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "whoami", "arguments": {}}});
        let accepted = post(&two.client(), &session.address, &message).await;
        assert_eq!(accepted.status, 202);
        let answer = session.stream.events().next_json().await;
        assert_eq!(text_of(&answer), owner);
    }
}

#[tokio::test]
async fn a_server_asks_and_the_answer_reaches_it() {
    let (a, b) = (endpoint("a").await, endpoint("b").await);
    let gate = build(&[&a, &b]).start().await;
    let mut session = Session::open(&gate.client()).await;
    session
        .send(7, "tools/call", json!({"name": "ask", "arguments": {}}))
        .await;
    let question = session.stream.events().next_json().await;
    assert_eq!(question["method"], "elicitation/create");
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept",
        "content": {"name": "Ada"}}});
    assert_eq!(session.post(&answer).await.status, 202);
    let result = session.stream.events().next_json().await;
    assert_eq!(result["id"], 7);
    assert!(text_of(&result).contains("Ada"));
}

#[tokio::test]
async fn a_post_without_a_session_is_not_allowed() {
    let a = endpoint("a").await;
    let gate = build(&[&a]).start().await;
    for method in ["POST", "DELETE", "PUT"] {
        let body = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{}}";
        let mut refused = gate.client().request(method, "/sse", &[JSON], body).await;
        // A client that tries Streamable HTTP first falls back to this transport on 405.
        assert_eq!(refused.status, 405, "{method}");
        assert_eq!(refused.header("allow"), Some("GET"));
        assert!(refused.json().await["error"]["code"].is_number());
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn an_unknown_session_is_not_found() {
    let a = endpoint("a").await;
    let gate = build(&[&a]).start().await;
    let session = Session::open(&gate.client()).await;
    let half = &session.address[..session.address.len() / 2];
    let own = format!("/sse?session={}", a.sessions()[0]);
    let mut altered = session.address.clone().into_bytes();
    let last = altered.last_mut().expect("not empty");
    *last = if *last == b'A' { b'Q' } else { b'A' };
    let altered = String::from_utf8(altered).expect("ASCII");
    let ping = json!({"jsonrpc": "2.0", "id": 5, "method": "ping"});
    for address in [
        "/sse?session=",
        "/sse?session=deadbeef",
        half,
        &own,
        &altered,
    ] {
        let mut refused = post(&gate.client(), address, &ping).await;
        assert_eq!(refused.status, 404, "{address}");
        assert_eq!(refused.json().await["id"], 5, "{address}");
    }
    assert_eq!(a.requests().len(), 1, "only the stream came through");

    let Session {
        address, stream, ..
    } = session;
    drop(stream);
    a.until("the session's end", |e| e.sessions().is_empty())
        .await;
    let gone = post(&gate.client(), &address, &ping).await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_stream_at_the_server() {
    let a = endpoint("a").await;
    let gate = build(&[&a]).start().await;
    let session = Session::open(&gate.client()).await;
    assert_eq!(a.streams_open(), 1);
    session.stream.reset();
    a.until("the stream's end", |e| e.streams_open() == 0).await;
    gate.metrics_when(|m| m.sum("tidegate_streams") == 0.0)
        .await;
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_with_comments() {
    let a = endpoint("a").await;
    let quick = "streams: { keep_alive: 100ms }";
    let gate = build(&[&a]).config(quick).start().await;
    let mut session = Session::open(&gate.client()).await;
    let mut events = session.stream.events();
    for _ in 0..3 {
        events.next_comment().await;
    }
    assert_eq!(session.whoami(1).await, "a");
}

#[tokio::test]
async fn a_lost_server_is_told_in_the_stream_to_every_request_it_owes() {
    let a = endpoint("a").await;
    let gate = build(&[&a]).start().await;
    let mut session = Session::open(&gate.client()).await;
    assert_eq!(session.whoami(1).await, "a");
    let slow = json!({"name": "slow", "arguments": {"ms": 60_000}});
    session.send(2, "tools/call", slow.clone()).await;
    session.send(3, "tools/call", slow).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}});
    assert_eq!(session.post(&note).await.status, 202);
    a.kill().await;

    let (events, end) = session.stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete, "a proper end");
    let mut told: Vec<Value> = events.iter().map(|event| event.json()).collect();
    told.sort_by_key(|message| message["id"].as_u64());
    assert_eq!(told.len(), 2, "{told:?}");
    for (message, id) in told.iter().zip([2, 3]) {
        assert_eq!(message["id"], id);
        assert_eq!(message["error"]["code"], -32603);
    }
    assert!(
        events
            .iter()
            .all(|e| e.name.as_deref().is_none_or(|name| name == "message"))
    );
}

#[tokio::test]
async fn a_session_of_a_server_that_is_down_is_not_found() {
    let (a, b) = (endpoint("a").await, endpoint("b").await);
    let quick = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }";
    let gate = build(&[&a, &b]).health(quick).start().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    let mut session = Session::open(&gate.client()).await;
    let owner = session.whoami(1).await;
    let (dead, alive) = if owner == "a" { (&a, "b") } else { (&b, "a") };
    dead.kill().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
    assert_eq!(session.post(&ping).await.status, 404);
    let mut again = Session::open(&gate.client()).await;
    assert_eq!(again.whoami(1).await, alive);
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_an_error_and_not_a_stream() {
    let a = endpoint("a").await;
    let gate = build(&[&a]).start().await;
    a.kill().await;
    let mut refused = get(&gate.client()).await;
    assert_eq!(refused.status, 502);
    assert_eq!(refused.json().await["error"]["code"], -32603);
}

/// A server whose stream begins with an address of its own making; tells the target of the first
/// POST that it gets.
struct Odd {
    address: SocketAddr,
    posted: JoinHandle<String>,
}

async fn odd(endpoint_uri: impl Fn(SocketAddr) -> String) -> Odd {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let uri = endpoint_uri(address);
    let posted = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let wire = Wire::new(stream);
            let Ok(head) = wire.request_head().await else {
                continue;
            };
            if head.method == "POST" {
                let accepted = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
                wire.write(accepted).await.expect("sent");
                return head.path;
            }
            let stream = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                 : hello\n\nevent: endpoint\ndata: {uri}\n\nevent: message\ndata: {{}}\n\n"
            );
            wire.write(stream.as_bytes()).await.expect("sent");
            open.push(wire);
        }
    });
    Odd { address, posted }
}

async fn in_front_of(odd: &Odd) -> Tidegate {
    let address = odd.address;
    let config = move |places: &crate::support::tidegate::Places| {
        format!(
            "listeners: [{{ bind: {} }}]\nroutes: [{{ path: /a/sse, pool: main }}]\n\
             pools: {{ main: {{ health: {{ check: none }}, endpoints: [\"{address}\"] }} }}\n\
             admin: {{ bind: \"{}\" }}\nstate_dir: {}\nlog: {{ access: off }}\n\
             streams: {{ keep_alive: 100ms }}\n",
            places.listen,
            places.admin,
            places.state_dir().display(),
        )
    };
    Tidegate::build(&[]).config_with(config).start().await
}

#[tokio::test]
async fn an_endpoint_event_that_leads_elsewhere_is_refused() {
    for uri in [
        "http://evil.example/messages",
        "//evil.example/messages",
        "https://evil.example:8443/m?x=1",
        "http://127.0.0.1:1/messages",
        "javascript:alert(1)",
        "http://evil.example",
    ] {
        let server = odd(|_| uri.to_owned()).await;
        let gate = in_front_of(&server).await;
        let accept = [("accept", "text/event-stream")];
        let mut refused = gate.client().request("GET", "/a/sse", &accept, b"").await;
        assert_eq!(refused.status, 502, "{uri}");
        let text = refused.text().await;
        assert!(
            !text.contains("evil") && !text.contains("endpoint:"),
            "{text}"
        );
        server.posted.abort();
    }
}

#[tokio::test]
async fn an_address_in_any_spelling_is_found_again() {
    for (uri, target) in [
        ("/messages?sessionId=1", "/messages?sessionId=1"),
        (
            "messages/?session_id=x%2Fy",
            "/a/messages/?session_id=x%2Fy",
        ),
        ("?id=1", "/a/sse?id=1"),
        ("http://HERE/m?x=1", "/m?x=1"),
    ] {
        let server = odd(|address| uri.replace("HERE", &address.to_string())).await;
        let gate = in_front_of(&server).await;
        let accept = [("accept", "text/event-stream")];
        let mut stream = gate.client().request("GET", "/a/sse", &accept, b"").await;
        let mut events = stream.events();
        let first = events.next().await.expect("the endpoint event");
        assert_eq!(events.comments[0].text, "hello", "what came before stays");
        let ours = first.data.expect("an address");
        assert!(ours.starts_with("/a/sse?"), "{ours}");
        assert_eq!(events.next_json().await, json!({}), "and what came behind");
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        assert_eq!(
            post(&gate.client(), &ours, &ping).await.status,
            202,
            "{uri}"
        );
        assert_eq!(server.posted.await.expect("no panic"), target);
    }
}

#[tokio::test]
async fn a_stream_without_an_endpoint_event_is_given_up_in_time() {
    let a = endpoint("a").await;
    let hasty = "timeouts: { header: 200ms }";
    let gate = build(&[&a]).pool(hasty).start().await;
    a.fault_next(1, crate::support::Fault::StallAfterHead);
    let patient = gate.client().with_patience(Duration::from_secs(5));
    let refused = get(&patient).await;
    assert_eq!(refused.status, 504);
    a.until("the stream is given up", |e| e.streams_open() == 0)
        .await;
}

#[tokio::test]
async fn a_comment_of_ours_never_stands_inside_of_an_event() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let quiet = Duration::from_millis(400);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let wire = Wire::new(stream);
        wire.request_head().await.expect("a head");
        // The end of the first event and the beginning of the second come in one piece.
        let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                     event: endpoint\ndata: /m?x=1\n\nevent: message\nda";
        wire.write(begin.as_bytes()).await.expect("sent");
        tokio::time::sleep(quiet).await;
        wire.write(b"ta: {\"half\":2}\n\n").await.expect("sent");
        wire.closed().await;
    });
    let gate = in_front_of(&Odd {
        address,
        posted: tokio::spawn(async { String::new() }),
    })
    .await;
    let accept = [("accept", "text/event-stream")];
    let mut stream = gate.client().request("GET", "/a/sse", &accept, b"").await;
    let mut events = stream.events();
    events.next().await.expect("the endpoint event");
    let second = events.next().await.expect("the second event");
    assert_eq!(second.raw, "event: message\ndata: {\"half\":2}\n\n");
    assert!(events.comments.is_empty());
    events.next_comment().await;
    drop(stream);
    server.await.expect("the server is done");
}

#[tokio::test]
async fn a_session_over_the_cap_is_refused_before_its_stream_is_opened() {
    let a = endpoint("a").await;
    let gate = build(&[&a]).config("sessions: { max: 1 }").start().await;
    let client = gate.client();
    let _session = Session::open(&client).await;
    let opened = a.requests().len();
    let refused = get(&client).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("10"));
    gate.logged(|line| line["end_reason"] == "sessions").await;
    assert_eq!(a.requests().len(), opened);
}

//! A request on a connection that is kept allocates nothing, with everything on that is on by
//! default, the access log included.
//!
//! The request path runs in this thread, where allocations are counted; client and server run in
//! threads of their own, where they are not.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use tidegate::server::inproc::Inproc;
use tokio::sync::Notify;

/// Requests before those that count: they fill what is kept and used again.
const WARM_UP: usize = 2000;
const COUNTED: usize = 2000;

/// Reads one HTTP message with a length from `stream`; its head.
fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    let mut scratch = [0; 8192];
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length: usize = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |value| value.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&buffer[end + 4..end + 4 + length]).into_owned();
                buffer.drain(..end + 4 + length);
                return Some(format!("{head}\r\n\r\n{body}"));
            }
        }
        match stream.read(&mut scratch) {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&scratch[..read]),
        }
    }
}

/// A server that answers every request at once, and `initialize` with a session.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = Vec::new();
                while let Some(request) = read_message(&mut stream, &mut buffer) {
                    let session = if request.contains("\"initialize\"") {
                        "mcp-session-id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff\r\n"
                    } else {
                        ""
                    };
                    let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}],"isError":false}}"#;
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{session}content-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn request(fields: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nUser-Agent: test/1.0\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn stateless_call(fields: &str) -> Vec<u8> {
    request(
        &format!(
            "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n{fields}"
        ),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#,
    )
}

fn initialize() -> Vec<u8> {
    request(
        "",
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
    )
}

fn session_call(id: &str) -> Vec<u8> {
    request(
        &format!("MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {id}\r\n"),
        r#"{"jsonrpc":"2.0","id":"6f9619ff-8b86-4d01-b42d-00cf4fc964aa","method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"}}}"#,
    )
}

/// Which requests a client sends.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Stateless,
    /// The same, come through proxies.
    Proxied,
    Session,
}

/// Sends requests over one connection, and tells when those to be counted begin and are over.
fn client(gate: SocketAddr, kind: Kind, turn: &Notify, go: &std::sync::mpsc::Receiver<()>) {
    let mut stream = TcpStream::connect(gate).unwrap();
    let mut buffer = Vec::new();
    let mut ask = |request: &[u8]| {
        stream.write_all(request).unwrap();
        let answer = read_message(&mut stream, &mut buffer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    };
    let call = match kind {
        Kind::Stateless => stateless_call(""),
        Kind::Proxied => stateless_call(
            "X-Forwarded-For: 198.51.100.1, 2001:db8::9, 10.0.0.2\r\nX-Forwarded-Proto: https\r\n",
        ),
        Kind::Session => {
            let opened = ask(&initialize());
            let id = opened
                .lines()
                .find_map(|line| line.strip_prefix("mcp-session-id: "));
            session_call(id.unwrap())
        }
    };
    for _ in 0..WARM_UP {
        ask(&call);
    }
    turn.notify_one();
    go.recv().unwrap();
    for _ in 0..COUNTED {
        ask(&call);
    }
    turn.notify_one();
    // Stays until it is looked at, so that the end of the connection is not counted.
    let _ = go.recv();
}

/// Allocations of the request path in `COUNTED` requests.
fn allocations(kind: Kind, access: &str) -> u64 {
    allocations_in(kind, access, "least_load")
}

/// The same where the pool balances like this.
fn allocations_in(kind: Kind, access: &str, balance: &str) -> u64 {
    allocations_under(kind, access, balance, "", "")
}

/// The same with further keys of the route and of the endpoint.
fn allocations_under(kind: Kind, access: &str, balance: &str, route: &str, endpoint: &str) -> u64 {
    let server = server();
    let state = tempfile::tempdir().unwrap();
    let log = state.path().join("access.log");
    let access = match access {
        "file" => format!("\"{}\"", log.display()),
        "text" => format!("{{ to: \"{}\", format: combined }}", log.display()),
        word => word.to_owned(),
    };
    let text = format!(
        "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: a{route} }}]\npools: {{ a: {{ endpoints: [{{ address: \"{server}\"{endpoint} }}], balance: {balance} }} }}\ntrusted_proxies: [127.0.0.1, 10.0.0.0/8]\nlog: {{ access: {access} }}\nstate_dir: {}\n",
        state.path().display()
    );
    let config = tidegate::config::parse("test", &text).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let inproc = Arc::new(Inproc::new(config).unwrap());
    let turn = Arc::new(Notify::new());
    let (go, gone) = std::sync::mpsc::sync_channel(2);
    let gate = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = listener.local_addr().unwrap();
        let worker = Arc::clone(&inproc);
        tokio::spawn(async move { worker.turn().await });
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            inproc.serve(stream).await.unwrap();
        });
        gate
    });
    let told = Arc::clone(&turn);
    let client = thread::spawn(move || client(gate, kind, &told, &gone));
    runtime.block_on(turn.notified());
    go.send(()).unwrap();
    let counted = allocation_counter::measure(|| runtime.block_on(turn.notified()));
    drop(go);
    client.join().unwrap();
    counted.count_total
}

#[test]
fn a_stateless_call_allocates_nothing() {
    assert_eq!(allocations(Kind::Stateless, "off"), 0);
    assert_eq!(
        allocations(Kind::Stateless, "file"),
        0,
        "with the access log"
    );
}

#[test]
fn a_session_call_allocates_nothing() {
    assert_eq!(allocations(Kind::Session, "off"), 0);
    assert_eq!(allocations(Kind::Session, "file"), 0, "with the access log");
    assert_eq!(allocations(Kind::Session, "text"), 0, "in nginx's words");
}

#[test]
fn a_call_under_limits_allocates_nothing() {
    let rate = ", rate: { per_client: 1000000/s, total: 1000000/s }";
    for kind in [Kind::Stateless, Kind::Session] {
        let counted = allocations_under(kind, "off", "least_load", rate, ", max_in_flight: 8");
        assert_eq!(counted, 0, "{kind:?}");
    }
}

#[test]
fn a_call_through_proxies_allocates_nothing() {
    let balance = "least_load, client_headers: both";
    assert_eq!(allocations_in(Kind::Proxied, "file", balance), 0);
}

#[test]
fn a_call_of_a_route_that_is_logged_in_part_allocates_nothing() {
    let route = ", access_log: { sample: 0.5 }";
    let counted = allocations_under(Kind::Session, "file", "least_load", route, "");
    assert_eq!(counted, 0);
}

#[test]
fn a_call_whose_fields_are_changed_allocates_nothing() {
    let changes = ", request_headers: { set: { X-Real-IP: $remote_addr, X-Asked: \"$scheme://$http_host$request_uri\" }, add: { X-Id: $request_id }, remove: [User-Agent] }, response_headers: { set: { Cache-Control: private }, add: { X-To: $remote_addr } }, cors: { origins: [\"https://app.example\"] }";
    for kind in [Kind::Stateless, Kind::Session] {
        let counted = allocations_under(kind, "off", "least_load", changes, "");
        assert_eq!(counted, 0, "{kind:?}");
    }
}

#[test]
fn balancing_by_latency_allocates_nothing() {
    assert_eq!(allocations_in(Kind::Session, "off", "peak_ewma"), 0);
}

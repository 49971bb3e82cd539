//! What does a whole call take, from a client to a server and back? One after the other over
//! loopback, with the worker in a thread of this process: most of it is the kernel's and the waking
//! of threads, so compare it with the call that goes to the server directly.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::server::inproc::Inproc;

const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}],"isError":false}}"#;

/// Reads one message with a length; none at the end of the connection.
fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut scratch = [0; 8192];
    buffer.clear();
    loop {
        let read = stream.read(&mut scratch).ok().filter(|read| *read > 0)?;
        buffer.extend_from_slice(&scratch[..read]);
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |value| value.parse().expect("a number"));
        if buffer.len() == end + 4 + length {
            return Some(());
        }
    }
}

/// A server that answers at once, and `initialize` with a session.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let plain = reply("");
    let opening = reply("mcp-session-id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff\r\n");
    while read_message(&mut stream, &mut buffer).is_some() {
        let opens = buffer.windows(12).any(|part| part == b"\"initialize\"");
        let reply = if opens { &opening } else { &plain };
        if stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

fn reply(fields: &str) -> String {
    let length = RESULT.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\n\r\n{RESULT}"
    )
}

/// A worker before that server.
fn gate(server: SocketAddr) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        let state = tempfile::tempdir().expect("a folder");
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: a }}]\npools: {{ a: {{ endpoints: [\"{server}\"] }} }}\nlog: {{ access: off }}\nstate_dir: {}\n",
            state.path().display()
        );
        let config = tidegate::config::parse("bench", &text).expect("a right configuration");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let inproc = Arc::new(Inproc::new(config).expect("a worker"));
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port");
            tell.send(listener.local_addr().expect("its address"))
                .expect("somebody waits");
            let worker = Arc::clone(&inproc);
            tokio::spawn(async move { worker.turn().await });
            while let Ok((stream, _)) = listener.accept().await {
                let inproc = Arc::clone(&inproc);
                tokio::spawn(async move { inproc.serve(stream).await });
            }
        });
    });
    told.recv().expect("a gate")
}

fn request(fields: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nUser-Agent: bench/1.0\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A client's connection, kept from call to call.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    fn ask(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).expect("it is open");
        read_message(&mut self.stream, &mut self.buffer).expect("an answer");
        assert!(self.buffer.starts_with(b"HTTP/1.1 200"));
        &self.buffer
    }

    /// A call in a session that is opened for it.
    fn session_call(&mut self) -> Vec<u8> {
        let open = request(
            "",
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
        );
        let opened = String::from_utf8_lossy(self.ask(&open)).into_owned();
        let id = opened
            .lines()
            .find_map(|line| line.strip_prefix("mcp-session-id: "))
            .expect("a session");
        request(
            &format!("MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {id}\r\n"),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"}}}"#,
        )
    }
}

fn stateless_call() -> Vec<u8> {
    request(
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n",
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#,
    )
}

fn calls(c: &mut Criterion) {
    let server = server();
    let gate = gate(server);
    let mut group = c.benchmark_group("loopback");
    let stateless = stateless_call();
    let mut client = Client::connect(server);
    group.bench_function("a call to the server directly", |b| {
        b.iter(|| client.ask(&stateless).len());
    });
    let mut client = Client::connect(gate);
    group.bench_function("a stateless call through Tidegate", |b| {
        b.iter(|| client.ask(&stateless).len());
    });
    let in_session = client.session_call();
    group.bench_function("a call in a session through Tidegate", |b| {
        b.iter(|| client.ask(&in_session).len());
    });
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);

//! A worker in the caller's thread, between a client and a server in threads of their own: what the
//! caller's thread does is what a call costs a worker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tidegate::server::inproc::Inproc;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Calls before those that count: they fill what is kept and used again.
const WARM_UP: usize = 200;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}],"isError":false}}"#;
const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const OPEN: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
const SESSION: &str = "mcp-session-id: ";

/// The worker, and its client's wishes.
pub(crate) struct Worker {
    runtime: Runtime,
    go: SyncSender<usize>,
    done: mpsc::Receiver<()>,
}

impl Worker {
    /// One that has served some calls already.
    pub(crate) fn warm() -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let server = listen(answer);
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: a }}]\npools: {{ a: {{ endpoints: [\"{server}\"] }} }}\nlog: {{ access: off }}\nstate_dir: {}\n",
            state.path().display()
        );
        let config = tidegate::config::parse("bench", &text).expect("a right configuration");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let inproc = Arc::new(Inproc::new(config).expect("a worker"));
        let address = runtime.block_on(serve(inproc));
        let (go, wishes) = sync_channel(1);
        let (tell, done) = mpsc::channel(1);
        thread::spawn(move || ask(address, &wishes, &tell));
        let mut worker = Self { runtime, go, done };
        worker.calls(WARM_UP);
        worker
    }

    /// Serves so many calls, one after the other.
    pub(crate) fn calls(&mut self, count: usize) {
        self.go.send(count).expect("the client waits");
        let done = self.runtime.block_on(self.done.recv());
        done.expect("the client goes on");
    }
}

async fn serve(inproc: Arc<Inproc>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("its address");
    let worker = Arc::clone(&inproc);
    tokio::spawn(async move { worker.turn().await });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let inproc = Arc::clone(&inproc);
            tokio::spawn(async move { inproc.serve(stream).await });
        }
    });
    address
}

/// A client that sends as many calls of one session as it is told.
fn ask(address: SocketAddr, wishes: &Receiver<usize>, tell: &mpsc::Sender<()>) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let mut buffer = Vec::new();
    let mut say = |request: &str, buffer: &mut Vec<u8>| {
        stream.write_all(request.as_bytes()).expect("it is open");
        read_message(&mut stream, buffer).expect("an answer");
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{request}");
    };
    say(&request("", OPEN), &mut buffer);
    let opened = String::from_utf8_lossy(&buffer).to_lowercase();
    let at = opened.find(SESSION).expect("a session") + SESSION.len();
    // As it was sent: an id is not to be put into lower case.
    let id = String::from_utf8_lossy(&buffer[at..]).into_owned();
    let id = id.lines().next().expect("an id");
    let call = request(&format!("Mcp-Session-Id: {id}\r\n"), CALL);
    while let Ok(count) = wishes.recv() {
        (0..count).for_each(|_| say(&call, &mut buffer));
        if tell.blocking_send(()).is_err() {
            return;
        }
    }
}

fn request(fields: &str, body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nUser-Agent: bench/1.0\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Has every connection to a port of this host served in a thread of its own.
fn listen(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Answers at once, and `initialize` with a session.
fn answer(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let plain = reply("");
    let opening = reply(&format!(
        "{SESSION}6f9619ff-8b86-4d01-b42d-00cf4fc964ff\r\n"
    ));
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

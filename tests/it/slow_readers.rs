//! Clients that ask for a fast event stream and hardly read it: each costs what it costs to wait, and
//! the server waits with it.
//!
//! `TIDEGATE_SLOW_READERS=1000 cargo test --test it slow_readers -- --nocapture` tells the figure for
//! more of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Tidegate, eventually};

/// What one slow reader may cost in memory of the process: one large buffer of what is on its way to
/// it, and what a stream takes anyway.
const PER_STREAM_MAX: u64 = (64 + 8) << 10;
/// What the allocator takes in advance, however many they are.
const ONCE_MAX: u64 = 16 << 20;

/// A server that writes events as fast as it can.
struct Fast {
    address: SocketAddr,
    /// Bytes that it could get rid of.
    written: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Drop for Fast {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Fast {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(16 << 10).expect("set");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(4096).expect("listening");
        let address = listener.local_addr().expect("bound");
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        let accepting = tokio::spawn(accept(listener, count));
        Self {
            address,
            written,
            accepting,
        }
    }
}

async fn accept(listener: TcpListener, written: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(pour(stream, Arc::clone(&written)));
    }
}

async fn pour(mut stream: TcpStream, written: Arc<AtomicU64>) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"PAD"}}"#;
    let event = format!("data: {}\n\n", note.replace("PAD", &"e".repeat(8000)));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    let _ = stream.write_all(head.as_bytes()).await;
    while stream.write_all(chunk.as_bytes()).await.is_ok() {
        written.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
}

async fn gate(fast: &Fast, config: &str) -> Tidegate {
    Tidegate::build(&[])
        .also_at("fast", fast.address)
        .listener("max_connections: 20000")
        .config(config)
        .start()
        .await
}

/// Asks for the stream and reads no more than its beginning.
async fn reader(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(address).await.expect("a connection");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"it","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
        Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
        Mcp-Method: tools/call\r\nMcp-Name: t\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
    stream
}

/// Memory of the program that no other shares (`Pss`), in bytes.
fn memory(gate: &Tidegate) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", gate.pid()));
    let rollup = rollup.expect("it runs");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let digits = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    digits.expect("a size") << 10
}

/// Waits until the server can write no more.
async fn stands_still(fast: &Fast) {
    let mut last = 0;
    let mut same = 0;
    let still = eventually(Duration::from_secs(60), || {
        let now = fast.written.load(Ordering::Relaxed);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 100
    });
    assert!(still.await, "it is held back");
}

#[tokio::test]
async fn a_slow_reader_costs_one_buffer_and_holds_its_server_back() {
    let count = std::env::var("TIDEGATE_SLOW_READERS").ok();
    let count: usize = count.map_or(200, |count| count.parse().expect("a number"));
    let _ = rlimit::increase_nofile_limit(4 * count as u64 + 500);
    let fast = Fast::start().await;
    let gate = gate(&fast, "threads: 2\nlimits: { write_timeout: 10m }").await;
    // What the first streams need is there for all.
    let warm = [reader(gate.address()).await, reader(gate.address()).await];
    stands_still(&fast).await;
    let before = memory(&gate);
    let mut readers = Vec::with_capacity(count);
    for _ in 0..count {
        readers.push(reader(gate.address()).await);
    }
    stands_still(&fast).await;
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("tidegate_streams"), (count + warm.len()) as f64);
    let grown = memory(&gate).saturating_sub(before);
    let each = grown / count as u64;
    let poured = fast.written.load(Ordering::Relaxed) / (count + warm.len()) as u64;
    eprintln!(
        "{count} slow readers of a fast stream: {:.1} KiB each, {} KiB per stream on their way",
        each as f64 / 1024.0,
        poured >> 10
    );
    let most = ONCE_MAX + count as u64 * PER_STREAM_MAX;
    assert!(grown < most, "{grown} bytes, {each} each");
    // They still get everything, as fast as they like.
    let mut some = readers.pop().expect("there are some");
    let mut piece = vec![0; 64 << 10];
    some.read_exact(&mut piece)
        .await
        .expect("more of the stream");
    drop((readers, warm, some));
    gate.metrics_when(|metrics| metrics.sum("tidegate_streams") == 0.0)
        .await;
}

#[tokio::test]
async fn a_reader_that_stands_still_is_dropped_and_counted() {
    let fast = Fast::start().await;
    let gate = gate(&fast, "limits: { write_timeout: 300ms }").await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(reader(gate.address()).await);
    }
    gate.metrics_when(|metrics| {
        let dropped = metrics.with("tidegate_limits_hit_total", &[("limit", "write_time")]);
        dropped == 20.0 && metrics.sum("tidegate_streams") == 0.0
    })
    .await;
    let line = gate
        .logged(|line| line["end_reason"] == "client_write")
        .await;
    assert_eq!(line["status"], 200);
}

//! What users of another proxy's plain routes rely on: large uploads, second attempts, cookies and
//! WebSockets under TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::tls::{Certificate, TlsDoor};
use crate::support::wire::Wire;
use crate::support::ws::WebSocket;
use crate::support::{Client, Endpoint, Fault, Tidegate, within};

/// A server that reads bodies of a given length away, and counts them.
async fn sink() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut buffer = vec![0; 256 * 1024];
                let mut ahead = Vec::new();
                let end = loop {
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    ahead.extend_from_slice(&buffer[..read]);
                    let end = ahead.windows(4).position(|four| four == b"\r\n\r\n");
                    if read == 0 || end.is_some() {
                        break end;
                    }
                };
                let Some(end) = end else { return };
                let head = String::from_utf8_lossy(&ahead[..end]).to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length: u64 = length.and_then(|text| text.parse().ok()).expect("a length");
                let mut seen = (ahead.len() - end - 4) as u64;
                counted.fetch_add(seen, Ordering::Relaxed);
                while seen < length {
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    seen += read as u64;
                    counted.fetch_add(read as u64, Ordering::Relaxed);
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            });
        }
    });
    (address, count)
}

/// Memory of a process in KiB, by the name of its line: `VmRSS`, or `VmHWM` for the most it had.
fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let found = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let text = found.expect("the line").trim().trim_end_matches(" kB");
    text.parse().expect("a number")
}

const GIB: u64 = 1 << 30;

async fn gate_of(address: SocketAddr) -> Tidegate {
    let nobody = Endpoint::start("nobody").await;
    Tidegate::build(&[&nobody])
        .routes("- path_prefix: /\n  pool: web")
        .pools(&format!(
            "web: {{ kind: http, health: {{ check: none }}, endpoints: [\"{address}\"] }}"
        ))
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_a_gibibyte_is_streamed_in_bounded_memory() {
    let (address, count) = sink().await;
    let gate = gate_of(address).await;
    let before = memory(gate.pid(), "VmRSS");
    let begun = Instant::now();
    let mut stream = TcpStream::connect(gate.address())
        .await
        .expect("a connection");
    let head = format!("PUT /upload HTTP/1.1\r\nhost: h\r\ncontent-length: {GIB}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..GIB >> 20 {
        stream.write_all(&piece).await.expect("sent");
    }
    let answer = within("the answer", Wire::new(stream).response_head()).await;
    assert_eq!(answer.expect("an answer").status, 200);
    assert_eq!(count.load(Ordering::Relaxed), GIB);
    let most = memory(gate.pid(), "VmHWM");
    eprintln!(
        "1 GiB in {:?}: {before} KiB before, {most} KiB at most",
        begun.elapsed()
    );
    assert!(
        most < before + 16 * 1024,
        "{before} KiB before, {most} KiB at most"
    );
}

/// A server that resets the first `bad` requests that it has read, and answers the others.
async fn flaky(bad: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let wire = Wire::new(stream);
                while wire.request_head().await.is_ok() {
                    if counted.fetch_add(1, Ordering::Relaxed) < bad {
                        return wire.reset_on_close();
                    }
                    let _ = wire
                        .write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        .await;
                }
            });
        }
    });
    (address, seen)
}

async fn both(a: SocketAddr, b: SocketAddr, keys: &str) -> Tidegate {
    let nobody = Endpoint::start("nobody").await;
    Tidegate::build(&[&nobody])
        .routes("- path_prefix: /\n  pool: web")
        .pools(&format!(
            "web: {{ kind: http, balance: round_robin, ejection: off, breaker: off, health: {{ check: none }}{keys}, endpoints: [\"{a}\", \"{b}\"] }}"
        ))
        .start()
        .await
}

async fn status(client: &Client, method: &str, body: &[u8]) -> u16 {
    client.request(method, "/x", &[], body).await.status
}

#[tokio::test]
async fn a_safe_request_that_was_reset_is_sent_to_another_endpoint() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let ((a, seen_a), (b, seen_b)) = (flaky(usize::MAX).await, flaky(0).await);
        let gate = both(a, b, "").await;
        let client = gate.client();
        for _ in 0..4 {
            let connection = client.connect().await.expect("a connection");
            let answer = client
                .try_request_on(connection, method, "/x", &[], b"")
                .await;
            assert_eq!(answer.expect("an answer").status, 200, "{method}");
        }
        assert!(
            seen_a.load(Ordering::Relaxed) >= 1,
            "{method} was tried there"
        );
        assert_eq!(seen_b.load(Ordering::Relaxed), 4);
    }
}

#[tokio::test]
async fn a_request_that_is_not_safe_is_sent_once() {
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let ((a, seen_a), (b, seen_b)) = (flaky(usize::MAX).await, flaky(0).await);
        let gate = both(a, b, "").await;
        let client = gate.client();
        let mut failed = 0;
        for _ in 0..4 {
            failed += usize::from(status(&client, method, b"body").await == 502);
        }
        let seen = (
            seen_a.load(Ordering::Relaxed),
            seen_b.load(Ordering::Relaxed),
        );
        assert_eq!((seen.0 + seen.1, seen.0), (4, failed), "{method}");
        assert!(failed >= 1, "{method}");
    }
}

#[tokio::test]
async fn second_attempts_keep_within_the_budget() {
    let ((a, _), (b, seen_b)) = (flaky(usize::MAX).await, flaky(usize::MAX).await);
    let gate = both(a, b, ", retries: off").await;
    let client = gate.client();
    for _ in 0..4 {
        assert_eq!(status(&client, "GET", b"").await, 502);
    }
    assert!(seen_b.load(Ordering::Relaxed) <= 2, "each was sent once");
}

#[tokio::test]
async fn a_refused_connection_is_passed_over_whatever_the_method() {
    let (b, seen) = flaky(0).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let a = dead.local_addr().expect("its address");
    drop(dead);
    let gate = both(a, b, "").await;
    for method in ["GET", "POST", "DELETE"] {
        for _ in 0..3 {
            assert_eq!(
                status(&gate.client(), method, b"body").await,
                200,
                "{method}"
            );
        }
    }
    assert_eq!(seen.load(Ordering::Relaxed), 9);
}

#[tokio::test]
async fn after_the_first_byte_nothing_is_sent_again() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
        .start()
        .await;
    a.fault(Fault::ResetMidEvent(10));
    b.fault(Fault::ResetMidEvent(10));
    let mut answer = gate.client().request("GET", "/plain", &[], b"").await;
    assert_eq!(answer.status, 200);
    answer.read_to_end().await;
    assert_eq!(a.requests().len() + b.requests().len(), 1);
}

#[tokio::test]
async fn under_tls_the_cookie_is_secure_and_websockets_pass() {
    let a = Endpoint::named("a").websocket().start().await;
    let certificate = Certificate::new();
    let gate = Tidegate::build(&[&a])
        .listener(&certificate.listener())
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http\naffinity: { cookie: TIDEGATE }")
        .start()
        .await;
    let door = TlsDoor::open(gate.address(), &certificate, &["http/1.1"]).await;
    let answer = door.client().request("GET", "/plain", &[], b"").await;
    let cookie = answer.header("set-cookie").expect("a cookie");
    let (_, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Secure");
    let client = door.client().with_path("/any");
    let socket = WebSocket::connect(&client).await.expect("a WebSocket");
    let text = "w".repeat(100_000);
    socket.send_text(&text).await;
    assert_eq!(socket.next_text().await, text);
    assert_eq!(socket.close(1000).await, Some(1000));
    let plain = Tidegate::build(&[&a])
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http\naffinity: { cookie: TIDEGATE }")
        .start()
        .await;
    let answer = plain.client().request("GET", "/plain", &[], b"").await;
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
}

#[tokio::test]
async fn a_page_may_post_to_a_website_that_says_nothing_of_origins() {
    let a = Endpoint::start("a").await;
    for (keys, expected) in [("", 200), ("\n  origins: [\"https://a.example\"]", 403)] {
        let gate = Tidegate::build(&[&a])
            .routes(&format!("- path_prefix: /\n  pool: main{keys}"))
            .pool("kind: http")
            .start()
            .await;
        let origin = [("origin", "https://b.example")];
        let answer = gate
            .client()
            .request("POST", "/plain", &origin, b"a=b")
            .await;
        assert_eq!(answer.status, expected);
    }
}

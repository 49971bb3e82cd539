//! Peers that are gone without a word: their hosts answer nothing any more, not even that they have gone.
//!
//! A filter on a socket of the test's own throws away what comes in before its kernel has seen it, so
//! nothing is acknowledged, as with a host without power.

use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Endpoint, Mcp, Outgoing, SESSION_VERSION, Tidegate, within};

/// Lets the host at this end of a connection vanish.
fn vanish(stream: &TcpStream) {
    // Whatever it is, keep 0 bytes of it (BPF_RET | BPF_K).
    let nothing = [SockFilter::new(0x06, 0, 0, 0)];
    let attached = SockRef::from(stream).attach_filter(&nothing);
    attached.expect("a filter on a socket of our own");
}

#[tokio::test]
async fn the_stream_of_a_client_that_has_vanished_is_given_back() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { write_timeout: 1s }\nstreams: { keep_alive: 500ms }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let head = [
        ("accept", "text/event-stream"),
        ("mcp-session-id", session.0.as_str()),
        ("mcp-protocol-version", SESSION_VERSION),
    ];
    let request = client.encode("GET", client.path(), &head, b"");
    let mut stream = TcpStream::connect(gate.address())
        .await
        .expect("a connection");
    stream.write_all(&request).await.expect("it is sent");
    let mut begin = [0; 12];
    within("the head", stream.read_exact(&mut begin))
        .await
        .expect("a head");
    assert_eq!(&begin, b"HTTP/1.1 200");
    a.until("it is open", |a| a.streams_open() == 1).await;
    vanish(&stream);
    let since = Instant::now();
    a.until("it is given back", |a| a.streams_open() == 0).await;
    assert!(since.elapsed() >= Duration::from_secs(2), "not at once");
    gate.metrics_when(|m| m.with("tidegate_streams", &[("kind", "get")]) == 0.0)
        .await;
    gate.logged(|line| line["method"] == "GET").await;
    drop(stream);
}

#[tokio::test]
async fn a_call_to_a_server_that_has_vanished_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let gate = Tidegate::build(&[])
        .also_at("gone", address)
        .config("threads: 1")
        .pool("timeouts: { write: 1s }\neras: stateless")
        .start()
        .await;
    let client = gate.client();
    let call = || Outgoing::stateless(&json!(7), "tools/call", Some("t"), json!({"name": "t"}));
    let answers = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"}}") {
            stream.read_buf(&mut request).await.expect("a request");
        }
        let answer = json!({"jsonrpc": "2.0", "id": 7, "result": {"content": []}}).to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        let answer = format!("{head}{}\r\n\r\n{answer}", answer.len());
        let sent = stream.write_all(answer.as_bytes()).await;
        sent.expect("it is sent");
        stream
    };
    let both = async { tokio::join!(client.send(call()), answers) };
    let (answer, stream) = within("a call", both).await;
    assert_eq!(answer.status, 200);
    vanish(&stream);
    let since = Instant::now();
    let mut answer = client.send(call()).await;
    let said = answer.text().await;
    assert_eq!(answer.status, 502, "{said}");
    let waited = since.elapsed();
    assert!(waited >= Duration::from_secs(2), "not at once: {waited:?}");
}

//! The shell over a fake client: what is written, in which order, and when it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::*;
use crate::demo::tests::{FakeHead, INITIALIZE};
use crate::transport::buffer::Piece;
use crate::transport::dress::Dress;
use crate::transport::timer::{Alarm, Wheel};
use crate::transport::{ConnInfo, ResponseHead};

/// What a client sees of an answer.
#[derive(Debug, PartialEq)]
enum Sent {
    Head(u16, Vec<(String, String)>, Length),
    Body(String),
    Finish,
    CloseAfter,
}

/// A client that sends one request and takes note of the answer.
struct Client {
    head: FakeHead,
    dress: Dress,
    pieces: Vec<Bytes>,
    info: Arc<ConnInfo>,
    alarm: Alarm,
    leaves: Arc<Notify>,
    sent: mpsc::Sender<Sent>,
}

/// The other end of a [`Client`].
struct Watcher {
    leave: Arc<Notify>,
    sent: mpsc::Receiver<Sent>,
}

impl Watcher {
    async fn next(&mut self) -> Option<Sent> {
        let next = timeout(Duration::from_secs(10), self.sent.recv());
        next.await.expect("the server says something in time")
    }

    async fn head(&mut self) -> (u16, Vec<(String, String)>, Length) {
        match self.next().await {
            Some(Sent::Head(status, fields, length)) => (status, fields, length),
            other => panic!("no head: {other:?}"),
        }
    }

    async fn body(&mut self) -> String {
        match self.next().await {
            Some(Sent::Body(body)) => body,
            other => panic!("no body: {other:?}"),
        }
    }
}

fn client(method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> (Client, Watcher) {
    let leave = Arc::new(Notify::new());
    let (sender, receiver) = mpsc::channel(1024);
    let local = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut head = FakeHead::new(method, target, fields);
    let json = ("content-type".to_owned(), "application/json".to_owned());
    head.fields.push(json);
    let (front, back) = body.as_bytes().split_at(body.len() / 2);
    let client = Client {
        head,
        dress: Dress::default(),
        // Last first.
        pieces: vec![Bytes::copy_from_slice(back), Bytes::copy_from_slice(front)],
        info: Arc::new(ConnInfo {
            client: local,
            local,
            listener: "test".into(),
            tls: None,
            place: None,
        }),
        alarm: Wheel::new(std::time::Instant::now()).alarm(),
        leaves: Arc::clone(&leave),
        sent: sender,
    };
    let watcher = Watcher {
        leave,
        sent: receiver,
    };
    (client, watcher)
}

impl Downstream for Client {
    type Head = FakeHead;

    fn head(&self) -> &FakeHead {
        &self.head
    }

    fn dress(&self) -> &Dress {
        &self.dress
    }

    fn dress_mut(&mut self) -> &mut Dress {
        &mut self.dress
    }

    fn send_onward(&mut self, _: Box<str>) {}

    fn release_head(&mut self) {}

    fn info(&self) -> &Arc<ConnInfo> {
        &self.info
    }

    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    fn body_ended(&mut self) -> bool {
        self.pieces.is_empty()
    }

    async fn read_body(&mut self) -> Result<Option<Piece>, Error> {
        Ok(self.pieces.pop().map(Piece::Bytes))
    }

    async fn send_head(
        &mut self,
        status: u16,
        _from: Option<&(dyn ResponseHead + '_)>,
        edits: Edits<'_>,
        length: Length,
    ) -> Result<(), Error> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = edits.set.iter();
        let fields = fields
            .map(|(name, value)| ((*name).to_owned(), text(value)))
            .collect();
        let head = Sent::Head(status, fields, length);
        self.sent.try_send(head).map_err(|_| Error::Closed)
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
        assert!(!data.is_empty(), "an empty piece would end a chunked body");
        let body = Sent::Body(String::from_utf8_lossy(data).into_owned());
        self.sent.try_send(body).map_err(|_| Error::Closed)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.sent.try_send(Sent::Finish).map_err(|_| Error::Closed)
    }

    async fn abort(&mut self) {}

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    async fn gone(&mut self) {
        assert!(self.pieces.is_empty(), "the body has not been read");
        self.leaves.notified().await;
    }

    fn close_after(&mut self) {
        // A watcher that has left does not mind.
        let _ = self.sent.try_send(Sent::CloseAfter);
    }
}

/// Serves a request to its end.
async fn serve(
    server: &DemoServer,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Watcher {
    let (mut client, watcher) = client(method, target, fields, body);
    let served = timeout(Duration::from_secs(10), server.serve(&mut client));
    served.await.expect("the exchange ends");
    watcher
}

/// Serves a request beside the test.
fn serve_beside(
    server: &Arc<DemoServer>,
    method: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> (Watcher, tokio::task::JoinHandle<()>) {
    let (mut client, watcher) = client(method, "/mcp", fields, body);
    let server = Arc::clone(server);
    // This also shows that the future may move between threads.
    (
        watcher,
        tokio::spawn(async move { server.serve(&mut client).await }),
    )
}

fn quick_server() -> Arc<DemoServer> {
    let mut server = DemoServer::new("one");
    server.keep_alive = Duration::from_millis(5);
    Arc::new(server)
}

async fn begin(server: &DemoServer) -> String {
    let mut watcher = serve(server, "POST", "/mcp", &[], INITIALIZE).await;
    let (status, fields, _) = watcher.head().await;
    assert_eq!(status, 200);
    let session = fields.into_iter().find(|(name, _)| name == MCP_SESSION_ID);
    session.expect("a session was begun").1
}

fn ticks(id: u32, n: u32, every_ms: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"ticks","arguments":{{"n":{n},"every_ms":{every_ms}}}}}}}"#
    )
}

#[tokio::test]
async fn a_quick_call_is_one_json_answer() {
    let server = DemoServer::new("one");
    let session = begin(&server).await;
    assert_eq!(server.session_count(), 1);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"}}"#;
    let mut watcher = serve(
        &server,
        "POST",
        "/mcp",
        &[("mcp-session-id", &session)],
        call,
    )
    .await;
    let (status, fields, length) = watcher.head().await;
    let body = watcher.body().await;
    assert_eq!((status, length), (200, Length::Exact(body.len() as u64)));
    let expected = [
        ("content-type".to_owned(), "application/json".to_owned()),
        ("mcp-session-id".to_owned(), session),
    ];
    assert_eq!(fields, expected);
    assert!(body.contains(r#""text":"one""#), "{body}");
    assert_eq!(watcher.next().await, Some(Sent::Finish));
}

#[tokio::test]
async fn answers_without_a_body_have_no_length_to_wait_for() {
    let server = DemoServer::new("one");
    let session = begin(&server).await;
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let fields = [("mcp-session-id", session.as_str())];
    let rows = [
        ("POST", "/mcp", told, 202),
        ("HEAD", "/health", "", 200),
        ("HEAD", "/mcp", "", 405),
        ("DELETE", "/mcp", "", 200),
    ];
    for (method, target, body, status) in rows {
        let mut watcher = serve(&server, method, target, &fields, body).await;
        let (told, _, length) = watcher.head().await;
        assert_eq!((told, length), (status, Length::None), "{method} {target}");
        assert_eq!(watcher.next().await, Some(Sent::Finish));
    }
    assert_eq!(server.session_count(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_not() {
    let server = DemoServer::new("one");
    let large = " ".repeat(BODY_BYTES_MAX + 1);
    let announced = (BODY_BYTES_MAX + 1).to_string();
    let rows: [(&[(&str, &str)], &str); 2] =
        [(&[], &large), (&[("content-length", &announced)], "")];
    for (fields, body) in rows {
        let mut watcher = serve(&server, "POST", "/mcp", fields, body).await;
        assert_eq!(watcher.next().await, Some(Sent::CloseAfter));
        assert_eq!(watcher.head().await.0, 413);
    }
    let mut watcher = serve(&server, "POST", "/mcp", &[], &large[1..]).await;
    assert_eq!(watcher.head().await.0, 400);
}

#[tokio::test]
async fn ticks_come_one_by_one_and_then_the_answer() {
    let server = DemoServer::new("one");
    let session = begin(&server).await;
    let mut watcher = serve(
        &server,
        "POST",
        "/mcp",
        &[("mcp-session-id", &session)],
        &ticks(4, 3, 1),
    )
    .await;
    let (status, fields, length) = watcher.head().await;
    assert_eq!((status, length), (200, Length::Unknown));
    assert!(fields.contains(&("content-type".to_owned(), "text/event-stream".to_owned())));
    assert!(fields.contains(&("mcp-session-id".to_owned(), session)));
    for tick in 1..=3 {
        assert!(watcher.body().await.contains(&format!("tick {tick} of 3")));
    }
    assert!(watcher.body().await.contains(r#""id":4,"result""#));
    assert_eq!(watcher.next().await, Some(Sent::Finish));
    assert_eq!(watcher.next().await, None);
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_is_alive_and_is_given_back_when_the_client_leaves() {
    let server = quick_server();
    let session = begin(&server).await;
    let fields = [("mcp-session-id", session.as_str())];
    let (mut first, serving) = serve_beside(&server, "GET", &fields, "");
    assert_eq!(first.head().await.0, 200);
    for _ in 0..3 {
        assert_eq!(first.body().await, ": \n\n");
    }
    let mut second = serve(&server, "GET", "/mcp", &fields, "").await;
    assert_eq!(second.head().await.0, 409);
    first.leave.notify_one();
    serving.await.expect("the exchange ends");
    let (mut third, _serving) = serve_beside(&server, "GET", &fields, "");
    assert_eq!(third.head().await.0, 200);
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_ticks() {
    let server = quick_server();
    let session = begin(&server).await;
    let fields = [("mcp-session-id", session.as_str())];
    for every_ms in [0, 60_000] {
        let (mut watcher, serving) =
            serve_beside(&server, "POST", &fields, &ticks(1, 1000, every_ms));
        watcher.leave.notify_one();
        assert_eq!(watcher.head().await.0, 200);
        serving.await.expect("the exchange ends");
        while let Some(sent) = watcher.next().await {
            assert_ne!(sent, Sent::Finish, "{every_ms}");
        }
    }
}

#[tokio::test]
async fn a_cancelled_call_ends_without_an_answer() {
    let server = quick_server();
    let session = begin(&server).await;
    let fields = [("mcp-session-id", session.as_str())];
    let (mut watcher, serving) = serve_beside(&server, "POST", &fields, &ticks(6, 1, 60_000));
    assert_eq!(watcher.head().await.0, 200);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":6}}"#;
    assert_eq!(
        serve(&server, "POST", "/mcp", &fields, cancel)
            .await
            .head()
            .await
            .0,
        202
    );
    serving.await.expect("the exchange ends");
    loop {
        match watcher.next().await {
            Some(Sent::Body(body)) => assert_eq!(body, ": \n\n"),
            end => break assert_eq!(end, Some(Sent::Finish)),
        }
    }
}

/// The last event before the proper end of a stream.
async fn last_event(watcher: &mut Watcher) -> String {
    let mut last = String::new();
    loop {
        match watcher.next().await {
            Some(Sent::Body(body)) => last = body,
            end => {
                assert_eq!(end, Some(Sent::Finish));
                return last;
            }
        }
    }
}

#[tokio::test]
async fn delete_ends_the_streams_of_the_session_with_an_answer() {
    let server = Arc::new(DemoServer::new("one"));
    let session = begin(&server).await;
    let fields = [("mcp-session-id", session.as_str())];
    let (mut own, _own) = serve_beside(&server, "GET", &fields, "");
    let (mut call, _call) = serve_beside(&server, "POST", &fields, &ticks(8, 1, 60_000));
    assert_eq!((own.head().await.0, call.head().await.0), (200, 200));
    assert_eq!(
        serve(&server, "DELETE", "/mcp", &fields, "")
            .await
            .head()
            .await
            .0,
        200
    );
    assert_eq!(last_event(&mut own).await, "");
    let last = last_event(&mut call).await;
    assert!(last.contains(r#""id":8,"error""#), "{last}");
}

#[tokio::test]
async fn closing_ends_a_subscription_with_its_result() {
    let server = Arc::new(DemoServer::new("one"));
    let fields = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let body = r#"{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{"notifications":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let (mut watcher, _serving) = serve_beside(&server, "POST", &fields, body);
    assert_eq!(watcher.head().await.0, 200);
    assert!(
        watcher
            .body()
            .await
            .contains("notifications/subscriptions/acknowledged")
    );
    server.close();
    let last = last_event(&mut watcher).await;
    assert!(last.contains(r#""id":"s","result""#), "{last}");
}

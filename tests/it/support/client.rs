//! A raw HTTP/1.1 client: every byte out is the test's own, every byte in can be looked at.
//!
//! [`Client`] holds an address and what all its requests share; each request has a connection of its
//! own, unless a test keeps one with [`Client::connect`] and [`Response::into_connection`]. The MCP
//! part is the trait [`mcp::Mcp`], which the HTTP/2 client has too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::net::TcpStream;

use super::sse::Unread;
use super::wire::{BodyEnd, BodyReader, Headers, NoHead, ResponseHead, Wire};
use super::{Endpoint, Events, PATIENCE, h2};

mod mcp;

pub(crate) use mcp::{Mcp, Outgoing, SessionId, text_of};

/// Why a request got no response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The connect failed.
    Connect(io::ErrorKind),
    /// The connection ended, or what came was no head.
    Head(NoHead),
    /// Nothing came in time.
    Silent,
    /// The HTTP/2 stream or connection failed, with the crate's words.
    H2(String),
}

/// Where requests go and what they all carry.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    path: String,
    headers: Headers,
    patience: Duration,
    ids: Arc<AtomicU64>,
}

impl Client {
    /// A client of the MCP path of this address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            path: "/mcp".into(),
            headers: Headers::default(),
            patience: PATIENCE,
            ids: Arc::default(),
        }
    }

    /// A client that talks to the endpoint without anything between.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self::new(endpoint.address())
    }

    /// Sends MCP requests to another path.
    pub(crate) fn with_path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// Adds a header to every request.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.into(), value.into()));
        self
    }

    /// Waits this long for a head or for the next bytes of a body.
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn headers(&self) -> &Headers {
        &self.headers
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Connection, NoAnswer> {
        let connected = tokio::time::timeout(self.patience, TcpStream::connect(self.address)).await;
        match connected {
            Ok(Ok(stream)) => Ok(Connection {
                wire: Wire::new(stream),
                patience: self.patience,
            }),
            Ok(Err(e)) => Err(NoAnswer::Connect(e.kind())),
            Err(_) => Err(NoAnswer::Silent),
        }
    }

    /// Sends these bytes on a new connection and reads the response head.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Result<Response, NoAnswer> {
        let connection = self.connect().await?;
        // A peer may refuse before it has read everything; its answer is what counts.
        let _ = connection.raw(bytes).await;
        connection.response(false).await
    }

    /// Sends a request on a new connection; panics when no response head comes.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        match self.try_request(method, path, headers, body).await {
            Ok(response) => response,
            Err(e) => panic!("no answer to {method} {path} from {}: {e:?}", self.address),
        }
    }

    /// Sends a request on a new connection.
    pub(crate) async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, NoAnswer> {
        let connection = self.connect().await?;
        self.try_request_on(connection, method, path, headers, body)
            .await
    }

    /// Sends a request on a connection that is there already.
    pub(crate) async fn try_request_on(
        &self,
        connection: Connection,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, NoAnswer> {
        let bytes = self.encode(method, path, headers, body);
        let _ = connection.raw(&bytes).await;
        connection.response(method == "HEAD").await
    }

    /// The bytes of a request: `host` and `content-length` are added unless given.
    pub(crate) fn encode(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<u8> {
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !given("host") && !self.headers.has("host") {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        let own = self.headers.0.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let sized = given("content-length") || given("transfer-encoding");
        if !sized && (!body.is_empty() || method == "POST") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// The JSON-RPC id of the next request.
    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

impl Mcp for Client {
    async fn try_send(&self, outgoing: Outgoing) -> Result<Response, NoAnswer> {
        let headers = outgoing.header_lines();
        self.try_request(outgoing.http_method, &self.path, &headers, &outgoing.body)
            .await
    }

    fn next_id(&self) -> u64 {
        self.next_id()
    }
}

/// One TCP connection of a client. Dropped, it closes in good order.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    patience: Duration,
}

impl Connection {
    /// Sends these bytes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes).await
    }

    /// Reads a response head, and the interim ones before it. With `head_only` no body is awaited.
    pub(crate) async fn response(self, head_only: bool) -> Result<Response, NoAnswer> {
        let mut interim = Vec::new();
        loop {
            let head = tokio::time::timeout(self.patience, self.wire.response_head()).await;
            let head = head.map_err(|_| NoAnswer::Silent)?;
            let head = head.map_err(NoAnswer::Head)?;
            if matches!(head.status, 100..=199) && head.status != 101 {
                interim.push(head);
                continue;
            }
            let reader = BodyReader::of_response(head.status, &head.headers, head_only);
            let patience = self.patience;
            let mut response = Response::new(head, Source::H1(self, reader), patience);
            response.interim = interim;
            return Ok(response);
        }
    }

    /// Everything that comes until the connection ends, and how it ended.
    pub(crate) async fn rest(self) -> (Bytes, BodyEnd) {
        loop {
            let end = match tokio::time::timeout(self.patience, self.wire.fill()).await {
                Ok(Ok(0)) => BodyEnd::Closed,
                Ok(Ok(_)) => continue,
                Ok(Err(_)) => BodyEnd::Reset,
                Err(_) => BodyEnd::Silent,
            };
            return (self.wire.with_inbox(|inbox| inbox.split().freeze()), end);
        }
    }

    /// Says that no more will be sent, and goes on reading.
    pub(crate) fn half_close(&self) {
        self.wire.shutdown_write();
    }

    /// Resets the connection (RST).
    pub(crate) fn reset(self) {
        self.wire.reset_on_close();
    }

    /// The connection without HTTP on it.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }
}

/// Where a body comes from.
#[derive(Debug)]
pub(super) enum Source {
    H1(Connection, BodyReader),
    H2(h2::Incoming),
}

/// A response whose body may still be on its way. Dropped, it closes its connection.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The head as it came; `raw` is empty over HTTP/2.
    pub(crate) head: ResponseHead,
    /// The 1xx heads that came first.
    pub(crate) interim: Vec<ResponseHead>,
    source: Source,
    patience: Duration,
    /// What an event reader has read ahead.
    pub(super) unread: Unread,
}

/// A whole body.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) end: BodyEnd,
}

impl Response {
    pub(super) fn new(head: ResponseHead, source: Source, patience: Duration) -> Self {
        Self {
            status: head.status,
            head,
            interim: Vec::new(),
            source,
            patience,
            unread: Unread::default(),
        }
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)
    }

    /// All headers, in order.
    pub(crate) fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// Whether the body is an event stream.
    pub(crate) fn is_stream(&self) -> bool {
        let kind = self.header("content-type").unwrap_or_default();
        kind.starts_with("text/event-stream")
    }

    /// The next bytes of the body, as they were read off the socket, or how it ended.
    pub(crate) async fn piece(&mut self) -> Result<Bytes, BodyEnd> {
        let next = async {
            match &mut self.source {
                Source::H1(connection, reader) => reader.next(&connection.wire).await,
                Source::H2(incoming) => incoming.next().await,
            }
        };
        let next = tokio::time::timeout(self.patience, next).await;
        next.unwrap_or(Err(BodyEnd::Silent))
    }

    /// The whole body and how it ended.
    pub(crate) async fn read_to_end(&mut self) -> Body {
        let mut bytes = BytesMut::new();
        loop {
            match self.piece().await {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(end) => {
                    let bytes = bytes.freeze();
                    return Body { bytes, end };
                }
            }
        }
    }

    /// The whole body as text; panics when it did not end as it should.
    pub(crate) async fn text(&mut self) -> String {
        let body = self.read_to_end().await;
        let text = String::from_utf8_lossy(&body.bytes).into_owned();
        let whole = matches!(body.end, BodyEnd::Complete | BodyEnd::Closed);
        assert!(whole, "the body ended with {:?} after {text:?}", body.end);
        text
    }

    /// The whole body as JSON; panics when it is none.
    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(e) => panic!(
                "status {}, the body is not JSON ({e}): {text:?}",
                self.status
            ),
        }
    }

    /// The body as an event stream.
    pub(crate) fn events(&mut self) -> Events<'_> {
        Events::new(self)
    }

    /// The JSON-RPC response in the body, whether that is JSON or a stream; panics without one.
    pub(crate) async fn rpc(&mut self) -> Value {
        if !self.is_stream() {
            return self.json().await;
        }
        let mut events = self.events();
        while let Some(event) = events.next().await {
            if event.data.as_deref().unwrap_or_default().is_empty() {
                continue;
            }
            let message = event.json();
            if message.get("method").is_none() {
                return message;
            }
        }
        panic!("the stream ended ({:?}) without a response", events.end);
    }

    /// Whether nothing at all comes for this long. Bytes that do come are kept for an event reader.
    pub(crate) async fn silent_for(&mut self, pause: Duration) -> bool {
        match tokio::time::timeout(pause, self.piece()).await {
            Ok(Ok(piece)) => {
                self.unread.push(&piece);
                false
            }
            Ok(Err(_)) => false,
            Err(_) => true,
        }
    }

    /// The connection, for the next request. Read the body to its end first.
    pub(crate) fn into_connection(self) -> Connection {
        match self.source {
            Source::H1(connection, _) => connection,
            Source::H2(_) => panic!("an HTTP/2 stream has no connection of its own"),
        }
    }

    /// Resets the connection, or the HTTP/2 stream.
    pub(crate) fn reset(self) {
        match self.source {
            Source::H1(connection, _) => connection.reset(),
            // Dropping the body of a live stream resets it.
            Source::H2(incoming) => drop(incoming),
        }
    }
}

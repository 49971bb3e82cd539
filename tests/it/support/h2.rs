//! The client over HTTP/2 with prior knowledge: one connection, many streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::{Mcp, NoAnswer, Outgoing, Response, Source};
use super::wire::{BodyEnd, Headers, ResponseHead};
use super::{PATIENCE, within};

/// A client with one HTTP/2 connection.
#[derive(Clone, Debug)]
pub(crate) struct H2Client {
    address: SocketAddr,
    path: String,
    headers: Headers,
    sender: SendRequest<Bytes>,
    driver: Arc<Driver>,
    ids: Arc<AtomicU64>,
    late_end: bool,
}

/// How late a late end is.
const LATE: std::time::Duration = std::time::Duration::from_millis(20);

/// Drives the connection; ends it when nobody has a use for it any more.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl H2Client {
    /// Connects and shakes hands.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, NoAnswer> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|e| NoAnswer::Connect(e.kind()))?;
        let (sender, connection) = within("HTTP/2", h2::client::handshake(stream))
            .await
            .map_err(|e| NoAnswer::H2(e.to_string()))?;
        let driver = tokio::spawn(async move {
            // Its errors reach the streams too, which is where a test sees them.
            let _ = connection.await;
        });
        Ok(Self {
            address,
            path: "/mcp".into(),
            headers: Headers::default(),
            sender,
            driver: Arc::new(Driver(driver)),
            ids: Arc::default(),
            late_end: false,
        })
    }

    /// Adds a header to every request.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.into(), value.into()));
        self
    }

    /// Sends MCP requests to another path.
    pub(crate) fn with_path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// Ends every request in a frame of its own, some time behind its head.
    pub(crate) fn with_late_end(mut self) -> Self {
        self.late_end = true;
        self
    }

    /// Whether the connection has ended, by GOAWAY or otherwise.
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.0.is_finished()
    }

    /// Sends a request on a new stream.
    pub(crate) async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, NoAnswer> {
        let broken = |e: h2::Error| NoAnswer::H2(e.to_string());
        let uri = format!("http://{}{path}", self.address);
        let mut request = http::Request::builder().method(method).uri(uri);
        let own = self.headers.0.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("a well-formed request");
        let mut sender = self.sender.clone().ready().await.map_err(broken)?;
        let ends_at_once = body.is_empty() && !self.late_end;
        let (response, mut stream) = sender.send_request(request, ends_at_once).map_err(broken)?;
        if self.late_end {
            // The head is on its way alone.
            tokio::time::sleep(LATE).await;
        }
        if !ends_at_once {
            let body = Bytes::copy_from_slice(body);
            stream.send_data(body, true).map_err(broken)?;
        }
        let response = tokio::time::timeout(PATIENCE, response).await;
        let response = response.map_err(|_| NoAnswer::Silent)?.map_err(broken)?;
        let (head, body) = response.into_parts();
        let incoming = Incoming {
            body,
            _driver: self.driver.clone(),
        };
        Ok(Response::new(
            head_of(&head),
            Source::H2(incoming),
            PATIENCE,
        ))
    }
}

impl Mcp for H2Client {
    async fn try_send(&self, outgoing: Outgoing) -> Result<Response, NoAnswer> {
        let headers = outgoing.header_lines();
        self.try_request(outgoing.http_method, &self.path, &headers, &outgoing.body)
            .await
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// A response body on its way. Dropped early, it resets its stream with CANCEL.
#[derive(Debug)]
pub(crate) struct Incoming {
    body: RecvStream,
    _driver: Arc<Driver>,
}

impl Incoming {
    /// The next piece, or how the body ended.
    pub(super) async fn next(&mut self) -> Result<Bytes, BodyEnd> {
        match self.body.data().await {
            Some(Ok(piece)) => {
                let control = self.body.flow_control();
                control
                    .release_capacity(piece.len())
                    .map_err(|e| BodyEnd::Garbage(e.to_string()))?;
                Ok(piece)
            }
            // A server that is done before the request was read may say so.
            Some(Err(e)) if e.reason() == Some(Reason::NO_ERROR) => Err(BodyEnd::Complete),
            Some(Err(e)) if e.is_reset() => Err(BodyEnd::Reset),
            Some(Err(_)) => Err(BodyEnd::Truncated),
            None => Err(BodyEnd::Complete),
        }
    }
}

fn head_of(head: &http::response::Parts) -> ResponseHead {
    let mut headers = Headers::default();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.0.push((name.to_string(), value));
    }
    ResponseHead {
        status: head.status.as_u16(),
        reason: String::new(),
        headers,
        raw: Bytes::new(),
    }
}

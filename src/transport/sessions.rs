//! Pingora's HTTP/2 sessions behind the [`Downstream`] and [`super::Upstream`] traits.
//!
//! The only place, with [`super::dial`], that knows Pingora's session types. Heads are copied into
//! Pingora's own when they are written; the fields that belong to one connection stay behind.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::{Error as PingoraError, ErrorType};
use tokio::time::timeout;

use super::buffer::Piece;
use super::dress::Dress;
use super::fields::{Name, Names, Stays};
use super::patience::Patience;
use super::timer::Alarm;
use super::{ConnInfo, Downstream, Edits, Error, Headers, Http, Length, RequestHead, ResponseHead};

mod up;

pub use up::SessionUp;

/// Header fields held in an `http::HeaderMap`.
impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Self::get(self, name).map(HeaderValue::as_bytes)
    }

    fn count(&self, name: &str) -> usize {
        self.get_all(name).iter().count()
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        for (name, value) in self {
            f(Name::new(name.as_str().as_bytes()), value.as_bytes());
        }
    }
}

/// A request head as Pingora read it: that of HTTP/2, and of plain routes.
#[derive(Debug, Clone)]
pub struct PingoraHead {
    parts: RequestHeader,
    target: String,
    onward: Option<Box<str>>,
}

impl PingoraHead {
    /// Takes a copy of Pingora's request head.
    pub fn new(parts: &RequestHeader) -> Self {
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned();
        Self {
            parts: parts.clone(),
            target,
            onward: None,
        }
    }
}

impl Headers for PingoraHead {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(&self.parts.headers, name)
    }

    fn count(&self, name: &str) -> usize {
        self.parts.headers.count(name)
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        self.parts.headers.each(f);
    }
}

impl RequestHead for PingoraHead {
    fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn onward(&self) -> &str {
        self.onward.as_deref().unwrap_or(&self.target)
    }

    fn authority(&self) -> Option<&str> {
        let host = || Headers::get(self, "host").and_then(|host| std::str::from_utf8(host).ok());
        self.parts
            .uri
            .authority()
            .map(|authority| authority.as_str())
            .or_else(host)
    }

    fn version(&self) -> Http {
        match self.parts.version {
            http::Version::HTTP_2 => Http::V2,
            http::Version::HTTP_10 | http::Version::HTTP_09 => Http::V10,
            _ => Http::V11,
        }
    }
}

/// A client's exchange over one of Pingora's HTTP/2 sessions.
pub struct SessionDown {
    session: ServerSession,
    head: PingoraHead,
    dress: Dress,
    info: Arc<ConnInfo>,
    alarm: Alarm,
    finished: bool,
    patience: Patience,
    write_timeout: Option<Duration>,
    /// The request body could not be read to its end.
    broken: bool,
}

impl SessionDown {
    /// Wraps a session whose request head Pingora has read already.
    ///
    /// `body_timeout` bounds each wait for a piece of the request body and `write_timeout` each
    /// write that makes no progress.
    pub fn new(
        mut session: ServerSession,
        head: PingoraHead,
        info: Arc<ConnInfo>,
        alarm: Alarm,
        body_timeout: Duration,
        write_timeout: Option<Duration>,
    ) -> Self {
        session.set_write_timeout(write_timeout);
        session.set_total_drain_timeout(Some(Duration::from_secs(5)));
        Self {
            session,
            head,
            dress: Dress::default(),
            info,
            alarm,
            finished: false,
            patience: Patience::new(body_timeout),
            write_timeout,
            broken: false,
        }
    }

    /// The session and whether the response was ended properly.
    pub fn into_session(self) -> (ServerSession, bool) {
        (self.session, self.finished)
    }
}

/// Reads a Pingora error as what it means to the proxy.
fn translate(error: &PingoraError) -> Error {
    match error.etype() {
        ErrorType::ConnectRefused => Error::Refused,
        ErrorType::ConnectTimedout => Error::ConnectTimeout,
        ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError => {
            Error::Connect(error.to_string())
        }
        ErrorType::WriteTimedout => Error::WriteTimeout,
        ErrorType::ReadTimedout => Error::ReadTimeout,
        ErrorType::InvalidHTTPHeader => {
            log::debug!("a malformed head: {error}");
            Error::Malformed("head")
        }
        ErrorType::Custom(what) if what.starts_with("Invalid") => Error::Malformed(what),
        _ => Error::Closed,
    }
}

/// Pingora returns boxed errors.
pub(super) fn wire_error(error: Box<PingoraError>) -> Error {
    translate(&error)
}

/// Copies the fields of a head that are sent on into `put`, then those that are set.
fn copy_fields<F>(from: Option<&dyn Headers>, edits: Edits<'_>, mut put: F)
where
    F: FnMut(HeaderName, HeaderValue),
{
    if let Some(headers) = from {
        let stays = Stays::new(headers, edits, Names::NONE);
        headers.each(&mut |name, value| {
            if !stays.has(name)
                && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
                && let Ok(value) = HeaderValue::from_bytes(value)
            {
                put(name, value);
            }
        });
    }
    edits.each(&mut |name, value| {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            put(name, value);
        }
    });
}

impl SessionDown {
    /// Bounds a write that Pingora does not bound itself: those of heads and of the last piece.
    async fn write<T>(
        limit: Option<Duration>,
        writing: impl Future<Output = pingora::Result<T>>,
    ) -> Result<T, Error> {
        match limit {
            Some(limit) => timeout(limit, writing)
                .await
                .map_err(|_| Error::WriteTimeout)?,
            None => writing.await,
        }
        .map_err(wire_error)
    }
}

impl Downstream for SessionDown {
    type Head = PingoraHead;

    fn head(&self) -> &PingoraHead {
        &self.head
    }

    fn dress(&self) -> &Dress {
        &self.dress
    }

    fn dress_mut(&mut self) -> &mut Dress {
        &mut self.dress
    }

    fn send_onward(&mut self, target: Box<str>) {
        self.head.onward = Some(target);
    }

    fn release_head(&mut self) {}

    fn info(&self) -> &Arc<ConnInfo> {
        &self.info
    }

    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    fn body_ended(&mut self) -> bool {
        // Pingora calls a body that it could not understand done.
        !self.broken && (self.session.is_body_empty() || self.session.is_body_done())
    }

    async fn read_body(&mut self) -> Result<Option<Piece>, Error> {
        if self.broken {
            return Err(Error::Closed);
        }
        if self.body_ended() {
            return Ok(None);
        }
        // Pingora has no read timeout of its own here.
        let begun = Instant::now();
        let read = timeout(self.patience.left(), self.session.read_request_body()).await;
        self.patience.waited(begun.elapsed());
        let read = match read {
            Ok(read) => read.map_err(wire_error),
            Err(_) => Err(Error::ReadTimeout),
        };
        self.broken = read.is_err();
        if let Ok(Some(piece)) = &read {
            self.patience.read(piece.len());
        }
        Ok(read?.map(Piece::Bytes))
    }

    async fn send_head(
        &mut self,
        status: u16,
        from: Option<&(dyn ResponseHead + '_)>,
        edits: Edits<'_>,
        length: Length,
    ) -> Result<(), Error> {
        let mut head = ResponseHeader::build_no_case(status, Some(16)).map_err(wire_error)?;
        let edits = Edits {
            more: self.dress.response(&self.head, &self.info),
            ..edits
        };
        copy_fields(
            from.map(|from| from as &dyn Headers),
            edits,
            |name, value| {
                let _ = head.append_header(name, value);
            },
        );
        let bytes = match length {
            // RFC 9110 section 8.6: neither 1xx, 204 nor 304 carries a length.
            Length::None if status >= 200 && status != 204 && status != 304 => Some(0),
            Length::Exact(bytes) => Some(bytes),
            Length::None | Length::Unknown => None,
        };
        if let Some(bytes) = bytes {
            head.insert_header(http::header::CONTENT_LENGTH, bytes.to_string())
                .map_err(wire_error)?;
        }
        let writing = self.session.write_response_header(Box::new(head));
        Self::write(self.write_timeout, writing).await
    }

    async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
        // Pingora would write an empty piece as the last one.
        if data.is_empty() {
            return Ok(());
        }
        self.session
            .write_response_body(Bytes::copy_from_slice(data), false)
            .await
            .map_err(wire_error)
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Error> {
        Self::write(self.write_timeout, self.session.finish_body()).await?;
        self.finished = true;
        Ok(())
    }

    async fn abort(&mut self) {
        self.session.shutdown().await;
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Any return means that the client closed, reset or broke the protocol. What the session
        // waits for stays registered when the future is dropped.
        let idle = std::pin::pin!(self.session.read_body_or_idle(true));
        idle.poll(context).map(|_| ())
    }

    fn close_after(&mut self) {}
}

//! One TCP connection with HTTP/1.1 on it, from either end.
//!
//! The endpoint and the raw client both need what a normal HTTP library hides: the exact bytes,
//! how a body ended, and the power to end one wrongly. So both read through [`Wire`], which keeps
//! what arrived but was not asked for yet, and [`BodyReader`], which tells a finished body from a
//! cut one. This file knows nothing of MCP.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;

/// The longest head either side reads.
const HEAD_MAX: usize = 256 * 1024;

/// The most header lines in a head.
const HEADERS_MAX: usize = 256;

/// How many bytes may arrive ahead of time before a connection stops being read.
const INBOX_MAX: usize = 4 * 1024 * 1024;

/// Header lines in the order they came, repeated ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// The first value of a header; names compare without case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.iter();
        let found = lines.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Every value of a header, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Whether the header is there at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether a comma-separated header has `token` in it.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    fn parsed(lines: &[httparse::Header<'_>]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self(
            lines
                .iter()
                .map(|line| (line.name.to_owned(), text(line.value)))
                .collect(),
        )
    }
}

/// The first line and headers of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Headers,
}

/// The first line and headers of a response.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Headers,
    /// The very bytes of the head, with the empty line that ends it.
    pub(crate) raw: Bytes,
}

/// Why no head could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoHead {
    /// The peer closed before the first byte.
    Closed,
    /// The peer closed inside the head.
    Truncated,
    /// The connection was reset.
    Reset,
    /// What came is not an HTTP/1.1 head.
    Garbage(String),
}

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// With the last chunk, the full announced length, or an HTTP/2 END_STREAM.
    Complete,
    /// With the end of a connection that announced neither length nor chunks.
    Closed,
    /// The connection ended before the body did.
    Truncated,
    /// The connection, or the HTTP/2 stream, was reset.
    Reset,
    /// The framing made no sense.
    Garbage(String),
    /// Nothing more came for [`super::PATIENCE`].
    Silent,
}

/// A TCP connection and the bytes that came on it ahead of time. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    inbox: Arc<Mutex<BytesMut>>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Only latency depends on it, and a socket already reset by its peer refuses the option.
        let _ = stream.set_nodelay(true);
        Self {
            stream: Arc::new(stream),
            inbox: Arc::default(),
        }
    }

    /// The socket, for somebody who must not keep it open.
    pub(crate) fn socket(&self) -> Weak<TcpStream> {
        Arc::downgrade(&self.stream)
    }

    /// Waits for bytes and keeps them; 0 is the peer's end. Loses nothing when cancelled.
    pub(crate) async fn fill(&self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            match self.try_fill() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// [`Wire::fill`] for code that is polled.
    pub(crate) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.try_fill() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Sends some of `bytes`, for code that is polled.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn try_fill(&self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.try_read(&mut chunk)?;
        self.with_inbox(|inbox| inbox.extend_from_slice(&chunk[..count]));
        Ok(count)
    }

    /// Looks at, or takes from, the bytes that came and nobody asked for yet.
    pub(crate) fn with_inbox<T>(&self, look: impl FnOnce(&mut BytesMut) -> T) -> T {
        look(&mut self.inbox.lock().expect("no holder panics"))
    }

    /// Sends all of `bytes`.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends `bytes` one at a time with a pause before each.
    pub(crate) async fn trickle(&self, bytes: &[u8], pause: Duration) -> io::Result<()> {
        for byte in bytes {
            tokio::time::sleep(pause).await;
            self.write(std::slice::from_ref(byte)).await?;
        }
        Ok(())
    }

    /// Returns when the peer has closed or reset the connection. What it sends until then is kept.
    pub(crate) async fn closed(&self) {
        loop {
            if self.with_inbox(|inbox| inbox.len()) > INBOX_MAX {
                return std::future::pending().await;
            }
            if matches!(self.fill().await, Ok(0) | Err(_)) {
                return;
            }
        }
    }

    /// Says that nothing more will be sent, and leaves the other direction open.
    pub(crate) fn shutdown_write(&self) {
        let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
    }

    /// Makes the close of this socket a reset (RST) instead of an orderly end.
    pub(crate) fn reset_on_close(&self) {
        reset_on_close(&self.stream);
    }

    /// Ends the connection in good order, unless its close is to be a reset. The close alone would
    /// not say it at once: a process that another test is starting may hold a copy of the socket for
    /// a moment.
    pub(crate) fn end(&self) {
        let socket = SockRef::from(&*self.stream);
        if !matches!(socket.linger(), Ok(Some(Duration::ZERO))) {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Reads a request head.
    pub(crate) async fn request_head(&self) -> Result<RequestHead, NoHead> {
        self.head(parse_request).await
    }

    /// Reads a response head; an interim (1xx) one counts.
    pub(crate) async fn response_head(&self) -> Result<ResponseHead, NoHead> {
        self.head(parse_response).await
    }

    async fn head<T>(&self, parse: Parse<T>) -> Result<T, NoHead> {
        loop {
            let (parsed, waiting) = self.with_inbox(|inbox| {
                let parsed = parse(inbox);
                if let Ok(Some((length, _))) = &parsed {
                    inbox.advance(*length);
                }
                (parsed, inbox.len())
            });
            match parsed {
                Ok(Some((_, head))) => return Ok(head),
                Ok(None) if waiting > HEAD_MAX => return Err(NoHead::Garbage("too long".into())),
                Ok(None) => {}
                Err(e) => return Err(NoHead::Garbage(e.to_string())),
            }
            match self.fill().await {
                Ok(0) if waiting == 0 => return Err(NoHead::Closed),
                Ok(0) => return Err(NoHead::Truncated),
                Ok(_) => {}
                Err(_) => return Err(NoHead::Reset),
            }
        }
    }
}

/// Makes the close of `stream` a reset (RST), as the death of its process would be.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A head parser: the head and its length, or nothing yet.
type Parse<T> = fn(&[u8]) -> Result<Option<(usize, T)>, httparse::Error>;

fn parse_request(bytes: &[u8]) -> Result<Option<(usize, RequestHead)>, httparse::Error> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let httparse::Status::Complete(length) = request.parse(bytes)? else {
        return Ok(None);
    };
    let head = RequestHead {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        headers: Headers::parsed(request.headers),
    };
    Ok(Some((length, head)))
}

fn parse_response(bytes: &[u8]) -> Result<Option<(usize, ResponseHead)>, httparse::Error> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(length) = response.parse(bytes)? else {
        return Ok(None);
    };
    let head = ResponseHead {
        status: response.code.unwrap_or_default(),
        reason: response.reason.unwrap_or_default().to_owned(),
        headers: Headers::parsed(response.headers),
        raw: Bytes::copy_from_slice(&bytes[..length]),
    };
    Ok(Some((length, head)))
}

/// Reads one body off a [`Wire`], piece by piece.
#[derive(Debug)]
pub(crate) struct BodyReader(State);

#[derive(Debug)]
enum State {
    Length(usize),
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
    Ended(BodyEnd),
}

enum Step {
    Piece(Bytes),
    Again(State),
    More,
}

impl BodyReader {
    /// The body that follows a request head.
    pub(crate) fn of_request(headers: &Headers) -> Self {
        Self(Self::framed(headers).unwrap_or(State::Length(0)))
    }

    /// The body that follows a response head.
    pub(crate) fn of_response(status: u16, headers: &Headers, head_only: bool) -> Self {
        if head_only || matches!(status, 100..=199 | 204 | 304) {
            return Self(State::Length(0));
        }
        Self(Self::framed(headers).unwrap_or(State::UntilClose))
    }

    fn framed(headers: &Headers) -> Option<State> {
        if headers.has_token("transfer-encoding", "chunked") {
            return Some(State::ChunkSize);
        }
        let length = headers.get("content-length")?;
        Some(match length.parse() {
            Ok(length) => State::Length(length),
            Err(_) => State::Ended(BodyEnd::Garbage(format!("content-length: {length}"))),
        })
    }

    /// The next piece, or how the body ended. Loses nothing when cancelled.
    pub(crate) async fn next(&mut self, wire: &Wire) -> Result<Bytes, BodyEnd> {
        loop {
            match wire.with_inbox(|inbox| self.step(inbox)) {
                Step::Piece(piece) => return Ok(piece),
                Step::Again(state) => self.0 = state,
                Step::More => match (wire.fill().await, &self.0) {
                    (Err(_), _) => self.0 = State::Ended(BodyEnd::Reset),
                    (Ok(0), State::UntilClose) => self.0 = State::Ended(BodyEnd::Closed),
                    (Ok(0), _) => self.0 = State::Ended(BodyEnd::Truncated),
                    (Ok(_), _) => {}
                },
            }
            if let State::Ended(end) = &self.0 {
                return Err(end.clone());
            }
        }
    }

    fn step(&mut self, inbox: &mut BytesMut) -> Step {
        match &mut self.0 {
            State::Ended(end) => Step::Again(State::Ended(end.clone())),
            State::Length(0) => Step::Again(State::Ended(BodyEnd::Complete)),
            State::Chunk(0) => Step::Again(State::ChunkEnd),
            State::UntilClose if inbox.is_empty() => Step::More,
            State::UntilClose => Step::Piece(inbox.split().freeze()),
            State::Length(_) | State::Chunk(_) if inbox.is_empty() => Step::More,
            State::Length(left) | State::Chunk(left) => {
                let count = inbox.len().min(*left);
                *left -= count;
                Step::Piece(inbox.split_to(count).freeze())
            }
            State::ChunkSize => take_line(inbox, |line| {
                let size = line.split(';').next().unwrap_or_default().trim();
                match usize::from_str_radix(size, 16) {
                    Ok(0) => State::Trailers,
                    Ok(size) => State::Chunk(size),
                    Err(_) => State::Ended(BodyEnd::Garbage(format!("chunk size {line:?}"))),
                }
            }),
            State::ChunkEnd => take_line(inbox, |line| match line {
                "" => State::ChunkSize,
                _ => State::Ended(BodyEnd::Garbage(format!("after a chunk: {line:?}"))),
            }),
            State::Trailers => take_line(inbox, |line| match line {
                "" => State::Ended(BodyEnd::Complete),
                _ => State::Trailers,
            }),
        }
    }
}

/// Takes one line off `inbox` and lets `next` name the state after it.
fn take_line(inbox: &mut BytesMut, next: impl FnOnce(&str) -> State) -> Step {
    let Some(end) = inbox.iter().position(|&byte| byte == b'\n') else {
        return match inbox.len() > HEAD_MAX {
            true => Step::Again(State::Ended(BodyEnd::Garbage("endless line".into()))),
            false => Step::More,
        };
    };
    let line = inbox.split_to(end + 1);
    let line = String::from_utf8_lossy(&line);
    Step::Again(next(line.trim_end_matches(['\r', '\n'])))
}

//! One connection: which HTTP it speaks, its requests in order, its timeouts, its end.
//!
//! The head of every HTTP/1 request is read here, into a buffer of ours: so its size and the time
//! it may take are bounded as a whole, what is ambiguous is refused before anybody else parses it,
//! and a WebSocket or a plain route can take over the connection with nothing lost. The rest of
//! an exchange is Pingora's sessions behind the transport traits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::l4::stream::Stream as TcpLayer;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::proxy::fault::Fault;
use crate::proxy::local;
use crate::proxy::state::{Counted, Flight, Phase};
use crate::transport::head::{Head, Refusal, end_of_head};
use crate::transport::sessions::{PingoraHead, SessionDown};
use crate::transport::{ConnInfo, Downstream, Headers, RequestHead};

/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4), as far as they look like a head.
const H2_PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// Length of the whole preface.
const H2_PREFACE_LENGTH: usize = 24;
/// Streams a client may have open on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 256;
/// Flow-control windows towards clients: room for a body, not for a flood.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How long a connection without a request so far may hold up a drain.
const LAST_CALL: Duration = Duration::from_secs(1);
/// How much of an unread body is read away, and for how long, so that closing does not turn into
/// a reset that destroys the answer on its way.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Who carries an exchange, decided by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The handler, through the transport traits.
    Own,
    /// Pingora's proxy.
    Plain,
    /// A tunnel over the bare connection.
    Tunnel,
}

/// Serves the exchanges of connections.
pub trait Handler: Send + Sync + 'static {
    /// Who carries an exchange with this head.
    fn lane(&self, head: &dyn RequestHead) -> Lane {
        let _ = head;
        Lane::Own
    }

    /// Whether upgrades to WebSocket of the own lane are served; else they are plain requests.
    fn tunnels(&self) -> bool {
        false
    }

    /// Serves an exchange of the own lane.
    fn exchange<D: Downstream>(&self, down: &mut D) -> impl Future<Output = ()> + Send;

    /// Serves an exchange of the plain lane; the connection, if it can be used again.
    fn plain(&self, session: ServerSession) -> impl Future<Output = Option<Stream>> + Send {
        drop(session);
        async { None }
    }

    /// Serves an upgrade over the bare connection.
    fn tunnel(
        &self,
        stream: Stream,
        head: &Head,
        info: &ConnInfo,
    ) -> impl Future<Output = ()> + Send {
        let _ = (stream, head, info);
        async {}
    }
}

/// Bounds on a connection.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A whole head must arrive within this time from its first byte; the first head of a
    /// connection from the accept.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Size of a head, in bytes.
    pub head_max: usize,
    /// Header fields in a head.
    pub fields_max: usize,
    /// A write must make progress within this time.
    pub write_timeout: Duration,
}

/// Everything a connection needs from its surroundings.
pub struct Surroundings<H> {
    /// Serves its exchanges.
    pub handler: Arc<H>,
    /// Bounds.
    pub bounds: Bounds,
    /// Whether the process is on its way out.
    pub phase: watch::Receiver<Phase>,
    /// The phase from which nothing new is served here: traffic leaves when the drain begins, the
    /// admin address when all else has ended.
    pub leaves: Phase,
    /// The same for Pingora's HTTP/2, which then says GOAWAY.
    pub shutdown: ShutdownWatch,
    /// Counts the ways in that a drain waits for; none where nothing is waited for.
    pub flight: Option<Arc<Flight>>,
}

impl<H> Surroundings<H> {
    /// Counts a way in until dropped.
    pub fn door(&self) -> Option<Counted> {
        self.flight.as_ref().map(Flight::door)
    }
}

/// Serves a connection to its end. `door` has been counted since before it was accepted.
pub async fn serve<H: Handler>(
    stream: TcpLayer,
    info: ConnInfo,
    around: &Surroundings<H>,
    door: Option<Counted>,
) {
    let info = Arc::new(info);
    let mut first = stream;
    let mut buffer = BytesMut::with_capacity(2048);
    let by = Instant::now() + around.bounds.head_timeout;
    let read = tokio::select! {
        biased;
        read = read_head(&mut first, &mut buffer, Some(by), around) => read,
        () = last_call(around) => Read::Closed,
    };
    match read {
        Read::Head(length) if buffer[..length] == *H2_PREFACE_HEAD => {
            if read_preface(&mut first, &mut buffer, by).await {
                first.rewind(&buffer);
                serve_h2(first, info, around, door).await;
            }
        }
        read => serve_h1(Box::new(first), buffer, read, info, around, door).await,
    }
}

/// Reads what is still missing of the HTTP/2 preface, since Pingora would wait for it for ever.
async fn read_preface(stream: &mut TcpLayer, buffer: &mut BytesMut, by: Instant) -> bool {
    while buffer.len() < H2_PREFACE_LENGTH {
        match timeout_at(by, stream.read_buf(buffer)).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => return false,
        }
    }
    true
}

/// Resolves when a connection that has not asked for anything has had its time in a drain.
async fn last_call<H>(around: &Surroundings<H>) {
    let mut phase = around.phase.clone();
    let _ = phase.wait_for(|phase| *phase >= around.leaves).await;
    tokio::time::sleep(LAST_CALL).await;
}

/// What came of waiting for a head.
enum Read {
    /// A head of this length stands at the start of the buffer.
    Head(usize),
    /// The connection closed or went idle between requests.
    Closed,
    /// The head did not arrive in time.
    Slow,
    /// It is over the size limit.
    TooLarge,
}

/// Reads until the buffer holds a head. `by` bounds all of it; without it the wait for the first
/// byte is the idle time, and the head's time begins with it.
async fn read_head<H, S>(
    stream: &mut S,
    buffer: &mut BytesMut,
    by: Option<Instant>,
    around: &Surroundings<H>,
) -> Read
where
    S: tokio::io::AsyncRead + Unpin,
{
    let bounds = &around.bounds;
    let mut by = by;
    loop {
        // A client may send an empty line before a request (RFC 9112 section 2.2).
        while buffer.starts_with(b"\r\n") {
            buffer.advance(2);
        }
        if let Some(length) = end_of_head(buffer) {
            return if length > bounds.head_max {
                Read::TooLarge
            } else {
                Read::Head(length)
            };
        }
        if buffer.len() > bounds.head_max {
            return Read::TooLarge;
        }
        if by.is_none() && !buffer.is_empty() {
            by = Some(Instant::now() + bounds.head_timeout);
        }
        // Between requests a connection may be closed without a word; before its first one not, since
        // the client has every reason to expect an answer.
        let between = by.is_none();
        let deadline = by.unwrap_or_else(|| Instant::now() + bounds.idle_timeout);
        let mut phase = around.phase.clone();
        let read = tokio::select! {
            biased;
            read = timeout_at(deadline, stream.read_buf(buffer)) => read,
            _ = phase.wait_for(|phase| *phase >= around.leaves), if between => return Read::Closed,
        };
        match read {
            Ok(Ok(0) | Err(_)) => return Read::Closed,
            Ok(Ok(_)) => {}
            Err(_) if buffer.is_empty() => return Read::Closed,
            Err(_) => return Read::Slow,
        }
    }
}

async fn serve_h1<H: Handler>(
    mut stream: Stream,
    mut buffer: BytesMut,
    mut read: Read,
    info: Arc<ConnInfo>,
    around: &Surroundings<H>,
    mut door: Option<Counted>,
) {
    loop {
        let length = match read {
            Read::Head(length) => length,
            Read::Closed => return,
            Read::Slow => return refuse(stream, Fault::SlowBody).await,
            Read::TooLarge => return refuse(stream, Fault::HeadTooLarge).await,
        };
        let head = match Head::parse(&buffer[..length], around.bounds.fields_max) {
            Ok(head) => head,
            Err(Refusal::TooManyFields) => return refuse(stream, Fault::HeadTooLarge).await,
            Err(refusal) => {
                log::debug!(client:% = info.client; "refused a request: {refusal}");
                return refuse(stream, Fault::Invalid("malformed request")).await;
            }
        };
        let next = match lane(&*around.handler, &head) {
            Lane::Tunnel if buffer.len() > length => {
                // Bytes behind an upgrade request that nobody has agreed to are an attack.
                return refuse(stream, Fault::Invalid("data before the upgrade")).await;
            }
            Lane::Tunnel => {
                drop(door.take());
                return around.handler.tunnel(stream, &head, &info).await;
            }
            Lane::Plain => {
                drop(door.take());
                let rest = split_request(&mut buffer, length, &head);
                plain(stream, std::mem::take(&mut buffer), rest, around).await
            }
            Lane::Own => {
                let buffer = std::mem::take(&mut buffer);
                own(stream, buffer, head, &info, around, &mut door).await
            }
        };
        match next {
            Some((again, rest)) if *around.phase.borrow() < around.leaves => {
                stream = again;
                buffer = rest;
            }
            _ => return,
        }
        read = read_head(&mut stream, &mut buffer, None, around).await;
    }
}

fn lane<H: Handler>(handler: &H, head: &Head) -> Lane {
    match handler.lane(head) {
        // Only a handler's own route can be upgraded by us; Pingora does it for plain ones.
        Lane::Own if handler.tunnels() && head.wants_websocket() => Lane::Tunnel,
        lane => lane,
    }
}

/// One exchange through the transport traits; the connection and what was read ahead, if another
/// exchange may follow.
async fn own<H: Handler>(
    stream: Stream,
    buffer: BytesMut,
    head: Head,
    info: &Arc<ConnInfo>,
    around: &Surroundings<H>,
    door: &mut Option<Counted>,
) -> Option<(Stream, BytesMut)> {
    let mut session = ServerSession::new_http1(stream);
    if let ServerSession::H1(session) = &mut session {
        session.set_pipelined_prefix(buffer);
        session.set_pipelining_enabled(true);
    }
    if !matches!(session.read_request().await, Ok(true)) {
        // Our own parser is the stricter one, so this is a disagreement to look at.
        log::warn!("a request head passed our parser and not the session's");
        let _ = session.respond_error(400).await;
        return None;
    }
    if *around.phase.borrow() >= around.leaves {
        session.set_keepalive(None);
    }
    let write_timeout = Some(around.bounds.write_timeout);
    let mut down = SessionDown::new(
        session,
        head,
        Arc::clone(info),
        around.bounds.head_timeout,
        write_timeout,
    );
    // From here on the exchange counts itself.
    drop(door.take());
    around.handler.exchange(&mut down).await;
    let unread = !down.body_ended();
    let (session, finished) = down.into_session();
    if !finished {
        return None;
    }
    if unread && let ServerSession::H1(session) = session {
        linger(session.into_inner()).await;
        return None;
    }
    let reusable = session.finish().await.ok().flatten()?;
    let (stream, rest) = reusable.into_parts();
    Some((stream, rest.unwrap_or_default()))
}

/// Takes what stands behind the first request out of the buffer. Pingora's proxy does not hand back
/// what it read ahead; so it gets one request, as far as its end can be told from the head.
fn split_request(buffer: &mut BytesMut, length: usize, head: &Head) -> BytesMut {
    if head.count("transfer-encoding") > 0 {
        return BytesMut::new();
    }
    let body = head.get("content-length").map_or(Some(0), |value| {
        std::str::from_utf8(value).ok()?.parse().ok()
    });
    let whole = body.map_or(usize::MAX, |body: usize| length.saturating_add(body));
    buffer.split_off(whole.min(buffer.len()))
}

async fn plain<H: Handler>(
    stream: Stream,
    buffer: BytesMut,
    rest: BytesMut,
    around: &Surroundings<H>,
) -> Option<(Stream, BytesMut)> {
    let mut session = ServerSession::new_http1(stream);
    if let ServerSession::H1(session) = &mut session {
        session.set_pipelined_prefix(buffer);
    }
    let stream = around.handler.plain(session).await?;
    Some((stream, rest))
}

/// Answers on the bare connection and closes it.
async fn refuse(mut stream: Stream, fault: Fault) {
    let written = async {
        stream.write_all(&local::bare(fault)).await?;
        stream.flush().await
    };
    if matches!(timeout(LINGER_TIME, written).await, Ok(Ok(()))) {
        linger(stream).await;
    }
}

/// Closes our side and reads the other away for a while.
async fn linger(mut stream: Stream) {
    let reading = async {
        let _ = stream.flush().await;
        let _ = AsyncWriteExt::shutdown(&mut stream).await;
        let mut scratch = vec![0; 8192];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    let _ = timeout(LINGER_TIME, reading).await;
}

/// HTTP/2 with prior knowledge: Pingora's connection loop, one task per stream.
///
/// Requests may be on their way when the drain begins, and GOAWAY promises to serve them: so the
/// connection is a way in until they have had their time.
async fn serve_h2<H: Handler>(
    stream: TcpLayer,
    info: Arc<ConnInfo>,
    around: &Surroundings<H>,
    door: Option<Counted>,
) {
    let app = Arc::new(H2App {
        handler: Arc::clone(&around.handler),
        info,
        bounds: around.bounds,
        options: {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            options.h2_idle_timeout = Some(around.bounds.idle_timeout);
            options
        },
    });
    let mut serving = std::pin::pin!(app.process_new(Box::new(stream), &around.shutdown));
    tokio::select! {
        _ = &mut serving => return,
        () = last_call(around) => drop(door),
    }
    let _ = serving.await;
}

struct H2App<H> {
    handler: Arc<H>,
    info: Arc<ConnInfo>,
    bounds: Bounds,
    options: HttpServerOptions,
}

#[async_trait]
impl<H: Handler> HttpServerApp for H2App<H> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let head = PingoraHead::new(session.req_header());
        if self.handler.lane(&head) == Lane::Plain {
            let _ = self.handler.plain(session).await;
            return None;
        }
        let write_timeout = Some(self.bounds.write_timeout);
        let info = Arc::clone(&self.info);
        let mut down =
            SessionDown::new(session, head, info, self.bounds.head_timeout, write_timeout);
        self.handler.exchange(&mut down).await;
        let (mut session, finished) = down.into_session();
        if !finished {
            session.shutdown().await;
        }
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.max_concurrent_streams(H2_STREAMS_MAX);
        options.max_header_list_size(u32::try_from(self.bounds.head_max).unwrap_or(u32::MAX));
        options.initial_window_size(H2_STREAM_WINDOW);
        options.initial_connection_window_size(H2_CONNECTION_WINDOW);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

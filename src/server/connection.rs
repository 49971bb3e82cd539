//! One connection: which HTTP it speaks, its requests in order, its timeouts, its end.
//!
//! The head of every HTTP/1 request is read here: so its size and the time it may take are bounded
//! as a whole, what is ambiguous is refused before anybody else parses it, and a WebSocket or a
//! plain route can take over the connection with nothing lost.
//!
//! A reply that lasts gets a task of its own, with nothing in it but the stream, and the one that
//! served the request ends. When the stream is over, a new task goes on with the connection.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::net::TcpStream;

use super::announce::announced;
pub use super::bounds::Bounds;
use super::handshake::{Shaken, shake};
use super::http2;
use super::linger::linger;
use super::way::Way;
use crate::proxy::fault::Fault;
use crate::proxy::flight::{Counted, Flight};
use crate::proxy::local;
use crate::proxy::state::{Phase, Phases};
use crate::transport::buffer::{BUFFER_BYTES, Buffer};
use crate::transport::h1::conn::Conn;
use crate::transport::h1::down::{After, H1Down};
use crate::transport::h1::head::{EndOfHead, Head, Refusal};
use crate::transport::layer::layered;
use crate::transport::refused;
use crate::transport::single::Single;
use crate::transport::timer::{Alarm, Wheel};
use crate::transport::tls::Acceptor;
use crate::transport::wire::Wire;
use crate::transport::{ConnInfo, Downstream, Error, RequestHead};

/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4), as far as they look like a head.
const H2_PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long a connection without a request so far may hold up a drain.
pub(super) const LAST_CALL: Duration = Duration::from_secs(1);
/// Who carries an exchange, decided by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The handler, through the transport traits.
    Own,
    /// Pingora's proxy.
    Plain,
    /// A tunnel over the bare connection.
    Tunnel,
    /// The handler, even where an upgrade is asked for.
    Answer,
}

/// What an exchange leaves.
pub enum Served<D> {
    /// It is over.
    Done(D),
    /// It goes on for as long as this takes; a drain is its own business.
    Lasts(Pin<Box<dyn Future<Output = D> + Send>>),
}

/// Serves the exchanges of connections.
pub trait Handler: Send + Sync + 'static {
    /// Who carries an exchange with this head.
    fn lane(&self, head: &dyn RequestHead, info: &ConnInfo) -> Lane {
        let _ = (head, info);
        Lane::Own
    }

    /// Whether upgrades to WebSocket of the own lane are served; else they are plain requests.
    fn tunnels(&self) -> bool {
        false
    }

    /// May whoever has connected from this address say who the client is? `None`: from a unix socket.
    fn believes(&self, peer: Option<IpAddr>) -> bool {
        let _ = peer;
        true
    }

    /// Is told of what never became an exchange.
    fn refused(&self, info: &ConnInfo, fault: Fault) {
        let _ = (info, fault);
    }

    /// Serves an exchange of the own lane.
    fn exchange<D: Downstream>(&self, down: D) -> impl Future<Output = Served<D>> + Send;

    /// Serves an exchange of the plain lane; the connection, if it can be used again.
    fn plain(
        &self,
        session: ServerSession,
        info: &Arc<ConnInfo>,
    ) -> impl Future<Output = Option<Stream>> + Send {
        let _ = (session, info);
        async { None }
    }

    /// Serves an upgrade over the bare connection.
    fn tunnel(&self, wire: Wire, head: &Head, info: &ConnInfo) -> impl Future<Output = ()> + Send {
        let _ = (wire, head, info);
        async {}
    }
}

/// Everything a connection needs from its surroundings.
pub struct Surroundings<H> {
    /// Serves its exchanges.
    pub handler: Arc<H>,
    /// Where TLS is spoken.
    pub tls: Option<Acceptor>,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Bounds.
    pub bounds: Bounds,
    /// Time limits of everything on this thread.
    pub wheel: Arc<Wheel>,
    /// Whether the process is on its way out.
    pub phases: Phases,
    /// The phase from which nothing new is served here: traffic leaves when the drain begins, the
    /// admin address when all else has ended.
    pub leaves: Phase,
    /// Whether the listener is on its way out.
    pub way: Arc<Way>,
    /// Counts the ways in that a drain waits for; none where nothing is waited for.
    pub flight: Option<Arc<Flight>>,
}

impl<H> Surroundings<H> {
    /// Counts a way in until dropped.
    pub fn door(&self) -> Option<Counted> {
        self.flight.as_ref().map(Flight::door)
    }

    /// Is nothing new served any more?
    pub(super) fn is_leaving(&self) -> bool {
        self.phases.now() >= self.leaves || self.way.is_closed()
    }

    /// Are connections closed that wait for their next request? While calls are still running they
    /// are not: the next request may be on its way, and is answered with `Connection: close`.
    fn closes_idle(&self) -> bool {
        match self.phases.now() {
            // The listener is gone, by a reload.
            Phase::Running => self.way.is_closed(),
            phase => phase >= self.leaves.max(Phase::Closing),
        }
    }
}

/// Serves a connection to its end. `door` has been counted since before it was accepted.
pub async fn serve<H: Handler>(
    stream: TcpStream,
    mut info: ConnInfo,
    around: Arc<Surroundings<H>>,
    door: Option<Counted>,
) {
    let alarm = around.wheel.alarm();
    alarm.after(around.bounds.head_timeout);
    if around.proxy_protocol {
        // Boxed, because every connection would otherwise hold the room for it.
        let announced = Box::pin(announced(&stream, info, &alarm, &around));
        info = match announced.await {
            Some(info) => info,
            None => return,
        };
    }
    if around.tls.is_some() {
        // Boxed, because every connection would otherwise hold the room for a handshake.
        return Box::pin(serve_tls(stream, info, alarm, around, door)).await;
    }
    let line = Line::new(Wire::Tcp(stream), alarm, Arc::new(info), around);
    line.serve(door, Turn::First).await;
}

/// Serves a connection over something else than a bare TCP socket to its end. A drain does not wait for
/// its first request.
pub(super) async fn serve_wire<H: Handler>(
    wire: Wire,
    info: ConnInfo,
    around: Arc<Surroundings<H>>,
) {
    let alarm = around.wheel.alarm();
    alarm.after(around.bounds.head_timeout);
    let line = Line::new(wire, alarm, Arc::new(info), around);
    line.serve(None, Turn::First).await;
}

/// Serves a connection on which TLS is to be spoken. What comes after the handshake is a task of its
/// own, so that a connection that lasts does not hold what the handshake needed.
async fn serve_tls<H: Handler>(
    stream: TcpStream,
    mut info: ConnInfo,
    alarm: Alarm,
    around: Arc<Surroundings<H>>,
    door: Option<Counted>,
) {
    let Some(acceptor) = &around.tls else { return };
    let shaken = shake(acceptor, stream, &info, &alarm, &around).await;
    if let Shaken::Tls(tls) = &shaken {
        info.tls = Some(tls.version());
        if let Some(peer) = tls.peer() {
            info.prove(peer);
        }
    }
    let info = Arc::new(info);
    match shaken {
        Shaken::Tls(tls) if tls.is_http2() => {
            let line = Line::new(Wire::Tls(tls), alarm, info, around);
            tokio::spawn(line.http2(door));
        }
        Shaken::Tls(tls) => {
            let line = Line::new(Wire::Tls(tls), alarm, info, around);
            tokio::spawn(line.serve(door, Turn::First));
        }
        Shaken::Plain(stream) => {
            let line = Line::new(Wire::Tcp(stream), alarm, info, around);
            let why = "this port speaks HTTPS, and the request came without TLS";
            line.refuse(Fault::Invalid(why)).await;
        }
        Shaken::Nobody => {}
    }
}

/// A connection between two exchanges.
struct Line<H> {
    down: H1Down,
    around: Arc<Surroundings<H>>,
}

/// Is it the first request of a connection that is waited for? The client then has every reason to
/// expect an answer; between requests the connection may be closed without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Later,
}

/// What came of waiting for a head.
enum Read {
    /// A head of this length stands at the start of what was read ahead.
    Head(usize),
    /// The connection closed or went idle between requests.
    Closed,
    /// The head did not arrive in time.
    Slow,
    /// It is over the size limit.
    TooLarge,
}

impl<H: Handler> Line<H> {
    fn new(wire: Wire, alarm: Alarm, info: Arc<ConnInfo>, around: Arc<Surroundings<H>>) -> Self {
        let write_timeout = Some(around.bounds.write_timeout);
        let conn = Conn::new(wire, Some(alarm.clone()), write_timeout);
        let down = H1Down::new(conn, alarm, info, around.bounds.head_timeout);
        Self { down, around }
    }

    async fn serve(mut self, mut door: Option<Counted>, mut turn: Turn) {
        loop {
            let length = match self.read_head(turn).await {
                Read::Head(length) => length,
                Read::Closed => return,
                Read::Slow => return self.refuse(Fault::SlowHead).await,
                Read::TooLarge => {
                    let info = Arc::clone(self.down.info());
                    refused::by_client(&info, "the head is too long", self.down.conn().ahead());
                    return self.refuse(Fault::HeadTooLarge).await;
                }
            };
            if turn == Turn::First && self.down.conn().ahead()[..length] == *H2_PREFACE_HEAD {
                return self.http2(door).await;
            }
            match self.down.begin(length, self.around.bounds.fields_max) {
                Ok(()) => {}
                Err(Refusal::TooManyFields) => return self.refuse(Fault::HeadTooLarge).await,
                Err(refusal) => {
                    log::debug!(client:% = self.down.info().client; "refused a request: {refusal}");
                    return self.refuse(Fault::Invalid("malformed request")).await;
                }
            }
            if self.is_early() {
                let head = self.down.head().bytes();
                refused::by_client(self.down.info(), "data before the upgrade", head);
                return self.refuse(Fault::Invalid("data before the upgrade")).await;
            }
            let next = match self.lane() {
                Lane::Tunnel => {
                    drop(door.take());
                    return self.tunnel().await;
                }
                Lane::Plain => {
                    drop(door.take());
                    self.plain().await
                }
                Lane::Own | Lane::Answer => self.own(&mut door).await,
            };
            match next {
                Some(line) if !line.around.closes_idle() => self = line,
                _ => return,
            }
            turn = Turn::Later;
        }
    }

    /// Reads until a head has arrived, within the bounds. The time of the first one began with the
    /// accept.
    async fn read_head(&mut self, turn: Turn) -> Read {
        let bounds = self.around.bounds;
        let mut begun = turn == Turn::First;
        let mut last_call = None;
        let mut seen = EndOfHead::default();
        let alarm = self.down.alarm().clone();
        let conn = self.down.conn();
        if !begun {
            alarm.after(bounds.idle_timeout);
        }
        poll_fn(|context| {
            let reading = loop {
                let reading = conn.poll_head(context, &mut seen, bounds.head_max);
                // A client may send empty lines before a request (RFC 9112 section 2.2). They are
                // looked for behind the read, for two of them look like the end of a head.
                if !conn.ahead().starts_with(b"\r\n") {
                    break reading;
                }
                conn.skip(2);
                seen = EndOfHead::default();
            };
            match reading {
                Poll::Ready(Ok(length)) => return Poll::Ready(Read::Head(length)),
                Poll::Ready(Err(Error::Malformed(_))) => return Poll::Ready(Read::TooLarge),
                Poll::Ready(Err(_)) => return Poll::Ready(Read::Closed),
                Poll::Pending => {}
            }
            if !begun && !conn.ahead().is_empty() {
                begun = true;
                alarm.after(bounds.head_timeout);
            }
            if !begun && self.around.closes_idle() {
                return Poll::Ready(Read::Closed);
            }
            if self.around.is_leaving() && turn == Turn::First && last_call.is_none() {
                last_call = Some(Instant::now());
                alarm.after(LAST_CALL);
            }
            let silent = conn.ahead().is_empty() || last_call.is_some();
            alarm
                .poll(context)
                .map(|()| if silent { Read::Closed } else { Read::Slow })
        })
        .await
    }

    /// Bytes behind an upgrade request that nobody has agreed to: the next request to one reader, and
    /// another protocol to the next.
    fn is_early(&mut self) -> bool {
        let head = self.down.head();
        head.wants_upgrade() && head.framing().is_done() && !self.down.conn().ahead().is_empty()
    }

    fn lane(&self) -> Lane {
        let handler = &*self.around.handler;
        let head = self.down.head();
        match handler.lane(head, self.down.info()) {
            Lane::Own | Lane::Plain if handler.tunnels() && head.wants_websocket() => Lane::Tunnel,
            lane => lane,
        }
    }

    /// One exchange through the transport traits; the connection, if another exchange may follow
    /// in this task.
    async fn own(self, door: &mut Option<Counted>) -> Option<Self> {
        let Self { mut down, around } = self;
        if around.is_leaving() {
            down.close_after();
        }
        // From here on the exchange counts itself.
        drop(door.take());
        match around.handler.exchange(down).await {
            Served::Done(down) => Self::after(down, around).await,
            Served::Lasts(stream) => {
                tokio::spawn(Self::lasting(stream, around));
                None
            }
        }
    }

    /// Carries a stream to its end, and goes on with the connection if it can be used again.
    fn lasting(
        stream: Pin<Box<dyn Future<Output = H1Down> + Send>>,
        around: Arc<Surroundings<H>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let down = stream.await;
            if let Some(line) = Self::after(down, around).await
                && !line.around.closes_idle()
            {
                tokio::spawn(line.serve(None, Turn::Later));
            }
        })
    }

    /// What becomes of the connection of an exchange that is over.
    async fn after(mut down: H1Down, around: Arc<Surroundings<H>>) -> Option<Self> {
        match down.end() {
            After::Next => Some(Self { down, around }),
            After::Linger => {
                Box::pin(linger(down)).await;
                None
            }
            After::Close => None,
        }
    }

    /// A WebSocket over the bare connection.
    async fn tunnel(mut self) {
        let head = self.down.take_head();
        let (conn, _, info) = self.down.into_conn();
        let (wire, _) = conn.into_parts();
        self.around.handler.tunnel(wire, &head, &info).await;
    }

    /// One exchange on Pingora's proxy, which is shown that one and no more.
    async fn plain(mut self) -> Option<Self> {
        let around = self.around;
        let head = self.down.take_head();
        let ahead = self.down.conn().take_ahead();
        let ahead = ahead.as_ref().map_or(&[][..], Buffer::filled);
        let (conn, alarm, info) = self.down.into_conn();
        let (wire, _) = conn.into_parts();
        let body_timeout = around.bounds.head_timeout;
        let request = Single::new(layered(wire, &[], &info), &head, ahead, body_timeout);
        drop(head);
        let mut session = ServerSession::new_http1(Box::new(request));
        session.set_read_timeout(Some(body_timeout));
        session.set_write_timeout(Some(around.bounds.write_timeout));
        let stream = around.handler.plain(session, &info).await?;
        let (stream, behind) = Single::into_parts(stream)?;
        let mut line = Self::new(Wire::Layered(stream), alarm, info, around);
        line.down.conn().put_back(Some(Buffer::of(&behind)));
        Some(line)
    }

    /// Reads what is still missing of the HTTP/2 preface, since Pingora would wait for it for ever,
    /// and goes on in HTTP/2.
    async fn http2(self, door: Option<Counted>) {
        let (mut conn, alarm, info) = self.down.into_conn();
        let mut leaving = false;
        let whole = poll_fn(|context| {
            while conn.ahead().len() < http2::PREFACE_LENGTH {
                match conn.poll_fill(context, BUFFER_BYTES) {
                    Poll::Ready(Ok(read)) if read > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => {
                        // The time of the head is still running.
                        if !leaving && self.around.is_leaving() {
                            leaving = true;
                            alarm.after(LAST_CALL);
                        }
                        return alarm.poll(context).map(|()| false);
                    }
                }
            }
            Poll::Ready(true)
        });
        if !whole.await {
            return;
        }
        let (wire, ahead) = conn.into_parts();
        // Boxed, because every connection would otherwise hold the room for it.
        Box::pin(http2::serve(wire, &ahead, info, &self.around, door)).await;
    }

    /// Answers on the bare connection and closes it.
    async fn refuse(mut self, fault: Fault) {
        fault.count();
        self.around.handler.refused(self.down.info(), fault);
        let text = local::bare(fault, true, None);
        if self.down.conn().send([&text, &[], &[]]).await.is_ok() {
            Box::pin(linger(self.down)).await;
        }
    }
}

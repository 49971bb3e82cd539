//! Connecting to endpoints: one dialer per worker thread, with its own pool of idle connections,
//! so that a connection is only ever used by the thread whose reactor it is registered with.
//!
//! The connection that came back last is used first: it is the likeliest to be open still, and the
//! others grow old enough to be closed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::ErrorType;
use pingora::connectors::l4::Connect;
use pingora::protocols::TcpKeepalive as StockKeepalive;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::HttpPeer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::buffer::Piece;
use super::h1::conn::Conn;
use super::h1::up::H1Up;
use super::lack::Lack;
use super::nanos::Nanos;
use super::proxy_protocol::{Header, Version};
use super::sessions::SessionUp;
use super::timer::Alarm;
use super::tls;
use super::vanished;
use super::wire::Wire;
use super::{Error, Length, Outgoing, ResponseHead, Upstream};

mod http2;

use http2::Connections;

/// Idle connections kept per dialer over all endpoints; one more is closed.
const IDLE_MAX: usize = 1024;
/// How often idle connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Endpoints whose empty lists are kept for the next connection; names that change their addresses
/// leave some behind.
const KEYS_KEPT: usize = 256;
/// Idle time before the kernel asks a silent endpoint whether it is still there: the only way to
/// notice one that lost its network under an open stream.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How many such questions go unanswered at most, which is the kernel's own number.
const KEEPALIVE_QUESTIONS: usize = 9;

/// Streams that share one HTTP/2 connection to an endpoint, and the flow-control windows: small
/// enough that a slow reader holds 64 KiB, not megabytes.
const H2_STREAMS_MAX: usize = 128;
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Where and how to connect.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The endpoint's address at this moment.
    pub address: SocketAddr,
    /// Keeps the connections of different endpoints apart even where addresses are equal.
    pub group: u64,
    /// Speak HTTP/2: with prior knowledge, or under TLS if the endpoint agrees to it.
    pub http2: bool,
    /// How TLS is spoken, if it is.
    pub tls: Option<&'a tls::Client>,
    /// The file of the endpoint's unix socket, if that is where it is.
    pub unix: Option<&'a Path>,
    /// What a new connection begins with: for whom it is made. `group` must then keep the connections
    /// of different clients apart.
    pub announce: Option<(Version, Header)>,
    /// Bound on making the connection.
    pub connect_timeout: Duration,
    /// Bound on a write that makes no progress.
    pub write_timeout: Option<Duration>,
    /// How long the connection may lie idle in the pool. Servers on Node and uvicorn close after
    /// five seconds, so it is kept below that by default.
    pub idle: Duration,
    /// Take a pooled connection if there is one.
    pub reuse: bool,
}

impl Target<'_> {
    fn key(&self) -> IdleKey {
        IdleKey {
            group: self.group,
            address: self.address,
            idle: self.idle.into(),
        }
    }
}

/// Which idle connections may serve a request, and how long one of them may wait for it.
#[derive(Debug, Clone, Copy)]
pub struct IdleKey {
    group: u64,
    address: SocketAddr,
    idle: Nanos,
}

impl IdleKey {
    /// Whose connections these are: the group, and the address.
    pub(super) fn whose(&self) -> (u64, SocketAddr) {
        (self.group, self.address)
    }
}

impl PartialEq for IdleKey {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && self.address == other.address
    }
}

impl Eq for IdleKey {}

impl Hash for IdleKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A hash of names already, and an endpoint has one address at a time.
        state.write_u64(self.group);
    }
}

/// The group of an [`IdleKey`] is a hash; hashing it again would be waste.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Connections to one endpoint, and since when each is idle; those used last at the end.
type Waiting = Vec<(Box<H1Up>, Instant)>;

/// Idle connections.
struct Idle {
    /// The time as of the last tick: fine enough for what is idle for seconds.
    now: Instant,
    /// When the list was last looked through.
    swept: Instant,
    by_key: HashMap<IdleKey, Waiting, BuildHasherDefault<AsIs>>,
    count: usize,
}

/// Makes and keeps connections for one worker.
pub struct Dialer {
    /// Never contended: only the worker's thread takes it.
    idle: Mutex<Idle>,
    http2: Connections,
}

impl Dialer {
    /// A dialer with an empty pool.
    pub fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            idle: Mutex::new(Idle {
                now,
                swept: now,
                by_key: HashMap::default(),
                count: 0,
            }),
            http2: Connections::default(),
        })
    }

    /// Opens an exchange with an endpoint, on a pooled connection if there is one. Without an
    /// `alarm` it is for the caller to bound the time of all that follows.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Connect`], [`Error::Lacking`] or [`Error::ConnectTimeout`]; no
    /// request byte was sent in any of these cases.
    pub async fn open(
        self: &Arc<Self>,
        target: Target<'_>,
        alarm: Option<&Alarm>,
    ) -> Result<Up, Error> {
        let key = target.key();
        if target.http2 {
            // Boxed, because every exchange would otherwise hold the room for it.
            if let Some(up) = Box::pin(self.http2.open(&target)).await {
                return Ok(Up::H2(Box::new(up)));
            }
        }
        // Under TLS an endpoint may have preferred HTTP/1.1 before.
        let pooled = if target.reuse && !(target.http2 && target.tls.is_none()) {
            self.pooled(&key)
        } else {
            None
        };
        let mut up = match pooled {
            Some(up) => up,
            None => {
                let wire = connect(&target, target.http2).await?;
                if target.http2 && wire.is_http2().unwrap_or(true) {
                    let begun = Box::pin(self.http2.begin(wire, &target)).await;
                    return begun.map(|up| Up::H2(Box::new(up)));
                }
                H1Up::new(Conn::new(wire, None, None))
            }
        };
        up.begin(Arc::clone(self), key, alarm, target.write_timeout);
        Ok(Up::H1(up))
    }

    /// The idle connection to an endpoint that was used last, if one is still open.
    fn pooled(&self, key: &IdleKey) -> Option<Box<H1Up>> {
        let mut idle = self.lock();
        let Idle {
            now, by_key, count, ..
        } = &mut *idle;
        let waiting = by_key.get_mut(key)?;
        while let Some((mut up, since)) = waiting.pop() {
            *count -= 1;
            if now.saturating_duration_since(since) < key.idle.get() && up.is_quiet() {
                return Some(up);
            }
        }
        None
    }

    /// Takes back a connection whose exchange has ended.
    pub(super) fn release(&self, up: Box<H1Up>, key: IdleKey) {
        let mut idle = self.lock();
        if idle.count < IDLE_MAX && key.idle != Nanos::ZERO {
            idle.count += 1;
            let now = idle.now;
            let waiting = idle.by_key.entry(key).or_default();
            waiting.push((up, now));
        }
    }

    /// Tells the time, and now and then closes idle connections that have waited for too long or
    /// that the endpoint has closed. To be called several times a second.
    pub fn tick(&self, now: Instant) {
        let mut idle = self.lock();
        idle.now = now;
        if now.saturating_duration_since(idle.swept) < SWEEP_EVERY {
            return;
        }
        idle.swept = now;
        let Idle { by_key, count, .. } = &mut *idle;
        let tidy = by_key.len() > KEYS_KEPT;
        by_key.retain(|key, waiting| {
            waiting.retain_mut(|(up, since)| {
                now.saturating_duration_since(*since) < key.idle.get() && up.is_quiet()
            });
            !(tidy && waiting.is_empty())
        });
        *count = by_key.values().map(Vec::len).sum();
        self.http2.sweep(now);
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a connection to an endpoint, and speaks TLS on it where that is wanted, offering HTTP/2 there
/// if `http2`. All of it within the time of the target.
///
/// # Errors
/// [`Error::Refused`], [`Error::Connect`], [`Error::Lacking`] or [`Error::ConnectTimeout`].
pub async fn connect(target: &Target<'_>, http2: bool) -> Result<Wire, Error> {
    let connecting = async {
        let stream = announced(target.address, target.unix, target.announce).await?;
        if target.unix.is_none() {
            vanished::bound(&stream, target.write_timeout);
        }
        match target.tls {
            None => Ok(Wire::Tcp(stream)),
            // Boxed, because every exchange would otherwise hold the room for a handshake.
            Some(tls) => Box::pin(tls.shake(stream, http2)).await.map(Wire::Tls),
        }
    };
    timeout(target.connect_timeout, connecting)
        .await
        .map_err(|_| Error::ConnectTimeout)?
}

/// A connection to an endpoint that begins with the header it is to begin with.
async fn announced(
    address: SocketAddr,
    unix: Option<&Path>,
    announce: Option<(Version, Header)>,
) -> Result<TcpStream, Error> {
    let failed = |error| failed(&error, address);
    let mut stream = match unix {
        None => reach(address).await.map_err(failed)?,
        // A stream of bytes behind a file descriptor is read, written and waited for in one way.
        Some(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            let file = OwnedFd::from(stream.into_std().map_err(failed)?);
            TcpStream::from_std(file.into()).map_err(failed)?
        }
    };
    if let Some((version, header)) = announce {
        let mut bytes = Vec::new();
        header.write(version, &mut bytes);
        stream.write_all(&bytes).await.map_err(failed)?;
    }
    Ok(stream)
}

/// Why there is no connection to this address.
fn failed(error: &io::Error, address: SocketAddr) -> Error {
    if let Some(lack) = Lack::of(error, Some(address)) {
        return Error::Lacking(lack);
    }
    match error.kind() {
        // A file that is not there is a server that has not started.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Error::Refused,
        _ => Error::Connect(error.to_string()),
    }
}

async fn reach(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let socket = SockRef::from(&stream);
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let _ = socket.set_tcp_keepalive(&keepalive);
    Ok(stream)
}

/// Pingora's description of an endpoint, for an exchange that may need HTTP/1.1 (`upgrades`).
pub fn peer(target: &Target<'_>, upgrades: bool) -> HttpPeer {
    let socket = target.unix.and_then(Path::to_str);
    let socket = socket.and_then(|path| HttpPeer::new_uds(path, false, String::new()).ok());
    let mut peer = socket.unwrap_or_else(|| HttpPeer::new(target.address, false, String::new()));
    peer.group_key = target.group;
    if let Some(announce) = target.announce {
        peer.options.custom_l4 = Some(Arc::new(Announcing {
            address: target.address,
            unix: target.unix.map(Path::to_owned),
            announce,
        }));
    }
    peer.options.connection_timeout = Some(target.connect_timeout);
    // The only one of the two that holds for connections that are announced.
    peer.options.total_connection_timeout = Some(target.connect_timeout);
    peer.options.write_timeout = target.write_timeout;
    // The socket of a file knows none of this, and Pingora takes that for a failure.
    let is_file = target.unix.is_some();
    peer.options.tcp_keepalive = (!is_file).then(|| StockKeepalive {
        idle: KEEPALIVE,
        interval: KEEPALIVE / 4,
        count: KEEPALIVE_QUESTIONS,
        user_timeout: vanished::time_for(target.write_timeout),
    });
    peer.options.idle_timeout = Some(target.idle);
    if target.http2 {
        peer.options.set_http_version(2, 2);
        peer.options.max_h2_streams = H2_STREAMS_MAX;
        peer.options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
    }
    if let Some(tls) = target.tls {
        tls.dress(&mut peer, target.http2 && !upgrades);
    }
    peer
}

/// How Pingora makes a connection that is to begin with a header of the PROXY protocol.
#[derive(Debug)]
struct Announcing {
    address: SocketAddr,
    unix: Option<PathBuf>,
    announce: (Version, Header),
}

#[async_trait]
impl Connect for Announcing {
    async fn connect(
        &self,
        _: &pingora::protocols::l4::socket::SocketAddr,
    ) -> pingora::Result<Stream> {
        let announced = announced(self.address, self.unix.as_deref(), Some(self.announce)).await;
        announced.map(Stream::from).map_err(|error| {
            let kind = match error {
                Error::Refused => ErrorType::ConnectRefused,
                _ => ErrorType::ConnectError,
            };
            pingora::Error::because(kind, "connecting", error)
        })
    }
}

/// An exchange with an endpoint, whichever HTTP it speaks.
pub enum Up {
    /// Our own HTTP/1.1.
    H1(Box<H1Up>),
    /// Pingora's HTTP/2.
    H2(Box<SessionUp>),
}

impl Upstream for Up {
    fn put_head(&mut self, out: &Outgoing<'_>) -> Result<(), Error> {
        match self {
            Self::H1(up) => {
                up.put_head(out);
                Ok(())
            }
            Self::H2(up) => up.put_head(out),
        }
    }

    async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
        match self {
            Self::H1(up) => up.send_body(data).await,
            Self::H2(up) => up.send_body(data).await,
        }
    }

    async fn finish(&mut self) -> Result<(), Error> {
        match self {
            Self::H1(up) => up.finish().await,
            Self::H2(up) => up.finish().await,
        }
    }

    async fn read_head(&mut self) -> Result<(), Error> {
        match self {
            Self::H1(up) => up.read_head().await,
            Self::H2(up) => up.read_head().await,
        }
    }

    fn head(&self) -> &dyn ResponseHead {
        match self {
            Self::H1(up) => up.head(),
            Self::H2(up) => up.head(),
        }
    }

    fn release_head(&mut self) {
        match self {
            Self::H1(up) => up.release_head(),
            Self::H2(up) => up.release_head(),
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        match self {
            Self::H1(up) => up.poll_body(context),
            Self::H2(up) => up.poll_body(context),
        }
    }

    fn length(&self) -> Length {
        match self {
            Self::H1(up) => up.length(),
            Self::H2(up) => up.length(),
        }
    }

    fn reused(&self) -> bool {
        match self {
            Self::H1(up) => up.reused(),
            Self::H2(up) => up.reused(),
        }
    }

    fn release(self) {
        match self {
            Self::H1(up) => up.release(),
            Self::H2(up) => up.release(),
        }
    }
}

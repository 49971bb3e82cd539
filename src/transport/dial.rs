//! Connecting to endpoints: one dialer per worker thread, with its own pool of idle connections,
//! so that a connection is only ever used by the thread whose reactor it is registered with.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use super::Error;
use super::sessions::{SessionUp, wire_error};

/// Idle connections kept per dialer over all endpoints; the least recently used goes first.
const POOL_MAX: usize = 1024;

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
    /// A name that keeps pools of different endpoints apart even where addresses are equal.
    pub group: &'a str,
    /// Speak HTTP/2 with prior knowledge.
    pub http2: bool,
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

/// Makes and keeps connections for one worker.
pub struct Dialer {
    connector: Connector,
}

impl Dialer {
    /// A dialer with an empty pool.
    pub fn new() -> Arc<Self> {
        let options = ConnectorOptions::new(POOL_MAX);
        Arc::new(Self {
            connector: Connector::new(Some(options)),
        })
    }

    /// Opens an exchange with an endpoint, on a pooled connection if there is one.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Connect`] or [`Error::ConnectTimeout`]; no request byte was
    /// sent in any of these cases.
    pub async fn open(self: &Arc<Self>, target: Target<'_>) -> Result<SessionUp, Error> {
        let mut peer = peer(&target);
        if !target.reuse {
            // A group of its own finds no idle connection, so the dial is fresh.
            peer.group_key = fastrand::u64(..);
        }
        let connecting = self.connector.get_http_session(&peer);
        let (session, reused) = tokio::time::timeout(target.connect_timeout, connecting)
            .await
            .map_err(|_| Error::ConnectTimeout)?
            .map_err(wire_error)?;
        Ok(SessionUp::new(
            session,
            reused,
            peer,
            Arc::clone(self),
            target.idle,
            target.write_timeout,
        ))
    }

    /// Takes back a connection whose exchange has ended.
    pub(super) async fn release(&self, session: HttpSession, peer: &HttpPeer, idle: Duration) {
        self.connector
            .release_http_session(session, peer, Some(idle))
            .await;
    }
}

/// Pingora's description of an endpoint.
pub fn peer(target: &Target<'_>) -> HttpPeer {
    let mut peer = HttpPeer::new(target.address, false, String::new());
    let mut hasher = DefaultHasher::new();
    target.group.hash(&mut hasher);
    peer.group_key = hasher.finish();
    peer.options.connection_timeout = Some(target.connect_timeout);
    peer.options.write_timeout = target.write_timeout;
    peer.options.idle_timeout = Some(target.idle);
    if target.http2 {
        peer.options.set_http_version(2, 2);
        peer.options.max_h2_streams = H2_STREAMS_MAX;
        peer.options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
    }
    peer
}

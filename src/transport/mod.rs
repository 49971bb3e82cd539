//! Bytes in, bytes out: one interface, several wires.
//!
//! The rest of the proxy sees an exchange through two small traits, [`Downstream`] (the client's
//! side) and [`Upstream`] (the endpoint's side), and through heads that can be read but have no
//! concrete type. [`h1`] implements both over an HTTP/1.1 of our own, which most traffic takes;
//! [`sessions`] over Pingora's HTTP/2.
//!
//! What this module knows: framing, keep-alive, hop-by-hop headers, connecting. What it does not
//! know: MCP, routes, pools, policy.

pub mod buffer;
pub mod dial;
pub mod dress;
pub mod excerpt;
pub mod fields;
pub mod h1;
pub mod lack;
pub mod layer;
pub mod nanos;
pub mod patience;
pub mod proxy_protocol;
pub mod refused;
pub mod sessions;
pub mod single;
pub mod socket;
pub mod timer;
pub mod tls;
pub mod tunnel;
pub mod vanished;
pub mod wire;

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use buffer::Piece;
use dress::{Dress, More};
use fields::{Known, Name, Names};
use lack::Lack;
use timer::Alarm;
use tls::Peer;

/// What went wrong on a wire, told apart as far as the proxy acts on the difference.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint refused the connection: nothing listens there.
    #[error("connection refused")]
    Refused,
    /// No connection could be made for another reason; no byte was sent.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// This host lacks what it takes to make a connection; no byte was sent, and the endpoint is not to
    /// blame.
    #[error("cannot connect: {0}")]
    Lacking(Lack),
    /// The connection was not made in time; no byte was sent.
    #[error("connect timed out")]
    ConnectTimeout,
    /// The other side closed or reset the connection.
    #[error("connection closed by the other side")]
    Closed,
    /// The other side ended a TLS connection and said why.
    #[error("connection ended by the other side: {0}")]
    Alert(&'static str),
    /// The other side sent something that is not valid HTTP.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// What was waited for did not come in time.
    #[error("read timed out")]
    ReadTimeout,
    /// A write made no progress in time: the reader is too slow or gone.
    #[error("write timed out")]
    WriteTimeout,
}

/// How a byte arrives here: the facts about a connection that policy and logs need.
pub struct ConnInfo {
    /// The client's address as the socket tells it, or the proxy that it belongs to; unspecified
    /// where there is none, as on a unix socket.
    pub client: SocketAddr,
    /// Our own address on this connection; tells loopback connections from others.
    pub local: SocketAddr,
    /// The listener's name from the config.
    pub listener: Arc<str>,
    /// The version of TLS that is spoken, such as `1.3`, if it is.
    pub tls: Option<&'static str>,
    /// What lasts as long as the connection: its place in the listener's count, and who its client has
    /// proved to be.
    pub place: Option<Box<dyn Lasting>>,
}

/// What lasts as long as a connection.
pub trait Lasting: Send + Sync {
    /// Who the client has proved to be.
    fn peer(&self) -> Option<&Peer> {
        None
    }

    /// Counts the connection as one of this client's, unless that has as many as it may. Refusals are
    /// counted.
    fn is_for(&mut self, client: Option<IpAddr>) -> bool {
        let _ = client;
        true
    }
}

impl ConnInfo {
    /// Who the client has proved to be by its certificate, if it has.
    pub fn certificate(&self) -> Option<&Peer> {
        self.place.as_ref()?.peer()
    }

    /// The client has proved to be this one.
    pub fn prove(&mut self, peer: Peer) {
        let place = self.place.take();
        self.place = Some(Box::new(Proved {
            peer,
            _place: place,
        }));
    }
}

/// Kept apart, so that a connection whose client has proved nothing has no room for it.
struct Proved {
    peer: Peer,
    _place: Option<Box<dyn Lasting>>,
}

impl Lasting for Proved {
    fn peer(&self) -> Option<&Peer> {
        Some(&self.peer)
    }
}

impl ConnInfo {
    /// The client's address in its usual form, if it has one.
    pub fn peer(&self) -> Option<IpAddr> {
        let address = self.client.ip().to_canonical();
        (!address.is_unspecified()).then_some(address)
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.client, self.listener)
    }
}

/// The protocol version of an exchange, for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.0
    V10,
    /// HTTP/1.1
    #[default]
    V11,
    /// HTTP/2
    V2,
}

impl Http {
    /// The version as it stands in a log line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V2 => "2",
        }
    }
}

/// Header fields that can be read. Names are given in lower case and compared without case.
pub trait Headers {
    /// The first value under `name`, which comes from a configuration or is rarely asked for.
    fn get(&self, name: &str) -> Option<&[u8]>;
    /// The first value under a known name.
    fn known(&self, name: Known) -> Option<&[u8]> {
        self.get(name.as_str())
    }
    /// How many field lines carry `name`.
    fn count(&self, name: &str) -> usize;
    /// Does any of these names stand on more than one field line?
    fn repeats(&self, names: &[Known]) -> bool {
        names.iter().any(|name| self.count(name.as_str()) > 1)
    }
    /// Calls `f` with every field line in the order received. No value has a CR, LF or NUL in it:
    /// whoever reads a head refuses them (RFC 9110 section 5.5).
    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8]));
}

/// The head of a request.
pub trait RequestHead: Headers + Send + Sync {
    /// The method, as sent.
    fn method(&self) -> &str;
    /// The request target in origin form: path and query.
    fn target(&self) -> &str;
    /// The authority the client asked for: `Host`, or `:authority` on HTTP/2.
    fn authority(&self) -> Option<&str>;
    /// The protocol version.
    fn version(&self) -> Http;

    /// The target that a server is asked for: the same, unless the route rewrites it.
    fn onward(&self) -> &str {
        self.target()
    }

    /// The target's path, without the query.
    fn path(&self) -> &str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// The target's query, without the question mark.
    fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }
}

/// The head of a response.
pub trait ResponseHead: Headers + Send + Sync {
    /// The status code.
    fn status(&self) -> u16;
}

/// What changes in a head between reading and sending it on.
///
/// Hop-by-hop fields (RFC 9110 section 7.6.1), those that `Connection` names, and the framing
/// fields are always left behind by the transport and need not be listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Edits<'a> {
    /// Fields to set, replacing whatever was there under the name.
    pub set: &'a [(&'a str, &'a [u8])],
    /// Fields to leave out.
    pub drop: Names,
    /// What the route wants changed, after all of that. Towards a client its exchange adds it.
    pub more: Option<More<'a>>,
}

/// How the length of a body is told to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is no body.
    None,
    /// Exactly so many bytes.
    Exact(u64),
    /// It ends when it ends: chunked on HTTP/1.1, END_STREAM on HTTP/2.
    Unknown,
}

/// A request as it is sent to an endpoint.
pub struct Outgoing<'a> {
    /// The head it is made from.
    pub head: &'a dyn RequestHead,
    /// Method to send.
    pub method: &'a str,
    /// Target to send, in origin form.
    pub target: &'a str,
    /// The authority to send as `Host` or `:authority`.
    pub authority: &'a str,
    /// Changes to the fields.
    pub edits: Edits<'a>,
    /// The body's length.
    pub length: Length,
}

impl Outgoing<'_> {
    /// Calls `put` with the authority to send: what the route wants, or else the endpoint's own.
    fn with_authority(&self, put: &mut dyn FnMut(&[u8])) {
        let mut is_set = false;
        if let Some(more) = &self.edits.more {
            more.host(&mut |host| {
                is_set = !host.is_empty();
                if is_set {
                    put(host);
                }
            });
        }
        if !is_set {
            put(self.authority.as_bytes());
        }
    }
}

/// The client's side of one exchange.
///
/// Order of use: read the head and the body, then `send_head` once, `send_body` any number of
/// times, `finish` once. Dropping it before `finish` ends the response visibly incomplete.
pub trait Downstream: Send + 'static {
    /// The request head's type.
    type Head: RequestHead;

    /// The request head.
    fn head(&self) -> &Self::Head;
    /// What the route says about heads. It holds for this exchange alone.
    fn dress(&self) -> &Dress;
    /// The same, to be said.
    fn dress_mut(&mut self) -> &mut Dress;
    /// Sets what [`RequestHead::onward`] tells of this request.
    fn send_onward(&mut self, target: Box<str>);
    /// Lets go of the request head, which is empty from then on: for an exchange that lasts.
    fn release_head(&mut self);
    /// Facts about the connection.
    fn info(&self) -> &Arc<ConnInfo>;
    /// The alarm of this exchange, for whoever waits in it. Each wait sets it anew.
    fn alarm(&self) -> &Alarm;
    /// True when no byte of a request body is to come.
    fn body_ended(&mut self) -> bool;
    /// The next piece of the request body; `None` at its end.
    fn read_body(&mut self) -> impl Future<Output = Result<Option<Piece>, Error>> + Send;
    /// Sends the response head: the fields of `from`, if any, with `edits`. It goes out with the
    /// first piece of the body, or with [`Self::flush`].
    fn send_head(
        &mut self,
        status: u16,
        from: Option<&(dyn ResponseHead + '_)>,
        edits: Edits<'_>,
        length: Length,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Sends a piece of the response body, and the head if that has not left yet.
    fn send_body(&mut self, data: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;
    /// Puts a piece of the response body behind a head that has not left yet, to go out with it; false,
    /// and nothing was taken, where it would not fit.
    fn join_body(&mut self, _data: &[u8]) -> bool {
        false
    }
    /// Sends the head now, whether or not there will be a body.
    fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
    /// Ends the response properly.
    fn finish(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
    /// Ends the response so that the client can tell that it is incomplete.
    fn abort(&mut self) -> impl Future<Output = ()> + Send;
    /// Ready when the client has gone away. Only to be used once the request body was read to its
    /// end.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;
    /// Resolves when the client has gone away.
    fn gone(&mut self) -> impl Future<Output = ()> + Send {
        poll_fn(|context| self.poll_gone(context))
    }
    /// The connection must not carry another request after this exchange.
    fn close_after(&mut self);
}

/// The endpoint's side of one exchange. Dropping it unfinished cancels: the connection is closed,
/// or the HTTP/2 stream reset.
pub trait Upstream: Send {
    /// Takes the request head, which goes out with the first piece of the body, or with
    /// [`Self::finish`].
    fn put_head(&mut self, out: &Outgoing<'_>) -> Result<(), Error>;
    /// Sends a piece of the request body.
    fn send_body(&mut self, data: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;
    /// Ends the request.
    fn finish(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
    /// Reads the final response head; informational ones (1xx) are passed over. May be dropped
    /// and called again.
    fn read_head(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
    /// The response head that was read.
    fn head(&self) -> &dyn ResponseHead;
    /// Lets go of the response head: for an exchange that lasts.
    fn release_head(&mut self);
    /// The next piece of the response body; `None` at its proper end.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>>;
    /// The next piece of the response body; `None` at its proper end. May be dropped and called
    /// again.
    fn read_body(&mut self) -> impl Future<Output = Result<Option<Piece>, Error>> + Send {
        poll_fn(|context| self.poll_body(context))
    }
    /// The length the response head announced.
    fn length(&self) -> Length;
    /// Whether the connection had served another exchange before this one.
    fn reused(&self) -> bool;
    /// Gives a connection whose response was read to its end back for reuse.
    fn release(self);
}

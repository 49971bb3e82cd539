//! The first thing on a TLS listener, before any head: the handshake, within the time of the first
//! head and counted for a drain like it.

use std::future::poll_fn;
use std::task::Poll;

use tokio::net::TcpStream;

use super::connection::{LAST_CALL, Surroundings};
use crate::telemetry::{HandshakeFailure, handshake_failed};
use crate::transport::ConnInfo;
use crate::transport::timer::Alarm;
use crate::transport::tls::{Acceptor, Failed, Tls};

/// What came of a handshake.
pub(super) enum Shaken {
    /// TLS is spoken.
    Tls(Box<Tls>),
    /// The client speaks plain HTTP, and should hear in plain text that nobody does here.
    Plain(TcpStream),
    /// There is nobody to talk to.
    Nobody,
}

/// Shakes hands with a client, as long as `alarm` leaves it time.
pub(super) async fn shake<H>(
    acceptor: &Acceptor,
    stream: TcpStream,
    info: &ConnInfo,
    alarm: &Alarm,
    around: &Surroundings<H>,
) -> Shaken {
    let mut handshake = acceptor.accept(stream);
    let mut leaving = false;
    let shaken = poll_fn(|context| {
        if let Poll::Ready(done) = handshake.poll(context) {
            return Poll::Ready(Some(done));
        }
        if !leaving && around.is_leaving() {
            leaving = true;
            alarm.after(LAST_CALL);
        }
        alarm.poll(context).map(|()| None)
    });
    let (why, shaken) = match shaken.await {
        Some(Ok(tls)) => return Shaken::Tls(Box::new(tls)),
        Some(Err(Failed::Plain(stream))) => (HandshakeFailure::Plain, Shaken::Plain(stream)),
        Some(Err(Failed::Closed)) => (HandshakeFailure::Closed, Shaken::Nobody),
        Some(Err(Failed::Proved)) => {
            log::info!(client:% = info.client, listener = &*info.listener; "an authority has seen what a name is proved by");
            return Shaken::Nobody;
        }
        Some(Err(Failed::Bare)) => (HandshakeFailure::NoCertificate, Shaken::Nobody),
        Some(Err(Failed::Tls(error))) => {
            log::debug!(client:% = info.client, listener = &*info.listener; "TLS handshake: {error}");
            (HandshakeFailure::Protocol, Shaken::Nobody)
        }
        None => (HandshakeFailure::Timeout, Shaken::Nobody),
    };
    if why != HandshakeFailure::Protocol {
        log::debug!(client:% = info.client, listener = &*info.listener; "TLS handshake: {}", why.as_str());
    }
    handshake_failed(why);
    shaken
}

//! The first thing on a listener with the PROXY protocol, before TLS and before any head: on whose
//! behalf the connection was made, within the time of the first head and counted for a drain like it.

use std::future::poll_fn;
use std::net::IpAddr;
use std::task::Poll;

use smallvec::SmallVec;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::connection::{Handler, LAST_CALL, Surroundings};
use crate::telemetry::{HeaderFailure, proxy_header_failed};
use crate::transport::ConnInfo;
use crate::transport::proxy_protocol::{self, Header, Wrong};
use crate::transport::timer::Alarm;

/// How much is looked at once: more than any header without additions.
const LOOK: usize = 512;

/// Reads the header, and notes in `info` who the client is. `None`: the connection is to be closed.
pub(super) async fn announced<H: Handler>(
    stream: &TcpStream,
    mut info: ConnInfo,
    alarm: &Alarm,
    around: &Surroundings<H>,
) -> Option<ConnInfo> {
    let header = match around.handler.believes(info.peer()) {
        true => header(stream, alarm, around).await,
        false => Err(HeaderFailure::Untrusted),
    };
    match header {
        Ok(Header::Itself) => {}
        Ok(Header::For {
            source,
            destination,
        }) => (info.client, info.local) = (source, destination),
        Err(why) => {
            log::debug!(client:% = info.client, listener = &*info.listener; "PROXY protocol: {}", why.as_str());
            proxy_header_failed(why);
            return None;
        }
    }
    is_let_in(&mut info).then_some(info)
}

/// May the client have one more connection? That could not be asked before it was known.
fn is_let_in(info: &mut ConnInfo) -> bool {
    let client = info.peer();
    info.place.as_mut().is_none_or(|place| place.is_for(client))
}

/// Reads the header and nothing behind it: what follows may be TLS or HTTP, and is looked at, not taken.
async fn header<H>(
    stream: &TcpStream,
    alarm: &Alarm,
    around: &Surroundings<H>,
) -> Result<Header, HeaderFailure> {
    let mut read: SmallVec<[u8; 128]> = SmallVec::new();
    let mut leaving = false;
    poll_fn(|context| {
        loop {
            let mut room = [0; LOOK];
            let mut ahead = ReadBuf::new(&mut room);
            match stream.poll_peek(context, &mut ahead) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(HeaderFailure::Closed)),
                Poll::Pending => break,
            }
            let before = read.len();
            read.extend_from_slice(ahead.filled());
            let (header, length) = match proxy_protocol::read(&read) {
                Ok(Some((header, length))) => (Some(header), length),
                Ok(None) => (None, read.len()),
                Err(Wrong::Missing) => return Poll::Ready(Err(HeaderFailure::Missing)),
                Err(Wrong::Malformed) => return Poll::Ready(Err(HeaderFailure::Malformed)),
            };
            let taken = length - before;
            // It was there a moment ago, and nobody else reads.
            if !stream
                .try_read(&mut room[..taken])
                .is_ok_and(|read| read == taken)
            {
                return Poll::Ready(Err(HeaderFailure::Closed));
            }
            if let Some(header) = header {
                return Poll::Ready(Ok(header));
            }
        }
        if !leaving && around.is_leaving() {
            leaving = true;
            alarm.after(LAST_CALL);
        }
        alarm.poll(context).map(|()| Err(HeaderFailure::Timeout))
    })
    .await
}

/// Whose word counts on a listener with the PROXY protocol: that of anybody who can reach it, or of
/// the trusted proxies, where there are any.
pub(super) fn believes(proxies: &crate::config::Proxies, peer: Option<IpAddr>) -> bool {
    proxies.is_empty() || proxies.has(peer)
}

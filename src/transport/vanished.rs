//! Finding peers that have gone without a word: hosts that lost their power, networks that went away.
//!
//! The kernel sends what is not acknowledged again for some fifteen minutes, and asks no keep-alive
//! questions meanwhile: whoever writes to a peer now and then, as comments on a stream do, learns nothing
//! until then. `TCP_USER_TIMEOUT` (RFC 5482) bounds that. It also ends the questions to a peer that is
//! silent, and the wait for one that has closed its window with something still to be sent.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Where no time limit of writes says otherwise.
const WITHOUT_LIMIT: Duration = Duration::from_secs(60);
/// A lost packet is sent again after 0.2 s, 0.4 s, 0.8 s; a shorter time would end connections over one.
const AT_LEAST: Duration = Duration::from_secs(3);

/// How long what was sent may go unacknowledged, where a write that makes no progress may take so long:
/// twice that, and at least 3 s.
pub fn time_for(write_timeout: Option<Duration>) -> Duration {
    write_timeout.map_or(WITHOUT_LIMIT, |limit| limit.saturating_mul(2).max(AT_LEAST))
}

/// Bounds the time for which the peer of a connection may acknowledge nothing. Nothing is bounded where
/// the system cannot do so, as on a unix socket.
pub fn bound(stream: &TcpStream, write_timeout: Option<Duration>) {
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(time_for(write_timeout)));
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_time_follows_that_of_writes() {
        let of = |seconds| time_for(Some(Duration::from_secs(seconds)));
        assert_eq!(of(30), Duration::from_secs(60));
        assert_eq!(of(600), Duration::from_secs(1200));
        assert_eq!(time_for(Some(Duration::from_millis(100))), AT_LEAST);
        assert_eq!(time_for(None), Duration::from_secs(60));
    }

    #[tokio::test]
    async fn the_kernel_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let stream = stream.unwrap();
        bound(&stream, Some(Duration::from_secs(10)));
        let set = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(set, Some(Duration::from_secs(20)));
    }
}

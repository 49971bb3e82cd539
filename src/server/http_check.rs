//! The check `http`: one request, and whether its answer is what the operator expects.
//!
//! It goes the way that calls go, with the endpoint's own TLS, unix socket and version of HTTP, on a
//! connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::Result as PingoraResult;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;
use tokio::time::timeout;

use super::checks::{in_time, threshold};
use crate::config::{self, HttpMethod};
use crate::pool::Endpoint;
use crate::proxy::ask::{NotWell, Question, send};
use crate::proxy::state::PoolState;
use crate::transport::Upstream;
use crate::transport::dial::{Dialer, Target, Up};
use crate::transport::proxy_protocol::Header;

/// How much of a body is looked at, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// How long the rest of an answer is read that is good already, so that the server sees its connection
/// closed and not broken off.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// The check `http` of one endpoint.
pub(super) struct HttpCheck {
    pool: Arc<PoolState>,
    endpoint: Arc<Endpoint>,
    dialer: Arc<Dialer>,
    wanted: config::HttpCheck,
}

impl HttpCheck {
    /// The check of an endpoint.
    pub(super) fn new(
        pool: &Arc<PoolState>,
        endpoint: &Arc<Endpoint>,
        dialer: &Arc<Dialer>,
        wanted: &config::HttpCheck,
    ) -> Self {
        Self {
            pool: Arc::clone(pool),
            endpoint: Arc::clone(endpoint),
            dialer: Arc::clone(dialer),
            wanted: wanted.clone(),
        }
    }

    async fn run(&self, address: SocketAddr) -> Result<(), NotWell> {
        let dialed = self
            .pool
            .target(self.endpoint.id(), address, Header::Itself);
        let (target, authority) = dialed.ok_or_else(|| "unknown endpoint".to_owned())?;
        let target = Target {
            connect_timeout: self.pool.config.health.timeout,
            idle: Duration::from_secs(1),
            reuse: false,
            ..target
        };
        let mut up = self.dialer.open(target, None).await?;
        let wanted = &self.wanted;
        // Said to have no body, since some servers wait for one that was not.
        let empty: Option<&[u8]> = (wanted.method == HttpMethod::Post).then_some(b"");
        let question = Question::own(
            wanted.method.as_str(),
            &wanted.path,
            &[("accept", b"*/*"), ("user-agent", b"tidegate-check")],
        );
        let authority = wanted.host.as_deref().unwrap_or(authority);
        send(&mut up, authority, question.with_body(empty)).await?;
        let status = up.head().status();
        if !wanted.statuses.iter().any(|good| good.contains(&status)) {
            return Err(NotWell::told(format!(
                "it was answered with status {status}"
            )));
        }
        match &wanted.body {
            Some(text) => expect(&mut up, text).await,
            None => {
                let _ = timeout(LAST_BYTES, look_for(&mut up, None)).await;
                Ok(())
            }
        }
    }
}

async fn expect(up: &mut Up, text: &str) -> Result<(), NotWell> {
    match look_for(up, Some(text.as_bytes())).await? {
        true => Ok(()),
        false => Err(NotWell::told("what is expected is not in the body")),
    }
}

/// Reads as much of a body as is looked at, or until `text` was found in it.
async fn look_for(up: &mut Up, text: Option<&[u8]>) -> Result<bool, NotWell> {
    let mut seen = Seen::default();
    while let Some(room) = seen.room() {
        let Some(piece) = up.read_body().await? else {
            break;
        };
        let piece = &piece[..piece.len().min(room)];
        if seen.finds(piece, text) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What has been read of a body.
#[derive(Default)]
struct Seen(Vec<u8>);

impl Seen {
    /// How much more is looked at, if any is.
    fn room(&self) -> Option<usize> {
        let room = BODY_MAX - self.0.len();
        (room > 0).then_some(room)
    }

    /// Adds a piece. True if `text` ends in it.
    fn finds(&mut self, piece: &[u8], text: Option<&[u8]>) -> bool {
        let before = self.0.len();
        self.0.extend_from_slice(piece);
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return false;
        };
        let from = (before + 1).saturating_sub(text.len());
        self.0[from..].windows(text.len()).any(|here| here == text)
    }
}

#[async_trait]
impl HealthCheck for HttpCheck {
    async fn check(&self, target: &Backend) -> PingoraResult<()> {
        in_time(&self.pool, target, |address| self.run(address)).await
    }

    fn health_threshold(&self, success: bool) -> usize {
        threshold(&self.pool, success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_however_it_is_cut() {
        let body = b"all is well here";
        for cut in 0..=body.len() {
            let (head, tail) = body.split_at(cut);
            let finds = |text: &[u8]| {
                let mut seen = Seen::default();
                seen.finds(head, Some(text)) | seen.finds(tail, Some(text))
            };
            assert!(
                finds(b"is well") && finds(body) && finds(b"a") && finds(b"e"),
                "{cut}"
            );
            assert!(!finds(b"is ill") && !finds(b"here!"), "{cut}");
        }
    }

    #[test]
    fn no_more_is_looked_at_than_there_is_room_for() {
        let mut seen = Seen::default();
        assert!(!seen.finds(&vec![0; BODY_MAX - 2], Some(b"xyz")));
        assert_eq!(seen.room(), Some(2));
        assert!(!seen.finds(b"xy", Some(b"xyz")));
        assert_eq!(seen.room(), None);
    }
}

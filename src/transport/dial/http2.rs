//! HTTP/2 connections to endpoints: each carries many exchanges at once, and is kept while any of them
//! may follow.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use pingora::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use tokio::time::timeout;

use super::{
    AsIs, H2_CONNECTION_WINDOW, H2_STREAM_WINDOW, H2_STREAMS_MAX, IDLE_MAX, IdleKey, Target, Up,
};
use crate::transport::Error;
use crate::transport::layer::towards_endpoint;
use crate::transport::nanos::Nanos;
use crate::transport::sessions::SessionUp;
use crate::transport::wire::Wire;

/// A connection, and when it was last seen to carry anything.
struct Kept {
    connection: ConnectionRef,
    used: Instant,
}

/// The connections of one dialer.
#[derive(Default)]
pub(super) struct Connections {
    /// Never contended: only the worker's thread takes it.
    by_key: Mutex<HashMap<IdleKey, Vec<Kept>, BuildHasherDefault<AsIs>>>,
}

impl Connections {
    /// Opens an exchange on a connection that is there, if one has room for it.
    pub(super) async fn open(&self, target: &Target<'_>) -> Option<SessionUp> {
        if !target.reuse {
            return None;
        }
        let key = target.key();
        while let Some(connection) = self.find(&key) {
            let opening = timeout(target.connect_timeout, connection.spawn_stream()).await;
            match opening {
                Ok(Ok(Some(stream))) => {
                    let secure = target.tls.is_some();
                    return Some(SessionUp::new(stream, true, secure, target.write_timeout));
                }
                // Its last place went to somebody else.
                Ok(Ok(None)) if !connection.can_accept_streams(1) => {}
                Ok(_) | Err(_) => connection.mark_shutdown(),
            }
        }
        None
    }

    /// Speaks HTTP/2 on a connection that was just made, and opens the first exchange on it.
    pub(super) async fn begin(&self, wire: Wire, target: &Target<'_>) -> Result<SessionUp, Error> {
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = H2_STREAMS_MAX;
        settings.stream_window_size = Some(H2_STREAM_WINDOW);
        settings.connection_window_size = Some(H2_CONNECTION_WINDOW);
        let beginning = async {
            let connection = handshake(towards_endpoint(wire), settings).await?;
            let stream = connection.spawn_stream().await?;
            Ok((connection, stream))
        };
        let begun: pingora::Result<_> = timeout(target.connect_timeout, beginning)
            .await
            .map_err(|_| Error::ConnectTimeout)?;
        // Nothing was asked yet, whatever it is that went wrong.
        let (connection, stream) = begun.map_err(|error| Error::Connect(error.to_string()))?;
        let no_room = || Error::Connect("it takes no HTTP/2 stream".to_owned());
        let stream = stream.ok_or_else(no_room)?;
        if target.reuse {
            self.keep(target.key(), connection);
        }
        let secure = target.tls.is_some();
        Ok(SessionUp::new(stream, false, secure, target.write_timeout))
    }

    /// A connection with room for one more exchange.
    fn find(&self, key: &IdleKey) -> Option<ConnectionRef> {
        let mut by_key = self.lock();
        let kept = by_key.get_mut(key)?;
        let found = kept
            .iter_mut()
            .find(|kept| kept.connection.can_accept_streams(1))?;
        found.used = Instant::now();
        Some(found.connection.clone())
    }

    fn keep(&self, key: IdleKey, connection: ConnectionRef) {
        let mut by_key = self.lock();
        if key.idle != Nanos::ZERO && by_key.values().map(Vec::len).sum::<usize>() < IDLE_MAX {
            let used = Instant::now();
            by_key
                .entry(key)
                .or_default()
                .push(Kept { connection, used });
        }
    }

    /// Lets go of connections that are over or have carried nothing for too long. Those let go of end
    /// when their last exchange does.
    pub(super) fn sweep(&self, now: Instant) {
        self.lock().retain(|key, kept| {
            kept.retain_mut(|kept| {
                if !kept.connection.is_idle() {
                    kept.used = now;
                }
                let over = kept.connection.is_closed() || kept.connection.is_shutting_down();
                !over && now.saturating_duration_since(kept.used) < key.idle.get()
            });
            !kept.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IdleKey, Vec<Kept>, BuildHasherDefault<AsIs>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Up {
    /// The fields behind the body, once that was read to its end. Over HTTP/1.1 they are not kept.
    ///
    /// # Errors
    /// The connection's.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, Error> {
        match self {
            Self::H1(_) => Ok(None),
            Self::H2(up) => up.trailers().await,
        }
    }
}

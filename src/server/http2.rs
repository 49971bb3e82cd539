//! HTTP/2, agreed on in a TLS handshake or by prior knowledge: Pingora's connection loop, one task per
//! stream.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use tokio::time::sleep;

use super::calm::Calm;
use super::connection::{Bounds, Handler, LAST_CALL, Lane, Served, Surroundings};
use crate::proxy::flight::Counted;
use crate::transport::ConnInfo;
use crate::transport::layer::layered;
use crate::transport::sessions::{PingoraHead, SessionDown};
use crate::transport::timer::Wheel;
use crate::transport::wire::Wire;

/// Streams a client may have open on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Flow-control windows towards clients: room for a body, not for a flood.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is held for a stream whose client has opened its window and does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may reset before they were served.
const PENDING_RESETS_MAX: usize = 20;
/// Streams that a client may bring us to reset by its errors, in the whole life of a connection. A
/// client that has not seen our settings yet opens more than it may, without malice.
const ERROR_RESETS_MAX: usize = 1024;
/// Length of the preface (RFC 9113 section 3.4).
pub(super) const PREFACE_LENGTH: usize = 24;

/// Serves a connection whose preface, and what came with it, is in `ahead`.
///
/// Requests may be on their way when the drain begins, and GOAWAY promises to serve them: so the
/// connection is a way in until they have had their time.
pub(super) async fn serve<H: Handler>(
    wire: Wire,
    ahead: &[u8],
    info: Arc<ConnInfo>,
    around: &Surroundings<H>,
    door: Option<Counted>,
) {
    let stream = layered(wire, ahead, &info);
    let app = Arc::new(App {
        handler: Arc::clone(&around.handler),
        info,
        bounds: around.bounds,
        wheel: Arc::clone(&around.wheel),
        options: {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            options.h2_idle_timeout = Some(around.bounds.idle_timeout);
            options
        },
    });
    let stream = Box::new(Calm::new(stream));
    let shutdown = around.way.watch();
    let mut serving = std::pin::pin!(app.process_new(stream, &shutdown));
    let mut phases = around.phases.clone();
    let last_call = async {
        phases.reached(around.leaves).await;
        sleep(LAST_CALL).await;
    };
    tokio::select! {
        _ = &mut serving => return,
        () = last_call => drop(door),
    }
    let _ = serving.await;
}

struct App<H> {
    handler: Arc<H>,
    info: Arc<ConnInfo>,
    bounds: Bounds,
    wheel: Arc<Wheel>,
    options: HttpServerOptions,
}

#[async_trait]
impl<H: Handler> HttpServerApp for App<H> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let head = PingoraHead::new(session.req_header());
        if self.handler.lane(&head, &self.info) == Lane::Plain {
            session.set_write_timeout(Some(self.bounds.write_timeout));
            let _ = self.handler.plain(session, &self.info).await;
            return None;
        }
        let down = SessionDown::new(
            session,
            head,
            Arc::clone(&self.info),
            self.wheel.alarm(),
            self.bounds.head_timeout,
            Some(self.bounds.write_timeout),
        );
        let down = match self.handler.exchange(down).await {
            Served::Done(down) => down,
            Served::Lasts(stream) => stream.await,
        };
        let (mut session, finished) = down.into_session();
        if !finished {
            session.shutdown().await;
        }
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.max_concurrent_streams(STREAMS_MAX);
        options.max_header_list_size(u32::try_from(self.bounds.head_max).unwrap_or(u32::MAX));
        options.initial_window_size(STREAM_WINDOW);
        options.initial_connection_window_size(CONNECTION_WINDOW);
        options.max_send_buffer_size(SEND_BUFFER);
        options.max_pending_accept_reset_streams(PENDING_RESETS_MAX);
        options.max_local_error_reset_streams(Some(ERROR_RESETS_MAX));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

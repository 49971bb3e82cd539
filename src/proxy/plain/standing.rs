//! Plain exchanges that last: event streams and upgraded connections.
//!
//! Pingora's proxy serves an exchange to its end and asks nobody. Where an endpoint's are to end, the
//! exchange is given up from outside; what it leaves is then written to the log in the proxy's place.

use std::future::pending;
use std::sync::{Arc, OnceLock};

use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::sync::Notify;

use super::{Plain, PlainCtx};
use crate::pool::Endpoint;
use crate::proxy::ctx::End;
use crate::proxy::finish;
use crate::proxy::open::{Listed, Open};
use crate::proxy::state::{Phases, Shared};
use crate::transport::ConnInfo;
use crate::transport::sessions::PingoraHead;

tokio::task_local! {
    /// The exchange that is served. Pingora's session has no room for facts of ours.
    pub(super) static EXCHANGE: Exchange;
}

/// What is known of an exchange before Pingora sees it.
#[derive(Clone)]
pub(super) struct Exchange {
    /// The connection it comes on.
    pub(super) info: Arc<ConnInfo>,
    standing: Arc<Standing>,
}

/// An exchange that may become one that lasts.
#[derive(Default)]
struct Standing {
    on: OnceLock<Arc<Endpoint>>,
    begun: Notify,
}

impl Standing {
    /// Resolves when it lasts and what is open on its endpoint is to end.
    async fn over(&self, mut phases: Phases) {
        self.begun.notified().await;
        match self.on.get() {
            Some(endpoint) => phases.until_withdrawn(endpoint, fastrand::u64(..)).await,
            None => pending().await,
        }
    }
}

/// Serves an exchange; the connection, if it can be used again.
pub async fn serve(
    proxy: &Arc<HttpProxy<Plain>>,
    session: ServerSession,
    info: &Arc<ConnInfo>,
    phases: &Phases,
    shutdown: &ShutdownWatch,
) -> Option<ReusedHttpStream> {
    let standing = Arc::new(Standing::default());
    let exchange = Exchange {
        info: Arc::clone(info),
        standing: Arc::clone(&standing),
    };
    let serving = EXCHANGE.scope(exchange, proxy.process_new_http(session, shutdown));
    tokio::select! {
        again = serving => again,
        () = standing.over(phases.clone()) => None,
    }
}

/// What is to be logged of an exchange that lasts, should it be given up.
pub(super) struct Will {
    head: PingoraHead,
    shared: Arc<Shared>,
    _listed: Option<Listed>,
}

impl PlainCtx {
    /// The exchange lasts from now on.
    pub(super) fn stands(&mut self, shared: &Arc<Shared>, head: PingoraHead) {
        let known = self
            .pool
            .as_ref()
            .zip(self.permit.as_ref())
            .zip(self.ctx.as_ref());
        let listed = known.map(|((pool, permit), ctx)| {
            shared.open.enter(Open {
                pool: Arc::clone(pool),
                endpoint: Arc::clone(permit.endpoint()),
                kind: "http",
                since: ctx.started,
                session: None,
            })
        });
        self.will = Some(Will {
            head,
            shared: Arc::clone(shared),
            _listed: listed,
        });
        if let Some(permit) = &self.permit {
            // Outside of an exchange nobody could end it.
            let _ = EXCHANGE.try_with(|exchange| {
                let _ = exchange.standing.on.set(Arc::clone(permit.endpoint()));
                exchange.standing.begun.notify_one();
            });
        }
    }
}

impl Drop for PlainCtx {
    /// Of an exchange that came to its end, the proxy has taken the will.
    fn drop(&mut self) {
        let (Some(will), Some(ctx), Some(info)) = (self.will.take(), &mut self.ctx, &self.info)
        else {
            return;
        };
        let endpoint = self.permit.as_ref().map(|permit| permit.endpoint());
        ctx.end = match endpoint.is_some_and(|endpoint| endpoint.closing().is_some()) {
            true => End::Withdrawn,
            false => End::Drain,
        };
        finish::finish(&will.shared, ctx, info, &will.head);
    }
}

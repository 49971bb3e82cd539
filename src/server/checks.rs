//! Which check an endpoint gets. `tcp` is Pingora's own where nothing is spoken on the connection; the
//! others are ours, and all are asked through Pingora's `HealthCheck`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::{Error as PingoraError, ErrorType, Result as PingoraResult};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{HealthCheck, TcpHealthCheck};
use tokio::time::timeout;

use super::http_check::HttpCheck;
use super::probe::McpCheck;
use crate::config::Check;
use crate::pool::Endpoint;
use crate::pool::lateness::Failure;
use crate::proxy::ask::NotWell;
use crate::proxy::shortage;
use crate::proxy::state::PoolState;
use crate::telemetry::ToolNames;
use crate::transport::dial::{Dialer, Target, connect};
use crate::transport::lack::Lack;
use crate::transport::proxy_protocol::Header;

/// A check, and how it is ended.
pub(super) enum Checker {
    /// One that leaves nothing behind.
    Stock(Box<dyn HealthCheck + Send + Sync>),
    /// Ours, which may hold a session on the server.
    Mcp(Box<McpCheck>),
}

impl Checker {
    /// The check through Pingora's interface.
    pub(super) fn as_check(&self) -> &(dyn HealthCheck + Send + Sync) {
        match self {
            Self::Stock(check) => &**check,
            Self::Mcp(check) => &**check,
        }
    }

    /// Leaves nothing behind on the server.
    pub(super) async fn close(&self) {
        if let Self::Mcp(check) = self {
            check.close().await;
        }
    }
}

/// The check for an endpoint as its pool wants it; none if the pool is not checked.
pub(super) fn check_for(
    pool: &Arc<PoolState>,
    endpoint: &Arc<Endpoint>,
    dialer: &Arc<Dialer>,
    tools: &Arc<ToolNames>,
) -> Option<Checker> {
    let health = &pool.config.health;
    let facts = pool.dial.get(&endpoint.id())?;
    let is_ours = facts.tls.is_some() || facts.unix.is_some() || facts.announces.is_some();
    match &health.check {
        Check::None => None,
        Check::Tcp if is_ours => {
            let check = ConnectCheck {
                pool: Arc::clone(pool),
                endpoint: Arc::clone(endpoint),
            };
            Some(Checker::Stock(Box::new(check)))
        }
        Check::Tcp => {
            let mut check = TcpHealthCheck::new();
            check.peer_template.options.connection_timeout = Some(health.timeout);
            Some(Checker::Stock(check))
        }
        Check::Http(wanted) => {
            let check = HttpCheck::new(pool, endpoint, dialer, wanted);
            Some(Checker::Stock(Box::new(check)))
        }
        Check::Mcp {
            path,
            transport,
            question,
        } => {
            let asks = (path.as_str(), *transport, *question);
            let check = McpCheck::new(pool, endpoint, dialer, tools, asks);
            Some(Checker::Mcp(Box::new(check)))
        }
    }
}

/// The check `tcp` of an endpoint that speaks TLS, is a unix socket or is announced to, by the rules that
/// calls go by: with Pingora's own a certificate could be good for the one and not for the other.
struct ConnectCheck {
    pool: Arc<PoolState>,
    endpoint: Arc<Endpoint>,
}

impl ConnectCheck {
    async fn run(&self, address: SocketAddr) -> Result<(), NotWell> {
        let dialed = self
            .pool
            .target(self.endpoint.id(), address, Header::Itself);
        let (target, _) = dialed.ok_or_else(|| "unknown endpoint".to_owned())?;
        let target = Target {
            connect_timeout: self.pool.config.health.timeout,
            ..target
        };
        connect(&target, target.http2).await?;
        Ok(())
    }
}

#[async_trait]
impl HealthCheck for ConnectCheck {
    async fn check(&self, target: &Backend) -> PingoraResult<()> {
        in_time(&self.pool, target, |address| self.run(address)).await
    }

    fn health_threshold(&self, success: bool) -> usize {
        threshold(&self.pool, success)
    }
}

/// Runs a check of ours against a server, within the time that checks of its pool have.
pub(super) async fn in_time<F>(
    pool: &PoolState,
    server: &Backend,
    run: impl FnOnce(SocketAddr) -> F,
) -> PingoraResult<()>
where
    F: Future<Output = Result<(), NotWell>>,
{
    let Some(address) = server.addr.as_inet() else {
        return PingoraError::e_explain(ErrorType::ConnectError, "not an internet address");
    };
    let limit = pool.config.health.timeout;
    let checked = timeout(limit, run(*address)).await;
    let silent = |_| NotWell::silent(format!("no answer within {limit:?}"));
    checked.map_err(silent).flatten().map_err(in_its_words)
}

/// Checks in a row that change the state, as Pingora's interface asks for them.
pub(super) fn threshold(pool: &PoolState, success: bool) -> usize {
    let health = &pool.config.health;
    (if success { health.rise } else { health.fall }) as usize
}

/// The kinds of error whose words are ours: an answer, and none.
const TOLD: ErrorType = ErrorType::Custom("answer");
const BROKEN: ErrorType = ErrorType::Custom("check");
/// The same for a check that was not made, for want of something of this host's.
const UNASKED: ErrorType = ErrorType::Custom("unasked");

/// Why a check of ours failed, as Pingora's interface has it.
pub(super) fn in_its_words(NotWell { why, failure }: NotWell) -> Box<PingoraError> {
    match failure {
        Failure::Silent => PingoraError::explain(ErrorType::ReadTimedout, why),
        Failure::Told => PingoraError::explain(TOLD, why),
        Failure::Broken => PingoraError::explain(BROKEN, why),
        Failure::Unasked => PingoraError::explain(UNASKED, why),
    }
}

/// Why a check of this address failed, ours or Pingora's.
pub(super) fn why(error: &PingoraError, address: SocketAddr) -> NotWell {
    let unasked = |why| NotWell {
        why,
        failure: Failure::Unasked,
    };
    if let Some(lack) = Lack::behind(error, Some(address)) {
        shortage::note(lack);
        return unasked(lack.to_string());
    }
    let words = match (&error.context, error.etype()) {
        (Some(ours), etype) if [TOLD, BROKEN, UNASKED].contains(etype) => ours.as_str().to_owned(),
        _ => error.to_string(),
    };
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
            NotWell::silent(words)
        }
        ErrorType::HTTPStatus(_) => NotWell::told(words),
        etype if *etype == TOLD => NotWell::told(words),
        etype if *etype == UNASKED => unasked(words),
        _ => words.into(),
    }
}

//! Which check an endpoint gets. `tcp` and `http` are Pingora's own, unless TLS is spoken; `mcp` is ours,
//! and all are asked through Pingora's `HealthCheck`.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::{Error as PingoraError, ErrorType, Result as PingoraResult};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::time::timeout;

use super::probe::McpCheck;
use crate::config::Check;
use crate::pool::Endpoint;
use crate::pool::lateness::Failure;
use crate::proxy::ask::{NotWell, Question, ask};
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
    let secure = |path: Option<&str>| {
        let check = TlsCheck {
            pool: Arc::clone(pool),
            endpoint: Arc::clone(endpoint),
            dialer: Arc::clone(dialer),
            path: path.map(str::to_owned),
        };
        Some(Checker::Stock(Box::new(check)))
    };
    let is_ours = facts.tls.is_some() || facts.unix.is_some() || facts.announces.is_some();
    match &health.check {
        Check::None => None,
        Check::Tcp if is_ours => secure(None),
        Check::Http { path } if is_ours => secure(Some(path)),
        Check::Tcp => {
            let mut check = TcpHealthCheck::new();
            check.peer_template.options.connection_timeout = Some(health.timeout);
            Some(Checker::Stock(check))
        }
        Check::Http { path } => {
            let mut check = HttpHealthCheck::new(&facts.authority, false);
            check.peer_template.options.connection_timeout = Some(health.timeout);
            check.peer_template.options.read_timeout = Some(health.timeout);
            if facts.http2 {
                check.peer_template.options.set_http_version(2, 2);
            }
            if let Ok(uri) = path.parse() {
                check.req.set_uri(uri);
            }
            check.validator = Some(Box::new(|head| match head.status.as_u16() {
                200..=399 => Ok(()),
                _ => {
                    PingoraError::e_explain(ErrorType::HTTPStatus(head.status.as_u16()), "not well")
                }
            }));
            Some(Checker::Stock(Box::new(check)))
        }
        Check::Mcp { path, transport } => {
            let check = McpCheck::new(pool, endpoint, dialer, tools, path, *transport);
            Some(Checker::Mcp(Box::new(check)))
        }
    }
}

/// The checks `tcp` and `http` of an endpoint that speaks TLS, is a unix socket or is announced to, by the rules that calls go by: with
/// Pingora's own a certificate could be good for the one and not for the other.
struct TlsCheck {
    pool: Arc<PoolState>,
    endpoint: Arc<Endpoint>,
    dialer: Arc<Dialer>,
    /// What is asked for, if anything is behind the handshake.
    path: Option<String>,
}

impl TlsCheck {
    async fn run(&self, address: SocketAddr) -> Result<(), NotWell> {
        let Some(path) = &self.path else {
            let dialed = self
                .pool
                .target(self.endpoint.id(), address, Header::Itself);
            let (target, _) = dialed.ok_or_else(|| "unknown endpoint".to_owned())?;
            let target = Target {
                connect_timeout: self.pool.config.health.timeout,
                ..target
            };
            connect(&target, target.http2).await?;
            return Ok(());
        };
        let question = Question::own("GET", path, &[]);
        let answer = ask(&self.pool, &self.endpoint, &self.dialer, address, question).await?;
        match answer.status {
            200..=399 => Ok(()),
            status => Err(NotWell::told(format!(
                "it was answered with status {status}"
            ))),
        }
    }
}

#[async_trait]
impl HealthCheck for TlsCheck {
    async fn check(&self, target: &Backend) -> PingoraResult<()> {
        let Some(address) = target.addr.as_inet() else {
            return PingoraError::e_explain(ErrorType::ConnectError, "not an internet address");
        };
        let limit = self.pool.config.health.timeout;
        let checked = timeout(limit, self.run(*address)).await;
        let silent = |_| NotWell::silent(format!("no answer within {limit:?}"));
        checked.map_err(silent).flatten().map_err(in_its_words)
    }

    fn health_threshold(&self, success: bool) -> usize {
        let health = &self.pool.config.health;
        (if success { health.rise } else { health.fall }) as usize
    }
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

//! Which check an endpoint gets. `tcp` and `http` are Pingora's own, `mcp` is ours, and all are asked
//! through Pingora's `HealthCheck`.

use std::sync::Arc;

use pingora::{Error as PingoraError, ErrorType};
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};

use super::probe::McpCheck;
use crate::config::Check;
use crate::pool::Endpoint;
use crate::proxy::state::PoolState;
use crate::telemetry::ToolNames;
use crate::transport::dial::Dialer;

/// A check, and how it is ended.
pub(super) enum Checker {
    /// One of Pingora's.
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
    match &health.check {
        Check::None => None,
        Check::Tcp => {
            let mut check = TcpHealthCheck::new();
            check.peer_template.options.connection_timeout = Some(health.timeout);
            Some(Checker::Stock(check))
        }
        Check::Http { path } => {
            let authority = pool.authority(endpoint.id());
            let mut check = HttpHealthCheck::new(authority, false);
            check.peer_template.options.connection_timeout = Some(health.timeout);
            check.peer_template.options.read_timeout = Some(health.timeout);
            if pool.http2(endpoint.id()) {
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

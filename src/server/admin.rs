//! The admin address: health, readiness and metrics, apart from the traffic.

use std::sync::Arc;
use std::time::Instant;

use super::connection::{Handler, Served};
use crate::pool::HealthState;
use crate::pool::breaker::State;
use crate::proxy::ctx::Ctx;
use crate::proxy::fault::Fault;
use crate::proxy::intake::Builtin;
use crate::proxy::local;
use crate::proxy::state::Shared;
use crate::telemetry::{self, EndpointView};
use crate::transport::fields::Names;
use crate::transport::timer::TICK;
use crate::transport::{Downstream, Edits, Length, RequestHead};

/// Serves the admin address.
pub(super) struct Admin {
    shared: Arc<Shared>,
}

impl Admin {
    /// A handler over the process's state.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The metrics, as Prometheus reads them.
    pub(super) fn metrics(&self) -> String {
        let snapshot = self.shared.snapshot.load();
        telemetry::set_sessions(self.shared.sessions.len());
        let now = self.shared.moment(Instant::now());
        for pool in snapshot.all_pools() {
            if let Some(queue) = pool.pool.queue() {
                telemetry::set_calls_waiting(pool.pool.name(), queue.waiting());
            }
        }
        let mut endpoints = snapshot.all_pools().flat_map(|pool| {
            pool.pool.endpoints().iter().map(|endpoint| EndpointView {
                pool: pool.pool.name(),
                endpoint: endpoint.name(),
                healthy: endpoint.health() == HealthState::Up,
                in_flight: u64::from(endpoint.in_flight()),
                sessions: u64::from(endpoint.sessions()),
                admin: endpoint.admin() as u8,
                ejected: endpoint.guard.is_ejected(now),
                ejections: endpoint.guard.ejections(),
                breaker: match endpoint.guard.breaker(now) {
                    State::Closed => 0,
                    State::HalfOpen => 1,
                    State::Open => 2,
                },
                openings: endpoint.guard.openings(),
            })
        });
        telemetry::render(&mut endpoints)
    }
}

impl Handler for Admin {
    async fn exchange<D: Downstream>(&self, mut down: D) -> Served<D> {
        self.answer(&mut down).await;
        Served::Done(down)
    }
}

impl Admin {
    async fn answer<D: Downstream>(&self, down: &mut D) {
        let mut ctx = Ctx::begin(
            self.shared.snapshot.load_full(),
            down.head(),
            Instant::now(),
        );
        let path = down.head().path().to_owned();
        match path.as_str() {
            "/health" => local::builtin(&self.shared, down, &mut ctx, Builtin::Health).await,
            "/ready" => local::builtin(&self.shared, down, &mut ctx, Builtin::Ready).await,
            "/metrics" if down.head().method() == "GET" => {
                // Threads that serve tell what they have counted once in a tick.
                tokio::time::sleep(TICK + TICK / 4).await;
                let text = self.metrics();
                let set: [(&'static str, &[u8]); 1] =
                    [("content-type", telemetry::CONTENT_TYPE.as_bytes())];
                let edits = Edits {
                    set: &set,
                    drop: Names::NONE,
                    ..Edits::default()
                };
                let length = Length::Exact(text.len() as u64);
                if down.send_head(200, None, edits, length).await.is_ok()
                    && down.send_body(text.as_bytes()).await.is_ok()
                {
                    // A scraper that is gone needs no answer.
                    let _ = down.finish().await;
                }
            }
            "/metrics" => local::refuse(down, &mut ctx, Fault::Method("GET")).await,
            _ => local::refuse(down, &mut ctx, Fault::NoRoute).await,
        }
    }
}

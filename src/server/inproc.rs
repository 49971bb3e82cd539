//! One worker without sockets of its own, serving connections that it is given: the whole request
//! path in the caller's thread, for benches and for tests that count what a request costs.
//!
//! There are no checks beside it, so its endpoints stay unchecked and are used all the same.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::connection::{self, Surroundings};
use super::tasks::delete_orphans;
use super::way::Way;
use super::withdraw::{Terms, Withdrawn, withdraw};
use super::worker::{Gateway, Own, turn};
use super::{StartError, bounds, shared};
use crate::config::Config;
use crate::pool::Endpoint;
use crate::proxy::memo::Memo;
use crate::proxy::state::{Chores, Phase, PhaseSender, PoolState, Shared, Waiting, phases};
use crate::telemetry::ToolNames;
use crate::transport::ConnInfo;
use crate::transport::dial::Dialer;
use crate::transport::timer::Wheel;

/// A worker in the caller's thread.
pub struct Inproc {
    shared: Arc<Shared>,
    around: Arc<Surroundings<Gateway>>,
    dialer: Arc<Dialer>,
    memo: Arc<Memo>,
    _phases: PhaseSender,
    waiting: Mutex<Option<Waiting>>,
}

impl Inproc {
    /// A worker under this configuration. Its listeners are not bound.
    ///
    /// # Errors
    /// As for [`super::run`].
    pub fn new(config: Config) -> Result<Self, StartError> {
        let bounds = bounds(&config);
        let (phase_sender, phases) = phases();
        let (chores, waiting) = Chores::new();
        let shared = Arc::new(shared(
            config,
            phases.clone(),
            chores,
            Arc::new(ToolNames::new()),
        )?);
        let way = Way::open();
        let dialer = Dialer::new();
        let memo = Arc::new(Memo::new(Arc::clone(&shared.memo)));
        let handler = Gateway::new(
            Arc::clone(&shared),
            Arc::clone(&dialer),
            Arc::clone(&memo),
            way.watch(),
        );
        let around = Arc::new(Surroundings {
            handler: Arc::new(handler),
            tls: None,
            proxy_protocol: false,
            bounds,
            wheel: Wheel::new(Instant::now()),
            phases,
            leaves: Phase::Draining,
            way,
            flight: None,
        });
        Ok(Self {
            shared,
            around,
            dialer,
            memo,
            _phases: phase_sender,
            waiting: Mutex::new(Some(waiting)),
        })
    }

    /// Keeps the worker's time, for as long as it is polled.
    pub async fn turn(&self) {
        let wheel = Arc::clone(&self.around.wheel);
        let own = Some(Own {
            dialer: Arc::clone(&self.dialer),
            memo: Arc::clone(&self.memo),
            sign: None,
        });
        turn(wheel, self.around.phases.clone(), own).await;
    }

    /// Deletes the sessions on servers that requests leave behind, for as long as it is polled. The
    /// second time there is nothing to do.
    pub async fn chores(&self) {
        if let Some(waiting) = self.waiting.lock().await.take() {
            let phases = self.around.phases.clone();
            delete_orphans(waiting.orphans, Arc::clone(&self.dialer), phases).await;
        }
    }

    /// Takes an endpoint out; `None` if there is none of this name.
    pub async fn withdraw(&self, pool: &str, endpoint: &str, terms: Terms) -> Option<Withdrawn> {
        let (pool, endpoint) = self.find(pool, endpoint)?;
        Some(withdraw(&self.shared, &pool, &endpoint, terms).await)
    }

    /// An endpoint with its pool, by their names.
    pub fn find(&self, pool: &str, endpoint: &str) -> Option<(Arc<PoolState>, Arc<Endpoint>)> {
        let snapshot = self.shared.snapshot.load_full();
        let pool = snapshot.pool(snapshot.config.pool_named(pool)?);
        let mut endpoints = pool.pool.endpoints().iter();
        let endpoint = endpoints.find(|other| other.name() == endpoint)?;
        Some((Arc::clone(pool), Arc::clone(endpoint)))
    }

    /// Serves a connection to its end.
    ///
    /// # Errors
    /// If the socket has no addresses any more.
    pub async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let info = ConnInfo {
            client: stream.peer_addr()?,
            local: stream.local_addr()?,
            listener: "inproc".into(),
            tls: None,
            place: None,
        };
        connection::serve(stream, info, Arc::clone(&self.around), None).await;
        Ok(())
    }
}

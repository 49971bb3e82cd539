//! Listeners beside the traffic: the admin address, and the servers of the demo.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::accept::accept;
use super::connection::{Bounds, Handler, Surroundings};
use super::listeners::Bound;
use super::way::Way;
use super::worker::turn;
use crate::proxy::state::{Phase, Phases, Shared};
use crate::transport::timer::Wheel;

/// Listeners beside the traffic, on one thread of their own.
pub(super) struct Apart<H> {
    name: &'static str,
    bound: Vec<(Bound, H)>,
    phases: Phases,
    bounds: Bounds,
    shutdown: ShutdownWatch,
    replaced: watch::Receiver<bool>,
}

impl<H: Handler> Apart<H> {
    /// Listeners with their handlers. They are served until everything else has ended, or until
    /// another process does it.
    pub(super) fn new(
        name: &'static str,
        bound: Vec<(Bound, H)>,
        shared: &Shared,
        bounds: Bounds,
        shutdown: ShutdownWatch,
        replaced: watch::Receiver<bool>,
    ) -> Self {
        Self {
            name,
            bound,
            phases: shared.phases.clone(),
            bounds,
            shutdown,
            replaced,
        }
    }
}

#[async_trait]
impl<H: Handler> ServiceWithDependents for Apart<H> {
    async fn start_service(
        &mut self,
        _: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
        ready: ServiceReadyNotifier,
    ) {
        let wheel = Wheel::new(Instant::now());
        tokio::spawn(turn(Arc::clone(&wheel), self.phases.clone(), None));
        let mut accepting = JoinSet::new();
        let mut stops = Vec::new();
        for (bound, handler) in self.bound.drain(..) {
            let way = Way::open();
            tokio::spawn(Arc::clone(&way).follow(self.shutdown.clone()));
            let around = Arc::new(Surroundings {
                handler: Arc::new(handler),
                tls: None,
                bounds: self.bounds,
                wheel: Arc::clone(&wheel),
                phases: self.phases.clone(),
                leaves: Phase::Ending,
                way,
                flight: None,
            });
            let (never, stop) = oneshot::channel();
            stops.push(never);
            accepting.spawn(accept(bound, around, stop));
        }
        ready.notify_ready();
        let mut all = pin!(async { while accepting.join_next().await.is_some() {} });
        tokio::select! {
            () = &mut all => return,
            Ok(_) = self.replaced.wait_for(|is_replaced| *is_replaced) => drop(stops),
        }
        all.await;
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

//! A worker: one thread with its own sockets, its own connections to endpoints, and every
//! connection it accepted, from the first byte to the last.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};
use pingora_proxy::HttpProxy;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::accept::accept;
use super::announce;
use super::connection::{Bounds, Handler, Lane, Served, Surroundings};
use super::listeners::{Bound, ListenerId};
use super::vigil::Sign;
use super::way::Way;
use crate::config::PoolKind;
use crate::proxy::fault::Fault;
use crate::proxy::intake;
use crate::proxy::memo::Memo;
use crate::proxy::plain::{Plain, within};
use crate::proxy::state::{Phase, Phases, Shared};
use crate::proxy::{self, Worker};
use crate::telemetry;
use crate::transport::buffer;
use crate::transport::dial::Dialer;
use crate::transport::h1::head::Head;
use crate::transport::timer::{TICK, Wheel};
use crate::transport::tls::Acceptor;
use crate::transport::wire::Wire;
use crate::transport::{ConnInfo, Downstream, RequestHead};

/// How often buffers that had no use are given back.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// The gateway's handler for the connections of one listener on one thread.
pub(super) struct Gateway {
    worker: Worker,
    plain: PlainLane,
    shutdown: ShutdownWatch,
}

/// Pingora's proxy, one for each thread. It is made at the start where a route needs it, because its
/// connector reads the system's certificates, and panics if there is no file to do so. Where none does,
/// it is made when a reload has brought the first one.
type PlainLane = Arc<OnceLock<Arc<HttpProxy<Plain>>>>;

impl Gateway {
    /// A handler with connections of its own to the endpoints.
    pub(super) fn new(
        shared: Arc<Shared>,
        dialer: Arc<Dialer>,
        memo: Arc<Memo>,
        shutdown: ShutdownWatch,
    ) -> Self {
        Self {
            worker: Worker {
                shared,
                dialer,
                memo,
            },
            plain: PlainLane::default(),
            shutdown,
        }
    }

    /// The same with the proxy of its thread.
    fn with_plain(self, plain: &PlainLane) -> Self {
        Self {
            plain: Arc::clone(plain),
            ..self
        }
    }
}

impl Handler for Gateway {
    fn lane(&self, head: &dyn RequestHead, info: &ConnInfo) -> Lane {
        let snapshot = self.worker.shared.snapshot.load();
        match intake::lane(&snapshot.config, head, info) {
            intake::Lane::Plain => Lane::Plain,
            intake::Lane::Mcp => Lane::Own,
            intake::Lane::Answer => Lane::Answer,
        }
    }

    fn tunnels(&self) -> bool {
        true
    }

    fn believes(&self, peer: Option<IpAddr>) -> bool {
        let snapshot = self.worker.shared.snapshot.load();
        announce::believes(&snapshot.config.proxies, peer)
    }

    fn refused(&self, info: &ConnInfo, fault: Fault) {
        proxy::finish::refused(&self.worker.shared, info, fault);
    }

    async fn exchange<D: Downstream>(&self, down: D) -> Served<D> {
        match proxy::serve(&self.worker, down).await {
            proxy::Served::Done(down) => Served::Done(down),
            proxy::Served::Lasts(stream) => Served::Lasts(Box::pin(stream.run())),
        }
    }

    async fn plain(&self, session: ServerSession, info: &Arc<ConnInfo>) -> Option<Stream> {
        let plain = self
            .plain
            .get_or_init(|| Plain::proxy(Arc::clone(&self.worker.shared)));
        let serving = plain.process_new_http(session, &self.shutdown);
        let again = within(info, &self.worker.shared.phases, serving).await??;
        Some(again.consume().0)
    }

    async fn tunnel(&self, wire: Wire, head: &Head, info: &ConnInfo) {
        Box::pin(proxy::tunnel::serve(&self.worker, wire, head, info)).await;
    }
}

/// The ways in as they are to be.
pub(super) struct Entrances {
    /// Bounds on connections from now on.
    pub bounds: Bounds,
    /// All that there are; what is not among them is closed.
    pub all: Vec<Entrance>,
    /// Told when they are so.
    pub done: Option<oneshot::Sender<()>>,
}

/// What may change about a way in while it is open.
#[derive(Clone)]
pub(super) struct Manner {
    /// The listener's name.
    pub name: Arc<str>,
    /// Where TLS is spoken.
    pub tls: Option<Acceptor>,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// One way in on one thread.
pub(super) enum Entrance {
    /// A new one.
    New(ListenerId, Bound),
    /// One that stays, with what changes about it for those that come from now on.
    Stays(ListenerId, Manner),
}

/// One thread of the process: a Pingora service with a runtime of its own.
pub(super) struct WorkerService {
    name: String,
    orders: mpsc::Receiver<Entrances>,
    shared: Arc<Shared>,
    shutdown: ShutdownWatch,
    started: watch::Sender<usize>,
    /// Taken when it starts.
    sign: Option<Sign>,
}

impl WorkerService {
    /// A worker that accepts where its orders say, and leaves a sign with every turn. `shutdown` turns true when the drain begins;
    /// `started` counts those that accept.
    pub(super) fn new(
        name: String,
        (orders, sign): (mpsc::Receiver<Entrances>, Sign),
        shared: Arc<Shared>,
        shutdown: ShutdownWatch,
        started: watch::Sender<usize>,
    ) -> Self {
        Self {
            name,
            orders,
            shared,
            shutdown,
            started,
            sign: Some(sign),
        }
    }
}

#[async_trait]
impl ServiceWithDependents for WorkerService {
    async fn start_service(
        &mut self,
        _: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
        ready: ServiceReadyNotifier,
    ) {
        let mut doors = Doors {
            shared: Arc::clone(&self.shared),
            shutdown: self.shutdown.clone(),
            dialer: Dialer::new(),
            memo: Arc::new(Memo::new(Arc::clone(&self.shared.memo))),
            plain: PlainLane::default(),
            wheel: Wheel::new(Instant::now()),
            open: Vec::new(),
        };
        let config = &self.shared.snapshot.load().config;
        if config.pools.iter().any(|pool| pool.kind == PoolKind::Http) {
            doors
                .plain
                .get_or_init(|| Plain::proxy(Arc::clone(&self.shared)));
        }
        let mut phases = self.shared.phases.clone();
        let own = Some(Own {
            dialer: Arc::clone(&doors.dialer),
            memo: Arc::clone(&doors.memo),
            sign: self.sign.take(),
        });
        tokio::spawn(turn(Arc::clone(&doors.wheel), phases.clone(), own));
        let mut ready = Some(ready);
        loop {
            tokio::select! {
                biased;
                () = phases.reached(Phase::Draining) => break,
                Some(mut entrances) = self.orders.recv() => {
                    let done = entrances.done.take();
                    doors.turn_to(entrances).await;
                    if let Some(done) = done {
                        // Whoever waits has given up.
                        let _ = done.send(());
                    }
                    if let Some(ready) = ready.take() {
                        ready.notify_ready();
                        self.started.send_modify(|count| *count += 1);
                    }
                }
            }
        }
        doors.end().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// The ways in of one thread.
struct Doors {
    shared: Arc<Shared>,
    shutdown: ShutdownWatch,
    dialer: Arc<Dialer>,
    memo: Arc<Memo>,
    plain: PlainLane,
    wheel: Arc<Wheel>,
    open: Vec<Door>,
}

/// One that is open.
struct Door {
    id: ListenerId,
    way: Arc<Way>,
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<Option<Bound>>,
}

impl Doors {
    /// Opens, changes and closes ways in. Connections that are open stay, with the bounds they had;
    /// those of a way that is closed end with their exchange.
    async fn turn_to(&mut self, entrances: Entrances) {
        let mut before = std::mem::take(&mut self.open);
        for entrance in entrances.all {
            match entrance {
                Entrance::New(id, bound) => {
                    let way = self.way();
                    self.accept(id, way, bound, entrances.bounds);
                }
                Entrance::Stays(id, manner) => {
                    for door in before.extract_if(.., |door| door.id == id) {
                        let _ = door.stop.send(());
                        // None if the process has begun to leave meanwhile.
                        let Ok(Some(bound)) = door.accepting.await else {
                            continue;
                        };
                        let bound = Bound {
                            name: Arc::clone(&manner.name),
                            tls: manner.tls.clone(),
                            proxy_protocol: manner.proxy_protocol,
                            ..bound
                        };
                        self.accept(id, door.way, bound, entrances.bounds);
                    }
                }
            }
        }
        for door in before {
            door.way.close();
            drop(door.stop);
        }
        self.wheel.wake_all();
    }

    /// Waits until all are closed, which they are when the phase says so.
    async fn end(self) {
        for door in self.open {
            let _ = door.accepting.await;
        }
    }

    fn way(&self) -> Arc<Way> {
        let way = Way::open();
        tokio::spawn(Arc::clone(&way).follow(self.shutdown.clone()));
        way
    }

    fn accept(&mut self, id: ListenerId, way: Arc<Way>, bound: Bound, bounds: Bounds) {
        let handler = Gateway::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.dialer),
            Arc::clone(&self.memo),
            way.watch(),
        )
        .with_plain(&self.plain);
        let around = Arc::new(Surroundings {
            handler: Arc::new(handler),
            tls: bound.tls.clone(),
            proxy_protocol: bound.proxy_protocol,
            bounds,
            wheel: Arc::clone(&self.wheel),
            phases: self.shared.phases.clone(),
            leaves: Phase::Draining,
            way: Arc::clone(&way),
            flight: Some(Arc::clone(&self.shared.flight)),
        });
        let (stop, stopped) = oneshot::channel();
        self.open.push(Door {
            id,
            way,
            stop,
            accepting: tokio::spawn(accept(bound, around, stopped)),
        });
    }
}

/// What a worker has of its own that goes by time.
pub(super) struct Own {
    /// Its connections to endpoints.
    pub dialer: Arc<Dialer>,
    /// The sessions that it knows.
    pub memo: Arc<Memo>,
    /// Where it shows that it takes its turns, if anybody looks.
    pub sign: Option<Sign>,
}

/// Keeps the time of one thread: turns its wheel, wakes what waits when the phase changes, and
/// closes connections to endpoints that have been idle for too long.
pub(super) async fn turn(wheel: Arc<Wheel>, mut phases: Phases, own: Option<Own>) {
    telemetry::gather();
    let mut trimmed = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            changed = phases.changed() => {
                wheel.wake_all();
                if !changed {
                    return;
                }
            }
            due = ticks.tick() => {
                let now = Instant::now();
                wheel.turn(now);
                telemetry::flush();
                if let Some(own) = &own {
                    own.dialer.tick(now);
                    own.memo.sweep();
                    if let Some(sign) = &own.sign {
                        sign.leave(due.into_std(), now);
                    }
                }
                if now >= trimmed + TRIM_EVERY {
                    trimmed = now;
                    buffer::trim();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::streaming::Streaming;
    use crate::transport::h1::down::H1Down;

    fn size_of_what<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// An allocator hands out sizes in steps, so a few bytes too many cost a whole step, 10,000 times.
    #[test]
    fn a_held_stream_takes_no_more_room_than_it_was_given() {
        assert!(size_of::<Streaming<H1Down>>() <= 896);
        let run = size_of_what(|stream: Box<Streaming<H1Down>>| stream.run());
        assert!(run <= 448, "{run}");
    }
}

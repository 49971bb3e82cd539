//! A worker: one thread with its own sockets, its own connections to endpoints, and every
//! connection it accepted, from the first byte to the last.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};
use pingora_proxy::HttpProxy;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};

use super::connection::{self, Bounds, Handler, Lane, Served, Surroundings};
use super::listeners::{Bound, Gate};
use super::share::Share;
use crate::proxy::intake;
use crate::proxy::memo::Memo;
use crate::proxy::plain::Plain;
use crate::proxy::state::{Phase, Phases, Shared};
use crate::proxy::{self, Worker};
use crate::telemetry;
use crate::transport::buffer;
use crate::transport::dial::Dialer;
use crate::transport::h1::head::Head;
use crate::transport::timer::{TICK, Wheel};
use crate::transport::wire::Wire;
use crate::transport::{ConnInfo, Downstream, RequestHead};

/// How often buffers that had no use are given back.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The gateway's handler for the connections of one listener on one thread.
pub(super) struct Gateway {
    worker: Worker,
    /// Made when first needed, because its connector reads the system's certificates.
    plain: OnceLock<Arc<HttpProxy<Plain>>>,
    listener: Arc<str>,
    shutdown: ShutdownWatch,
}

impl Gateway {
    /// A handler with connections of its own to the endpoints.
    pub(super) fn new(
        shared: Arc<Shared>,
        dialer: Arc<Dialer>,
        memo: Arc<Memo>,
        listener: Arc<str>,
        shutdown: ShutdownWatch,
    ) -> Self {
        Self {
            worker: Worker {
                shared,
                dialer,
                memo,
            },
            plain: OnceLock::new(),
            listener,
            shutdown,
        }
    }
}

impl Handler for Gateway {
    fn lane(&self, head: &dyn RequestHead) -> Lane {
        let snapshot = self.worker.shared.snapshot.load();
        match intake::lane(&snapshot.config, &self.listener, head) {
            intake::Lane::Plain => Lane::Plain,
            intake::Lane::Mcp => Lane::Own,
            intake::Lane::Answer => Lane::Answer,
        }
    }

    fn tunnels(&self) -> bool {
        true
    }

    async fn exchange<D: Downstream>(&self, down: D) -> Served<D> {
        match proxy::serve(&self.worker, down).await {
            proxy::Served::Done(down) => Served::Done(down),
            proxy::Served::Lasts(stream) => Served::Lasts(Box::pin(stream.run())),
        }
    }

    async fn plain(&self, session: ServerSession) -> Option<Stream> {
        let plain = self.plain.get_or_init(|| {
            let listener = Arc::clone(&self.listener);
            Plain::proxy(Arc::clone(&self.worker.shared), listener)
        });
        let again = plain.process_new_http(session, &self.shutdown).await?;
        Some(again.consume().0)
    }

    async fn tunnel(&self, wire: Wire, head: &Head, info: &ConnInfo) {
        Box::pin(proxy::tunnel::serve(&self.worker, wire, head, info)).await;
    }
}

/// One thread of the process: a Pingora service with a runtime of its own.
pub(super) struct WorkerService {
    name: String,
    bound: Vec<Bound>,
    shared: Arc<Shared>,
    bounds: Bounds,
    shutdown: ShutdownWatch,
}

impl WorkerService {
    /// A worker that accepts on these sockets. `shutdown` turns true when the drain begins.
    pub(super) fn new(
        name: String,
        bound: Vec<Bound>,
        shared: Arc<Shared>,
        bounds: Bounds,
        shutdown: ShutdownWatch,
    ) -> Self {
        Self {
            name,
            bound,
            shared,
            bounds,
            shutdown,
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
        let dialer = Dialer::new();
        let memo = Arc::new(Memo::default());
        let wheel = Wheel::new(Instant::now());
        let phases = self.shared.phases.clone();
        let own = Some((Arc::clone(&dialer), Arc::clone(&memo)));
        tokio::spawn(turn(Arc::clone(&wheel), phases, own));
        let mut accepting = tokio::task::JoinSet::new();
        for bound in self.bound.drain(..) {
            let handler = Gateway::new(
                Arc::clone(&self.shared),
                Arc::clone(&dialer),
                Arc::clone(&memo),
                Arc::clone(&bound.name),
                self.shutdown.clone(),
            );
            let around = Arc::new(Surroundings {
                handler: Arc::new(handler),
                tls: bound.tls.clone(),
                bounds: self.bounds,
                wheel: Arc::clone(&wheel),
                phases: self.shared.phases.clone(),
                leaves: Phase::Draining,
                shutdown: self.shutdown.clone(),
                flight: Some(Arc::clone(&self.shared.flight)),
            });
            accepting.spawn(accept(bound, around));
        }
        ready.notify_ready();
        while accepting.join_next().await.is_some() {}
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Accepts until it is time to leave, then takes what still waits in the queue and closes the socket.
pub(super) async fn accept<H: Handler>(bound: Bound, around: Arc<Surroundings<H>>) {
    let Bound {
        socket,
        name,
        gate,
        mut share,
        tls: _,
    } = bound;
    // Declared before the listener, and so counted until that is closed.
    let _door = around.door();
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return log::error!(listener = &*name; "cannot accept: {error}"),
    };
    let mut phases = around.phases.clone();
    let mut warned = Warned::default();
    loop {
        tokio::select! {
            biased;
            () = phases.reached(around.leaves) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(stream) = stays(stream, &share) {
                        admit(stream, &name, &gate, &share, &around);
                    }
                }
                Err(error) => {
                    warned.warn(&name, &error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(handed) = share.inbox.recv() => {
                if let Ok(stream) = TcpStream::from_std(handed) {
                    admit(stream, &name, &gate, &share, &around);
                }
            }
        }
    }
    // A socket closed with connections in its queue resets them. Those that come while it is being
    // closed it resets as well; no system call closes it to newcomers alone.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, _)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(stream, &name, &gate, &share, &around);
        }
    }
    // Nor are those lost that another thread has just handed on.
    share.inbox.close();
    while let Some(handed) = share.inbox.recv().await {
        if let Ok(stream) = TcpStream::from_std(handed) {
            admit(stream, &name, &gate, &share, &around);
        }
    }
}

/// The connection, if it stays with this thread; else it has gone to the one with fewest.
fn stays(stream: TcpStream, share: &Share) -> Option<TcpStream> {
    let Some(to) = share.elsewhere() else {
        return Some(stream);
    };
    let handed = stream.into_std().ok()?;
    match share.hand(to, handed) {
        Ok(()) => None,
        Err(back) => TcpStream::from_std(back).ok(),
    }
}

/// Keeps the time of one thread: turns its wheel, wakes what waits when the phase changes, and
/// closes connections to endpoints that have been idle for too long.
pub(super) async fn turn(
    wheel: Arc<Wheel>,
    mut phases: Phases,
    own: Option<(Arc<Dialer>, Arc<Memo>)>,
) {
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
            _ = ticks.tick() => {
                let now = Instant::now();
                wheel.turn(now);
                telemetry::flush();
                if let Some((dialer, memo)) = &own {
                    dialer.tick(now);
                    memo.sweep();
                }
                if now >= trimmed + TRIM_EVERY {
                    trimmed = now;
                    buffer::trim();
                }
            }
        }
    }
}

fn admit<H: Handler>(
    stream: TcpStream,
    name: &Arc<str>,
    gate: &Arc<Gate>,
    share: &Share,
    around: &Arc<Surroundings<H>>,
) {
    let (Ok(client), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let Some(place) = gate.enter(client.ip(), share) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let info = ConnInfo {
        client,
        local,
        listener: Arc::clone(name),
        place: Some(Box::new(place)),
    };
    let door = around.door();
    tokio::spawn(connection::serve(stream, info, Arc::clone(around), door));
}

/// Says each kind of accept error once, not a thousand times a second.
#[derive(Default)]
struct Warned(HashMap<std::io::ErrorKind, ()>);

impl Warned {
    fn warn(&mut self, listener: &str, error: &std::io::Error) {
        if self.0.insert(error.kind(), ()).is_none() {
            log::error!(listener = listener; "cannot accept connections: {error}");
        }
    }
}

//! A worker: one thread with its own sockets, its own connections to endpoints, and every
//! connection it accepted, from the first byte to the last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream as TcpLayer;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};
use pingora_proxy::HttpProxy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::connection::{self, Bounds, Handler, Lane, Surroundings};
use super::listeners::{Bound, Gate};
use crate::proxy::intake;
use crate::proxy::plain::Plain;
use crate::proxy::state::{Phase, Shared};
use crate::proxy::{self, Worker};
use crate::transport::dial::Dialer;
use crate::transport::head::Head;
use crate::transport::{ConnInfo, Downstream, RequestHead};

/// Pause after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The gateway's handler for the connections of one listener on one thread.
pub(super) struct Gateway {
    worker: Worker,
    plain: Arc<HttpProxy<Plain>>,
    shutdown: ShutdownWatch,
}

impl Gateway {
    /// A handler with connections of its own to the endpoints.
    pub(super) fn new(
        shared: Arc<Shared>,
        dialer: Arc<Dialer>,
        listener: Arc<str>,
        shutdown: ShutdownWatch,
    ) -> Self {
        let plain = Plain::proxy(Arc::clone(&shared), listener);
        Self {
            worker: Worker { shared, dialer },
            plain,
            shutdown,
        }
    }
}

impl Handler for Gateway {
    fn lane(&self, head: &dyn RequestHead) -> Lane {
        let snapshot = self.worker.shared.snapshot.load();
        match intake::lane(&snapshot.config, head) {
            intake::Lane::Plain => Lane::Plain,
            intake::Lane::Mcp => Lane::Own,
        }
    }

    fn tunnels(&self) -> bool {
        true
    }

    async fn exchange<D: Downstream>(&self, down: &mut D) {
        proxy::serve(&self.worker, down).await;
    }

    async fn plain(&self, session: ServerSession) -> Option<Stream> {
        let again = self.plain.process_new_http(session, &self.shutdown).await?;
        Some(again.consume().0)
    }

    async fn tunnel(&self, stream: Stream, head: &Head, info: &ConnInfo) {
        proxy::tunnel::serve(&self.worker, stream, head, info).await;
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
        let mut accepting = tokio::task::JoinSet::new();
        for bound in self.bound.drain(..) {
            let handler = Gateway::new(
                Arc::clone(&self.shared),
                Arc::clone(&dialer),
                Arc::clone(&bound.name),
                self.shutdown.clone(),
            );
            let around = Arc::new(Surroundings {
                handler: Arc::new(handler),
                bounds: self.bounds,
                phase: self.shared.phase.clone(),
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
    let Bound { socket, name, gate } = bound;
    // Declared before the listener, and so counted until that is closed.
    let _door = around.door();
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return log::error!(listener = &*name; "cannot accept: {error}"),
    };
    let mut phase = around.phase.clone();
    let mut warned = Warned::default();
    loop {
        tokio::select! {
            biased;
            () = leaving(&mut phase, around.leaves) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(stream, &name, &gate, &around),
                Err(error) => {
                    warned.warn(&name, &error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
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
            admit(stream, &name, &gate, &around);
        }
    }
}

async fn leaving(phase: &mut watch::Receiver<Phase>, leaves: Phase) {
    let _ = phase.wait_for(|phase| *phase >= leaves).await;
}

fn admit<H: Handler>(
    stream: TcpStream,
    name: &Arc<str>,
    gate: &Arc<Gate>,
    around: &Arc<Surroundings<H>>,
) {
    let Some(place) = gate.enter() else { return };
    let (Ok(client), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let info = ConnInfo {
        client,
        local,
        listener: Arc::clone(name),
    };
    let layer = layer(stream, client, local);
    let around = Arc::clone(around);
    let door = around.door();
    tokio::spawn(async move {
        let _place = place;
        connection::serve(layer, info, &around, door).await;
    });
}

/// Pingora's layer over a socket, with the addresses that its sessions hand to the plain lane.
fn layer(stream: TcpStream, client: std::net::SocketAddr, local: std::net::SocketAddr) -> TcpLayer {
    use std::os::fd::AsRawFd;
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let _ = digest.peer_addr.set(Some(client.into()));
    let _ = digest.local_addr.set(Some(local.into()));
    let mut layer = TcpLayer::from(stream);
    layer.set_socket_digest(digest);
    layer
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

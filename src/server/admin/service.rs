//! The thread of the admin address and the admin socket.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use super::Admin;
use super::audit::Peer;
use super::events::Listeners;
use super::live::Live;
use super::socket::Socket;
use crate::config::AdminLevel;
use crate::proxy::state::{Phase, Phases};
use crate::server::accept::{ACCEPT_PAUSE, accept as accept_tcp, until_over};
use crate::server::connection::{self, Bounds, Handler, Surroundings};
use crate::server::listeners::Bound;
use crate::server::operator::Operator;
use crate::server::reload::Reloader;
use crate::server::vigil::Vigil;
use crate::server::way::Way;
use crate::server::worker::turn;
use crate::transport::layer;
use crate::transport::timer::Wheel;
use crate::transport::{ConnInfo, Lasting};

/// Connections to the admin socket.
const CONNECTIONS_MAX: usize = 256;

/// One connection's place among them.
struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Lasting for Place {}

/// Serves the admin address and the admin socket, on one thread.
pub(in crate::server) struct AdminService {
    address: Option<(Bound, AdminLevel)>,
    socket: Option<Socket>,
    around: Around,
    live: Arc<Live>,
    shutdown: ShutdownWatch,
    /// Another process has the address now.
    replaced: watch::Receiver<bool>,
}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) operator: Arc<Operator>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) vigil: Arc<Vigil>,
    bounds: Bounds,
    wheel: Arc<Wheel>,
    phases: Phases,
    way: Arc<Way>,
}

impl Around {
    fn with<H: Handler>(&self, handler: H) -> Arc<Surroundings<H>> {
        Arc::new(Surroundings {
            handler: Arc::new(handler),
            tls: None,
            proxy_protocol: false,
            bounds: self.bounds,
            wheel: Arc::clone(&self.wheel),
            phases: self.phases.clone(),
            leaves: Phase::Ending,
            way: Arc::clone(&self.way),
            flight: None,
        })
    }
}

impl AdminService {
    /// The service for what there is; `None` if there is neither.
    pub(in crate::server) fn new(
        address: Option<(Bound, AdminLevel)>,
        socket: Option<Socket>,
        (operator, reloader, vigil): (Arc<Operator>, Arc<Reloader>, Arc<Vigil>),
        bounds: Bounds,
        (shutdown, replaced): (ShutdownWatch, watch::Receiver<bool>),
    ) -> Option<Self> {
        if address.is_none() && socket.is_none() {
            return None;
        }
        let live = Live::new();
        let around = Around {
            listeners: Listeners::new(Arc::clone(&live), replaced.clone()),
            bounds,
            wheel: Wheel::new(Instant::now()),
            phases: operator.shared.phases.clone(),
            way: Way::open(),
            operator,
            reloader,
            vigil,
        };
        Some(Self {
            address,
            socket,
            around,
            live,
            shutdown,
            replaced,
        })
    }
}

#[async_trait]
impl ServiceWithDependents for AdminService {
    async fn start_service(
        &mut self,
        _: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
        ready: ServiceReadyNotifier,
    ) {
        let around = &self.around;
        let (wheel, phases) = (Arc::clone(&around.wheel), around.phases.clone());
        tokio::spawn(turn(wheel, phases, None));
        tokio::spawn(Arc::clone(&around.way).follow(self.shutdown.clone()));
        let operator = Arc::clone(&around.operator);
        tokio::spawn(Arc::clone(&self.live).run(operator));
        let mut accepting = JoinSet::new();
        let (never, stop) = oneshot::channel();
        if let Some((bound, level)) = self.address.take() {
            let handler = Admin::at_address(around, level);
            let accepting_there = accept_tcp(bound, around.with(handler), stop);
            accepting.spawn(async { drop(accepting_there.await) });
        }
        if let Some(socket) = self.socket.take() {
            accepting.spawn(accept(socket, around.clone()));
        }
        ready.notify_ready();
        until_over(accepting, self.replaced.clone(), never).await;
    }

    fn name(&self) -> &str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Accepts on the socket until everything else has ended.
async fn accept(socket: Socket, mut around: Around) {
    let level = socket.level;
    // From here on commands reach this process, and no longer the one that it replaces.
    let opened = socket
        .open()
        .and_then(|(listener, file)| Ok((into_tokio(listener)?, file)));
    let (listener, _file) = match opened {
        Ok(opened) => opened,
        Err(error) => return log::error!("cannot accept on the admin socket: {error}"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = around.phases.reached(Phase::Ending) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                // One over it is closed.
                if let Ok(place) = Arc::clone(&room).try_acquire_owned() {
                    let info = ConnInfo {
                        place: Some(Box::new(Place { _permit: place })),
                        ..nowhere()
                    };
                    serve(stream, info, level, &around);
                }
            }
            Err(error) => {
                log::error!("cannot accept connections to the admin socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn into_tokio(listener: UnixListener) -> std::io::Result<tokio::net::UnixListener> {
    tokio::net::UnixListener::from_std(listener)
}

/// A connection that has no addresses.
fn nowhere() -> ConnInfo {
    ConnInfo {
        client: ([0, 0, 0, 0], 0).into(),
        local: ([0, 0, 0, 0], 0).into(),
        listener: "admin socket".into(),
        tls: None,
        place: None,
    }
}

fn serve(stream: UnixStream, info: ConnInfo, level: AdminLevel, around: &Around) {
    // Without it nobody could be held to anything.
    let Ok(peer) = stream.peer_cred() else { return };
    let handler = Admin {
        operator: Arc::clone(&around.operator),
        reloader: Arc::clone(&around.reloader),
        listeners: Arc::clone(&around.listeners),
        vigil: Arc::clone(&around.vigil),
        level,
        process: Some(Peer::Process {
            uid: peer.uid(),
            pid: peer.pid(),
        }),
    };
    let wire = layer::unix(stream);
    let around = around.with(handler);
    tokio::spawn(connection::serve_wire(wire, info, around));
}

//! Taking connections from a listening socket, and handing them to who serves them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::connection::{self, Handler, Surroundings};
use super::listeners::{Bound, Gate};
use super::share::Share;
use crate::proxy::shortage;
use crate::transport::lack::Lack;
use crate::transport::{ConnInfo, Lasting, vanished};

/// Pause after an accept that failed for want of files or memory.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until it is time to leave, or the other end of `stop` is dropped; then takes what still
/// waits in the queue and closes the socket. If a word comes through `stop`, the socket is given back
/// instead, with what waits in it.
pub(super) async fn accept<H: Handler>(
    bound: Bound,
    around: Arc<Surroundings<H>>,
    mut stop: oneshot::Receiver<()>,
) -> Option<Bound> {
    let Bound {
        socket,
        name,
        gate,
        mut share,
        tls,
        proxy_protocol,
    } = bound;
    // Declared before the listener, and so counted until that is closed.
    let _door = around.door();
    let listener = match socket.listen() {
        Ok(listener) => listener,
        Err(error) => {
            log::error!(listener = &*name; "cannot accept: {error}");
            return None;
        }
    };
    let mut phases = around.phases.clone();
    let mut warned = Warned::default();
    loop {
        tokio::select! {
            biased;
            () = phases.reached(around.leaves) => break,
            stopped = &mut stop => match stopped {
                Err(_) => break,
                Ok(()) => {
                    let socket = listener.into_std().ok()?;
                    return Some(Bound { socket, name, gate, share, tls, proxy_protocol });
                }
            },
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    if let Some(stream) = stays(stream, &share) {
                        admit(stream, &name, &gate, &share, &around);
                    }
                }
                Err(error) => {
                    warned.warn(&name, &error);
                    if let Some(lack) = Lack::of(&error, None) {
                        shortage::note(lack);
                    }
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
    let listener = listener.into_std().ok()?;
    while let Ok(stream) = listener.accept() {
        admit(stream, &name, &gate, &share, &around);
    }
    drop(listener);
    // Nor are those lost that another thread has just handed on.
    share.inbox.close();
    while let Some(handed) = share.inbox.recv().await {
        if let Ok(stream) = TcpStream::from_std(handed) {
            admit(stream, &name, &gate, &share, &around);
        }
    }
    None
}

/// Waits for the accept loops of listeners that are served until everything else has ended, or until
/// another process has the addresses: then `stops` is dropped, which ends them.
pub(super) async fn until_over<S>(
    mut accepting: JoinSet<()>,
    mut replaced: watch::Receiver<bool>,
    stops: S,
) {
    let mut all = pin!(async { while accepting.join_next().await.is_some() {} });
    tokio::select! {
        () = &mut all => return,
        Ok(_) = replaced.wait_for(|is_replaced| *is_replaced) => drop(stops),
    }
    all.await;
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

fn admit<H: Handler>(
    stream: TcpStream,
    name: &Arc<str>,
    gate: &Arc<Gate>,
    share: &Share,
    around: &Arc<Surroundings<H>>,
) {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let (client, local) = match (gate.by_file, stream.peer_addr(), stream.local_addr()) {
        (true, _, _) => (nowhere, nowhere),
        (false, Ok(client), Ok(local)) => (client, local),
        (false, _, _) => return,
    };
    let Some(mut place) = gate.enter(share) else {
        return;
    };
    // Where a proxy announces its clients it is not known yet whose connection this is.
    if !around.proxy_protocol && !place.is_for((!gate.by_file).then(|| client.ip())) {
        return;
    }
    let _ = stream.set_nodelay(true);
    if !gate.by_file {
        vanished::bound(&stream, Some(around.bounds.write_timeout));
    }
    let info = ConnInfo {
        client,
        local,
        listener: Arc::clone(name),
        tls: None,
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

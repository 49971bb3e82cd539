//! Listening sockets: one per listener and thread, all on the same address, so that the kernel
//! spreads connections and no thread waits for another.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::acme::Certificates;
use super::inherited::Inherited;
use super::share::{Counting, Share, shares};
use super::socket::Accepting;
use super::unix;
use crate::config::{Bind, ClientProof, Listener, Tls};
use crate::limit::{Client, Counted, Counts};
use crate::telemetry::{ActiveConnection, Limit, limit_hit};
use crate::transport::Lasting;
use crate::transport::tls::{Acceptor, Clients, Shown, Terms};

/// Connections waiting to be accepted; the kernel caps it by `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// Idle time before the kernel asks a silent peer whether it is still there. The only way to
/// notice a client that lost its network under an open stream.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(60);

/// One listener of the process, whatever its configuration becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ListenerId(pub u64);

/// One listener's socket on one thread.
pub(super) struct Bound {
    /// The socket, not blocking.
    pub socket: Accepting,
    /// The listener's name.
    pub name: Arc<str>,
    /// Counts connections over all threads.
    pub gate: Arc<Gate>,
    /// This thread's part in them.
    pub share: Share,
    /// Where TLS is spoken; the same rules on all threads.
    pub tls: Option<Acceptor>,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// What speaks TLS for a listener, if that is to be spoken. `before` is what has spoken it so far.
///
/// # Errors
/// If the system gives no randomness for the keys of tickets, or an authority cannot be used.
pub(super) fn acceptor(
    listener: &Listener,
    before: Option<&Acceptor>,
    certificates: &Certificates,
) -> io::Result<Option<Acceptor>> {
    let acceptor = |tls: &Tls| match before {
        Some(before) => before.renewed(&terms(tls, certificates)),
        None => Acceptor::new(&terms(tls, certificates)),
    };
    let tls = listener.tls.as_ref().map(acceptor).transpose();
    tls.map_err(io::Error::other)
}

/// The terms of a listener's TLS.
fn terms(tls: &Tls, certificates: &Certificates) -> Terms {
    let authorities = |proof: &ClientProof| proof.authorities.as_slice().to_vec();
    Terms {
        certificates: tls
            .certificates
            .iter()
            .map(|certificate| Shown {
                certified: Arc::clone(certificate.proof.identity.certified()),
                names: certificate.names.clone(),
            })
            .collect(),
        managed: tls.acme.as_ref().map(|acme| certificates.managed(acme)),
        clients: match &tls.clients {
            None => Clients::Unasked,
            Some(proof) if proof.required => Clients::Required(authorities(proof)),
            Some(proof) => Clients::Optional(authorities(proof)),
        },
    }
}

/// Binds a listener `threads` times, or takes what was handed over for it. `tls` is what speaks TLS there,
/// if anything does.
///
/// # Errors
/// The operating system's; also if another process already listens on the address, which
/// SO_REUSEPORT alone would let pass and then share connections with.
pub(super) fn bind(
    listener: &Listener,
    threads: usize,
    tls: Option<Acceptor>,
    inherited: &mut Inherited,
) -> io::Result<(Arc<Gate>, Vec<Bound>)> {
    let gate = Arc::new(Gate::new(listener));
    let name: Arc<str> = Arc::from(listener.name.as_str());
    let sockets = match (inherited.at(&listener.bind, threads)?, &listener.bind) {
        (inherited, _) if !inherited.is_empty() => inherited,
        (_, Bind::Ip { address, only_v6 }) => on_ip(*address, *only_v6, threads)?,
        (_, Bind::Unix { path, mode }) => on_unix(path, *mode, threads)?,
    };
    let shares = shares(sockets.len());
    let bound = sockets.into_iter().zip(shares);
    let bound = bound.map(|(socket, share)| Bound {
        socket,
        name: Arc::clone(&name),
        gate: Arc::clone(&gate),
        share,
        tls: tls.clone(),
        proxy_protocol: listener.proxy_protocol,
    });
    let bound = bound.collect();
    Ok((gate, bound))
}

/// A socket for each thread, on one address.
fn on_ip(address: SocketAddr, only_v6: bool, threads: usize) -> io::Result<Vec<Accepting>> {
    if address.port() != 0 {
        drop(socket(address, only_v6, false)?);
    }
    let mut address = address;
    let mut sockets = Vec::with_capacity(threads);
    for _ in 0..threads {
        let socket = socket(address, only_v6, true)?;
        // With port 0 the first socket gets a port and the others share it.
        address = socket.local_addr()?;
        sockets.push(Accepting::Ip(socket));
    }
    Ok(sockets)
}

/// One socket that all threads accept on: there is no SO_REUSEPORT for files.
fn on_unix(path: &Path, mode: u32, threads: usize) -> io::Result<Vec<Accepting>> {
    let socket = unix::listen(path, mode)?;
    let mut sockets = Vec::with_capacity(threads);
    for _ in 1..threads {
        sockets.push(Accepting::Unix(socket.try_clone()?));
    }
    sockets.push(Accepting::Unix(socket));
    Ok(sockets)
}

/// Gives the file of a listener that is open the permissions of this configuration.
pub(super) fn permit(listener: &Listener) {
    if let Bind::Unix { path, mode } = &listener.bind
        && let Err(error) = unix::permit(path, *mode)
    {
        let path = path.display();
        log::error!(listener = &*listener.name; "cannot set the mode of {path}: {error}");
    }
}

/// A listening socket. Without `shared` it can only be had if nobody else listens there. One of IPv6
/// takes IPv4 as well, unless `only_v6`.
pub(super) fn socket(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE / 4),
    )?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bounds the connections of a listener.
pub(super) struct Gate {
    open: AtomicUsize,
    max: AtomicUsize,
    /// Those of each client, while that is limited.
    counts: Arc<Counts>,
    /// How many one may have; 0 is any number.
    per_client: AtomicU32,
    /// Connections come by a file, and have no addresses.
    pub(super) by_file: bool,
}

/// One connection's place.
pub(super) struct Place {
    gate: Arc<Gate>,
    of_client: Option<Counted>,
    _share: Counting,
    _active: ActiveConnection,
}

impl Gate {
    fn new(listener: &Listener) -> Self {
        let gate = Self {
            open: AtomicUsize::new(0),
            max: AtomicUsize::new(0),
            counts: Counts::new(),
            per_client: AtomicU32::new(0),
            by_file: matches!(listener.bind, Bind::Unix { .. }),
        };
        gate.limit(listener);
        gate
    }

    /// Goes by the limits of this configuration from now on. Connections above them stay; those that
    /// came while their client had no limit do not count for it.
    pub(super) fn limit(&self, listener: &Listener) {
        let per_client = listener.max_connections_per_client.unwrap_or(0);
        self.max.store(listener.max_connections, Ordering::Relaxed);
        self.per_client.store(per_client, Ordering::Relaxed);
    }

    /// A place for one more connection, if there is one. Whose it is, is told by [`Place::is_for`].
    /// Refusals are counted.
    pub(super) fn enter(self: &Arc<Self>, share: &Share) -> Option<Place> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max.load(Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            limit_hit(Limit::Connections);
            return None;
        }
        Some(Place {
            gate: Arc::clone(self),
            of_client: None,
            _share: share.count(),
            _active: ActiveConnection::enter(),
        })
    }
}

impl Lasting for Place {
    fn is_for(&mut self, client: Option<IpAddr>) -> bool {
        let max = self.gate.per_client.load(Ordering::Relaxed);
        if max == 0 {
            return true;
        }
        let client = Client::at(client.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        self.of_client = self.gate.counts.enter(client.number(), max);
        if self.of_client.is_none() {
            limit_hit(Limit::ConnectionsPerClient);
        }
        self.of_client.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(bind: SocketAddr) -> Listener {
        Listener {
            name: "t".into(),
            bind: Bind::at(bind),
            max_connections: 1,
            max_connections_per_client: None,
            tls: None,
            proxy_protocol: false,
        }
    }

    #[test]
    fn all_threads_share_one_port_and_nobody_else_gets_it() {
        let (_, bound) = bind(
            &listener("127.0.0.1:0".parse().unwrap()),
            3,
            None,
            &mut Inherited::default(),
        )
        .unwrap();
        let address = bound[0].socket.local_addr().unwrap();
        assert!(
            bound
                .iter()
                .all(|b| b.socket.local_addr().unwrap() == address)
        );
        let error = bind(&listener(address), 1, None, &mut Inherited::default())
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    fn gate(max: usize, per_client: Option<u32>) -> Arc<Gate> {
        Arc::new(Gate::new(&Listener {
            max_connections: max,
            max_connections_per_client: per_client,
            ..listener("127.0.0.1:0".parse().unwrap())
        }))
    }

    const ONE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    fn enter(gate: &Arc<Gate>, share: &Share, client: Option<IpAddr>) -> Option<Place> {
        let mut place = gate.enter(share)?;
        place.is_for(client).then_some(place)
    }

    #[test]
    fn a_full_listener_has_no_place() {
        let gate = gate(1, None);
        let share = shares(1).remove(0);
        let place = enter(&gate, &share, ONE);
        assert!(place.is_some() && enter(&gate, &share, OTHER).is_none());
        drop(place);
        assert!(enter(&gate, &share, OTHER).is_some());
    }

    #[test]
    fn a_client_that_has_its_share_leaves_room_for_others() {
        let gate = gate(2, Some(1));
        let share = shares(1).remove(0);
        let one = enter(&gate, &share, ONE);
        assert!(one.is_some() && enter(&gate, &share, ONE).is_none());
        let other = enter(&gate, &share, OTHER);
        assert!(other.is_some());
        drop(one);
        assert!(enter(&gate, &share, ONE).is_some());
    }
}

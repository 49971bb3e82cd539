//! A port at which nobody answers, nor refuses: what connects to it waits until it gives up.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::Socket;

use super::endpoint::reserve_port;

/// How long a connect is given before it counts as not answered.
const CONNECT: Duration = Duration::from_millis(200);
/// More than fit into the shortest queue there is.
const WAITING_MAX: usize = 16;

/// Listens, with a queue that is full and that nobody takes anything from: the kernel drops whatever
/// else would connect.
#[derive(Debug)]
pub(crate) struct Deaf {
    address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl Deaf {
    /// Takes a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        let (listener, address) = reserve_port();
        listener.listen(0).expect("a port of our own");
        let mut waiting = Vec::new();
        while waiting.len() < WAITING_MAX {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => waiting.push(stream),
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => panic!("a connect to a listener: {error}"),
            }
        }
        assert!(waiting.len() < WAITING_MAX, "its queue is never full");
        Self {
            address,
            _listener: listener,
            _waiting: waiting,
        }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

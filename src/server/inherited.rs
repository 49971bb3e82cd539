//! Sockets that were open before this process began: handed over by the one that it replaces, or by
//! systemd (`sd_listen_fds(3)`). A socket tells by its address which listener it is for.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Names the file to which a process that replaces another one says that it serves.
pub(super) const READY_FD: &str = "TIDEGATE_READY_FD";

/// What was handed over and is not taken yet.
#[derive(Default)]
pub(super) struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// What this process was started with. To be called once, before there are threads.
    pub(super) fn take() -> Self {
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(handed.len());
        for at in 0..handed.len() {
            let socket = handed.take_tcp_listener(at).and_then(|socket| {
                if let Some(socket) = &socket {
                    // systemd makes them block.
                    socket.set_nonblocking(true)?;
                }
                Ok(socket)
            });
            match socket {
                Ok(socket) => sockets.extend(socket),
                Err(error) => log::warn!("a socket that was handed over is not used: {error}"),
            }
        }
        Self(sockets)
    }

    /// Takes those that listen on this address: as many as are wanted, or none if there is none. Fewer
    /// are shared.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn at(
        &mut self,
        address: SocketAddr,
        wanted: usize,
    ) -> io::Result<Vec<TcpListener>> {
        let is_there = |socket: &mut TcpListener| socket.local_addr().is_ok_and(|at| at == address);
        let mut sockets: Vec<TcpListener> = self.0.extract_if(.., is_there).collect();
        let handed = sockets.len();
        // What waits in a queue that nobody takes from is lost, so every one of them is accepted from.
        for at in handed..wanted {
            if handed > 0 {
                sockets.push(sockets[at % handed].try_clone()?);
            }
        }
        Ok(sockets)
    }

    /// Says which sockets are of no use.
    pub(super) fn tell_unused(&self) {
        for socket in &self.0 {
            if let Ok(address) = socket.local_addr() {
                log::warn!("a socket on {address} was handed over, and there is no such listener");
            }
        }
    }
}

/// Where the process that is replaced waits for word.
pub(super) struct Predecessor(File);

impl Predecessor {
    /// The one that has started this process, if one has.
    pub(super) fn from_env() -> Option<Self> {
        let fd: u32 = std::env::var(READY_FD).ok()?.parse().ok()?;
        let file = OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{fd}"));
        match file {
            Ok(file) => Some(Self(file)),
            Err(error) => {
                log::warn!("cannot tell the process before this one that it is replaced: {error}");
                None
            }
        }
    }

    /// Says that this process serves.
    ///
    /// # Errors
    /// The other one has gone.
    pub(super) fn tell(mut self) -> io::Result<()> {
        self.0.write_all(b"r")
    }
}

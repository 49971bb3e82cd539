//! Reading from and writing to a bare socket of tokio's, without the detour through the C library.
//!
//! What `recv` and `send` do there to let a thread be cancelled is of no use to us, and is done twice
//! at every system call, of which a call through this process has four and little else.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads into `room`; how much, 0 at the end.
///
/// As with tokio's own, a read that does not fill the room has emptied the socket, and saves the read
/// that would only say so.
pub fn poll_read(
    stream: &TcpStream,
    context: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(context))?;
        let most = room.len();
        let mut read = 0;
        let tried = stream.try_io(Interest::READABLE, || {
            (read, _) = rustix::net::recv(stream, &mut *room, RecvFlags::empty())?;
            drained(read, most)
        });
        if let Some(result) = passed(tried, read) {
            return Poll::Ready(result);
        }
    }
}

/// Writes the beginning of `bytes`; how much of it.
pub fn poll_write(
    stream: &TcpStream,
    context: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        let mut written = 0;
        let tried = stream.try_io(Interest::WRITABLE, || {
            written = rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?;
            drained(written, bytes.len())
        });
        if let Some(result) = passed(tried, written) {
            return Poll::Ready(result);
        }
    }
}

/// Fewer bytes than there might have been: for now there are no more, which tokio is told in the only
/// way there is.
fn drained(bytes: usize, most: usize) -> io::Result<()> {
    match bytes > 0 && bytes < most {
        true => Err(ErrorKind::WouldBlock.into()),
        false => Ok(()),
    }
}

/// What came of it; none if the socket was not ready after all.
fn passed(tried: io::Result<()>, bytes: usize) -> Option<io::Result<usize>> {
    match tried {
        Ok(()) => Some(Ok(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => (bytes > 0).then_some(Ok(bytes)),
        Err(error) => Some(Err(error)),
    }
}
